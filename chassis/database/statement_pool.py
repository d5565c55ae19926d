"""Single statements, run on the event loop: the reads and writes of batches.

A statement of a batch is one round trip. In a lane most of its price is the waking of threads and what SQLAlchemy adds;
here psycopg waits for the answer on the loop (ADR 22).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
import select
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

import orjson
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.json import set_json_loads
from psycopg.waiting import READY_R, READY_W, WAIT_W
from typing_extensions import override

from chassis.concurrency.limiter import CapacityLimiter
from chassis.context import time_left_s
from chassis.database.connections import READ_MARK, NotReplicated, is_not_replicated, new_mark
from chassis.database.failures import ATTEMPTS, is_retryable, is_session_unusable, pause_s, to_domain_error
from chassis.database.telemetry import StatementTelemetry
from chassis.errors import OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.abc import PQGen

    from chassis.database.connections import Connector

    Rows: TypeAlias = Sequence[Sequence[Any]]
    _Cursor: TypeAlias = psycopg.AsyncCursor[tuple[Any, ...]]

T = TypeVar("T")

_FULL_S: Final = 0.01
# How often connections are looked at whose answer may be overdue: a timer for each statement would cost 3 µs.
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
        connector: opens them.
        number: of connections.
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
            DatabaseUnavailable: the database does not answer in time, or keeps refusing; OutcomeUnknown, if it may be
                committed all the same.
            Overloaded: too many others wait already.
        """
        await self._limiter.acquire()
        # A caller that leaves ends its wait and not the statement: the connection, which others wait for, would have to
        # be closed. The turn ends with the statement.
        running = asyncio.create_task(self._run_in_turn(statement, parameters))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return await asyncio.shield(running)

    async def _run_in_turn(self, statement: str, parameters: Sequence[object]) -> Rows:
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
        # Of a statement that was cancelled an answer may still come, which would be the next one's.
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
        self._idle.clear()

    def close(self) -> None:
        """End what runs and close every connection."""
        for running in self._running:
            running.cancel()
        if self._next_look is not None:
            self._next_look.cancel()
        self._drop_all()


class LoopConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection whose socket stays registered with the loop for as long as it lives.

    psycopg's own registers and unregisters it for each answer, which takes as long as the rest of a short statement.

    Attributes:
        is_pooled: each transaction has another session.
        is_on_one_disk: a commit was acknowledged that no standby has.
    """

    is_pooled: bool = False
    is_on_one_disk: bool = False

    def watch_for_input(self, connector: Connector) -> None:
        """Register with the loop; once, after it is connected."""
        set_json_loads(orjson.loads, self)
        self._timeouts = connector.timeouts
        self._due_s = 0.0
        self._is_waiting = self._has_ended = False
        self.add_notice_handler(self._hear_notice)
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[None] | None = None
        self._cursor = psycopg.AsyncRawCursor(self)
        self._socket = self.pgconn.socket
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._writable.register(self._socket, select.POLLOUT)
        self._loop.add_reader(self._socket, self._on_readable)

    def has_unread_input(self) -> bool:
        """Return whether there is something to read, or an error."""
        return bool(self._readable.poll(0))

    async def rows_of(self, statement: str, parameters: Sequence[object], *, within_s: float) -> Rows:
        """Run a statement and return its rows, or be ended soon after `within_s`."""
        self._due_s = self._loop.time() + within_s
        if self.is_pooled:
            cursor = await self._in_any_session(statement, parameters)
        else:
            cursor = await self._cursor.execute(_numbered(statement), parameters, binary=True)
        # Not `description`: it describes each column, in as long as ten rows take.
        return await cursor.fetchall() if cursor.pgresult and cursor.pgresult.nfields else ()

    def is_overdue(self) -> bool:
        """Return whether the answer to a statement should be there by now."""
        return self._loop.time() > self._due_s and self.pgconn.transaction_status == TransactionStatus.ACTIVE

    async def _in_any_session(self, statement: str, parameters: Sequence[object]) -> _Cursor:
        # One text is one round trip and one transaction: with its timeouts, which end with it.
        together = f"{self._timeouts}; {statement}"
        cursor = await psycopg.AsyncClientCursor(self).execute(together.encode(), parameters)
        return await cursor.set_result(-1)  # of the last of them

    @override
    async def wait(self, gen: PQGen[T], interval: float = 0, timeout: float | None = None) -> T:
        try:
            state = next(gen)
            while True:
                self._is_waiting = True
                if state & WAIT_W:
                    # The loop listens for answers only.
                    while not (self._writable.poll(0) or self._has_ended):  # noqa: ASYNC110  see above
                        await asyncio.sleep(_FULL_S)
                else:
                    await self._wait_readable()
                self._is_waiting = False
                if self._has_ended:
                    raise psycopg.OperationalError("the connection was given up")
                state = gen.send(READY_W if state & WAIT_W else READY_R)
        except StopIteration as ended:
            if self.is_on_one_disk:
                self.end()
                raise NotReplicated from None
            result: T = ended.value
            return result
        except asyncio.CancelledError:
            self.end()  # the answer will come when no statement waits for it
            raise
        finally:
            self._is_waiting = False
            # libpq closes the socket of a connection that is lost, and its number may be another connection's next. If
            # the loop still listened to it then, uvloop would abort the process.
            if self._has_ended or self.closed:
                self.end()

    async def _wait_readable(self) -> None:
        # Of a reset uvloop tells once and never again, whatever there still is to read before it.
        if not self.has_unread_input() and not self._has_ended:
            self._answer = self._loop.create_future()
            await self._answer

    def _on_readable(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
        elif self.pgconn.transaction_status == TransactionStatus.IDLE and self.has_unread_input():
            # Input on an idle connection means that the server is closing it. Close it now, so that no write is sent
            # whose outcome would be unknown. Without unread input this is asyncio reporting an answer that was read in
            # the same turn of the loop.
            self.end()

    def _hear_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        if is_not_replicated(notice):
            self.is_on_one_disk = True

    def end(self) -> None:
        """Close it; twice does no harm."""
        if self._socket >= 0:
            self._loop.remove_reader(self._socket)
            self._socket = -1  # the number may be another connection's next
        self._has_ended = True
        if not self._is_waiting:  # the driver, which waits, would use freed memory
            self.pgconn.finish()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)  # its waiter finds the connection closed


@functools.cache
def _numbered(statement: str) -> str:
    """Return the statement with `$1`, `$2`, … for each `%s`, as the server wants it."""
    numbers = itertools.count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", statement)
