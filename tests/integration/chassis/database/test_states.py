"""In every state of the database a caller learns whether to try again, and calls succeed once it has recovered."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import time
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from chassis.context import set_batch_deadline
from chassis.database import Database
from chassis.database.statements import execute
from chassis.errors import DatabaseUnavailable, OutcomeUnknown
from chassis.testing import plain_channel
from tests.integration.chassis.notes import notes_service
from tests.integration.databases import read_only
from tests.integration.inprocess import database_settings
from tests.integration.read_only_writes import require_refused_while_read_only
from tests.support.database_cases import cases
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from sqlalchemy import Connection

    from devstack.postgres import PostgresServer
    from tests.integration.databases import TestDatabase

# PostgreSQL's classes of what ends by itself (Appendix A of its manual): connection, credentials, rollback, resources,
# locks and recovery, intervention, the system, its configuration.
PASSING_CLASSES: Final = {"08", "28", "40", "53", "55", "57", "58", "F0"}
# A read-only or hot standby server; a transaction that took too long; a statement prepared in another session.
PASSING: Final = {"25006", "25P03", "25P04", "26000", "42P05", "72000"}
OWN_PID: Final = "SELECT pg_backend_pid()"
WRITE: Final = "CREATE TABLE should_not_be ()"


@pytest.fixture
async def database(empty_database: TestDatabase) -> AsyncIterator[Database]:
    database = Database(database_settings(empty_database.url, statement_timeout_s=0.5), name="test")
    yield database
    await database.close()


def own_pid(connection: Connection) -> int:
    return int(execute(connection, OWN_PID)[0][0])


def every_way(database: Database, statement: str) -> list[Callable[[], Awaitable[object]]]:
    """Return how a statement can be run: in a batch that reads or writes, and in a thread."""
    return [
        lambda: database.fetch(statement),
        lambda: database.fetch_for_write(statement),
        lambda: database.fetch_on_shared_pool(statement),
        lambda: database.read(lambda connection: execute(connection, statement)),
    ]


def every_sqlstate() -> list[str]:
    errors = [each for _, each in inspect.getmembers(psycopg.errors, inspect.isclass)]
    return sorted({each.sqlstate for each in errors if issubclass(each, psycopg.Error) and each.sqlstate})


def one_of_each_class(states: list[str]) -> list[str]:
    """Return the first SQLSTATE of each class, and those of a class of defects that are transient."""
    return sorted({*{state[:2]: state for state in reversed(states)}.values(), *PASSING})


async def test_every_sqlstate_is_a_state_that_passes_or_a_defect(
    database: Database, empty_database: TestDatabase
) -> None:
    empty_database.query("""
        CREATE FUNCTION fail(state text) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'as you like' USING ERRCODE = state;
        END $$
    """)
    wrong: list[str] = []
    states = every_sqlstate()
    for sqlstate in cases(states, everyday=one_of_each_class(states)):
        passes = sqlstate in PASSING or sqlstate[:2] in PASSING_CLASSES
        for way in every_way(database, f"SELECT fail('{sqlstate}')"):
            try:
                await way()
            except DatabaseUnavailable as error:
                wrong += [] if passes and not isinstance(error, OutcomeUnknown) else [f"{sqlstate} is {error!r}"]
            except Exception as error:  # noqa: BLE001  a defect may be of any class
                wrong += [f"{sqlstate} is {error!r}"] if passes else []

    assert len(states) > 200
    assert wrong == []


@pytest.mark.parametrize("way", cases(range(4), everyday=(1, 3)))
async def test_a_server_that_has_become_read_only_is_left_for_one_that_writes(
    database: Database, empty_database: TestDatabase, way: int
) -> None:
    with read_only(empty_database):
        with pytest.raises(DatabaseUnavailable):
            await every_way(database, WRITE)[way]()
        assert await database.fetch("SELECT 1") == [(1,)]

    await every_way(database, WRITE)[way]()


async def test_writes_to_a_read_only_database_are_unavailable_and_come_back_without_a_restart(
    notes_copy: TestDatabase,
) -> None:
    async with notes_service(database_settings(notes_copy.url)) as address, plain_channel(address) as channel:
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())
        read = pb.GetNoteRequest(id=note.id)
        writes: dict[str, Callable[[], Awaitable[object]]] = {
            "CreateNote": lambda: notes.CreateNote(create_note_request()),
            "UpdateNote": lambda: notes.UpdateNote(an_update(note.id)),
            "ArchiveNote": lambda: notes.ArchiveNote(pb.ArchiveNoteRequest(id=note.id)),
        }
        await require_refused_while_read_only(notes_copy, writes, read=lambda: notes.GetNote(read))


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process of the server do nothing in the block; the kernel still acknowledges what is sent to it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_read_without_an_answer_is_repeated_over_another_connection(database: Database) -> None:
    [(pid,)] = await database.fetch(OWN_PID)

    with stopped(pid):
        async with asyncio.timeout(5):
            [(other,)] = await database.fetch(OWN_PID)

    assert other != pid


async def test_a_write_without_an_answer_has_an_unknown_outcome_and_delays_no_other_call(database: Database) -> None:
    [(pid,)] = await database.fetch_for_write(OWN_PID)

    with stopped(pid):
        async with asyncio.timeout(5):
            with pytest.raises(OutcomeUnknown):
                await database.fetch_for_write(OWN_PID)
            [(other,)] = await database.fetch_for_write(OWN_PID)

    assert other != pid


async def test_a_transaction_without_an_answer_is_repeated_over_another_connection(database: Database) -> None:
    pid = await database.transaction(own_pid)

    with stopped(pid):
        async with asyncio.timeout(5):
            other = await database.transaction(own_pid)

    assert other != pid


async def test_a_commit_without_an_answer_has_an_unknown_outcome(database: Database) -> None:
    def stop_yourself(connection: Connection) -> int:
        pid = own_pid(connection)
        os.kill(pid, signal.SIGSTOP)
        pids.append(pid)
        return pid

    pids: list[int] = []
    try:
        async with asyncio.timeout(5):
            with pytest.raises(OutcomeUnknown):
                await database.transaction(stop_yourself)
    finally:
        os.kill(pids[0], signal.SIGCONT)

    assert len(pids) == 1


@pytest.mark.parametrize(("left_s", "attempts"), [(0, 1), (1, 2)])
@pytest.mark.parametrize("way", [0, 2, 3])
async def test_a_statement_is_tried_again_only_while_a_caller_waits(
    empty_database: TestDatabase, way: int, left_s: float, attempts: int
) -> None:
    # The first attempt loses its connection; the next takes longer than the caller waits, who has a second at most.
    empty_database.query("CREATE SEQUENCE attempts")
    statement = """
        SELECT CASE
            WHEN nextval('attempts') = 1 THEN CAST(pg_terminate_backend(pg_backend_pid()) AS text)
            ELSE CAST(pg_sleep(10) AS text)
        END
    """
    database = Database(database_settings(empty_database.url, statement_timeout_s=10), name="test")
    set_batch_deadline(time.monotonic() + left_s)

    async with asyncio.timeout(5):
        with pytest.raises(DatabaseUnavailable):
            await every_way(database, statement)[way]()

    assert empty_database.query("SELECT last_value FROM attempts") == [(attempts,)]
    await database.close()


async def test_a_statement_whose_plan_was_outdated_by_a_migration_is_planned_anew(
    database: Database, empty_database: TestDatabase
) -> None:
    empty_database.query("CREATE TABLE scratch AS SELECT 1 AS number")
    ways = every_way(database, "SELECT number FROM scratch")
    for _ in range(6):  # the driver prepares what comes again and again
        for way in ways:
            await way()

    empty_database.query("ALTER TABLE scratch ALTER COLUMN number TYPE text")

    for way in ways:
        assert [tuple(row) for row in await way()] == [("1",)]


async def test_a_server_without_a_free_connection_is_unavailable(
    postgres: PostgresServer, empty_database: TestDatabase
) -> None:
    name = empty_database.query("SELECT quote_ident(current_database())")[0][0]
    empty_database.query("CREATE ROLE crowded LOGIN PASSWORD 'crowded' CONNECTION LIMIT 0")
    try:
        url = f"postgresql://crowded:crowded@127.0.0.1:{postgres.port}/{name}"
        database = Database(database_settings(url), name="test")
        for way in every_way(database, "SELECT 1"):
            with pytest.raises(DatabaseUnavailable):
                await way()
        empty_database.query("ALTER ROLE crowded CONNECTION LIMIT 10")
        for way in every_way(database, "SELECT 1"):
            await way()
        await database.close()
    finally:
        empty_database.query("DROP ROLE crowded")


async def test_a_commit_that_the_server_refuses_is_undone_and_its_connection_goes_on(
    database: Database, empty_database: TestDatabase
) -> None:
    """A disk that is full at the commit, a deferred constraint that waits for a lock: errors that come last."""
    empty_database.query("CREATE TABLE written (state text)")
    empty_database.query("""
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'as you like' USING ERRCODE = new.state;
        END $$
    """)
    empty_database.query("""
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (new.state <> '') EXECUTE FUNCTION fail()
    """)
    insert = "INSERT INTO written VALUES (%s)"
    states = [state for state in every_sqlstate() if state[:2] in PASSING_CLASSES]

    for sqlstate in cases(states, everyday=[*one_of_each_class(states), "53100"]):
        for write in (
            lambda: database.fetch_for_write(insert, sqlstate),  # noqa: B023  run in this turn
            lambda: database.transaction(lambda connection: execute(connection, insert, sqlstate)),  # noqa: B023  the same
        ):
            with pytest.raises(DatabaseUnavailable):
                await write()
            assert empty_database.query("SELECT count(*) FROM written") == [(0,)]

    await database.fetch_for_write(insert, "")
    await database.transaction(lambda connection: execute(connection, insert, ""))
    assert empty_database.query("SELECT count(*) FROM written") == [(2,)]
