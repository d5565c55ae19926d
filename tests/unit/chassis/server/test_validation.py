"""Rules at their bounds: the last value that is accepted and the first that is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chassis.errors import InvalidFields
from chassis.server.validation import json_name, require_valid
from tests.support.builders import SOME_ID
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from google.protobuf.message import Message

ACCEPTED: list[Message] = [
    create_note_request(),
    create_note_request(text="n"),
    create_note_request(text=" n "),
    create_note_request(text="n" * 20_000),
    create_note_request(text="n" + "é" * 19_999),
    create_note_request(labels=["l" * 64] * 100),
    create_note_request(request_id=SOME_ID),
    create_note_request(request_id=SOME_ID.upper()),
    create_note_request(secret="s" * 128),
    pb.CreateNoteRequest(text="n"),
    pb.GetNoteRequest(id=SOME_ID),
    pb.FindNotesRequest(),
    pb.FindNotesRequest(ids=[SOME_ID] * 200),
    pb.ListNotesRequest(),
    pb.ListNotesRequest(page_size=2**31 - 1),
    pb.ListNotesRequest(page_token="t" * 512),
    pb.ListNotesRequest(author_id=SOME_ID, state=pb.NOTE_STATE_ARCHIVED),
    pb.UpdateNoteRequest(id=SOME_ID),
    an_update(SOME_ID, "n" * 20_000, etag="e" * 64),
    pb.ArchiveNoteRequest(id=SOME_ID, etag="e" * 64),
    pb.WatchNotesRequest(),
    pb.WatchNotesRequest(resume_token=SOME_ID, author_id=SOME_ID),
]


@pytest.mark.parametrize("request_", ACCEPTED, ids=lambda message: type(message).__name__)
def test_a_valid_request_is_accepted(request_: Message) -> None:
    require_valid(request_)


REFUSED: list[tuple[Message, str, str]] = [
    (create_note_request("1"), "authorId", "string.uuid"),
    (create_note_request(text=""), "text", "string.not_blank"),
    (create_note_request(text=" \t\n"), "text", "string.not_blank"),
    (create_note_request(text="n" * 20_001), "text", "string.max_len"),
    (create_note_request(text="n\0"), "text", "string.no_nul"),
    (create_note_request(labels=["l"] * 101), "labels", "repeated.max_items"),
    (create_note_request(labels=["l", ""]), "labels[1]", "string.min_len"),
    (create_note_request(labels=["l" * 65]), "labels[0]", "string.max_len"),
    (create_note_request(labels=["l\0"]), "labels[0]", "string.no_nul"),
    (create_note_request(request_id="1"), "requestId", "string.uuid"),
    (create_note_request(secret="s" * 129), "secret", "string.max_len"),
    (pb.GetNoteRequest(), "id", "string.uuid_empty"),
    (pb.GetNoteRequest(id=SOME_ID + "\n"), "id", "string.uuid"),
    (pb.GetNoteRequest(id=SOME_ID[:-1]), "id", "string.uuid"),
    (pb.GetNoteRequest(id="{" + SOME_ID + "}"), "id", "string.uuid"),
    (pb.FindNotesRequest(ids=[SOME_ID] * 201), "ids", "repeated.max_items"),
    (pb.FindNotesRequest(ids=[SOME_ID, "1"]), "ids[1]", "string.uuid"),
    (pb.ListNotesRequest(page_size=-1), "pageSize", "int32.gte"),
    (pb.ListNotesRequest(page_size=-(2**31)), "pageSize", "int32.gte"),
    (pb.ListNotesRequest(page_token="t" * 513), "pageToken", "string.max_len"),
    (pb.ListNotesRequest(state=99), "state", "enum.defined_only"),
    (an_update(SOME_ID, ""), "text", "string.not_blank"),
    (an_update(SOME_ID, etag="e" * 65), "etag", "string.max_len"),
    (pb.WatchNotesRequest(resume_token="1"), "resumeToken", "string.uuid"),
]


@pytest.mark.parametrize(
    ("request_", "field", "rule"), REFUSED, ids=[f"{type(each).__name__}-{rule}" for each, _, rule in REFUSED]
)
def test_a_violation_is_named_by_field_and_rule(request_: Message, field: str, rule: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        require_valid(request_)

    assert [(each.field, each.rule) for each in refused.value.violations] == [(field, rule)]


def test_all_violations_are_reported_together() -> None:
    with pytest.raises(InvalidFields) as refused:
        require_valid(create_note_request("1", text="", request_id="1"))

    assert {each.field for each in refused.value.violations} == {"authorId", "text", "requestId"}


def test_a_refusal_does_not_repeat_a_secret() -> None:
    with pytest.raises(InvalidFields) as refused:
        require_valid(create_note_request(secret="hunter2" * 20))

    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize("name", ["id", "display_name", "unit_price", "a_b_c"])
def test_a_field_has_the_name_that_protobuf_gives_it_in_json(name: str) -> None:
    expected = {"id": "id", "display_name": "displayName", "unit_price": "unitPrice", "a_b_c": "aBC"}

    assert json_name(name) == expected[name]
