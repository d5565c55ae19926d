"""A service whose keys are texts that its callers choose: its events, its stored responses, its refusals."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import pytest
from pydantic import TypeAdapter
from sqlalchemy import Text, column, table

from chassis.clock import SystemClock
from chassis.database.keyed import KeyedRows, Lookup
from chassis.database.statements import as_json
from chassis.errors import AlreadyExists, AnswerErased
from chassis.events import outbox
from chassis.events.outbox import Event
from chassis.idempotency import store
from chassis.idempotency.inserts import IdempotentInserts, Insert, insert_once
from chassis.idempotency.key import IdempotencyKey
from chassis.idempotency.store import ResponseCodec
from chassis.idempotency.transactions import write_once
from chassis.testing import until
from chassis.watch import changefeed
from tests.integration.conftest import TestDatabase
from tests.integration.event_flow import consumer, opened, relay, running
from tests.support.base_tables import create_base_tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from chassis.database import Database
    from chassis.database.statement_pool import Fetch
    from chassis.events.cloudevents import CloudEvent
    from devstack.postgres import PostgresServer

# The third is written as a UUID is, and is a text all the same.
SKUS: Final = ("tea-1", "a", "019b2f0a-7d1c-7e3a-9c55-0d6b8f1a2c3d", "z" * 63)


@dataclass(frozen=True)
class Item:
    id: str
    name: str


class ItemExists(AlreadyExists):
    """There is an item with this SKU."""

    reason = "ITEM_EXISTS"

    def __init__(self, sku: str) -> None:
        super().__init__("There is one.", metadata={"sku": sku})


ITEM: Final = ResponseCodec.of(TypeAdapter(Item), resource_id=attrgetter("id"))
ROWS: Final = KeyedRows([*table("items", column("id", Text), column("name")).c], lambda row: Item(*row))
INSERT: Final = insert_once(
    columns="id text, name text",
    inserts="inserted AS (INSERT INTO items (id, name) SELECT id, name FROM fresh RETURNING id)",
    returning="SELECT id FROM inserted",
    key="text",
)


async def insert_items(fetch: Fetch, inserts: Sequence[Insert[Item]]) -> set[str]:
    rows = [{"id": each.resource.id, "name": each.resource.name, **each.row()} for each in inserts]
    return {sku for (sku,) in await fetch(INSERT, as_json(rows))}


def key(request_id: UUID | None = None) -> IdempotencyKey:
    return IdempotencyKey("ada", "/items", request_id or uuid4(), b"content", SystemClock().now())


def created(sku: str, sequence: int = 1) -> Event:
    return Event("item.created", sku, sequence, {"sku": sku}, SystemClock().now())


@pytest.fixture(scope="module")
def items_copy(postgres: PostgresServer) -> Iterator[TestDatabase]:
    postgres.create_database("items")
    database = TestDatabase(postgres.superuser_url("items"))
    create_base_tables(database.query, key="text")
    for statement in ("CREATE TABLE items (id text PRIMARY KEY, name text NOT NULL)", *changefeed.INDEX_V1):
        database.query(statement)
    yield database
    database.close()
    postgres.drop_database("items")


@pytest.fixture
def items(items_copy: TestDatabase) -> Iterator[TestDatabase]:
    """The database of a service with keys that are texts, empty."""
    yield items_copy
    items_copy.empty()


@pytest.fixture
async def database(items: TestDatabase) -> AsyncIterator[Database]:
    async with opened(items.url) as made:
        yield made


@pytest.fixture
def inserts(database: Database) -> IdempotentInserts[Item]:
    async def refuse_taken(new: Sequence[Item]) -> Mapping[str, ItemExists]:
        found = await ROWS.find(database.fetch, [Lookup(each.id) for each in new])
        return {each.id: ItemExists(each.id) for each in found if each is not None}

    return IdempotentInserts(database, insert_items, name="items", codec=ITEM, check=refuse_taken)


async def insert(inserts: IdempotentInserts[Item], sku: str, *, once: IdempotencyKey | None = None) -> Item | str:
    try:
        return await inserts.submit(once or key(), Item(sku, "Tea"), event=created(sku))
    except ItemExists as refusal:
        return refusal.metadata["sku"]


async def test_items_are_inserted_once_with_their_events(items: TestDatabase, inserts: IdempotentInserts[Item]) -> None:
    keys = [key() for _ in SKUS]

    for _ in range(2):
        answers = await asyncio.gather(*(insert(inserts, sku, once=once) for sku, once in zip(SKUS, keys, strict=True)))
        assert answers == [Item(sku, "Tea") for sku in SKUS]

    assert items.query("SELECT subject, sequence FROM outbox ORDER BY position") == [(sku, 1) for sku in SKUS]


async def test_of_many_callers_who_choose_one_key_one_gets_it(
    items: TestDatabase, inserts: IdempotentInserts[Item]
) -> None:
    answers = await asyncio.gather(*(insert(inserts, sku) for sku in ["tea-1", "tea-2"] * 20))

    assert sorted(map(str, answers)) == sorted(
        map(str, [Item("tea-1", "Tea"), Item("tea-2", "Tea"), *["tea-1", "tea-2"] * 19])
    )
    assert items.query("SELECT count(*) FROM outbox") == [(2,)]
    # The keys of the refused requests are free again.
    assert items.query("SELECT count(*) FROM idempotency_keys") == [(2,)]


async def test_a_key_that_another_replica_takes_meanwhile_is_refused(
    items: TestDatabase, inserts: IdempotentInserts[Item]
) -> None:
    with items.connect() as other, other.transaction():
        other.execute("INSERT INTO items VALUES ('tea-1', 'Coffee')")
        waiting = asyncio.ensure_future(insert(inserts, "tea-1"))
        await items.until_waiting()

    assert await waiting == "tea-1"
    assert items.query("SELECT name FROM items") == [("Coffee",)]


async def test_a_key_that_is_taken_while_its_request_runs_alone_is_refused(
    items: TestDatabase, inserts: IdempotentInserts[Item]
) -> None:
    """The first holds up the batch, so that two others share the next one; that fails, and each runs alone."""
    with items.connect() as first, items.connect() as second, items.connect() as third:
        for other, sku in ((first, "first"), (second, "tea-1"), (third, "tea-2")):
            other.execute("BEGIN")
            other.execute("INSERT INTO items VALUES (%s, 'Coffee')", (sku,))
        ahead = asyncio.ensure_future(insert(inserts, "first"))
        await items.until_waiting()
        both = [asyncio.ensure_future(insert(inserts, sku)) for sku in ("tea-1", "tea-2")]
        first.execute("ROLLBACK")
        assert await ahead == Item("first", "Tea")
        await items.until_waiting()
        second.execute("COMMIT")
        assert await both[0] == "tea-1"
        await items.until_waiting()
        third.execute("COMMIT")

        assert await both[1] == "tea-2"
    assert items.query("SELECT id FROM items WHERE name = 'Tea'") == [("first",)]


async def test_erased_responses_of_a_text_are_refused(database: Database) -> None:
    mine, other = [key() for _ in range(2)]

    def write(connection: Connection, once: IdempotencyKey, sku: str) -> Item:
        return write_once(connection, once, lambda: Item(sku, "Tea"), codec=ITEM)

    for once, sku in ((mine, "tea-1"), (other, "tea-2")):
        await database.transaction(lambda connection, once=once, sku=sku: write(connection, once, sku))

    await database.transaction(lambda connection: store.erase_responses(connection, ["tea-1"]))

    with pytest.raises(AnswerErased):
        await database.transaction(lambda connection: write(connection, mine, "tea-1"))
    assert await database.transaction(lambda connection: write(connection, other, "another")) == Item("tea-2", "Tea")


async def test_each_event_of_a_text_takes_effect_once_and_in_order(
    items: TestDatabase, database: Database, redis_url: str
) -> None:
    seen: list[tuple[str, int]] = []

    def effect(_connection: Connection, events: Sequence[CloudEvent]) -> None:
        seen.extend((str(event.subject), event.sequence) for event in events)

    def add(connection: Connection) -> None:
        outbox.add(connection, [created(sku, sequence) for sequence in (1, 2) for sku in SKUS])

    async with (
        relay(items.url, redis=redis_url, resource="item") as publisher,
        consumer(items.url, effect, redis=redis_url, resource="item") as reader,
        running(publisher.run, reader.run),
    ):
        await database.transaction(add)
        await until(lambda: _is(len(seen) == 2 * len(SKUS)))
        items.query("UPDATE outbox SET published_at = NULL")
        await database.transaction(lambda connection: outbox.add(connection, [created("last")]))
        await until(lambda: _is(("last", 1) in seen))

    assert sorted(seen) == sorted([*((sku, sequence) for sequence in (1, 2) for sku in SKUS), ("last", 1)])
    for sku in SKUS:
        assert [sequence for each, sequence in seen if each == sku] == [1, 2]


async def _is(fact: bool) -> bool:  # noqa: FBT001  a condition
    return fact


async def test_the_feed_has_the_events_of_texts(items: TestDatabase, database: Database) -> None:
    feed = changefeed.Changefeed(database, owner_field="owner")
    await database.transaction(lambda connection: outbox.add(connection, [created(sku) for sku in SKUS]))

    start = await feed.position_of(UUID(int=0))
    page = await feed.read(start, owner=None, size=10)

    assert [event.subject for event in page.events] == list(SKUS)
