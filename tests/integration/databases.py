"""Databases of tests: copies of a migrated one, to look at and to empty."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import create_engine

from chassis.testing import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from devstack.postgres import PostgresServer

_numbers = itertools.count(1)


# Only tables with rows are truncated: an empty one costs a millisecond of CPU, and a service has eleven.
_EMPTY: Final = """
    DO $$
    DECLARE
        name text;
        has_rows boolean;
    BEGIN
        FOR name IN
            SELECT format('%%I.%%I', schemaname, tablename)
            FROM pg_tables
            WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'signing_keys')
        LOOP
            EXECUTE 'SELECT EXISTS (SELECT FROM ' || name || ')' INTO has_rows;
            IF has_rows THEN
                EXECUTE 'TRUNCATE ' || name || ' CASCADE';
            END IF;
        END LOOP;
        FOR name IN SELECT format('%%I.%%I', schemaname, sequencename) FROM pg_sequences WHERE last_value IS NOT NULL
        LOOP
            EXECUTE 'ALTER SEQUENCE ' || name || ' RESTART';
        END LOOP;
    END
    $$
"""


class TestDatabase:
    """A service's database, for one test.

    Attributes:
        url: where a service finds it.
    """

    __test__ = False

    def __init__(self, url: str) -> None:
        self.url = url
        # At most one, for the next query: a connection costs 8 ms of CPU, and conditions are polled.
        self._idle: list[psycopg.Connection[Any]] = []

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the statement's rows; an empty list if it returns none. It is committed at once.

        Concurrent queries run on connections of their own.
        """
        if connection := self._take():
            with contextlib.suppress(psycopg.OperationalError):  # the server has ended the idle connection
                return self._rows(connection, statement, parameters)
        return self._rows(psycopg.connect(self.url, autocommit=True), statement, parameters)

    def connect(self) -> contextlib.closing[psycopg.Connection[Any]]:
        """Return a connection of its own; each statement is committed at once, outside of BEGIN."""
        return contextlib.closing(psycopg.connect(self.url, autocommit=True))

    @contextlib.contextmanager
    def locked(self, statement: str, *parameters: object) -> Iterator[None]:
        """Hold the locks of the statement while the block runs."""
        with self.connect() as other:
            other.execute("BEGIN")
            other.execute(statement.encode(), parameters)
            yield

    def everything(self) -> str:
        """Return every row of every table, as text."""
        tables = self.query("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        rows = [row for (table,) in tables for row in self.query(f"SELECT t::text FROM {table} AS t")]
        return "\n".join(text for (text,) in rows)

    def empty(self) -> None:
        """Remove every row that a test has left, and restart every sequence."""
        self.query(_EMPTY)

    def waiting(self) -> int:
        """Return the number of this database's sessions that wait for a lock."""
        [(count,)] = self.query(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(count)

    async def until_waiting(self, number: int = 1) -> None:
        """Return once this number of the database's sessions wait for a lock."""

        async def do_wait() -> bool:
            return await asyncio.to_thread(self.waiting) == number

        await until(do_wait)

    def close(self) -> None:
        """Close the idle connection."""
        while connection := self._take():
            connection.close()

    def _take(self) -> psycopg.Connection[Any] | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _rows(
        self, connection: psycopg.Connection[Any], statement: str, parameters: Sequence[object]
    ) -> list[tuple[Any, ...]]:
        try:
            cursor = connection.execute(statement.encode(), parameters, prepare=False)
            return cursor.fetchall() if cursor.description else []
        finally:
            is_clean = connection.info.transaction_status is TransactionStatus.IDLE
            if is_clean and not self._idle:
                self._idle.append(connection)
            else:
                connection.close()


@contextlib.contextmanager
def fresh_database(server: PostgresServer, template: str) -> Iterator[TestDatabase]:
    """Make a copy of the template, for the time of the block."""
    name = f"{template}_{os.getpid()}_{next(_numbers)}"
    server.create_database(name, template=template)
    database = TestDatabase(server.superuser_url(name))
    try:
        yield database
    finally:
        database.close()
        server.drop_database(name)


@contextlib.contextmanager
def transaction(database: TestDatabase) -> Iterator[Connection]:
    """Open a transaction, committed at the end of the block."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database.url))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.exec_driver_sql(query)]


@contextlib.contextmanager
def read_only(database: TestDatabase) -> Iterator[None]:
    """Let the database take no writes in the block, as that of a standby and a disk that is full."""
    name = database.query("SELECT quote_ident(current_database())")[0][0]
    others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
    database.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database.query(f"{others} AND pid <> pg_backend_pid()")
    try:
        yield
    finally:
        with database.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
        database.close()  # a connection from within the block would stay read-only
