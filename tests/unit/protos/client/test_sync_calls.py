"""Calls of a channel without asyncio are those of one under asyncio."""

from __future__ import annotations

from uuid import UUID

import pytest

from chassis.client import CallPolicy
from protos.client.interceptors import SyncCallDetails, SyncDefaults
from tests.support.builders import SOME_ID, a_call
from tests.support.notes_svc.requests import create_note_request
from tests.support.sent_calls import METHOD, Sending, Sent, open_aio_stream, send_aio


def send_sync(sending: Sending) -> Sent:
    details = SyncCallDetails(METHOD, sending.timeout_s, sending.metadata, None, None, None)
    defaults = SyncDefaults(sending.policy, sending.token)
    sent: Sent = defaults.intercept_unary_unary(Sent, details, create_note_request())
    return sent


def open_sync_stream(sending: Sending) -> Sent:
    details = SyncCallDetails(METHOD, sending.timeout_s, sending.metadata, None, None, None)
    defaults = SyncDefaults(sending.policy, sending.token)
    sent: Sent = defaults.intercept_unary_stream(Sent, details, create_note_request())
    return sent


@pytest.mark.parametrize(
    "sending",
    [
        Sending(policy=CallPolicy(timeout_s=7)),
        Sending(timeout_s=1.5),
        Sending(serving=a_call(deadline=0)),
        Sending(serving=a_call(request_id="edge-1", traceparent="00-trace"), metadata=[("a", "b")]),
        Sending(serving=a_call(request_id="edge-1"), metadata=[("x-request-id", "mine")]),
        Sending(serving=a_call(idempotency_key=SOME_ID, authorization="Bearer ada's")),
        Sending(token="ada's"),
        Sending(token=lambda: "ada's"),
        Sending(token="ada's", metadata=[("authorization", "Bearer bob's")]),
    ],
)
def test_a_call_is_sent_as_under_asyncio(sending: Sending) -> None:
    sent, under_asyncio = sending.by(send_sync), sending.by(send_aio)

    assert sent.metadata == under_asyncio.metadata
    # Within a call the two read the clock one after the other.
    assert sent.timeout_s == pytest.approx(under_asyncio.timeout_s, abs=1)
    assert UUID(sent.request.request_id).version == 4


@pytest.mark.parametrize("timeout_s", [None, 3.0])
def test_a_stream_is_opened_as_under_asyncio(timeout_s: float | None) -> None:
    serving = a_call(request_id="edge-1", traceparent="00-trace")
    sending = Sending(serving=serving, timeout_s=timeout_s, metadata=[("a", "b")], token="ada's")

    sent, under_asyncio = sending.by(open_sync_stream), sending.by(open_aio_stream)

    assert (sent.timeout_s, sent.metadata) == (under_asyncio.timeout_s, under_asyncio.metadata)
    assert sent.request.request_id == under_asyncio.request.request_id == ""
