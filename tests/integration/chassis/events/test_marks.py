"""Watermarks ("complete up to here"), against every way in which an event before them can be missing.

The authors' outbox is the truth, the notes service's copy of authors follows it. A way loses something between the
two. At no time may a mark be ahead of the effects; and afterwards the copy becomes correct again by itself.

| mark | says |
|---|---|
| `outbox.published_at`, its entry | Redis had the event under this entry |
| `relay_state.position` | the outbox knows its entries up to this one |
| the stream's `as_of` and its entry | every change that was committed before has its event up to this entry |
| the group's last delivered entry, acknowledgements | up to here the group got and was done with its entries |
| `inbox` | of this subject, events took effect up to this number |
| `inbox_state.position` | up to this entry everything took effect |
| `inbox_state.as_of` | every change that was committed before took effect |
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from sqlalchemy import text

import chassis.events.consumer
import chassis.events.relay
from chassis.events.consumer_group import ConsumerGroup
from chassis.events.recovery import publish_again
from chassis.events.redis_streams import connect_async, stream_of
from chassis.testing import until
from tests.integration.databases import TestDatabase, fresh_database
from tests.integration.event_flow import consumer, opened, relay, settings_of
from tests.integration.inprocess import NOTES
from tests.support.documents import code
from tests.support.notes_svc import consumer as notes_consumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent
    from devstack.postgres import PostgresServer

    Way = Callable[["World"], Awaitable[None]]

STREAM = stream_of("author")
PRODUCERS = ("outbox", "relay_state")
CONSUMERS = ("inbox", "inbox_state", "known_authors", "dead_letters", "effects")
# The least that Redis holds, so that no entry is trimmed by chance; more than a node of a stream, 100 entries.
MANY = 260
# Between the time that a statement writes and its commit.
COMMIT_S = 0.5

_WRITE = """
    INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
    SELECT
        gen_random_uuid(), kind, subject, coalesce(last, 0) + 1,
        jsonb_build_object('authorId', subject, 'state', CASE kind WHEN 'author.closed' THEN 'CLOSED' ELSE state END),
        '', clock_timestamp()
    FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS new (subject, kind, state)
    LEFT JOIN LATERAL (SELECT max(sequence) AS last FROM outbox WHERE outbox.subject = new.subject) AS old ON true
"""
_TRUTH = """
    SELECT DISTINCT ON (subject) subject::text, data ->> 'state'
    FROM outbox
    ORDER BY subject, (type = 'author.closed') DESC, sequence DESC
