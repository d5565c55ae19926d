"""The relay: what is committed is published, in order, and marked once Redis has it."""

from __future__ import annotations

import contextlib
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from structlog.testing import capture_logs

import chassis.events.relay
from chassis.events.cloudevents import CloudEvent
from chassis.events.recovery import publish_again
from chassis.events.redis_streams import FIELD, stream_of, watermark_of
from chassis.telemetry.metrics import REGISTRY
from chassis.testing import LOOPBACK, ManualClock, until
from tests.integration.event_flow import opened, relay, running

if TYPE_CHECKING:
    import pytest
    from redis import Redis

    from tests.integration.databases import TestDatabase

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STREAM = stream_of("note")
NO_REDIS = f"redis://{LOOPBACK}:1/0"


def write(database: TestDatabase, *sequences: int, subjects: int = 1, age: str = "0 s") -> uuid.UUID:
    """Put events of new subjects into the outbox, and return the last one."""
    ids = [uuid.uuid4() for _ in range(subjects)]
    statement = """
        INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
        SELECT gen_random_uuid(), 'note.created', subject, sequence, '{"noteId": "x"}', %s, now() - %s::interval
        FROM unnest(%s) WITH ORDINALITY AS subjects (subject, number), unnest(%s) AS sequence
        ORDER BY number, sequence
    """
    database.query(statement, TRACE, age, ids, list(sequences))
    return ids[-1]


def unpublished(database: TestDatabase) -> int:
    [(count,)] = database.query("SELECT count(*) FROM outbox WHERE published_at IS NULL")
    return int(count)


async def until_published(database: TestDatabase) -> None:
    """Return once every event is published."""

    async def is_done() -> bool:
        return unpublished(database) == 0

    await until(is_done, timeout_s=30)


def sent(stored: Redis) -> list[CloudEvent]:
    return [CloudEvent.from_json(fields[FIELD]) for _, fields in stored.xrange(STREAM)]


