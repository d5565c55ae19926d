"""A connection whose statements are run on the event loop (ADR 22)."""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
import select
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import orjson
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.json import set_json_loads
from psycopg.waiting import READY_R, READY_W, WAIT_W
from typing_extensions import override

from chassis.database.connections import NotReplicated, is_not_replicated
from chassis.database.failures import hide_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.abc import PQGen

    from chassis.database.connections import Connector
    from chassis.database.statement_pool import Rows

    _Cursor: TypeAlias = psycopg.AsyncCursor[tuple[Any, ...]]

T = TypeVar("T")

# How often a send buffer that is full is looked at again.
_FULL_S: Final = 0.01


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
        self.add_notice_handler(self._on_notice)
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
        """Run a statement and return its rows. Without an answer the pool ends the connection after `within_s`."""
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
        except psycopg.Error as error:
            hide_values(error, is_statement_shown=not self.is_pooled)
            raise
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
        # uvloop reports a reset once and never again, even if there is input to read before it.
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

    def _on_notice(self, notice: psycopg.errors.Diagnostic) -> None:
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