"""


@dataclass
class World:
    """The authors' outbox, Redis, the notes service's copy, and what runs between them.

    Attributes:
        poisoned: subjects whose events fail.
        lies: marks that were ahead of the effects.
    """

    authors: TestDatabase
    notes: TestDatabase
    stored: Redis
    redis_url: str
    subjects: list[uuid.UUID] = field(default_factory=list)
    poisoned: set[uuid.UUID] = field(default_factory=set)
    lies: list[str] = field(default_factory=list)
    copies: dict[str, Any] = field(default_factory=dict)
    is_counted: bool = True

    def write(self, count: int = 40, *, kind: str = "", seed: int = 0) -> list[uuid.UUID]:
        """Commit changes of authors, new ones and some that are there; return whom they are of."""
        choose = random.Random(seed)
        subjects = [uuid.uuid4() for _ in range(count)]
        old = [] if kind else choose.sample(self.subjects, min(len(self.subjects), count // 2))
        self.authors.query(_WRITE, subjects, [kind or "author.created"] * count, ["ACTIVE"] * count)
        states = [choose.choice(["ACTIVE", "SUSPENDED"]) for _ in old]
        self.authors.query(_WRITE, old, ["author.changed"] * len(old), states)
        self.subjects += subjects
        return subjects

    def delete(self, subjects: Sequence[uuid.UUID]) -> None:
        """Commit the closing of authors: of each the last change, so that nothing later tells of it."""
        self.authors.query(_WRITE, list(subjects), ["author.closed"] * len(subjects), ["CLOSED"] * len(subjects))
        self.subjects = [each for each in self.subjects if each not in set(subjects)]

    def handle(self, connection: Connection, events: Sequence[CloudEvent]) -> None:
        if self.poisoned & {event.subject for event in events}:
            raise RuntimeError("poison")
        notes_consumer.handle(connection, events)
        connection.execute(
            text("""
                INSERT INTO effects
                SELECT subject, count(*) FROM unnest(CAST(:subjects AS uuid[])) AS subject GROUP BY subject
                ON CONFLICT (subject) DO UPDATE SET count = effects.count + excluded.count
            """),
            {"subjects": [event.subject for event in events]},
        )

    @contextlib.asynccontextmanager
    async def relaying(self, **settings: Any) -> AsyncIterator[None]:
        options = {"batch": 50, "stream_max_length": 1000, "stream_longest": 1000, **settings}
        async with relay(self.authors.url, redis=self.redis_url, resource="author", **options) as ours, _runs(ours.run):
            yield

    @contextlib.asynccontextmanager
    async def consuming(self) -> AsyncIterator[None]:
        options = {"batch": 20, "attempts": 3}
        async with (
            consumer(self.notes.url, self.handle, redis=self.redis_url, resource="author", **options) as ours,
            _runs(ours.run),
        ):
            yield

    def keep(self, name: str) -> None:
        """Make the copy that is restored later."""
        if name == "Redis":
            self.copies[name] = {key: self.stored.dump(key) for key in self.stored.keys()}  # noqa: SIM118  no dict
        else:
            database, tables = (self.authors, PRODUCERS) if name == "producer" else (self.notes, CONSUMERS)
            for table in tables:
                database.query(f"DROP TABLE IF EXISTS kept_{table}")
                database.query(f"CREATE TABLE kept_{table} AS TABLE {table}")

    def restore(self, name: str) -> None:
        if name == "Redis":
            self.stored.flushall()
            for key, dumped in self.copies[name].items():
                self.stored.restore(key, 0, dumped)
        else:
            database, tables = (self.authors, PRODUCERS) if name == "producer" else (self.notes, CONSUMERS)
            for table in tables:
                overriding = "OVERRIDING SYSTEM VALUE" if table == "outbox" else ""
                database.query(f"BEGIN; TRUNCATE {table}; INSERT INTO {table} {overriding} TABLE kept_{table}; COMMIT")

    def look(self) -> None:
        """Record each mark that is ahead of the effects."""
        rows = self.notes.query("""
            SELECT as_of, array_agg(subject::text), array_agg(sequence)
            FROM inbox_state
            LEFT JOIN inbox USING (stream)
            WHERE as_of IS NOT NULL
            GROUP BY as_of
        """)
        if not rows:
            return
        [(as_of, subjects, sequences)] = rows
        known = dict(zip(subjects, sequences, strict=True))
        told = self.authors.query(
            "SELECT subject::text, max(sequence) FROM outbox WHERE occurred_at < %s - %s * interval '1 s' GROUP BY 1",
            as_of,
            COMMIT_S,
        )
        if missing := [subject for subject, sequence in told if (known.get(subject) or 0) < sequence]:
            self.lies.append(f"as_of {as_of} though {len(missing)} of {len(told)} authors lack events")

    def is_true(self) -> bool:
        """Return whether the copy equals the outbox and its watermark says so."""
        self.look()
        known = dict(self.notes.query("SELECT id::text, state FROM known_authors"))
        truth = dict(self.authors.query(_TRUTH))
        [(last,)] = self.authors.query("SELECT max(occurred_at) FROM outbox")
        [(as_of,)] = self.notes.query("SELECT max(as_of) FROM inbox_state")
        return {key: known.get(key) for key in truth} == truth and as_of is not None and as_of >= last

    async def becomes_true(self) -> None:
        async def is_so() -> bool:
            await asyncio.sleep(0.1)  # each look reads five tables: no more than ten looks a second
            return self.is_true()

        await until(is_so, timeout_s=120)
        assert self.lies == []
        if self.is_counted:
            effects = dict(self.notes.query("SELECT subject::text, count FROM effects"))
            assert effects == dict(self.authors.query("SELECT subject::text, count(*) FROM outbox GROUP BY 1"))


@contextlib.asynccontextmanager
async def _runs(part: Callable[[asyncio.Event], Awaitable[None]]) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    task = asyncio.ensure_future(part(stopping))
    try:
        yield
    finally:
        stopping.set()
        await task


@pytest.fixture(autouse=True)
def _in_quick_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write and poll the marks often: their values are tested, not their intervals."""
    monkeypatch.setattr(chassis.events.consumer, "_SAVE_S", 0.05)
    monkeypatch.setattr(chassis.events.relay, "_TICK_S", 0.05)


@pytest.fixture
def world(notes_copy: TestDatabase, postgres: PostgresServer, redis_url: str) -> Iterator[World]:
    with fresh_database(postgres, NOTES) as notes, Redis.from_url(redis_url) as stored:
        notes.query("CREATE TABLE effects (subject uuid PRIMARY KEY, count integer NOT NULL)")
        yield World(notes_copy, notes, stored, redis_url)


