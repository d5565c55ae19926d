"""WatchNotes: every change is delivered once, in order, to its owner and to staff."""

from __future__ import annotations

import asyncio
import random
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from grpc import aio

from chassis.events import outbox
from chassis.testing import admins_token, new_uuid, plain_channel, token_of
from chassis.watch.settings import WatchSettings
from tests.integration.chassis.notes import notes_service
from tests.integration.chassis.watching import INSERT, ids_in, seen, watching, write
from tests.integration.event_flow import opened
from tests.integration.inprocess import database_settings
from tests.integration.watching import NARROW
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.database import Database
    from tests.integration.databases import TestDatabase


NIL = str(uuid.UUID(int=0))
WRITERS = 6
WRITES_EACH = 40
AUTHORS = [new_uuid(), new_uuid()]


@pytest.fixture
async def channel(notes_address: str) -> AsyncIterator[aio.Channel]:
    """An admin's channel to the notes service."""
    async with plain_channel(notes_address) as channel:
        yield channel


@pytest.fixture
def notes(channel: aio.Channel) -> NoteServiceStub:
    return NoteServiceStub(channel)


async def test_a_change_is_delivered_as_it_happens(channel: aio.Channel, notes: NoteServiceStub, author: str) -> None:
    async with watching(channel) as watch:
        first = await watch.message()
        written = await notes.CreateNote(create_note_request(author))
        changed = await notes.UpdateNote(an_update(written.id))
        archived = await notes.ArchiveNote(pb.ArchiveNoteRequest(id=written.id))
        was_written, was_changed, was_archived = await watch.changes(3)

    assert first == pb.WatchNotesResponse(resume_token=NIL)
    assert was_written == pb.NoteChange(
        id=was_written.id,
        note_id=written.id,
        author_id=author,
        state=pb.NOTE_STATE_OPEN,
        etag=written.etag,
        occurred_at=written.updated_at,
    )
    assert (was_changed.state, was_changed.etag) == (pb.NOTE_STATE_OPEN, changed.etag)
    assert was_archived == pb.NoteChange(
        id=watch.token,
        note_id=written.id,
        author_id=author,
        state=pb.NOTE_STATE_ARCHIVED,
        etag=archived.etag,
        occurred_at=archived.updated_at,
    )


async def test_a_stream_resumed_with_a_token_delivers_the_missed_changes_once(
    channel: aio.Channel, notes: NoteServiceStub, author: str
) -> None:
    written = [(await notes.CreateNote(create_note_request(author))).id for _ in range(3)]

    async with watching(channel, token=NIL) as watch:
        told = await watch.changes(2)
        token = watch.token
    async with watching(channel, token=token) as watch:
        told += await watch.changes(1)
        written.append((await notes.CreateNote(create_note_request(author))).id)
        told += await watch.changes(1)

    assert seen(told) == [(note_id, "v1") for note_id in written]


async def test_owners_watch_their_own_notes_and_staff_all_or_one_authors(
    channel: aio.Channel, notes: NoteServiceStub, author: str
) -> None:
    other = new_uuid()
    async with (
        watching(channel, access=token_of(author)) as owners,
        watching(channel, access=token_of(author), author_id=other) as curious,
        watching(channel, author_id=other) as of_other,
        watching(channel) as of_all,
    ):
        for watch in (owners, curious, of_other, of_all):
            await watch.message()
        by_other = await notes.CreateNote(create_note_request(other))
        by_author = await notes.CreateNote(create_note_request(author))

        assert seen(await of_all.changes(2)) == [(by_other.id, "v1"), (by_author.id, "v1")]
        async with (
            watching(channel, token=NIL, access=token_of(author)) as owners_later,
            watching(channel, token=NIL, access=token_of(author), author_id=other) as curious_later,
        ):
            for watch in (owners, curious, of_other, owners_later, curious_later):
                await watch.passes(of_all.token)
    [of_others_note, of_authors_note] = of_all.told
    assert owners.told == owners_later.told == [of_authors_note]
    assert of_other.told == [of_others_note]
    assert curious.told == curious_later.told == []


async def test_a_change_committed_after_a_stream_began_is_delivered(
    channel: aio.Channel, notes_database: TestDatabase
) -> None:
    write(notes_database, 1)
    with notes_database.connect() as session:
        session.execute("BEGIN")
        session.execute(INSERT, (1,))  # it takes its position before the changes that are committed first
        write(notes_database, 2)
        async with watching(channel) as first, watching(channel) as second:
            [begun, _] = [await watch.message() for watch in (first, second)]
            session.execute("COMMIT")
            told = [await watch.changes(3) for watch in (first, second)]

    before, *rest = ids_in(notes_database)
    assert begun.resume_token == before
    assert [[change.id for change in changes] for changes in told] == [rest, rest]


