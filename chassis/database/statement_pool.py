"""Single statements, run on the event loop: the reads and writes of batches.

A statement of a batch is one round trip. In a thread most of its cost would be the waking of threads and SQLAlchemy;
here psycopg waits for the answer on the loop (ADR 22).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus

from chassis.concurrency.limiter import CapacityLimiter
from chassis.context import time_left_s
from chassis.database.connections import READ_MARK, new_mark
from chassis.database.failures import ATTEMPTS, is_retryable, is_session_unusable, pause_s, to_domain_error
from chassis.database.loop_connection import LoopConnection
from chassis.database.telemetry import StatementTelemetry
from chassis.errors import OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chassis.database.connections import Connector

    Rows: TypeAlias = Sequence[Sequence[Any]]

# How often connections are checked for overdue answers. A timer for each statement would cost 3 µs.
_LOOK_S: Final = 0.5
# Planned once and not at each execution: for these few statements the plan never depends on their parameters.
_PLANNED_ONCE: Final = "-c plan_cache_mode=force_generic_plan"


class Fetch(Protocol):
    """Runs one statement, a transaction of its own, with `%s` for each parameter."""

    async def __call__(self, statement: str, *parameters: object) -> Rows:
        """Return its rows; none for one that gives none."""


class StatementPool:
    """Connections for one kind of statements.

    Args:
        max_waiting: how many statements may wait for one of them.
        is_writing: whether the statements write, so that one whose answer is lost must not be sent again.
    """

    def __init__(self, connector: Connector, *, number: int, max_waiting: int, is_writing: bool = False) -> None:
        self._connector: Final = connector
        self._is_writing: Final = is_writing
        self._telemetry: Final = StatementTelemetry(connector.url)
        self._limiter: Final = CapacityLimiter(number, max_waiting=max_waiting)
        self._idle: Final[list[LoopConnection]] = []
        self._open: Final[set[LoopConnection]] = set()
        self._running: Final[set[asyncio.Task[Rows]]] = set()
        self._next_look: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many statements wait now."""
        return self._limiter.waiting

    @property
    def opened(self) -> int:
        """How many connections there are."""
        return sum(not connection.closed for connection in self._open)

    @property
    def idle(self) -> int:
        """How many of them are idle."""
        return sum(not connection.closed for connection in self._idle)

    async def fetch(self, statement: str, *parameters: object) -> Rows:
        """Run one statement, as Fetch says.

        Raises:
            DatabaseUnavailable: the database does not answer in time, or refuses each attempt; OutcomeUnknown, if the
                statement may be committed.
            Overloaded: too many others wait already.
        """
        await self._limiter.acquire()
        # If the caller leaves, the statement continues: to cancel it, the connection would have to be closed, for which
        # other statements wait.
        running = asyncio.create_task(self._run_and_release(statement, parameters))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return await asyncio.shield(running)

    async def _run_and_release(self, statement: str, parameters: Sequence[object]) -> Rows:
        try:
            return await self._run(statement, parameters)
        finally:
            self._limiter.release()

    async def _run(self, statement: str, parameters: Sequence[object]) -> Rows:
        within_s = self._connector.answer_timeout_s
        for attempt in range(1, ATTEMPTS + 1):
            if attempt > 1:
                await asyncio.sleep(pause_s())
            connection: LoopConnection | None = None
            try:
                connection = await self._connection()
                with self._telemetry.begin(statement):
                    return await connection.rows_of(statement, parameters, within_s=within_s)
            except psycopg.Error as error:
                if connection is not None and is_session_unusable(error):
                    self._drop_all()
                    connection = None
                is_lost = connection is not None and connection.closed
                if is_lost and self._is_writing:
                    raise OutcomeUnknown from error
                left_s = time_left_s()
                if attempt == ATTEMPTS or left_s <= 0 or not (is_lost or is_retryable(error)):
                    raise to_domain_error(error) from error
                # The first attempt has the statement's time, the others what is left until the last caller leaves.
                within_s = min(within_s, left_s)
            finally:
                if connection is not None:
                    self._give_back(connection)
        raise AssertionError

    async def _connection(self) -> LoopConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and not connection.has_unread_input():
                return connection
            self._drop(connection)
        if self._next_look is None:
            self._end_overdue()
        return await self._connect()

    def _end_overdue(self) -> None:
        """End connections whose answer is overdue, now and again until close()."""
        for connection in self._open:
            if connection.is_overdue():
                connection.end()
        self._next_look = asyncio.get_running_loop().call_later(_LOOK_S, self._end_overdue)

    async def _connect(self) -> LoopConnection:
        """Return a connection to the server itself, or else to the pooler in between, as Connector.connect() does."""
        connector = self._connector
        if not connector.is_pooled and (connection := await self._connect_directly()):
            return connection
        connection = await LoopConnection.connect(**connector.pooled_arguments())
        self._open.add(connection)
        connection.watch_for_input(connector)
        connection.is_pooled = True
        return connection

    async def _connect_directly(self) -> LoopConnection | None:
        mark = new_mark()
        try:
            connection = await LoopConnection.connect(**self._connector.arguments(mark, more=_PLANNED_ONCE))
        except psycopg.OperationalError as error:
            self._connector.require_pooler(error)
            return None
        self._open.add(connection)
        connection.watch_for_input(self._connector)
        try:
            if await connection.rows_of(READ_MARK, (), within_s=self._connector.answer_timeout_s) == [(mark,)]:
                return connection
        except BaseException:
            self._drop(connection)
            raise
        self._drop(connection)
        self._connector.found_pooler()
        return None

    def _give_back(self, connection: LoopConnection) -> None:
        # The answer to a cancelled statement may still come: the next statement would take it for its own.
        if connection.pgconn.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: LoopConnection) -> None:
        self._open.discard(connection)
        connection.end()

    def _drop_all(self) -> None:
        for connection in list(self._open):
            self._drop(connection)

    def close(self) -> None:
        """End what runs and close every connection."""
        for running in self._running:
            running.cancel()
        if self._next_look is not None:
            self._next_look.cancel()
        self._drop_all()
