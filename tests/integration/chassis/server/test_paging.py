"""Lists in pages: every entry once, whatever happens between two pages."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode

from chassis.testing import new_uuid, refusal_of
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.requests import create_note_request

if TYPE_CHECKING:
    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase
    from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub


async def test_pages_give_every_note_once_newest_first(notes: NoteServiceStub, author: str) -> None:
    written = [(await notes.CreateNote(create_note_request(author))).id for _ in range(7)]

    pages = []
    token = ""
    while True:
        answer = await notes.ListNotes(pb.ListNotesRequest(page_size=3, page_token=token))
        pages.append([note.id for note in answer.notes])
        token = answer.next_page_token
        if not token:
            break

    newest_first = written[::-1]
    assert pages == [newest_first[:3], newest_first[3:6], newest_first[6:]]


async def test_a_last_page_that_is_full_says_that_it_is_the_last(notes: NoteServiceStub, author: str) -> None:
    for _ in range(2):
        await notes.CreateNote(create_note_request(author))

    answer = await notes.ListNotes(pb.ListNotesRequest(page_size=2))

    assert len(answer.notes) == 2
    assert not answer.next_page_token


async def test_an_empty_list_is_one_empty_page(notes: NoteServiceStub) -> None:
    assert await notes.ListNotes(pb.ListNotesRequest()) == pb.ListNotesResponse()


async def test_notes_added_between_two_pages_double_and_hide_nothing(notes: NoteServiceStub, author: str) -> None:
    written = {(await notes.CreateNote(create_note_request(author))).id for _ in range(12)}

    seen: list[str] = []
    token = ""
    while True:
        answer = await notes.ListNotes(pb.ListNotesRequest(author_id=author, page_size=5, page_token=token))
        seen += [note.id for note in answer.notes]
        token = answer.next_page_token
        if not token:
            break
        for _ in range(3):
            await notes.CreateNote(create_note_request(author))

    assert len(seen) == len(set(seen))
    assert set(seen) == written


async def test_notes_deleted_between_two_pages_hide_no_other_note(
    notes: NoteServiceStub, notes_database: TestDatabase
) -> None:
    created = [(await notes.CreateNote(create_note_request())).id for _ in range(9)][::-1]
    first = await notes.ListNotes(pb.ListNotesRequest(page_size=4))

    # One who was shown, the very one at whom the next page begins, and one who was not shown yet.
    for gone in (created[0], created[3], created[6]):
        notes_database.query("DELETE FROM notes WHERE id = %s", gone)
    second = await notes.ListNotes(pb.ListNotesRequest(page_size=4, page_token=first.next_page_token))

    assert [note.id for note in first.notes] == created[:4]
    assert [note.id for note in second.notes] == [created[4], created[5], created[7], created[8]]


async def test_a_note_that_changes_between_two_pages_is_neither_doubled_nor_skipped(
    notes: NoteServiceStub, author: str
) -> None:
    written = [(await notes.CreateNote(create_note_request(author))).id for _ in range(6)][::-1]
    is_open = pb.NOTE_STATE_OPEN
    first = await notes.ListNotes(pb.ListNotesRequest(state=is_open, page_size=2))

    for changed in (written[1], written[3]):
        await notes.ArchiveNote(pb.ArchiveNoteRequest(id=changed))
    second = await notes.ListNotes(pb.ListNotesRequest(state=is_open, page_size=9, page_token=first.next_page_token))

    assert [note.id for note in second.notes] == [written[2], written[4], written[5]]


async def test_a_page_has_50_entries_by_default_and_at_most_200(
    notes: NoteServiceStub, notes_database: TestDatabase
) -> None:
    notes_database.query(
        "INSERT INTO notes (id, author_id, body, labels, state, created_at, updated_at, version)"
        " SELECT gen_random_uuid(), gen_random_uuid(), '', '[]', 'OPEN', now(), now(), 1"
        " FROM generate_series(1, 201) AS n"
    )

    async def shown(page_size: int) -> int:
        return len((await notes.ListNotes(pb.ListNotesRequest(page_size=page_size))).notes)

    assert [await shown(size) for size in (0, 1, 200, 201, 2**31 - 1)] == [50, 1, 200, 200, 200]


async def test_a_page_token_is_of_its_filter_only(notes: NoteServiceStub, author: str) -> None:
    for _ in range(2):
        await notes.CreateNote(create_note_request(author))
    token = (await notes.ListNotes(pb.ListNotesRequest(author_id=author, page_size=1))).next_page_token
    assert token

    refusals = [
        await refusal_of(notes.ListNotes(pb.ListNotesRequest(page_token=token))),
        await refusal_of(notes.ListNotes(pb.ListNotesRequest(author_id=new_uuid(), page_token=token))),
        await refusal_of(notes.ListNotes(pb.ListNotesRequest(author_id=author, state=1, page_token=token))),
    ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain) == (StatusCode.INVALID_ARGUMENT, "shop.system.v1")
        assert (refusal.reason, refusal.fields) == ("INVALID_PAGE_TOKEN", ("pageToken",))


async def test_the_page_size_may_change_from_page_to_page(notes: NoteServiceStub, author: str) -> None:
    written = [(await notes.CreateNote(create_note_request(author))).id for _ in range(4)][::-1]
    first = await notes.ListNotes(pb.ListNotesRequest(page_size=1))

    second = await notes.ListNotes(pb.ListNotesRequest(page_size=9, page_token=first.next_page_token))

    assert [note.id for note in second.notes] == written[1:]


async def test_a_page_token_lasts_a_day(notes: NoteServiceStub, clock: ManualClock) -> None:
    for _ in range(2):
        await notes.CreateNote(create_note_request())
    token = (await notes.ListNotes(pb.ListNotesRequest(page_size=1))).next_page_token
    request = pb.ListNotesRequest(page_size=1, page_token=token)
    clock.advance(timedelta(hours=23, minutes=59))
    assert len((await notes.ListNotes(request)).notes) == 1
    clock.advance(timedelta(minutes=2))

    refusal = await refusal_of(notes.ListNotes(request))

    assert refusal.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("token", ["x", "x" * 44, "AAAA", "=", "ä", "' OR 1=1 --"])
async def test_a_forged_page_token_is_refused(notes: NoteServiceStub, token: str) -> None:
    refusal = await refusal_of(notes.ListNotes(pb.ListNotesRequest(page_token=token)))

    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")
