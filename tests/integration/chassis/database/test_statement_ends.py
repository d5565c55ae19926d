"""After a statement fails or a pool is closed: the next statement, the server's sessions and the memory."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import chassis.database.statement_pool
from chassis.context import set_batch_deadline
from chassis.database.connections import Connector
from chassis.database.loop_connection import LoopConnection
from chassis.database.statement_pool import StatementPool
from chassis.errors import DatabaseUnavailable, OutcomeUnknown
from chassis.testing import until
from tests.integration.chassis.database.test_statements import END_YOURSELF, OWN_PID
from tests.integration.inprocess import database_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.databases import TestDatabase

DEADLOCKED = "DO $$ BEGIN RAISE EXCEPTION 'a deadlock' USING ERRCODE = '40P01'; END $$"


@pytest.fixture
def connector(notes_database: TestDatabase) -> Connector:
    return Connector(database_settings(notes_database.url, statement_timeout_s=60), name="test")


@pytest.fixture
def writes(connector: Connector) -> Iterator[StatementPool]:
    pool = StatementPool(connector, number=1, max_waiting=2, is_writing=True)
    yield pool
    pool.close()


def connections_in_memory() -> int:
    gc.collect()
    return sum(isinstance(each, LoopConnection) for each in gc.get_objects())


def tries_of(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note how many seconds each try of a statement has for its answer; connecting asks for its mark besides."""
    within: list[float] = []
    rows_of = LoopConnection.rows_of

    async def noted(self: LoopConnection, statement: str, parameters: Any, *, within_s: float) -> Any:
        if statement != chassis.database.statement_pool.READ_MARK:
            within.append(within_s)
        return await rows_of(self, statement, parameters, within_s=within_s)

    monkeypatch.setattr(LoopConnection, "rows_of", noted)
    return within


async def test_a_statement_that_the_server_refuses_keeps_its_connection_and_its_error(writes: StatementPool) -> None:
    [(pid,)] = await writes.fetch(OWN_PID)

    with pytest.raises(psycopg.errors.DivisionByZero):
        await writes.fetch("SELECT 1 / 0")

    assert await writes.fetch(OWN_PID) == [(pid,)]
    assert (writes.opened, writes.idle, writes.waiting) == (1, 1, 0)


async def test_a_statement_that_a_deadlock_ends_is_tried_three_times(
    writes: StatementPool, connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = tries_of(monkeypatch)

    with pytest.raises(DatabaseUnavailable):
        await writes.fetch(DEADLOCKED)

    # Without a caller there is no deadline, so each has the time of a statement.
    assert tries == [connector.answer_timeout_s] * 3


async def test_another_try_has_the_time_until_the_last_caller_leaves(
    writes: StatementPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = tries_of(monkeypatch)
    set_batch_deadline(time.monotonic() + 30)

    with pytest.raises(DatabaseUnavailable):
        await writes.fetch(DEADLOCKED)

    assert len(tries) == 3
    assert tries[0] > 30 >= tries[1] >= tries[2]


async def test_a_statement_is_tried_again_however_soon_its_last_caller_leaves(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.database.statement_pool, "time_left_s", lambda: 0.5)
    tries = tries_of(monkeypatch)
    reads = StatementPool(connector, number=1, max_waiting=2)

    with pytest.raises(DatabaseUnavailable):
        await reads.fetch(DEADLOCKED)
    reads.close()

    assert tries == [connector.answer_timeout_s, 0.5, 0.5]


async def test_a_statement_whose_last_caller_has_left_is_not_tried_again(
    writes: StatementPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = tries_of(monkeypatch)
    set_batch_deadline(time.monotonic())

    with pytest.raises(DatabaseUnavailable):
        await writes.fetch(DEADLOCKED)

    assert len(tries) == 1


async def test_a_connection_that_fails_before_it_is_known_is_closed_and_is_no_pooler(
    writes: StatementPool, connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(chassis.database.statement_pool, "READ_MARK", "SELECT 1 / 0")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await writes.fetch("SELECT 1")

    assert writes.opened == 0
    assert not connector.is_pooled
    assert await writes.fetch("SELECT 1") == [(1,)]


async def test_a_connection_that_was_lost_leaves_nothing_in_memory(writes: StatementPool) -> None:
    await writes.fetch("SELECT 1")
    before = connections_in_memory()

    for _ in range(3):
        with pytest.raises(OutcomeUnknown):
            await writes.fetch(END_YOURSELF)
    await writes.fetch("SELECT 1")

    assert connections_in_memory() == before
    assert (writes.opened, writes.idle) == (1, 1)


async def test_a_connection_that_ended_while_the_loop_was_blocked_leaves_nothing_in_memory(
    writes: StatementPool, notes_database: TestDatabase
) -> None:
    [(pid,)] = await writes.fetch(OWN_PID)
    before = connections_in_memory()
    notes_database.query("SELECT pg_terminate_backend(%s, 10000)", pid)  # returns once it has ended

    await writes.fetch("SELECT 1")

    assert connections_in_memory() == before


async def test_closing_ends_the_statements_that_run_and_none_of_them_is_tried_again(
    connector: Connector, notes_database: TestDatabase
) -> None:
    reads = StatementPool(connector, number=1, max_waiting=2)
    statement = "SELECT pg_sleep(60) AS until_closed"
    running = asyncio.ensure_future(reads.fetch(statement))

    async def is_running() -> bool:
        query = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = %s"
        return bool(await asyncio.to_thread(notes_database.query, query, statement))

    await until(is_running)
    reads.close()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert reads.opened == 0


async def test_nothing_refers_to_a_closed_pool(connector: Connector) -> None:
    pool = StatementPool(connector, number=1, max_waiting=2)
    await pool.fetch("SELECT 1")
    reference = weakref.ref(pool)

    pool.close()
    del pool
    gc.collect()

    assert reference() is None


async def test_nothing_refers_to_a_statement_that_is_done(writes: StatementPool) -> None:
    class Parameter(str):
        __slots__ = ("__weakref__",)

    parameter = Parameter("a")
    reference = weakref.ref(parameter)
    await writes.fetch("SELECT CAST(%s AS text)", parameter)

    del parameter
    await writes.fetch("SELECT 1")
    gc.collect()

    assert reference() is None