async def published(world: World) -> None:
    async def is_all() -> bool:
        return world.authors.query("SELECT 1 FROM outbox WHERE published_at IS NULL LIMIT 1") == []

    await until(is_all, timeout_s=30)


async def while_away(world: World) -> None:
    """Commit and publish changes while no consumer runs; the last ones are deletions."""
    async with world.relaying():
        world.write()
        world.delete(world.subjects[:7])
        await published(world)


async def trimmed(world: World) -> None:
    await while_away(world)
    world.stored.xtrim(STREAM, maxlen=0, approximate=False)


async def trimmed_but_for_the_end(world: World) -> None:
    await while_away(world)
    world.stored.xtrim(STREAM, maxlen=3, approximate=False)


async def cut_by_the_relay(world: World) -> None:
    async with world.relaying():
        world.delete(world.subjects[:7])
        for _ in range(5):
            world.write(MANY)
        await published(world)
    assert world.stored.xlen(STREAM) <= 1100


async def entry_removed(world: World) -> None:
    await while_away(world)
    entries: Any = world.stored.xrevrange(STREAM, count=5)
    world.stored.xdel(STREAM, entries[4][0], entries[2][0])


async def pending_cut(world: World) -> None:
    """Delivered to a consumer that died, then cut off."""
    await while_away(world)
    async with connect_async(settings_of(world.redis_url)) as client:
        assert await ConsumerGroup(client, stream=STREAM, group="test").read(count=1000)
    world.stored.xtrim(STREAM, maxlen=0, approximate=False)


async def flushed(world: World) -> None:
    await while_away(world)
    world.stored.flushall()


async def flushed_before_it_was_published(world: World) -> None:
    world.write()
    world.stored.flushall()


async def stream_deleted(world: World) -> None:
    """And the time is left that says how complete it is."""
    await while_away(world)
    world.stored.delete(STREAM)


async def failed_over(world: World) -> None:
    """To a replica that lagged behind."""
    world.keep("Redis")
    await while_away(world)
    world.restore("Redis")


async def failed_over_after_it_was_read(world: World) -> None:
    world.keep("Redis")
    async with world.relaying(), world.consuming():
        world.write()
        await world.becomes_true()
    world.write()
    world.restore("Redis")


async def consumer_restored(world: World) -> None:
    world.keep("consumer")
    async with world.relaying(), world.consuming():
        world.write()
        world.delete(world.subjects[:7])
        await world.becomes_true()
    world.restore("consumer")


async def consumer_restored_while_it_runs(world: World) -> None:
    world.keep("consumer")
    async with world.relaying(), world.consuming():
        world.write()
        world.delete(world.subjects[:7])
        await world.becomes_true()
        world.restore("consumer")
        world.write()
        await world.becomes_true()


async def consumer_emptied(world: World) -> None:
    for table in CONSUMERS:
        world.notes.query(f"TRUNCATE {table}")


async def consumer_restored_and_trimmed(world: World) -> None:
    await consumer_restored(world)
    world.stored.xtrim(STREAM, maxlen=0, approximate=False)


async def consumer_restored_and_flushed(world: World) -> None:
    await consumer_restored(world)
    world.stored.flushall()


def begin_an_epoch(world: World) -> None:
    """Run the statements of docs/operations.md, word for word."""
    [statements] = [each.text for each in code() if each.language == "sql" and "relay_state SET epoch" in each.text]
    world.authors.query(statements)


async def producer_restored(world: World, *, then: Callable[[World], None] = lambda _world: None) -> None:
    """Its authors continue with the same sequences and other events."""
    world.is_counted = False
    old = world.subjects[:20]
    world.keep("producer")
    async with world.relaying(), world.consuming():
        world.authors.query(_WRITE, old, ["author.changed"] * len(old), ["SUSPENDED"] * len(old))
        world.authors.query(_WRITE, old, ["author.changed"] * len(old), ["SUSPENDED"] * len(old))
        await world.becomes_true()
    world.restore("producer")
    then(world)
    world.authors.query(_WRITE, old, ["author.changed"] * len(old), ["ACTIVE"] * len(old))


async def producer_restored_and_flushed(world: World) -> None:
    """No entry is left that its outbox does not know, so the operator says that it was restored."""
    await producer_restored(world, then=begin_an_epoch)
    world.stored.flushall()


async def producer_and_redis_restored(world: World) -> None:
    world.keep("Redis")
    await producer_restored(world, then=begin_an_epoch)
    world.restore("Redis")


