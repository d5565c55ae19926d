"""A service's PostgreSQL database, from asyncio.

Statements are sync SQLAlchemy Core, run in lanes: threads that each use one connection of the pool. That costs a
fraction of what the async layer of SQLAlchemy does, and a lane is where calls can be put together.
"""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import psycopg
from sqlalchemy import Connection, create_engine, exc, text
from sqlalchemy.engine import make_url

from chassis import metrics, tracing
from chassis.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from chassis.settings import DatabaseSettings

T = TypeVar("T")

# A deadlock or a lost connection ends a transaction that could as well succeed; more than that is no coincidence.
_ATTEMPTS = 3


class Database:
    """The lanes to one database.

    Work is a function of a connection. It may be run again from the start when its transaction is lost, so it must do
    nothing but statements.
    """

    def __init__(self, settings: DatabaseSettings, *, name: str) -> None:
        milliseconds = {
            "statement_timeout": settings.statement_timeout_s * 1000,
            "lock_timeout": settings.lock_timeout_s * 1000,
            # A lane that dies between two statements must not hold its locks.
            "idle_in_transaction_session_timeout": 10_000,
        }
        self._engine = create_engine(
            sqlalchemy_url(str(settings.url)),
            # An error that is logged shows its statement, and must not show emails and hashes with it.
            hide_parameters=True,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=settings.connect_timeout_s,
            connect_args={
                "application_name": name,
                "connect_timeout": settings.connect_timeout_s,
                "options": " ".join(f"-c {key}={value:.0f}" for key, value in milliseconds.items()),
            },
        )
        # A read is one statement, which is a transaction of its own: BEGIN and COMMIT would be two round trips.
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lanes = ThreadPoolExecutor(settings.pool_size, thread_name_prefix="lane")
        tracing.trace_statements(self._engine)
        metrics.watch_pool(self._engine.pool, size=settings.pool_size, waiting=self._lanes._work_queue.qsize)  # noqa: SLF001  there is no other way to ask

    async def transaction(self, work: Callable[[Connection], T]) -> T:
        """Return what the work returns, once it is committed.

        READ COMMITTED. When the caller gives up while the work runs, the work goes on: only a request id can tell
        whether it took effect.

        Raises:
            DatabaseUnavailable: the database does not answer in time, or keeps refusing.
        """
        return await self._in_lane(self._transact, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what the work returns. Each of its statements sees its own snapshot.

        Raises:
            DatabaseUnavailable: the database does not answer in time.
        """
        return await self._in_lane(self._read, work)

    async def ping(self) -> None:
        """Return when the database has answered.

        Raises:
            DatabaseUnavailable: it does not.
        """
        await self.read(lambda connection: connection.execute(text("SELECT 1")))

    def close(self) -> None:
        """Wait for the work that is under way, then close every connection."""
        self._lanes.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()

    async def _in_lane(self, run: Callable[..., T], work: Callable[[Connection], T]) -> T:
        # The work sees the call it serves: threads of an executor do not inherit the context.
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._lanes, context.run, run, work)

    def _transact(self, work: Callable[[Connection], T]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            is_committing = False
            try:
                with self._engine.connect() as connection, connection.begin() as transaction:
                    result = work(connection)
                    is_committing = True
                    transaction.commit()
                    return result
            except exc.SQLAlchemyError as error:
                # A commit whose answer was lost may have happened: only the caller, with its request id, may repeat.
                if is_committing or attempt == _ATTEMPTS or not _is_worth_another_try(error):
                    raise _translated(error) from error
        raise AssertionError

    def _read(self, work: Callable[[Connection], T]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._reading.connect() as connection:
                    return work(connection)
            except exc.SQLAlchemyError as error:
                if attempt == _ATTEMPTS or not _is_worth_another_try(error):
                    raise _translated(error) from error
        raise AssertionError


def sqlalchemy_url(url: str) -> str:
    """Return the URL with the driver that we use: `postgresql://…` becomes `postgresql+psycopg://…`."""
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def broken_constraint(error: exc.IntegrityError) -> str:
    """Return the name of the constraint that a write broke, such as `users_email_key`."""
    cause = error.orig
    return (cause.diag.constraint_name or "") if isinstance(cause, psycopg.Error) else ""


def _is_worth_another_try(error: exc.SQLAlchemyError) -> bool:
    if not isinstance(error, exc.DBAPIError):
        return False
    # After a restart of the server every pooled connection is dead; the first to notice empties the pool.
    return error.connection_invalidated or isinstance(
        error.orig, (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
    )


def _translated(error: exc.SQLAlchemyError) -> Exception:
    """Return the error as the rest of the service knows it; a defect of ours stays what it is."""
    if isinstance(error, exc.TimeoutError):  # no free connection
        return DatabaseUnavailable()
    cause = error.orig if isinstance(error, exc.DBAPIError) else None
    if isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)):
        # Connection lost or refused, statement or lock timeout, shutdown, out of resources: all OperationalError.
        return DatabaseUnavailable()
    return error
