from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.context import Caller, set_current_call
from chassis.errors import InvalidFields
from chassis.idempotency.key import fingerprint, key_of
from tests.support.builders import NOON, OTHER_ID, SOME_ID, a_call
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.requests import create_note_request

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from chassis.context import Call
    from chassis.idempotency.key import IdempotencyKey

THIRD_ID = "01960000-0000-7000-8000-000000000003"


def a_request(**changes: Any) -> pb.CreateNoteRequest:
    return create_note_request(OTHER_ID, **changes) if "author_id" not in changes else create_note_request(**changes)


def key_in(call: Call, request: Message) -> IdempotencyKey:
    """Return what key_of() does while the call is being served, and leave no call behind."""

    def serve() -> IdempotencyKey:
        set_current_call(call)
        return key_of(request, now=NOON)

    return contextvars.copy_context().run(serve)


def test_the_messages_request_id_comes_first() -> None:
    call = a_call(idempotency_key=OTHER_ID, request_id=THIRD_ID)

    assert key_in(call, a_request(request_id=SOME_ID)).request_id == UUID(SOME_ID)


def test_the_header_comes_before_the_edges_id() -> None:
    call = a_call(idempotency_key=OTHER_ID, request_id=THIRD_ID)

    assert key_in(call, a_request()).request_id == UUID(OTHER_ID)


def test_without_a_key_of_the_caller_the_edges_id_is_the_key() -> None:
    assert key_in(a_call(request_id=THIRD_ID), a_request()).request_id == UUID(THIRD_ID)


def test_a_key_in_capitals_is_the_same_key() -> None:
    lower = key_in(a_call(idempotency_key=SOME_ID.lower()), a_request())
    upper = key_in(a_call(idempotency_key=SOME_ID.upper()), a_request())

    assert lower == upper


@given(st.text().filter(lambda text: not _is_uuid(text)))
def test_an_idempotency_key_that_is_not_a_uuid_is_an_invalid_field(chosen: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        key_in(a_call(idempotency_key=chosen, request_id=THIRD_ID), a_request())

    assert [each.field for each in refused.value.violations] == ["idempotency-key"]


@pytest.mark.parametrize("unchosen", ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"])
def test_an_id_that_no_caller_has_chosen_is_refused(unchosen: str) -> None:
    calls = {
        "requestId": (a_call(idempotency_key=OTHER_ID), a_request(request_id=unchosen)),
        "idempotency-key": (a_call(idempotency_key=unchosen), a_request()),
    }

    for field, (call, request) in calls.items():
        with pytest.raises(InvalidFields) as refused:
            key_in(call, request)
        assert [(each.field, each.rule) for each in refused.value.violations] == [(field, "request_id.unchosen")]


def test_a_key_in_quotes_is_the_same_key() -> None:
    bare, quoted = (key_in(a_call(idempotency_key=key), a_request()) for key in (SOME_ID, f'"{SOME_ID}"'))

    assert bare == quoted


@pytest.mark.parametrize("request_id", ["", "abc", "req-1", "null"])
def test_an_edge_id_that_is_not_a_uuid_is_no_key(request_id: str) -> None:
    assert key_in(a_call(request_id=request_id), a_request()).identity is None


def test_outside_of_a_call_there_is_no_key() -> None:
    assert key_of(a_request(request_id=SOME_ID), now=NOON).identity is None


def test_a_key_is_the_callers_and_the_methods() -> None:
    call = a_call(method="/a.B/C", caller=Caller(subject="ada"), request_id=SOME_ID)

    key = key_in(call, a_request())

    assert (key.caller, key.method) == ("ada", "/a.B/C")
    assert key.fingerprint == fingerprint(a_request())


def test_the_fingerprint_leaves_the_request_id_out() -> None:
    assert fingerprint(a_request(request_id=SOME_ID)) == fingerprint(a_request(request_id=OTHER_ID))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (a_request(secret="one"), a_request(secret="other")),
        (a_request(secret="one"), a_request()),
    ],
)
def test_the_fingerprint_does_not_reveal_a_secret(one: Message, other: Message) -> None:
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    "other",
    [
        a_request(author_id=SOME_ID),
        a_request(text="Buy coffee"),
        a_request(labels=["tea"]),
        a_request(labels=["tea", "tea"]),
        a_request(extra={"a": 1}),
    ],
)
def test_other_content_has_another_fingerprint(other: Message) -> None:
    assert fingerprint(other) != fingerprint(a_request())


def test_an_empty_field_and_an_absent_field_are_different_content() -> None:
    assert fingerprint(pb.UpdateNoteRequest(id=SOME_ID, text="")) != fingerprint(pb.UpdateNoteRequest(id=SOME_ID))


@given(st.dictionaries(st.text(max_size=8), st.integers(0, 9), max_size=12))
def test_the_order_of_an_objects_keys_does_not_change_the_fingerprint(extra: dict[str, int]) -> None:
    one, other = a_request(), a_request()
    one.extra.update(extra)
    other.extra.update(dict(reversed(extra.items())))

    assert fingerprint(one) == fingerprint(other)


def test_taking_the_fingerprint_leaves_the_request_alone() -> None:
    request = a_request(request_id=SOME_ID)

    fingerprint(request)

    assert request == a_request(request_id=SOME_ID)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
