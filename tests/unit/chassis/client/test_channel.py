from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pytest
from grpc import aio

from chassis.client import CallPolicy
from chassis.client.errors import is_dependency_failure
from chassis.client.interceptors import AioUnaryDefaults, with_request_id
from chassis.context import set_current_call
from tests.support.builders import SOME_ID, a_call
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.requests import create_note_request
from tests.support.sent_calls import Sending, Sent, open_aio_stream, send_aio
from tests.support.turns import some_turns

if TYPE_CHECKING:
    from chassis.client.interceptors import Token


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


def send(**sending: Any) -> Sent:
    return Sending(**sending).by(send_aio)


def test_a_call_without_a_deadline_gets_the_policys() -> None:
    assert send(policy=CallPolicy(timeout_s=7)).timeout_s == 7


def test_a_deadline_that_is_named_is_kept() -> None:
    assert send(timeout_s=1.5).timeout_s == 1.5


def test_within_a_call_it_gives_up_before_the_caller_does() -> None:
    serving = a_call()
    left_before_s = serving.time_left_s()

    sent = send(serving=serving, timeout_s=1000)

    assert serving.time_left_s() - 0.1 <= sent.timeout_s <= left_before_s - 0.1


def test_within_a_call_a_shorter_deadline_stays() -> None:
    assert send(serving=a_call(), timeout_s=2).timeout_s == 2


def test_a_passed_deadline_leaves_a_timeout_of_zero() -> None:
    assert send(serving=a_call(deadline=0)).timeout_s == 0


def test_the_edges_id_and_the_trace_travel_on() -> None:
    serving = a_call(request_id="edge-1", traceparent="00-trace")

    sent = send(serving=serving, metadata=[("a", "b")])

    assert sent.metadata == [("a", "b"), ("x-request-id", "edge-1"), ("traceparent", "00-trace")]


def test_metadata_that_is_named_is_not_overwritten() -> None:
    serving = a_call(request_id="edge-1")

    sent = send(serving=serving, metadata=[("x-request-id", "mine")])

    assert sent.metadata == [("x-request-id", "mine")]


def test_absent_metadata_is_not_sent() -> None:
    # The caller's own key is of the caller's own request: sent on, it would tie two requests together.
    sent = send(serving=a_call(idempotency_key=SOME_ID))

    assert sent.metadata == []


@pytest.mark.parametrize("token", ["ada's", lambda: "ada's"], ids=["fixed", "asked for"])
def test_a_channels_token_identifies_the_caller(token: Token) -> None:
    assert send(token=token).metadata == [("authorization", "Bearer ada's")]


def test_a_call_can_name_its_own_token() -> None:
    named = [("authorization", "Bearer bob's")]

    assert send(token="ada's", metadata=named).metadata == named


def test_the_token_of_the_call_being_served_stays_here() -> None:
    # A service calls with its own identity: a forwarded token of a user could be used by the called service.
    assert send(serving=a_call(authorization="Bearer ada's")).metadata == []


def test_a_write_through_a_channel_has_a_request_id() -> None:
    assert UUID(send().request.request_id).version == 4


@pytest.mark.parametrize("timeout_s", [None, 3.0])
def test_a_stream_has_token_id_and_trace_and_only_a_deadline_that_is_named(timeout_s: float | None) -> None:
    serving = a_call(request_id="edge-1", traceparent="00-trace")

    sent = Sending(serving=serving, timeout_s=timeout_s, metadata=[("a", "b")], token="ada's").by(open_aio_stream)

    assert sent.timeout_s == timeout_s
    assert sent.request.request_id == ""
    assert sent.metadata == [
        ("a", "b"),
        ("authorization", "Bearer ada's"),
        ("x-request-id", "edge-1"),
        ("traceparent", "00-trace"),
    ]


class Observed:
    """Notes what an observer is shown; a call that it observes has this trace."""

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent
        self.shown: list[str] = []

    def begin(self, method: str) -> Observed:
        self.shown.append(method)
        return self

    def end(self, code: str) -> None:
        self.shown.append(code)


@pytest.mark.parametrize("method", ["/a.B/C", b"/a.B/C"], ids=["text", "bytes"])
@pytest.mark.parametrize(
    ("of_its_own", "sent"), [("00-of-the-call", "00-of-the-call"), ("", "00-served")], ids=["traced", "not traced"]
)
async def test_an_observer_sees_method_and_code_and_its_trace_is_sent(
    method: str | bytes, of_its_own: str, sent: str
) -> None:
    observer = Observed(of_its_own)
    given: list[Any] = []

    class Ended(Sent):
        async def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.NOT_FOUND

    async def continuation(details: Any, request: Any) -> Ended:
        given.extend(details.metadata)
        return Ended(details, request)

    set_current_call(a_call(traceparent="00-served"))
    details = aio.ClientCallDetails(method, None, None, None, None)
    interceptor = AioUnaryDefaults(CallPolicy(observer=observer), None)
    await interceptor.intercept_unary_unary(continuation, details, create_note_request())

    assert observer.shown == ["/a.B/C", "NOT_FOUND"]
    assert [value for key, value in given if key == "traceparent"] == [sent]


async def test_an_observed_call_whose_caller_leaves_is_cancelled_and_says_so() -> None:
    observer = Observed("")

    async def continuation(_details: Any, _request: Any) -> None:
        await asyncio.Event().wait()

    details = aio.ClientCallDetails("/a.B/C", None, None, None, None)
    interceptor = AioUnaryDefaults(CallPolicy(observer=observer), None)
    calling = asyncio.create_task(interceptor.intercept_unary_unary(continuation, details, create_note_request()))
    await some_turns()
    calling.cancel()

    with pytest.raises(asyncio.CancelledError):
        await calling
    assert observer.shown == ["/a.B/C", "CANCELLED"]


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


@pytest.mark.parametrize(("policy", "attempts"), [(CallPolicy(max_attempts=2), 2), (CallPolicy(), 3)])
def test_a_call_is_tried_as_often_as_the_policy_says_and_otherwise_three_times(
    policy: CallPolicy, attempts: int
) -> None:
    (method,) = json.loads(policy.service_config())["methodConfig"]

    assert method["retryPolicy"]["maxAttempts"] == attempts


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
