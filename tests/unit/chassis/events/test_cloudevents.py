"""Events on the wire."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from chassis.events.cloudevents import CloudEvent, Malformed, data_of, payload_of, uuid_subject
from tests.support.events import MESSAGES
from tests.support.notes_svc.notes_pb2 import AuthorChanged, NoteChanged, NoteCreated

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

ID = UUID("01930b71-03fb-7c02-b1d9-3f60a85e7b41")
SUBJECT = UUID("01930b71-03f9-7b18-8a6c-e4d2907f1c35")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def event(**changes: Any) -> CloudEvent:
    fields: dict[str, Any] = {
        "id": ID,
        "source": "/note_svc",
        "type": "note.changed",
        "subject": SUBJECT,
        "sequence": 2,
        "time": datetime(2026, 3, 1, 12, 0, 0, 125_000, UTC),
        "traceparent": TRACE,
        "data": {"noteId": str(SUBJECT), "authorId": "ada", "state": "ARCHIVED"},
    }
    return CloudEvent(**{**fields, **changes})


def test_an_event_is_sent_as_a_cloudevent_in_json() -> None:
    sent = json.loads(event().to_json())

    assert sent == {
        "specversion": "1.0",
        "id": str(ID),
        "source": "/note_svc",
        "type": "note.changed",
        "subject": str(SUBJECT),
        "time": "2026-03-01T12:00:00.125000Z",
        "sequence": "0000000000000000002",
        "sequencetype": "Integer",
        "datacontenttype": "application/json",
        "traceparent": TRACE,
        "data": {"noteId": str(SUBJECT), "authorId": "ada", "state": "ARCHIVED"},
    }


def test_a_sent_event_is_received_unchanged() -> None:
    assert CloudEvent.from_json(event().to_json()) == event()


@pytest.mark.parametrize("subject", ["tea-1", "a" * 255, str(SUBJECT), str(SUBJECT).upper(), SUBJECT.hex, "{a}"])
def test_a_subject_is_sent_again_as_it_came(subject: str) -> None:
    received = CloudEvent.from_json(json.dumps({**json.loads(event().to_json()), "subject": subject}))

    assert json.loads(received.to_json())["subject"] == subject


def test_a_subject_is_a_uuid_only_where_it_is_written_as_one() -> None:
    assert uuid_subject(CloudEvent.from_json(event().to_json())) == SUBJECT
    with pytest.raises(Malformed):
        uuid_subject(CloudEvent.from_json(event(subject="tea-1").to_json()))


def test_sequences_are_in_order_as_texts_and_are_read_in_the_older_form_too() -> None:
    numbers = [1, 2, 9, 10, 11, 99, 100, 2**31, 2**63 - 1]
    sent = [json.loads(event(sequence=number).to_json()) for number in numbers]

    assert [each["sequence"] for each in sent] == sorted(each["sequence"] for each in sent)
    assert [CloudEvent.from_json(json.dumps(each)).sequence for each in sent] == numbers
    assert CloudEvent.from_json(json.dumps({**sent[0], "sequence": "10"})).sequence == 10


def test_only_an_event_of_a_restored_database_has_an_epoch() -> None:
    assert "epoch" not in json.loads(event().to_json())
    assert CloudEvent.from_json(event(epoch=3).to_json()).epoch == 3


def test_an_event_without_a_trace_has_no_traceparent() -> None:
    sent = event(traceparent="").to_json()

    assert "traceparent" not in json.loads(sent)
    assert CloudEvent.from_json(sent).traceparent == ""


def test_times_are_sent_in_utc() -> None:
    local = datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2)))

    assert json.loads(event(time=local).to_json())["time"] == "2026-03-01T12:00:00Z"


@pytest.mark.parametrize(
    "change",
    [
        {"specversion": "0.3"},
        {"id": "x"},
        {"subject": None},
        {"subject": ""},
        {"subject": "a" * 256},
        {"subject": "a\0b"},
        {"subject": 7},
        {"sequence": "two"},
        {"sequence": "0"},
        {"sequence": str(2**63)},
        {"epoch": -1},
        {"epoch": 2**31},
        {"time": "yesterday"},
        {"time": "2026-03-01T12:00:00"},
        {"type": None, "sequence": []},
        {"data": []},
        {"data": None},
    ],
)
def test_a_foreign_event_is_refused(change: dict[str, object]) -> None:
    sent = json.dumps({**json.loads(event().to_json()), **change})

    with pytest.raises(Malformed):
        CloudEvent.from_json(sent)


def test_the_largest_numbers_are_taken() -> None:
    largest = event(sequence=2**63 - 1, epoch=2**31 - 1)

    assert CloudEvent.from_json(largest.to_json()) == largest


@pytest.mark.parametrize("sent", ["", "{", "[]", "null", "7", "{}", "\x00"])
def test_an_event_that_is_not_a_json_object_is_refused(sent: str) -> None:
    with pytest.raises(Malformed):
        CloudEvent.from_json(sent)


def test_data_is_the_message_of_its_type() -> None:
    data = data_of(event(), NoteChanged)

    assert (data.note_id, data.author_id, data.state) == (str(SUBJECT), "ada", "ARCHIVED")


def test_a_field_that_is_new_is_left_out() -> None:
    assert data_of(event(data={"authorId": "x", "new": {"a": 1}}), AuthorChanged) == AuthorChanged(author_id="x")


@pytest.mark.parametrize("data", [{"noteId": 7}, {"noteId": ["x"]}, {"size": {"characters": "many"}}])
def test_data_of_another_shape_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        data_of(event(data=data), NoteCreated)


PAYLOADS = [message.DESCRIPTOR for message in (*MESSAGES.values(), NoteCreated, NoteChanged)]


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor) -> Message:
    """A message of the type, each field set or not."""
    message: Any = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if not draw(st.booleans()):
            continue
        if field.type == field.TYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(draw(messages(field.message_type)))
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(st.text(max_size=5), max_size=3)))
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, draw(st.text(max_size=40)))
        else:
            bits = 63 if field.type == field.TYPE_INT64 else 31
            setattr(message, field.name, draw(st.integers(-(2**bits), 2**bits - 1)))
    return message


@pytest.mark.parametrize("descriptor", PAYLOADS, ids=lambda each: each.name)
@given(data=st.data())
def test_a_payload_is_the_message_in_protobufs_json(descriptor: Descriptor, data: st.DataObject) -> None:
    message = data.draw(messages(descriptor))

    payload = json.loads(json.dumps(payload_of(message)))

    assert json_format.ParseDict(payload, type(message)()) == message
    assert json_format.MessageToDict(message).items() <= payload.items() or {"total", "size"} & payload.keys()


def test_a_payload_has_its_numbers_also_if_they_are_0() -> None:
    created = NoteCreated(note_id="x", author_id="ada", size={"characters": 12})

    assert payload_of(created) == {"noteId": "x", "authorId": "ada", "size": {"characters": "12", "labels": 0}}


def test_a_payload_with_a_field_that_has_no_rule_is_refused() -> None:
    with pytest.raises(NotImplementedError, match=r"FieldDescriptorProto\.label"):
        payload_of(FieldDescriptorProto())
