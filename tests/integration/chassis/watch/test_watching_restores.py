"""Streams over a database that is restored, or fails over to a replica that was behind: an answer, never silence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest

from chassis.testing import new_uuid, plain_channel, until
from chassis.watch.settings import WatchSettings
from tests.integration.chassis.notes import notes_service
from tests.integration.chassis.watching import ids_in, watching, write
from tests.integration.inprocess import database_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from grpc import aio

    from tests.integration.databases import TestDatabase

CLOSELY: Final = WatchSettings(poll_s=0.01, heartbeat_s=0.05)
# A restore into a younger server leaves rows with transaction ids that the server has not reached.
YOUNGER: Final = "UPDATE outbox SET transaction = ((transaction::text)::bigint + 1000000000)::text::xid8"


@pytest.fixture
async def channel(notes_database: TestDatabase) -> AsyncIterator[aio.Channel]:
    """An admin's channel to a replica that has been running since before what happens to its database."""
    settings = database_settings(notes_database.url)
    async with (
        notes_service(settings, watching=CLOSELY) as address,
        plain_channel(address) as channel,
    ):
        yield channel


def nothing_is_read_any_more(database: TestDatabase) -> Callable[[], Awaitable[bool]]:
    """A condition: the replica has not looked for events for twenty times as long as it would wait."""

    async def is_quiet() -> bool:
        [(quiet,)] = await asyncio.to_thread(
            database.query,
            "SELECT coalesce(min(now() - query_start) > interval '0.2 s', true) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE '%%page AS MATERIALIZED%%'"
            " AND pid <> pg_backend_pid()",
        )
        return bool(quiet)

    return is_quiet


def lose(database: TestDatabase, count: int) -> None:
    """Take the newest events away, and write another one with the numbers of the first of them, as a failover does."""
    [(transaction, position)] = database.query(
        "SELECT transaction::text, position FROM outbox ORDER BY transaction DESC, position DESC LIMIT 1 OFFSET %s",
        count - 1,
    )
    with database.connect() as session, session.transaction():
        session.execute(
            """
            DELETE FROM outbox
            WHERE id IN (SELECT id FROM outbox ORDER BY transaction DESC, position DESC LIMIT %s)
            """,
            (count,),
        )
        session.execute(
            """
            INSERT INTO outbox
                (id, type, subject, sequence, data, traceparent, occurred_at, transaction, position)
            OVERRIDING SYSTEM VALUE
            VALUES
                (gen_random_uuid(), 'note.created', gen_random_uuid(), 1, '{"authorId": "ada"}', '', now(), %s, %s)
            """,
            (transaction, position),
        )


async def test_an_open_stream_whose_last_event_was_lost_ends_and_its_token_is_refused(
    channel: aio.Channel, notes_database: TestDatabase
) -> None:
    write(notes_database, 3)
    async with watching(channel) as watch:
        await watch.message()
        write(notes_database, 2)
        await watch.changes(2)
        lose(notes_database, 1)
        refusal = await watch.end()
    async with watching(channel, token=watch.token) as again:
        second = await again.end()

    assert refusal.reason == second.reason == "RESUME_TOKEN_EXPIRED"
    assert watch.farewell == refusal.status


async def test_streams_whose_events_are_still_there_are_resumed_and_miss_nothing(
    channel: aio.Channel, notes_database: TestDatabase
) -> None:
    write(notes_database, 3)
    nobodys = new_uuid()
    async with watching(channel) as watch, watching(channel, author_id=nobodys) as quiet:
        await asyncio.gather(watch.message(), quiet.message())
        write(notes_database, 2)
        await watch.changes(2)
        await quiet.passes(watch.token)
        notes_database.query(YOUNGER)
        refusals = await asyncio.gather(watch.end(), quiet.end())
    write(notes_database, 1)
    async with (
        watching(channel, token=watch.token) as again,
        watching(channel, token=quiet.token, author_id=nobodys) as quiet_again,
    ):
        await again.change()
        await quiet_again.passes(again.token)

    # The replica was not restarted: it finds the restored events by itself.
    assert {refusal.reason for refusal in refusals} == {"DATABASE_UNAVAILABLE"}
    assert watch.told + again.told == ids_in(notes_database)[3:]
    assert quiet_again.told == []


async def test_a_restore_while_there_was_no_stream_is_found_by_the_first_one(
    channel: aio.Channel, notes_database: TestDatabase
) -> None:
    async with watching(channel) as watch:
        await watch.message()
        write(notes_database, 2)
        await watch.changes(2)
    await until(nothing_is_read_any_more(notes_database))
    notes_database.query(YOUNGER)
    write(notes_database, 1)

    async with watching(channel, token=watch.token) as first:
        refusal = await first.end()
    async with watching(channel, token=watch.token) as again:
        await again.change()

    assert refusal.reason == "DATABASE_UNAVAILABLE"
    assert watch.told + again.told == ids_in(notes_database)


async def test_a_token_whose_event_was_swept_is_refused_and_so_is_catching_up_from_it(
    channel: aio.Channel, notes_database: TestDatabase
) -> None:
    write(notes_database, 3)
    swept, kept, _ = ids_in(notes_database)
    notes_database.query("DELETE FROM outbox WHERE id = %s", swept)

    async with watching(channel, token=swept) as late:
        refusal = await late.end()
    async with watching(channel, token=kept) as watch:
        await watch.change()

    assert refusal.reason == "RESUME_TOKEN_EXPIRED"