async def group_destroyed(world: World) -> None:
    await while_away(world)
    world.stored.xgroup_destroy(STREAM, "test")


async def group_made_at_the_end(world: World) -> None:
    await while_away(world)
    world.stored.xgroup_destroy(STREAM, "test")
    world.stored.xgroup_create(STREAM, "test", id="$")


async def group_moved_to_the_end(world: World) -> None:
    await while_away(world)
    world.stored.xgroup_setid(STREAM, "test", id="$")


async def dead_letter(world: World) -> None:
    """Which Redis then forgets, with everything else."""
    await while_away(world)
    [(sick,)] = world.authors.query("SELECT subject FROM outbox ORDER BY position DESC LIMIT 1")
    world.poisoned = {sick}
    async with world.relaying(), world.consuming():

        async def is_dead() -> bool:
            world.look()
            return bool(world.notes.query("SELECT 1 FROM dead_letters"))

        await until(is_dead, timeout_s=30)
        world.stored.flushall()
        world.write()

        async def is_read() -> bool:
            world.look()
            [(behind,)] = world.notes.query("SELECT %s - count(*) FROM known_authors", len(world.subjects))
            return bool(behind < 1)

        await until(is_read, timeout_s=30)
    world.poisoned = set()
    assert world.lies == []
    async with connect_async(settings_of(world.redis_url)) as client:
        for (event,) in world.notes.query("SELECT event FROM dead_letters ORDER BY sequence"):
            await ConsumerGroup(client, stream=STREAM, group="test").send_again(event)


async def requeued_behind_a_later_event(world: World) -> None:
    """And then a reader needs all of them from the outbox."""
    [sick] = world.poisoned = set(world.write(1))
    async with world.relaying(), world.consuming():

        async def is_dead() -> bool:
            return bool(world.notes.query("SELECT 1 FROM dead_letters"))

        await until(is_dead, timeout_s=30)
    world.poisoned = set()
    [(letter,)] = world.notes.query("SELECT event FROM dead_letters")
    async with world.relaying(), connect_async(settings_of(world.redis_url)) as client:
        world.authors.query(_WRITE, [sick], ["author.changed"], ["SUSPENDED"])
        await published(world)
        await ConsumerGroup(client, stream=STREAM, group="test").send_again(letter)
        last = world.stored.xinfo_stream(STREAM)["last-generated-id"]

        async def is_known() -> bool:
            return world.authors.query("SELECT position FROM relay_state") == [(last.decode(),)]

        await until(is_known, timeout_s=30)
    await consumer_emptied(world)
    await trimmed(world)


async def replay_in_progress(world: World) -> None:
    await while_away(world)
    [(since,)] = world.authors.query("SELECT min(occurred_at) FROM outbox")
    async with opened(world.authors.url) as database:
        assert await publish_again(database, since=since) > MANY


async def mending_interrupted(world: World) -> None:
    """Cut off, and Redis is emptied while the events come from the outbox."""
    await cut_by_the_relay(world)
    with contextlib.suppress(TimeoutError):
        async with world.relaying(), world.consuming():

            async def has_begun() -> bool:
                world.look()
                return bool(world.notes.query("SELECT 1 FROM known_authors WHERE state = 'CLOSED'"))

            await until(has_begun, timeout_s=30)
    world.stored.flushall()
    world.write()


WAYS: list[Way] = [
    trimmed,
    trimmed_but_for_the_end,
    cut_by_the_relay,
    entry_removed,
    pending_cut,
    flushed,
    flushed_before_it_was_published,
    stream_deleted,
    failed_over,
    failed_over_after_it_was_read,
    consumer_restored,
    consumer_restored_while_it_runs,
    consumer_emptied,
    consumer_restored_and_trimmed,
    consumer_restored_and_flushed,
    producer_restored,
    producer_restored_and_flushed,
    producer_and_redis_restored,
    group_destroyed,
    group_made_at_the_end,
    group_moved_to_the_end,
    dead_letter,
    requeued_behind_a_later_event,
    replay_in_progress,
    mending_interrupted,
]


# Four times as long as it takes: a machine may have other work.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_no_watermark_is_ahead_of_the_effects_and_the_projection_becomes_correct_again(
    world: World, way: Way
) -> None:
    async with world.relaying(), world.consuming():
        world.write(MANY)
        await world.becomes_true()

    await way(world)
    world.look()
    async with world.consuming(), world.relaying():
        await world.becomes_true()
        world.write()
        await world.becomes_true()