async def test_a_stream_that_catches_up_from_far_back_sends_heartbeats(notes_database: TestDatabase) -> None:
    write(notes_database, 60)
    hasty = WatchSettings(poll_s=0.02, page=1, heartbeat_s=1e-6)
    async with (
        notes_service(database_settings(notes_database.url), watching=hasty) as address,
        plain_channel(address) as channel,
        watching(channel) as at_the_end,
    ):
        await at_the_end.message()
        async with watching(channel, token=NIL, author_id=new_uuid()) as watch:
            tokens = [(await watch.message()).resume_token for _ in range(30)]

    # Its position, so that it resumes there after it was cut off, and not at the beginning.
    assert watch.told == []
    assert tokens == [NIL, *ids_in(notes_database)[:29]]


async def test_a_change_read_while_catching_up_is_not_delivered_again_by_the_hub(notes_database: TestDatabase) -> None:
    seldom = WatchSettings(poll_s=0.5)
    async with (
        notes_service(database_settings(notes_database.url), watching=seldom) as address,
        plain_channel(address) as channel,
        watching(channel) as first,
    ):
        await first.message()
        write(notes_database, 3)
        async with watching(channel, token=NIL) as second:
            await second.changes(3)
            await first.changes(3)  # later: from here on both receive the same changes at once
            write(notes_database, 1)
            await asyncio.gather(first.change(), second.change())

    assert first.told == second.told == ids_in(notes_database)


async def test_a_change_published_while_a_stream_catches_up_is_delivered(notes_database: TestDatabase) -> None:
    write(notes_database, 400)  # more than the narrow channel holds, and less than a page
    async with (
        notes_service(database_settings(notes_database.url), watching=WatchSettings(poll_s=0.02, page=500)) as address,
        plain_channel(address) as channel,
        aio.insecure_channel(address, options=NARROW) as narrow_channel,
        watching(channel) as quick,
    ):
        await quick.message()
        async with watching(narrow_channel, token=NIL, access=admins_token()) as slow:
            await slow.change()
            write(notes_database, 50)
            await quick.changes(50)
            await slow.changes(449)

    assert slow.told == ids_in(notes_database)


async def test_a_stream_resumed_again_and_again_under_load_delivers_each_change_once_and_in_order(
    notes_database: TestDatabase,
) -> None:
    chance = random.Random(1)
    settings = database_settings(notes_database.url)
    watching_closely = WatchSettings(poll_s=0.005, page=3, heartbeat_s=0.05)

    async def write(database: Database) -> None:
        for _ in range(WRITES_EACH):
            await asyncio.sleep(chance.random() / 50)  # the pace of the writers
            author = {"authorId": chance.choice(AUTHORS)}
            event = outbox.Event("note.created", uuid.uuid4(), 1, author, datetime.now(UTC))
            await database.transaction(lambda connection, event=event: outbox.add(connection, [event]))

    async def come_and_go(channel: aio.Channel, author_id: str, count: int) -> list[str]:
        told: list[str] = []
        token = NIL
        while len(told) < count:
            async with watching(channel, token=token, author_id=author_id) as watch:
                for _ in range(min(chance.randint(1, 12), count - len(told))):
                    await watch.change()
            told += watch.told
            token = watch.token
        return told

    async with (
        notes_service(settings, watching=watching_closely) as address,
        plain_channel(address) as channel,
        opened(notes_database.url) as database,
        watching(channel) as staying,
    ):
        await staying.message()
        await asyncio.gather(*(write(database) for _ in range(WRITERS // 2)))
        writing = asyncio.gather(*(write(database) for _ in range(WRITERS // 2)))
        of_all = [come_and_go(channel, "", WRITERS * WRITES_EACH) for _ in range(3)]
        told = await asyncio.gather(*of_all)
        await writing
        rows = notes_database.query("SELECT id, data ->> 'authorId' FROM outbox ORDER BY transaction, position")
        of_one = [str(event_id) for event_id, author in rows if author == AUTHORS[0]]
        told_of_one = await come_and_go(channel, AUTHORS[0], len(of_one))
        await staying.changes(len(rows))

    everything = [str(event_id) for event_id, _ in rows]
    assert len(everything) == WRITERS * WRITES_EACH
    assert [*told, staying.told] == [everything] * 4
    assert told_of_one == of_one
