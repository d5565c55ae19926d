"""Heartbeats and changes at the same time: whatever token a stream gave, nothing before it is missing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from chassis.testing import new_uuid, plain_channel, until
from chassis.watch.settings import WatchSettings
from tests.integration.chassis.notes import notes_service
from tests.integration.chassis.watching import watching
from tests.integration.inprocess import database_settings
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpc import aio

    from tests.integration.databases import TestDatabase
    from tests.integration.watching import Watch

# WATCH_ROUNDS=100 makes some 100,000 deliveries of it.
ROUNDS: Final = int(os.environ.get("WATCH_ROUNDS", "4"))
WATCHES_OF_EACH: Final = 8
HEARTBEATS: Final = WatchSettings(poll_s=0.005, heartbeat_s=0.02, buffer=100_000, max_of_one_caller=1000)
CHANGES_OF_EACH: Final = 3


async def make_changes(notes: NoteServiceStub, authors: list[str]) -> None:
    """Write a note of each author and change it, each change after a heartbeat or two."""
    for _ in range(ROUNDS):
        written = [await notes.CreateNote(create_note_request(author)) for author in authors]
        for number in range(CHANGES_OF_EACH):
            for note in written:
                await asyncio.sleep(HEARTBEATS.heartbeat_s)  # the pace of the changes, not a wait for one
                await notes.UpdateNote(an_update(note.id, f"{number}"))


@contextlib.asynccontextmanager
async def many_watches(channel: aio.Channel, authors: list[str]) -> AsyncIterator[dict[str, list[Watch]]]:
    """Watch each author's notes, and all of them, from before the first change."""
    async with contextlib.AsyncExitStack() as streams:
        watches: dict[str, list[Watch]] = defaultdict(list)
        for whose, _ in itertools.product(("", *authors), range(WATCHES_OF_EACH)):
            watch = await streams.enter_async_context(watching(channel, author_id=whose))
            await watch.message()
            watches[whose].append(watch)
        yield watches


async def test_no_change_is_lost_that_comes_together_with_a_heartbeat(notes_database: TestDatabase) -> None:
    authors = [new_uuid() for _ in range(2)]
    settings = database_settings(notes_database.url)
    async with (
        notes_service(settings, watching=HEARTBEATS) as address,
        plain_channel(address) as channel,
        many_watches(channel, authors) as watches,
    ):
        reading = [asyncio.create_task(watch.read_on()) for watch in itertools.chain(*watches.values())]
        await make_changes(NoteServiceStub(channel), authors)
        history = history_in(notes_database)
        expected = {whose: [each for each in history if whose in {"", each[2]}] for whose in ("", *authors)}

        async def all_have_it() -> bool:
            return all(watch.told[-1:] == [expected[whose][-1][0]] for whose in expected for watch in watches[whose])

        await until(all_have_it, timeout_s=20)
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)

        order_of = {event_id: number for number, (event_id, *_) in enumerate(history)}
        for whose, of_one in expected.items():
            for watch in watches[whose]:
                assert watch.told == [event_id for event_id, *_ in of_one]
                for token, count in watch.tokens:
                    covered = [each for each in of_one if order_of[each[0]] <= order_of.get(token, -1)]
                    assert len(covered) == count, "a token is ahead of what was delivered, or behind"
        heartbeats = [token for watch in watches[authors[0]] for token, _ in watch.tokens if token not in watch.told]
        for token in set(heartbeats[:: len(heartbeats) // 10 + 1]):
            rest = [each[0] for each in expected[authors[0]] if order_of[each[0]] > order_of.get(token, -1)]
            async with watching(channel, token=token, author_id=authors[0]) as again:
                await again.changes(len(rest))
            assert again.told == rest
    assert len(heartbeats) > ROUNDS


def history_in(database: TestDatabase) -> list[tuple[str, str, str]]:
    """Return the events' ids, notes and authors, in the feed's order, once they match the notes' versions."""
    rows = database.query(
        "SELECT id, subject, data ->> 'authorId', sequence FROM outbox ORDER BY transaction, position"
    )
    newest = dict(database.query("SELECT id, version FROM notes"))
    versions: dict[object, list[int]] = defaultdict(list)
    for _, note_id, _, sequence in rows:
        versions[note_id].append(sequence)
    assert {note_id: len(each) for note_id, each in versions.items()} == newest
    assert all(each == list(range(1, len(each) + 1)) for each in versions.values())
    return [(str(event_id), str(note_id), author) for event_id, note_id, author, _ in rows]
