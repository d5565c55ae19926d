"""The feed: every committed event once, in one order, however its transactions overlap."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from chassis.events import outbox, relay_state
from chassis.testing import until
from chassis.watch.changefeed import Changefeed
from chassis.watch.feed import START, PositionLost
from tests.integration.event_flow import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from psycopg import Connection as Session
    from sqlalchemy import Connection

    from chassis.database import Database
    from chassis.watch.feed import Position
    from tests.integration.databases import TestDatabase

WRITERS = 6
WRITES_EACH = 40


@pytest.fixture
async def database(notes_database: TestDatabase) -> AsyncIterator[Database]:
    async with opened(notes_database.url) as database:
        yield database


def event(subject: uuid.UUID, sequence: int) -> outbox.Event:
    return outbox.Event("note.created", subject, sequence, {"authorId": "ada"}, datetime.now(UTC))


async def add(database: Database, *, subject: uuid.UUID | None = None, sequence: int = 1) -> uuid.UUID:
    """Commit an event and return its subject."""
    subject = subject or uuid.uuid4()
    await database.transaction(lambda connection: outbox.add(connection, [event(subject, sequence)]))
    return subject


def feed(database: Database) -> Changefeed:
    return Changefeed(database, owner_field="authorId")


async def subjects_after(database: Database, position: Position = START) -> list[uuid.UUID]:
    """Return what the feed has behind the position."""

    page = await feed(database).read(position, owner=None, size=5000)
    return [each.subject for each in page.events]


async def is_known(database: Database, event_id: uuid.UUID) -> bool:
    """Return whether a stream can be resumed with the id."""
    try:
        await feed(database).position_of(event_id)
    except PositionLost:
        return False
    return True


@contextlib.contextmanager
def writing(database: TestDatabase, subject: uuid.UUID, sequence: int = 1) -> Iterator[Session]:
    """Hold a transaction open that has written an event; committed at the end of the block."""
    with database.connect() as session, session.transaction():
        session.execute(
            """
            INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
            VALUES (gen_random_uuid(), 'note.created', %s, %s, '{}', '', now())
            """,
            (subject, sequence),
        )
        yield session


async def test_an_event_committed_later_is_not_skipped(database: Database, notes_database: TestDatabase) -> None:
    early = uuid.uuid4()

    with writing(notes_database, early):
        late = await add(database)
        while_open = await subjects_after(database)

    assert while_open == []
    assert await subjects_after(database) == [early, late]


async def test_a_rolled_back_transaction_holds_nothing_up(database: Database, notes_database: TestDatabase) -> None:
    with contextlib.suppress(ZeroDivisionError), writing(notes_database, uuid.uuid4()):
        late = await add(database)
        raise ZeroDivisionError

    assert await subjects_after(database) == [late]


async def test_the_changes_of_one_note_keep_their_order_though_the_later_transaction_began_first(
    database: Database, notes_database: TestDatabase
) -> None:
    note = uuid.uuid4()

    def write_late(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT pg_current_xact_id()")  # as who claims a key, and then waits for a lock
        with writing(notes_database, note, 1):
            pass
        outbox.add(connection, [event(note, 2)])

    await database.transaction(write_late)

    rows = notes_database.query("SELECT sequence FROM outbox ORDER BY transaction, position")
    assert rows == [(1,), (2,)]


async def test_a_reader_that_keeps_its_position_sees_each_event_once_and_in_the_order_of_all(
    database: Database, notes_database: TestDatabase
) -> None:
    chance = random.Random(1)
    seen: list[Position] = []

    async def write() -> None:
        for _ in range(WRITES_EACH):
            pauses_s = [chance.choice([0, 0, 0.001, 0.02]) for _ in range(2)]

            def work(connection: Connection, pauses_s: list[float] = pauses_s) -> None:
                connection.exec_driver_sql(f"SELECT pg_current_xact_id(), pg_sleep({pauses_s[0]})")
                outbox.add(connection, [event(uuid.uuid4(), 1)])
                connection.exec_driver_sql(f"SELECT pg_sleep({pauses_s[1]})")

            await database.transaction(work)

    async def read() -> None:
        position = seen[-1] if seen else START
        page = await feed(database).read(position, owner=None, size=7)
        seen.extend(each.position for each in page.events)

    async def has_seen_all() -> bool:
        await read()
        return len(seen) >= WRITERS * WRITES_EACH

    await asyncio.gather(until(has_seen_all, timeout_s=60), *(write() for _ in range(WRITERS)))

    rows = notes_database.query("SELECT id FROM outbox ORDER BY transaction, position")
    assert [position.id for position in seen] == [event_id for (event_id,) in rows]
    assert len(rows) == WRITERS * WRITES_EACH
    # They did overlap.
    assert notes_database.query(
        "SELECT 1 FROM outbox a JOIN outbox b ON a.position < b.position AND a.transaction > b.transaction LIMIT 1"
    )


async def test_the_position_of_an_event_is_known_by_its_id(database: Database, notes_database: TestDatabase) -> None:
    first, second = await add(database), await add(database)
    [(event_id,)] = notes_database.query("SELECT id FROM outbox WHERE subject = %s", first)

    position = await feed(database).position_of(event_id)

    assert await subjects_after(database, position) == [second]
    assert not await is_known(database, uuid.uuid4())


async def test_the_end_of_the_feed_is_its_last_event(database: Database) -> None:
    assert await feed(database).newest() == START
    await add(database)
    await add(database)

    end = await feed(database).newest()

    assert await subjects_after(database, end) == []
    late = await add(database)
    assert await subjects_after(database, end) == [late]


async def test_a_position_at_which_its_event_does_not_stand_is_lost(database: Database) -> None:
    await add(database)
    await add(database)
    last = await feed(database).newest()

    for position in (last._replace(id=uuid.UUID(int=1)), last._replace(transaction=last.transaction - 1)):
        with pytest.raises(PositionLost):
            await subjects_after(database, position)


async def test_the_beginning_is_known_until_something_was_removed(
    database: Database, notes_database: TestDatabase
) -> None:
    assert await is_known(database, START.id)
    await add(database)
    await add(database)
    await add(database)
    notes_database.query("INSERT INTO relay_state (stream, last_entry) VALUES ('s', '0-0')")
    assert await is_known(database, START.id)

    notes_database.query("UPDATE outbox SET published_at = now() - interval '1 hour'")
    now = datetime.now(UTC)
    await database.transaction(lambda connection: relay_state.remove_published(connection, "s", before=now))

    assert not await is_known(database, START.id)


async def test_the_beginning_is_known_though_the_first_transaction_was_rolled_back(
    database: Database, notes_database: TestDatabase
) -> None:
    with contextlib.suppress(ZeroDivisionError), writing(notes_database, uuid.uuid4()):
        raise ZeroDivisionError

    first = await add(database)

    assert await is_known(database, START.id)
    assert await subjects_after(database) == [first]


async def test_events_from_before_the_feed_are_not_in_it(database: Database, notes_database: TestDatabase) -> None:
    swept, before = await add(database), await add(database)
    notes_database.query("DELETE FROM outbox WHERE subject = %s", swept)
    notes_database.query("INSERT INTO relay_state (stream, last_entry, swept_number) VALUES ('s', '0-0', 1)")
    notes_database.query("UPDATE outbox SET transaction = NULL")
    [(event_id,)] = notes_database.query("SELECT id FROM outbox WHERE subject = %s", before)

    since = await add(database)

    assert await subjects_after(database) == [since]
    assert not await is_known(database, event_id)
    assert await is_known(database, START.id)


def restore(database: TestDatabase, *subjects: uuid.UUID, ahead: int = 1_000_000_000) -> None:
    """Give events the numbers of a cluster that was so far ahead of this one."""
    changed = "((transaction::text)::bigint + %s)::text::xid8"
    database.query(f"UPDATE outbox SET transaction = {changed} WHERE subject = ANY (%s)", ahead, list(subjects))


def swap(database: TestDatabase, *subjects: uuid.UUID) -> None:
    """Give each of two events the other's number, as if the earlier transaction had written the later row."""
    sum_of_both = "(SELECT sum((transaction::text)::bigint) FROM outbox WHERE subject = ANY (%s))"
    changed = f"({sum_of_both} - (transaction::text)::bigint)::text::xid8"
    database.query(
        f"UPDATE outbox SET transaction = {changed} WHERE subject = ANY (%s)", list(subjects), list(subjects)
    )


