from __future__ import annotations

import asyncio
import contextvars
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pytest
from grpc import aio

from chassis.client import CallPolicy
from chassis.client.errors import is_dependency_failure
from chassis.client.interceptors import AioUnaryDefaults, SyncCallDetails, SyncDefaults, with_request_id
from chassis.context import set_current_call
from tests.support.builders import SOME_ID, a_call
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.requests import create_note_request

if TYPE_CHECKING:
    from chassis.client.interceptors import Token
    from chassis.context import Call


def test_a_write_gets_a_request_id_of_its_own() -> None:
    request = create_note_request()

    sent = with_request_id(request)

    assert UUID(sent.request_id).version == 4
    assert request.request_id == ""
    sent.request_id = ""
    assert sent == request


def test_two_sends_of_one_message_are_two_requests() -> None:
    request = create_note_request()

    assert with_request_id(request).request_id != with_request_id(request).request_id


def test_a_request_id_that_is_there_is_kept() -> None:
    request = create_note_request(request_id=SOME_ID)

    assert with_request_id(request) is request


def test_a_message_without_the_field_is_left_alone() -> None:
    request = pb.GetNoteRequest(id=SOME_ID)

    assert with_request_id(request) is request


def test_bytes_are_left_alone() -> None:
    raw = create_note_request().SerializeToString()

    assert with_request_id(raw) is raw


class Sent:
    """A call as an interceptor passed it on."""

    def __init__(self, details: Any, request: Any) -> None:
        self.timeout_s: float = details.timeout
        self.metadata = list(details.metadata)
        self.request = request


def send(
    *,
    serving: Call | None = None,
    timeout_s: float | None = None,
    metadata: list[tuple[str, str]] | None = None,
    policy: CallPolicy = CallPolicy(timeout_s=10),  # noqa: B008  frozen
    token: Token | None = None,
    is_sync: bool = False,
) -> Sent:
    """Send a CreateOrder through the channel's interceptor, perhaps while a call is being served."""

    def send_now() -> Sent:
        if serving is not None:
            set_current_call(serving)
        if is_sync:
            sync_details = SyncCallDetails("/a.B/C", timeout_s, metadata, None, None, None)
            sent: Sent = SyncDefaults(policy, token).intercept_unary_unary(Sent, sync_details, create_note_request())
            return sent
        return asyncio.run(_send_aio(policy, token, timeout_s, metadata))

    return contextvars.copy_context().run(send_now)


async def _send_aio(
    policy: CallPolicy, token: Token | None, timeout_s: float | None, metadata: list[tuple[str, str]] | None
) -> Sent:
    async def continuation(details: Any, request: Any) -> Sent:
        return Sent(details, request)

    named = aio.Metadata(*metadata) if metadata is not None else None
    details = aio.ClientCallDetails("/a.B/C", timeout_s, named, None, None)
    sent: Sent = await AioUnaryDefaults(policy, token).intercept_unary_unary(
        continuation, details, create_note_request()
    )
    return sent


both_channels = pytest.mark.parametrize("is_sync", [False, True], ids=["aio", "sync"])


@both_channels
def test_a_call_without_a_deadline_gets_the_policys(*, is_sync: bool) -> None:
    assert send(policy=CallPolicy(timeout_s=7), is_sync=is_sync).timeout_s == 7


@both_channels
def test_a_deadline_that_is_named_is_kept(*, is_sync: bool) -> None:
    assert send(timeout_s=1.5, is_sync=is_sync).timeout_s == 1.5


@both_channels
def test_within_a_call_it_gives_up_before_the_caller_does(*, is_sync: bool) -> None:
    serving = a_call()
    left_before_s = serving.time_left_s()

    sent = send(serving=serving, timeout_s=1000, is_sync=is_sync)

    assert serving.time_left_s() - 0.1 <= sent.timeout_s <= left_before_s - 0.1


@both_channels
def test_within_a_call_a_shorter_deadline_stays(*, is_sync: bool) -> None:
    assert send(serving=a_call(), timeout_s=2, is_sync=is_sync).timeout_s == 2


@both_channels
def test_a_passed_deadline_leaves_a_timeout_of_zero(*, is_sync: bool) -> None:
    assert send(serving=a_call(deadline=0), is_sync=is_sync).timeout_s == 0


@both_channels
def test_the_edges_id_and_the_trace_travel_on(*, is_sync: bool) -> None:
    serving = a_call(request_id="edge-1", traceparent="00-trace")

    sent = send(serving=serving, metadata=[("a", "b")], is_sync=is_sync)

    assert sent.metadata == [("a", "b"), ("x-request-id", "edge-1"), ("traceparent", "00-trace")]


@both_channels
def test_metadata_that_is_named_is_not_overwritten(*, is_sync: bool) -> None:
    serving = a_call(request_id="edge-1")

    sent = send(serving=serving, metadata=[("x-request-id", "mine")], is_sync=is_sync)

    assert sent.metadata == [("x-request-id", "mine")]


@both_channels
def test_absent_metadata_is_not_sent(*, is_sync: bool) -> None:
    # The caller's own key is of the caller's own request: sent on, it would tie two requests together.
    sent = send(serving=a_call(idempotency_key=SOME_ID), is_sync=is_sync)

    assert sent.metadata == []


@both_channels
@pytest.mark.parametrize("token", ["ada's", lambda: "ada's"], ids=["fixed", "asked for"])
def test_a_channels_token_identifies_the_caller(token: Token, *, is_sync: bool) -> None:
    assert send(token=token, is_sync=is_sync).metadata == [("authorization", "Bearer ada's")]


@both_channels
def test_a_call_can_name_its_own_token(*, is_sync: bool) -> None:
    named = [("authorization", "Bearer bob's")]

    assert send(token="ada's", metadata=named, is_sync=is_sync).metadata == named


@both_channels
def test_the_token_of_the_call_being_served_stays_here(*, is_sync: bool) -> None:
    # A service calls with its own identity: a forwarded token of a user could be used by the called service.
    assert send(serving=a_call(authorization="Bearer ada's"), is_sync=is_sync).metadata == []


@both_channels
def test_a_write_through_a_channel_has_a_request_id(*, is_sync: bool) -> None:
    assert UUID(send(is_sync=is_sync).request.request_id).version == 4


def test_the_service_config_spreads_retries_and_throttles() -> None:
    config = json.loads(CallPolicy(max_attempts=4).service_config())

    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    assert config["retryThrottling"]["maxTokens"] > 0
    assert config["retryThrottling"]["tokenRatio"] > 0
    (method,) = config["methodConfig"]
    assert method["name"] == [{}]
    assert method["retryPolicy"]["maxAttempts"] == 4
    # Only what never reached the service, or was refused by it: anything else may have taken effect.
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_one_attempt_means_no_retry_policy() -> None:
    # C-core refuses a policy with fewer than 2 attempts, and with it the whole config.
    config = json.loads(CallPolicy(max_attempts=1).service_config())

    assert "methodConfig" not in config


SICK = {"CANCELLED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"}


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda code: code.name)
def test_a_code_decides_whether_the_dependency_failed(code: grpc.StatusCode) -> None:
    error = aio.AioRpcError(code, aio.Metadata(), aio.Metadata())

    assert is_dependency_failure(error) == (code.name in SICK)


@pytest.mark.parametrize(
    ("error", "expected"), [(TimeoutError(), True), (ConnectionRefusedError(), True), (ValueError(), False)]
)
def test_an_error_without_a_code_is_a_failure_if_there_was_no_answer(error: Exception, *, expected: bool) -> None:
    assert is_dependency_failure(error) is expected
