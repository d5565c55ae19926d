"""Rows by their keys, and copies of another service's resources, in tables that belong to no service."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Text, Uuid, column, create_engine, select, table

from chassis.database.keyed import KeyedRows, Lookup
from chassis.events.copies import Copies
from chassis.server.pagination import PageRequest
from tests.support.builders import NOON, OTHER_ID, SOME_ID
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine

    from devstack.postgres import PostgresServer

OWNER: Final = UUID(SOME_ID)
STRANGER: Final = UUID(OTHER_ID)
# What an array of PostgreSQL or JSON would take for its own.
SKUS: Final = ("tea-1", 'te"a', "te\\a", "te,a", "{tea}", "NULL", "thé", " ")

CUPS: Final = table("cups", column("sku", Text), column("owner_id", Uuid), column("size"))


def cup_of(columns: Sequence[Any]) -> tuple[str, int]:
    sku, _owner, size = columns
    return sku, size


BY_SKU: Final = KeyedRows(list(CUPS.c), cup_of, owner=CUPS.c.owner_id)
UNOWNED: Final = KeyedRows(list(CUPS.c), cup_of)
BY_OWNER: Final = KeyedRows([CUPS.c.owner_id, CUPS.c.sku, CUPS.c.size], lambda columns: columns[1])
COPIES: Final = Copies("copies", {"sku": "text", "state": "text"}, copied_at="copied_at", final="state = 'GONE'")


@pytest.fixture(scope="module")
def engine(postgres: PostgresServer) -> Iterator[Engine]:
    """A database with a cup of each SKU, the second of the others'."""
    postgres.create_database("keyed")
    url = postgres.superuser_url("keyed")
    made = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with made.begin() as connection:
        connection.exec_driver_sql("""
            CREATE TABLE cups (sku text PRIMARY KEY, owner_id uuid NOT NULL, size integer NOT NULL);
            CREATE TABLE copies (
                sku text NOT NULL, state text NOT NULL, copied_at timestamptz NOT NULL,
                CONSTRAINT copies_pkey PRIMARY KEY (sku)
            );
        """)
        for size, sku in enumerate(SKUS):
            owner = STRANGER if size == 1 else OWNER
            connection.exec_driver_sql("INSERT INTO cups VALUES (%s, %s, %s)", (sku, owner, size))
    yield made
    made.dispose()
    postgres.drop_database("keyed")


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A transaction that is rolled back."""
    with engine.connect() as opened, opened.begin() as transaction:
        yield opened
        transaction.rollback()


def found(connection: Connection, *lookups: Lookup[Any], rows: KeyedRows[Any] = BY_SKU) -> list[Any]:
    return rows.lock(connection, lookups, wait=True)


def test_every_text_is_found_as_a_key(connection: Connection) -> None:
    assert found(connection, *map(Lookup, SKUS)) == [(sku, size) for size, sku in enumerate(SKUS)]


def test_each_lookup_has_its_answer_in_its_place(connection: Connection) -> None:
    wanted = [SKUS[3], "unknown", SKUS[0], SKUS[3], "null"]

    assert found(connection, *map(Lookup, wanted)) == [(SKUS[3], 3), None, (SKUS[0], 0), (SKUS[3], 3), None]
    assert found(connection) == []


def test_an_owner_finds_only_their_own(connection: Connection) -> None:
    lookups = [Lookup(SKUS[0], OWNER), Lookup(SKUS[1], OWNER), Lookup(SKUS[1], STRANGER), Lookup(SKUS[1])]

    assert found(connection, *lookups) == [(SKUS[0], 0), None, (SKUS[1], 1), (SKUS[1], 1)]


def test_an_owner_finds_nothing_where_rows_have_none(connection: Connection) -> None:
    assert found(connection, Lookup(SKUS[0]), Lookup(SKUS[0], OWNER), rows=UNOWNED) == [(SKUS[0], 0), None]


def test_a_key_may_be_a_uuid(connection: Connection) -> None:
    assert found(connection, Lookup(STRANGER), rows=BY_OWNER) == [SKUS[1]]


async def test_rows_are_found_as_they_are_locked(connection: Connection) -> None:
    async def fetch(statement: str, *parameters: object) -> Any:
        return connection.exec_driver_sql(statement, parameters).all()

    assert await BY_SKU.find(fetch, [Lookup(SKUS[2]), Lookup("unknown")]) == [(SKUS[2], 2), None]


def test_a_row_that_another_transaction_has_locked_is_waited_for_or_left_out(engine: Engine) -> None:
    lookups = [Lookup(SKUS[0]), Lookup(SKUS[1])]
    with engine.begin() as first, engine.begin() as second:
        found(first, Lookup(SKUS[0]))

        assert BY_SKU.lock(second, lookups, wait=False) == [None, (SKUS[1], 1)]

        second.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
        with pytest.raises(Exception, match="lock timeout"):
            BY_SKU.lock(second, lookups, wait=True)


def test_rows_are_locked_in_the_order_of_their_keys(engine: Engine) -> None:
    first, last = sorted(["NULL", "tea-1"])

    def is_free(sku: str) -> bool:
        with engine.begin() as other:
            return BY_SKU.lock(other, [Lookup(sku)], wait=False) != [None]

    with waiting_for(engine, Lookup(last), Lookup(first), held=first):
        assert is_free(last)


@contextmanager
def waiting_for(engine: Engine, *lookups: Lookup[str], held: str) -> Iterator[None]:
    """Lock the rows in a thread, which waits while the block runs because one of them is held."""

    def lock() -> None:
        with engine.begin() as connection:
            found(connection, *lookups)

    def is_waiting() -> bool:
        query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with engine.begin() as watching:
            return watching.exec_driver_sql(query).first() is not None

    thread = threading.Thread(target=lock)
    with engine.begin() as holding:
        found(holding, Lookup(held))
        thread.start()
        until(is_waiting)
        yield
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(("is_reversed", "size"), [(False, 3), (True, 3), (False, 50)])
def test_pages_walk_through_every_row(connection: Connection, *, is_reversed: bool, size: int) -> None:
    walked: list[str] = []
    page, has_more = PageRequest[str](size, None), True
    while has_more:
        limited = page.newest_first if is_reversed else page.in_order
        rows, has_more = page.split(connection.execute(limited(select(CUPS.c.sku), CUPS.c.sku)).scalars().all())
        walked += rows
        page = PageRequest(size, rows[-1])

    in_order = connection.exec_driver_sql("SELECT sku FROM cups ORDER BY sku").scalars().all()
    assert walked == list(in_order)[:: -1 if is_reversed else 1]


def states(connection: Connection) -> list[tuple[Any, ...]]:
    rows = connection.exec_driver_sql("SELECT sku, state, copied_at = now() FROM copies ORDER BY sku")
    return [tuple(row) for row in rows]


def test_a_copy_has_the_newest_state_until_a_final_one(connection: Connection) -> None:
    COPIES.put(connection, [{"sku": sku, "state": "NEW"} for sku in ("a", "b")])
    connection.exec_driver_sql("UPDATE copies SET copied_at = %s", (NOON,))

    COPIES.put(connection, [{"sku": "b", "state": "OLD"}, {"sku": "c", "state": "GONE"}])
    assert states(connection) == [("a", "NEW", False), ("b", "OLD", True), ("c", "GONE", True)]

    COPIES.put(connection, [{"sku": "b", "state": "GONE"}, {"sku": "c", "state": "NEW"}])
    assert states(connection)[1:] == [("b", "GONE", True), ("c", "GONE", True)]


def test_no_copies_are_no_statement(connection: Connection) -> None:
    COPIES.put(connection, [])

    assert states(connection) == []


def test_copies_are_written_in_the_order_of_their_keys(connection: Connection) -> None:
    COPIES.put(connection, [{"sku": sku, "state": "NEW"} for sku in ("c", "a", "b")])

    written = connection.exec_driver_sql("SELECT sku FROM copies ORDER BY ctid").scalars().all()
    assert list(written) == ["a", "b", "c"]
