"""Rows that one transaction locks and another one waits for."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from tests.integration.databases import transaction
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from sqlalchemy import Connection

    from tests.integration.databases import TestDatabase

    Work = Callable[[Connection], object]


def row_of(table: str, number: UUID) -> str:
    return f"SELECT 1 FROM {table} WHERE id = '{number}' FOR UPDATE"


def is_free(database: TestDatabase, row: str) -> bool:
    """Return whether the row is unlocked."""
    try:
        database.query(f"{row} NOWAIT")
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def locking(row: str) -> Work:
    return lambda connection: connection.exec_driver_sql(row)


@contextmanager
def holding(database: TestDatabase, work: Work) -> Iterator[None]:
    """Have the locks of the work while the block runs."""
    with transaction(database) as connection:
        work(connection)
        yield


@contextmanager
def waiting(database: TestDatabase, work: Work, *, behind: Work) -> Iterator[None]:
    """Run the work in a transaction that waits while the block runs for one that has the locks of the other work."""

    def run() -> None:
        with transaction(database) as connection:
            work(connection)

    thread = threading.Thread(target=run)
    with holding(database, behind):
        thread.start()
        until(lambda: database.waiting() > 0)
        yield
    thread.join(10)
    assert not thread.is_alive()
