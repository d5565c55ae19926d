"""The largest notes that the contract allows, through a channel that takes 4 MiB as stock ones do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from chassis.server.pagination import MAX_BYTES
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.pages import STOCK_BYTES, WIDE, walked

if TYPE_CHECKING:
    from tests.integration.databases import TestDatabase
    from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub


def write_notes(database: TestDatabase, number: int, *, text: str, labels: list[str]) -> list[str]:
    """Write notes with this text and these labels; return their ids, newest first."""
    rows = database.query(
        "INSERT INTO notes (id, author_id, body, labels, state, created_at, updated_at, version)"
        " SELECT gen_random_uuid(), gen_random_uuid(), %s, CAST(%s AS jsonb), 'OPEN', now(), now(), 1"
        " FROM generate_series(1, %s) RETURNING id::text",
        text,
        json.dumps(labels),
        number,
    )
    return sorted((note_id for (note_id,) in rows), reverse=True)


@pytest.mark.parametrize(
    ("number", "text", "labels", "least"),
    [
        (60, WIDE * 20_000, [WIDE * 64] * 100, 5),
        (3, "a", [], 1),
        (201, "a", ["a"] * 100, 2),
        (13, "a" * (MAX_BYTES // 13 - 200), [], 1),
        (14, "a" * (MAX_BYTES // 13 - 200), [], 2),
    ],
    ids=["largest", "few", "many small", "just the bytes", "over the bytes"],
)
async def test_pages_fit_and_give_each_once(
    notes: NoteServiceStub, notes_database: TestDatabase, number: int, text: str, labels: list[str], least: int
) -> None:
    written = write_notes(notes_database, number, text=text, labels=labels)

    ids, sizes = await walked(
        lambda token: notes.ListNotes(pb.ListNotesRequest(page_size=200, page_token=token)), "notes"
    )

    assert ids == written
    assert max(sizes) <= MAX_BYTES + 200 * 8 < STOCK_BYTES
    assert len(sizes) == least if least < 5 else len(sizes) > least


async def test_the_largest_note_comes_alone(notes: NoteServiceStub, notes_database: TestDatabase) -> None:
    [note_id] = write_notes(notes_database, 1, text=WIDE * 20_000, labels=[WIDE * 64] * 100)

    note = await notes.GetNote(pb.GetNoteRequest(id=note_id))

    assert 100_000 < note.ByteSize() < STOCK_BYTES
