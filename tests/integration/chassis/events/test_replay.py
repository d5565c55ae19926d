"""Entries that a reader lacks come from the outbox; events that are swept there are reported as missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from chassis.events import replay
from chassis.events.cloudevents import CloudEvent
from chassis.events.redis_streams import FIELD, START, connect_async, stream_of
from chassis.telemetry.metrics import REGISTRY
from chassis.testing import until
from tests.integration.chassis.events.test_relay import unpublished, write
from tests.integration.event_flow import consumer, relay, running, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis
    from sqlalchemy import Connection

    from tests.integration.databases import TestDatabase

STREAM = stream_of("note")


def nothing(_connection: Connection, _events: Sequence[CloudEvent]) -> None:
    """Have no effect but to be counted by the inbox."""


async def published(database: TestDatabase) -> None:
    async def is_all() -> bool:
        return unpublished(database) == 0

    await until(is_all, timeout_s=30)


async def test_pages_have_every_event_once_and_in_the_order_of_the_stream(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    write(notes_database, 1, 2, 3, subjects=834)
    events: list[CloudEvent] = []
    sizes: list[int] = []

    async with (
        relay(notes_database.url, redis=redis_url, resource="note") as ours,
        running(ours.run),
        connect_async(settings_of(redis_url, timeout_s=30)) as client,
    ):
        await published(notes_database)
        after, is_last = START, False
        while not is_last:
            page = await replay.ask(client, stream=STREAM, group="test", after=after, wait_s=5)
            assert page is not None
            assert page.is_complete
            events += [CloudEvent.from_json(text) for _, text in page.events]
            sizes.append(len(page.events))
            after, is_last = page.last, page.is_last

    sent = [(entry, CloudEvent.from_json(fields[FIELD])) for entry, fields in stored.xrange(STREAM)]
    assert sizes == [1000, 1000, 502]
    assert events == [event for _, event in sent]
    assert str(after) == sent[-1][0]


async def test_a_stream_keeps_unread_entries_up_to_a_bound(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    stored.xgroup_create(STREAM, "slow", id="0", mkstream=True)
    stored.xgroup_create(STREAM, "quick", id="0")
    cut = REGISTRY.get_sample_value("shop_stream_events_cut_total", {"stream": STREAM}) or 0
    options = {"stream_max_length": 1000, "stream_longest": 2000, "batch": 100}
    async with relay(notes_database.url, redis=redis_url, resource="note", **options) as ours, running(ours.run):
        write(notes_database, *range(1, 101))
        await published(notes_database)
        taken = stored.xreadgroup("slow", "me", {STREAM: ">"}, count=5000)[0][1]  # and not finished
        write(notes_database, *range(1, 101), subjects=17)
        await published(notes_database)
        stored.xreadgroup("quick", "me", {STREAM: ">"}, count=5000, noack=True)
        write(notes_database, 1)  # lets the relay look at the groups once more
        await published(notes_database)
        unread = stored.xlen(STREAM)
        write(notes_database, *range(1, 101), subjects=10)
        with capture_logs() as logs:
            await published(notes_database)
        longest = stored.xlen(STREAM)
        entries = stored.xreadgroup("slow", "me", {STREAM: ">"}, count=5000)[0][1]
        stored.xack(STREAM, "slow", *(entry for entry, _ in [*taken, *entries]))
        stored.xreadgroup("quick", "me", {STREAM: ">"}, count=5000, noack=True)
        write(notes_database, *range(1, 101))
        await published(notes_database)

    assert (len(taken), unread) == (100, 1801)
    assert 2000 <= longest <= 2200
    assert "relay.stream_cut" in [entry["event"] for entry in logs]
    assert (REGISTRY.get_sample_value("shop_stream_events_cut_total", {"stream": STREAM}) or 0) - cut == 2801 - longest
    assert 1000 <= stored.xlen(STREAM) <= 1200


async def test_events_swept_from_the_outbox_make_a_new_readers_stream_incomplete(
    notes_database: TestDatabase, authors_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    write(notes_database, 1, subjects=20)
    options = {"keep_s": 60, "sweep_s": 0.01}
    async with relay(notes_database.url, redis=redis_url, resource="note", **options) as ours:
        async with running(ours.run):
            await published(notes_database)
        notes_database.query("UPDATE outbox SET published_at = now() - interval '1 hour'")

        async def is_swept() -> bool:
            return len(notes_database.query("SELECT 1 FROM outbox")) == 1

        async with running(ours.sweep):
            await until(is_swept)
        stored.xtrim(STREAM, maxlen=0, approximate=False)

        async def is_incomplete() -> bool:
            return authors_database.query("SELECT 1 FROM inbox_state WHERE incomplete_since IS NOT NULL") != []

        async def has_read() -> bool:
            [(count,)] = authors_database.query("SELECT count(*) FROM inbox WHERE sequence > 0")
            return bool(count == 2)

        with capture_logs() as logs:
            async with (
                consumer(authors_database.url, nothing, redis=redis_url, resource="note") as theirs,
                running(ours.run, theirs.run),
            ):
                await until(is_incomplete)
                write(notes_database, 1)
                await until(has_read)

    assert authors_database.query("SELECT as_of FROM inbox_state") == [(None,)]
    assert [entry["event"] for entry in logs if entry["event"] == "consumer.events_gone"] == ["consumer.events_gone"]


async def test_the_stream_is_said_to_be_complete_only_when_nothing_waits(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    write(notes_database, *range(1, 201))

    async with relay(notes_database.url, redis=redis_url, resource="note", batch=1) as ours, running(ours.run):

        async def is_said() -> bool:
            return stored.get(f"{STREAM}:as_of") is not None

        await until(is_said, timeout_s=30)
        waiting = unpublished(notes_database)

    assert waiting == 0
    assert stored.get(f"{STREAM}:as_of:entry") == stored.xrevrange(STREAM, count=1)[0][0]
