"""A service's PostgreSQL database, from asyncio.

Transactions and lists are sync SQLAlchemy Core in threads, each with a connection of the pool: that costs a fraction of
SQLAlchemy's async layer. Batches of single statements (`chassis.concurrency.batcher`) run on the event loop, with
connections of their own (`chassis.database.statement_pool`), so that a list or a sweep delays no single row.
"""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

from sqlalchemy import Connection, create_engine, event, exc

from chassis.concurrency.batcher import Answer, Batcher, BatchLimits
from chassis.concurrency.loop_load import LoopLoad
from chassis.context import time_left_s
from chassis.database.connections import Connector
from chassis.database.failures import ATTEMPTS, is_retryable, is_session_unusable, pause_s, to_domain_error
from chassis.database.statement_pool import StatementPool
from chassis.database.statements import execute
from chassis.database.telemetry import StatementTelemetry
from chassis.database.threads import DatabaseThreads
from chassis.errors import DatabaseUnavailable, OutcomeUnknown
from chassis.telemetry.metrics.database import watch_connections

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from sqlalchemy import ExceptionContext
    from sqlalchemy.pool import QueuePool

    from chassis.clock import Clock
    from chassis.database.connections import ThreadConnection
    from chassis.database.settings import DatabaseSettings
    from chassis.database.statement_pool import Fetch, Rows

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Database:
    """The connections to one database.

    Work is a function of a connection. If its transaction is lost the work is run again from the start, so it must do
    nothing but run statements.
    """

    def __init__(self, settings: DatabaseSettings, *, name: str) -> None:
        self._connector: Final = Connector(settings, name=name)
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connector.connect,
            # An error that is logged shows its statement, and must not show emails and hashes with it.
            hide_parameters=True,
            pool_size=settings.transaction_lanes + settings.shared_connections,
            max_overflow=0,
            pool_timeout=settings.connect_timeout_s,
        )
        event.listen(self._engine, "begin", self._begin)
        event.listen(self._engine, "handle_error", _discard_unusable_session)
        # A read is one statement, which is a transaction of its own: BEGIN and COMMIT would be two round trips.
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        connector, max_waiting = self._connector, settings.batch_max_waiting
        self._reads = StatementPool(connector, number=settings.read_lanes, max_waiting=max_waiting)
        self._writes = StatementPool(connector, number=settings.write_lanes, max_waiting=max_waiting, is_writing=True)
        # At most as long as one statement: a call is then answered or refused within its 15 s over REST.
        threads = partial(DatabaseThreads, max_waiting=max_waiting, max_wait_s=settings.statement_timeout_s)
        self._transactions = threads("transactions", settings.transaction_lanes)
        self._shared = threads("shared", settings.shared_connections)
        self._settings = settings
        self._loop_load: Final = LoopLoad()
        telemetry = StatementTelemetry(settings.url)
        telemetry.observe(self._engine)
        watch_connections(telemetry.database, count=self._count, size=settings.pool_size, waiting=self._waiting)

    async def fetch(self, statement: str, *parameters: object) -> Rows:
        """Return the rows of a statement that reads, on connections that lists and sweeps do not use.

        Raises:
            DatabaseUnavailable: the database does not answer in time.
            Overloaded: too many others wait already.
        """
        return await self._reads.fetch(statement, *parameters)

    async def fetch_for_write(self, statement: str, *parameters: object) -> Rows:
        """Return the rows of a statement that writes, once it is committed, on connections that sweeps do not use.

        Raises:
            DatabaseUnavailable, OutcomeUnknown, Overloaded: as transaction().
        """
        return await self._writes.fetch(statement, *parameters)

    async def fetch_on_shared_pool(self, statement: str, *parameters: object) -> Rows:
        """Return the rows of a statement that reads or writes, on the shared pool, together with lists and sweeps."""
        return await self.transaction(lambda connection: execute(connection, statement, *parameters))

    def batched_reads(
        self,
        find: Callable[[Fetch, Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        name: str,
        max_items: int | None = None,
    ) -> Batcher[Item, Result]:
        """Return a batcher of reads: concurrent ones are one call of `find`.

        If a batch fails, its items are run one by one on the shared pool.

        Args:
            find: gives the answers to the items, in their order; it is given the function that runs its statements.
            name: of the batches, for metrics and traces.
            max_items: the largest batch, if that of the settings is too large.
        """

        async def together(items: Sequence[Item]) -> Sequence[Result | Exception]:
            return await find(self.fetch, items)

        async def alone(items: Sequence[Item]) -> Sequence[Result | Exception]:
            return await find(self.fetch_on_shared_pool, items)

        limits = self.limits(at_once=self._settings.read_lanes, max_items=max_items)
        return Batcher(together, name=name, alone=alone, limits=limits)

    def batched_writes(
        self,
        write: Callable[[Connection, Sequence[Item]], Sequence[Answer[Result]]],
        *,
        name: str,
        write_alone: Callable[[Connection, Sequence[Item]], Sequence[Answer[Result]]],
    ) -> Batcher[Item, Result]:
        """Return a batcher of writes: concurrent ones are one call of `write`, which is one transaction.

        If a batch fails, its items are run one by one on the shared pool; so are items answered with RETRY_ALONE.

        Args:
            write: gives the answers to the items, in their order. It must not wait for rows that others have locked.
            name: of the batches, for metrics and traces.
            write_alone: the same for one item, which may wait.
        """

        async def together(items: Sequence[Item]) -> Sequence[Answer[Result]]:
            return await self._transactions.run(
                lambda: self._run(lambda connection: write(connection, items), is_writing=True)
            )

        async def alone(items: Sequence[Item]) -> Sequence[Answer[Result]]:
            return await self.transaction(lambda connection: write_alone(connection, items))

        return Batcher(together, name=name, alone=alone, limits=self.limits(at_once=self._settings.transaction_lanes))

    def limits(self, *, at_once: int, max_items: int | None = None) -> BatchLimits:
        """Return the limits of a batcher that sends `at_once` batches at a time."""
        settings = self._settings
        return BatchLimits(
            linger_s=settings.batch_linger_s,
            pays_to_wait=self._loop_load.is_short_of_cpu,
            max_items=max_items or settings.batch_max_items,
            max_waiting=settings.batch_max_waiting,
            at_once=at_once,
        )

    async def transaction(self, work: Callable[[Connection], T]) -> T:
        """Return what the work returns, once it is committed.

        READ COMMITTED. If the caller leaves while the work runs, the work is finished: only its idempotency key shows
        whether it took effect.

        Raises:
            DatabaseUnavailable: the database does not answer in time, or refuses each attempt; OutcomeUnknown, if the
                transaction may be committed.
            Overloaded: too many others wait already.
        """
        return await self._shared.run(lambda: self._run(work, is_writing=True))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what the work returns. Each of its statements sees its own snapshot.

        Raises:
            DatabaseUnavailable: the database does not answer in time.
            Overloaded: too many others wait already.
        """
        return await self._shared.run(lambda: self._run(work, is_writing=False))

    async def ping(self) -> None:
        """Return when the database has answered.

        Raises:
            DatabaseUnavailable: it does not.
            Overloaded: too many others wait already.
        """
        await self.fetch("SELECT 1")

    async def close(self) -> None:
        """Wait for the work that runs in threads, then close every connection."""
        await asyncio.to_thread(self._close_threads)
        self._reads.close()
        self._writes.close()

    def _close_threads(self) -> None:
        self._transactions.close()
        self._shared.close()
        self._engine.dispose()

    def _waiting(self) -> int:
        return sum(each.waiting for each in (self._reads, self._writes, self._transactions, self._shared))

    def _count(self) -> tuple[int, int]:
        """Return how many connections are in use and how many idle."""
        pool = cast("QueuePool", self._engine.pool)
        idle = pool.checkedin() + self._reads.idle + self._writes.idle
        return pool.checkedout() + self._reads.opened + self._writes.opened - self._reads.idle - self._writes.idle, idle

    def _begin(self, connection: Connection) -> None:
        """Begin a transaction with the settings' timeouts, in one round trip, where the session has none."""
        driven = _driven(connection)
        driven.answer_timeout_s = self._connector.answer_timeout_s
        if driven.is_pooled:
            driven.autocommit = True  # otherwise the driver begins one itself
            connection.exec_driver_sql(f"BEGIN ISOLATION LEVEL READ COMMITTED; {self._connector.timeouts}")

    def _run(self, work: Callable[[Connection], T], *, is_writing: bool) -> T:
        """Run the work in this thread, again from the start if its transaction is lost."""
        for attempt in range(1, ATTEMPTS + 1):
            # Behind a pooler each statement of a read would need its timeouts, so they are one transaction.
            engine = self._engine if is_writing or self._connector.is_pooled else self._reading
            is_committing = False
            try:
                with engine.connect() as connection, connection.begin() as transaction:
                    if attempt > 1:
                        _wait_no_longer_than_callers(connection)
                    result = work(connection)
                    is_committing = is_writing
                    transaction.commit()
                    return result
            except exc.SQLAlchemyError as error:
                translated = to_domain_error(error)
                if is_committing and isinstance(translated, DatabaseUnavailable):
                    raise OutcomeUnknown from error
                if attempt == ATTEMPTS or time_left_s() <= 0 or not is_retryable(error):
                    raise translated from error
                time.sleep(pause_s())
        raise AssertionError


async def earlier_now(database: Database, clock: Clock) -> datetime:
    """Return the time now, by the clock or by the database's, whichever is earlier.

    For sweeps: a replica whose clock is ahead must not remove what all the others still need.
    """
    [(by_database,)] = await database.fetch("SELECT now()")
    earlier: datetime = min(clock.now(), by_database)
    return earlier


def allow(connection: Connection, *, timeout_s: float) -> None:
    """Set the timeout of each statement of this transaction, instead of the settings' `statement_timeout_s`."""
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {timeout_s * 1000:.0f}")
    _driven(connection).answer_timeout_s = timeout_s + 1


def _driven(connection: Connection) -> ThreadConnection:
    return cast("ThreadConnection", connection.connection.driver_connection)


def _wait_no_longer_than_callers(connection: Connection) -> None:
    driven = _driven(connection)
    driven.answer_timeout_s = max(0.001, min(driven.answer_timeout_s or math.inf, time_left_s()))


def _discard_unusable_session(failure: ExceptionContext) -> None:
    if is_session_unusable(failure.original_exception):
        failure.is_disconnect = True  # empties the pool: the other connections are no better