async def test_events_are_published_in_order_as_cloudevents_and_marked(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    subject = write(notes_database, 1, 2, 3)
    before = REGISTRY.get_sample_value("shop_events_published_total", {"stream": STREAM}) or 0

    async with relay(notes_database.url, redis=redis_url, resource="note", batch=2) as ours, running(ours.run):
        await until_published(notes_database)

    assert REGISTRY.get_sample_value("shop_events_published_total", {"stream": STREAM}) == before + 3
    events = sent(stored)
    rows = notes_database.query("SELECT id, occurred_at FROM outbox ORDER BY position")
    assert [event.sequence for event in events] == [1, 2, 3]
    assert [(event.id, event.time) for event in events] == rows
    assert {(each.subject, each.type, each.source, each.traceparent) for each in events} == {
        (subject, "note.created", "/note_svc", TRACE)
    }
    assert events[0].data == {"noteId": "x"}


async def test_a_drained_outbox_says_how_up_to_date_its_stream_is(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    [(before,)] = notes_database.query("SELECT now()")

    async def is_said() -> bool:
        return stored.get(watermark_of(STREAM)) is not None

    async with relay(notes_database.url, redis=redis_url, resource="note") as ours, running(ours.run):
        await until(is_said)

    [(said, after)] = notes_database.query("SELECT %s::timestamptz, now()", stored.get(watermark_of(STREAM)))
    assert before <= said <= after


async def test_without_redis_events_wait_and_are_published_when_it_is_there(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    write(notes_database, 1, 2)

    with capture_logs() as logs:

        async def has_failed() -> bool:
            return bool(logs)

        async with relay(notes_database.url, redis=NO_REDIS, resource="note") as ours, running(ours.run):
            await until(has_failed)
            assert unpublished(notes_database) == 2

    async with relay(notes_database.url, redis=redis_url, resource="note") as ours, running(ours.run):
        await until_published(notes_database)
    assert [event.sequence for event in sent(stored)] == [1, 2]
    assert [entry["event"] for entry in logs] == ["relay.waiting"]


async def test_the_stream_is_kept_short(notes_database: TestDatabase, redis_url: str, stored: Redis) -> None:
    write(notes_database, *range(1, 101), subjects=13)

    options = {"stream_max_length": 1000, "batch": 100}
    async with relay(notes_database.url, redis=redis_url, resource="note", **options) as ours, running(ours.run):
        await until_published(notes_database)

    # Redis trims by whole nodes of 100.
    assert 1000 <= stored.xlen(STREAM) <= 1200


async def swept_down_to(database: TestDatabase, count: int) -> None:
    """Remove what was published over ten minutes ago, until at most this number of events are left."""

    async def is_done() -> bool:
        return len(database.query("SELECT 1 FROM outbox")) <= count

    options = {"keep_s": 600, "sweep_s": 0.01}
    async with relay(database.url, redis=NO_REDIS, resource="note", **options) as ours, running(ours.sweep):
        await until(is_done)


async def test_old_events_are_removed_and_those_that_wait_are_not(notes_database: TestDatabase) -> None:
    write(notes_database, 1, 2, 3)
    waiting = write(notes_database, 4)
    notes_database.query("UPDATE outbox SET published_at = now() - interval '1 hour' WHERE sequence <= 2")
    notes_database.query("UPDATE outbox SET published_at = now() WHERE sequence = 3")

    await swept_down_to(notes_database, 3)

    left = notes_database.query("SELECT sequence FROM outbox ORDER BY sequence")
    assert left == [(2,), (3,), (4,)]
    assert notes_database.query("SELECT subject FROM outbox WHERE published_at IS NULL") == [(waiting,)]


async def test_the_newest_event_stays_however_old_it_is(notes_database: TestDatabase) -> None:
    write(notes_database, 1, 2, 3)
    notes_database.query("UPDATE outbox SET published_at = now() - interval '1 year'")

    await swept_down_to(notes_database, 1)

    assert notes_database.query("SELECT sequence FROM outbox") == [(3,)]


async def test_the_last_old_event_of_the_feed_stays_whatever_its_position(notes_database: TestDatabase) -> None:
    # The later transaction took its position first: this is where every watcher stands.
    with notes_database.connect() as early, early.transaction():
        early.execute("SELECT pg_current_xact_id()")
        last = write(notes_database, 1)
        early.execute(
            "INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at) "
            "VALUES (gen_random_uuid(), 'note.created', gen_random_uuid(), 1, '{}', '', now())"
        )
    notes_database.query("UPDATE outbox SET published_at = now() - interval '1 year'")

    await swept_down_to(notes_database, 1)

    assert notes_database.query("SELECT subject FROM outbox") == [(last,)]


async def test_a_database_whose_clock_is_ahead_removes_no_event_early(
    notes_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(notes_database, 1, 2, 3, 4)
    notes_database.query("UPDATE outbox SET published_at = now() - interval '1 hour'")
    notes_database.query("UPDATE outbox SET published_at = now() - interval '1 year' WHERE sequence <= 2")
    behind = ManualClock()
    behind.advance(-timedelta(days=30))
    monkeypatch.setattr(chassis.events.relay, "SystemClock", lambda: behind)

    await swept_down_to(notes_database, 3)

    assert notes_database.query("SELECT sequence FROM outbox ORDER BY sequence") == [(2,), (3,), (4,)]


async def test_events_that_a_wrong_clock_published_in_the_future_are_removed_like_others(
    notes_database: TestDatabase,
) -> None:
    write(notes_database, 1, 2, subjects=1000, age="1 h")
    notes_database.query("UPDATE outbox SET published_at = now() + interval '1 year' WHERE sequence = 1")
    notes_database.query("UPDATE outbox SET published_at = now() - interval '1 hour' WHERE sequence = 2")
    recent = write(notes_database, 1)
    notes_database.query("UPDATE outbox SET published_at = now() + interval '1 year' WHERE subject = %s", recent)

    await swept_down_to(notes_database, 2)

    assert len(notes_database.query("SELECT 1 FROM outbox")) == 2
    assert notes_database.query("SELECT 1 FROM outbox WHERE subject = %s", recent) == [(1,)]


async def test_a_replay_publishes_younger_events_again(notes_database: TestDatabase) -> None:
    write(notes_database, 1, age="2 h")
    write(notes_database, 2, 3)
    notes_database.query("UPDATE outbox SET published_at = now()")
    [(since,)] = notes_database.query("SELECT now() - interval '1 hour'")

    async with opened(notes_database.url) as database:
        count = await publish_again(database, since=since)

    assert count == 2
    assert notes_database.query("SELECT sequence FROM outbox WHERE published_at IS NULL ORDER BY 1") == [(2,), (3,)]


async def test_of_two_relays_one_publishes_and_each_event_is_sent_once(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    write(notes_database, *range(1, 11), subjects=20)

    async with contextlib.AsyncExitStack() as both:
        options = {"redis": redis_url, "resource": "note", "batch": 5}
        relays = [await both.enter_async_context(relay(notes_database.url, **options)) for _ in range(2)]
        await both.enter_async_context(running(*(each.run for each in relays)))
        await until_published(notes_database)

    events = sent(stored)
    assert len(events) == len({event.id for event in events}) == 200
    for subject in {event.subject for event in events}:
        assert [event.sequence for event in events if event.subject == subject] == list(range(1, 11))


async def test_events_that_redis_lost_at_the_end_are_published_again_and_no_earlier_ones(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    async with relay(notes_database.url, redis=redis_url, resource="note") as ours, running(ours.run):
        for sequence in (1, 2, 3, 4):
            write(notes_database, sequence)
            await until_published(notes_database)
    # As a crash leaves it: without its last two entries, and without the knowledge that there were any.
    entries = stored.xrange(STREAM)[:2]
    stored.delete(STREAM)
    for entry, fields in entries:
        stored.xadd(STREAM, fields, id=entry)

    async with relay(notes_database.url, redis=redis_url, resource="note") as ours, running(ours.run):

        async def is_back() -> bool:
            return {event.sequence for event in sent(stored)} == {1, 2, 3, 4}

        await until(is_back)
        await until_published(notes_database)

    assert [event.sequence for event in sent(stored)] == [1, 2, 3, 4]


async def test_lost_events_are_published_again_without_a_pause_between_batches(
    notes_database: TestDatabase, redis_url: str, stored: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than this test lasts: a relay that waits for its next look would not come to the second batch.
    monkeypatch.setattr(chassis.events.relay, "_TICK_S", 600.0)
    for sequence in range(1, 8):
        write(notes_database, sequence)
    async with relay(notes_database.url, redis=redis_url, resource="note", batch=2) as ours, running(ours.run):
        await until_published(notes_database)
    stored.flushall()

    async with relay(notes_database.url, redis=redis_url, resource="note", batch=2) as ours, running(ours.run):

        async def is_back() -> bool:
            return {event.sequence for event in sent(stored)} == set(range(1, 8))

        await until(is_back)