async def test_events_restored_from_an_older_server_precede_those_written_since(
    database: Database, notes_database: TestDatabase
) -> None:
    old = [await add(database), await add(database)]
    restored = [await add(database), await add(database)]
    swap(notes_database, *old)
    restore(notes_database, *restored)
    assert await subjects_after(database) == old[::-1]
    since, open_meanwhile = [await add(database), await add(database)], uuid.uuid4()
    swap(notes_database, *since)

    with writing(notes_database, open_meanwhile):
        count = await feed(database).renumber_after_restore()

    assert count == 2
    later = await add(database)
    assert await subjects_after(database) == [*old[::-1], *restored, *since[::-1], open_meanwhile, later]
    assert await feed(database).renumber_after_restore() == 0
    restore(notes_database, restored[1])
    assert await feed(database).renumber_after_restore() == 1
    assert await subjects_after(database) == [*old[::-1], *restored, *since[::-1], open_meanwhile, later]


async def test_a_restored_event_with_the_very_next_number_precedes_those_written_since(
    database: Database, notes_database: TestDatabase
) -> None:
    restored, since = await add(database), await add(database)
    following = "(pg_current_xact_id()::text::bigint + 1)::text::xid8"
    notes_database.query(f"UPDATE outbox SET transaction = {following} WHERE subject = %s", restored)

    assert await feed(database).renumber_after_restore() == 1

    assert await subjects_after(database) == [restored, since]


async def test_bringing_back_takes_longer_than_a_statement_may(notes_copy: TestDatabase) -> None:
    slow = """
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END';
        CREATE TRIGGER slow BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION slow();
    """
    async with opened(notes_copy.url, statement_timeout_s=0.1) as database:
        restored = await add(database)
        restore(notes_copy, restored)
        notes_copy.query(slow)

        assert await feed(database).renumber_after_restore() == 1


async def test_the_position_of_an_event_that_is_not_brought_back_yet_is_lost(
    database: Database, notes_database: TestDatabase
) -> None:
    await add(database)
    restore(notes_database, await add(database))
    [(event_id,)] = notes_database.query("SELECT id FROM outbox ORDER BY position DESC LIMIT 1")
    position = await feed(database).position_of(event_id)

    with pytest.raises(PositionLost):
        await subjects_after(database, position)
