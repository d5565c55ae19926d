"""StatementPool on the event loop, on a real database: what becomes of them when their connection is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import pytest
import uvloop

from chassis.database.connections import Connector
from chassis.database.statement_pool import StatementPool
from chassis.errors import DatabaseUnavailable, OutcomeUnknown, Overloaded
from chassis.testing import until
from tests.integration.inprocess import database_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.integration.databases import TestDatabase

END_YOURSELF = "SELECT pg_terminate_backend(pg_backend_pid())"
OWN_PID = "SELECT pg_backend_pid()"


@pytest.fixture
async def make(notes_database: TestDatabase) -> AsyncIterator[Callable[..., StatementPool]]:
    made: list[StatementPool] = []

    def make(*, is_writing: bool = False) -> StatementPool:
        connector = Connector(database_settings(notes_database.url), name="test")
        made.append(StatementPool(connector, number=1, max_waiting=2, is_writing=is_writing))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def until_open(statements: StatementPool, number: int) -> None:
    """Return once there is this number of connections."""

    async def are_open() -> bool:
        return statements.opened == number

    await until(are_open)


async def test_values_go_there_and_come_back(make: Callable[..., StatementPool]) -> None:
    fetch = make().fetch

    [row] = await fetch(
        "SELECT CAST(%s AS int), CAST(%s AS text), CAST(%s AS jsonb), NULL", 7, "a\u00e9\U0001f600", '{"a": [1]}'
    )

    assert row == (7, "a\u00e9\U0001f600", {"a": [1]}, None)
    assert await fetch("CREATE TEMPORARY TABLE nothing ()") == ()


async def test_a_statement_is_planned_once(make: Callable[..., StatementPool]) -> None:
    fetch = make().fetch
    for number in range(20):
        await fetch("SELECT * FROM unnest(CAST(%s AS int[]))", f"{{{number}}}")

    [row] = await fetch("SELECT max(generic_plans), max(custom_plans) FROM pg_prepared_statements")

    assert row[0] > 10
    assert row[1] == 0


async def test_a_connection_that_is_idle_for_a_while_is_used_again(make: Callable[..., StatementPool]) -> None:
    reads = make()
    pids = set()

    for _ in range(5):
        [(pid,)] = await reads.fetch(OWN_PID)
        pids.add(pid)
        for _ in range(5):
            await asyncio.sleep(0)  # a turn of the loop, in which it listens to nothing

    assert len(pids) == 1


async def test_a_write_whose_answer_is_lost_is_not_sent_again(make: Callable[..., StatementPool]) -> None:
    writes = make(is_writing=True)

    with pytest.raises(OutcomeUnknown):
        await writes.fetch(END_YOURSELF)

    assert await writes.fetch("SELECT 1") == [(1,)]


async def test_a_connection_that_is_ended_under_a_statement_ends_the_statement_and_not_the_process(
    notes_database: TestDatabase,
) -> None:
    connector = Connector(database_settings(notes_database.url, statement_timeout_s=60), name="test")
    writes = StatementPool(connector, number=2, max_waiting=2, is_writing=True)
    running = asyncio.ensure_future(writes.fetch("SELECT pg_sleep(60) AS until_ended"))

    async def is_running() -> bool:
        query = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60) AS until_ended'"
        return bool(await asyncio.to_thread(notes_database.query, query))

    await until(is_running)
    with pytest.raises(DatabaseUnavailable):  # the server is read-only: all connections are replaced
        await writes.fetch("DO $$ BEGIN RAISE EXCEPTION 'as a standby' USING ERRCODE = '25006'; END $$")

    async with asyncio.timeout(10):
        with pytest.raises(OutcomeUnknown):
            await running
    assert await writes.fetch("SELECT 1") == [(1,)]
    writes.close()


async def test_the_loop_leaves_a_lost_connection_before_its_read_waits_for_another_try(
    make: Callable[..., StatementPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    # libpq has closed the socket. If the next connection gets its number, uvloop aborts the process.
    statements = make()
    loop = asyncio.get_running_loop()
    listening: set[int] = set()
    add, remove = loop.add_reader, loop.remove_reader
    monkeypatch.setattr(loop, "add_reader", lambda fd, *call: (listening.add(fd), add(fd, *call))[1])
    monkeypatch.setattr(loop, "remove_reader", lambda fd: (listening.discard(fd), remove(fd))[1])
    while_waiting: list[set[int]] = []
    monkeypatch.setattr("chassis.database.statement_pool.pause_s", lambda: while_waiting.append({*listening}) or 0)

    with pytest.raises(DatabaseUnavailable):
        await statements.fetch(END_YOURSELF)

    assert while_waiting == [set(), set()]


async def test_a_read_that_loses_every_connection_is_the_database_not_answering(
    make: Callable[..., StatementPool],
) -> None:
    reads = make()

    with pytest.raises(DatabaseUnavailable) as failed:
        await reads.fetch(END_YOURSELF)

    assert not isinstance(failed.value, OutcomeUnknown)
    assert await reads.fetch("SELECT 1") == [(1,)]


async def test_a_connection_that_ends_while_idle_fails_no_write(
    make: Callable[..., StatementPool], notes_database: TestDatabase
) -> None:
    writes = make(is_writing=True)
    [(pid,)] = await writes.fetch(OWN_PID)

    await asyncio.to_thread(notes_database.query, "SELECT pg_terminate_backend(%s)", pid)
    await until_open(writes, 0)

    assert await writes.fetch("SELECT 1") == [(1,)]


async def test_a_connection_that_ends_while_the_loop_is_blocked_fails_no_write(
    make: Callable[..., StatementPool], notes_database: TestDatabase
) -> None:
    writes = make(is_writing=True)
    [(pid,)] = await writes.fetch(OWN_PID)

    notes_database.query("SELECT pg_terminate_backend(%s, 10000)", pid)  # returns once it has ended

    assert await writes.fetch("SELECT 1") == [(1,)]


async def test_a_cancelled_call_leaves_a_clean_connection_to_the_next(make: Callable[..., StatementPool]) -> None:
    reads = make()
    [(pid,)] = await reads.fetch(OWN_PID)
    patient = asyncio.ensure_future(reads.fetch("SELECT pg_sleep(0.2)"))
    await asyncio.sleep(0)  # a turn of the loop, in which it begins

    patient.cancel()

    assert await reads.fetch(OWN_PID) == [(pid,)]
    assert patient.cancelled()


async def test_calls_cancelled_at_any_time_fail_no_other_call(notes_database: TestDatabase) -> None:
    reads = StatementPool(Connector(database_settings(notes_database.url), name="test"), number=1, max_waiting=1000)
    pids: set[int] = set()
    when = random.Random(7)  # the same moments in each run

    async def read() -> None:
        [(pid,)] = await reads.fetch("SELECT pg_backend_pid() FROM pg_sleep(0.0005)")
        pids.add(pid)

    async def leave() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(read(), timeout=when.uniform(0, 0.3))

    # All at once, so that callers leave in every place: in the queue, on the way to the connection, on the connection.
    outcomes = await asyncio.gather(*(work() for _ in range(200) for work in (read, leave)), return_exceptions=True)
    reads.close()

    assert [outcome for outcome in outcomes if outcome is not None] == []
    assert len(pids) == 1


def test_a_connection_that_is_reset_after_a_word_is_noticed(notes_database: TestDatabase) -> None:
    # As PostgreSQL's are when it is killed. On uvloop, as in production: it tells of the word and not of the reset.
    with Proxy(notes_database.url) as proxy, pytest.raises(OutcomeUnknown):
        uvloop.run(run_and_reset(notes_database, proxy))


async def run_and_reset(database: TestDatabase, proxy: Proxy) -> None:
    connector = Connector(database_settings(proxy.url, statement_timeout_s=60), name="test")
    writes = StatementPool(connector, number=1, max_waiting=2, is_writing=True)
    # Named, since a server sleeps on for a client that has gone, as that of another test may have.
    statement = "SELECT pg_sleep(60) AS until_reset"
    running = asyncio.ensure_future(writes.fetch(statement))

    async def is_running() -> bool:
        query = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = %s"
        return bool(await asyncio.to_thread(database.query, query, statement))

    await until(is_running)
    proxy.end()  # while the loop stands still, so that it hears of both at once
    async with asyncio.timeout(10):
        await running


class Proxy:
    """Stands before the server for one connection, until it resets it after one last word."""

    NOTICE = b"N" + struct.pack("!i", 4 + 18) + b"SNOTICE\0Mthe end\0\0"

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = self._parts._replace(netloc=self._parts.netloc.replace(f":{self._parts.port}", f":{port}")).geturl()
        self._reset = threading.Event()
        self._thread = threading.Thread(target=self._forward)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._listener.close()

    def end(self) -> None:
        """Say the word and reset the connection; return when both are done. Twice does no harm."""
        self._reset.set()
        self._thread.join()

    def _forward(self) -> None:
        client, _ = self._listener.accept()
        with socket.create_connection((self._parts.hostname, self._parts.port)) as server:
            ends = {client: server, server: client}
            while not self._reset.is_set():
                readable, _, _ = select.select(list(ends), [], [], 0.01)
                for each in readable:
                    ends[each].sendall(each.recv(65536))
            client.sendall(self.NOTICE)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()


async def test_statements_that_wait_have_a_bound(make: Callable[..., StatementPool]) -> None:
    reads = make()
    running = [asyncio.ensure_future(reads.fetch("SELECT pg_sleep(0.2)")) for _ in range(3)]

    async def do_two_wait() -> bool:
        return reads.waiting == 2

    await until(do_two_wait)
    with pytest.raises(Overloaded):
        await reads.fetch("SELECT 1")

    assert len(await asyncio.gather(*running)) == 3
