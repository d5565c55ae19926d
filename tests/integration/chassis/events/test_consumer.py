"""The consumer: each event takes effect once, in order per subject, or is a dead letter with its reason."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from chassis.events.cloudevents import CloudEvent
from chassis.events.consumer_group import ConsumerGroup
from chassis.events.processor import title
from chassis.events.redis_streams import FIELD, connect_async, stream_of, watermark_entry_of, watermark_of
from chassis.telemetry.metrics import REGISTRY
from chassis.testing import until
from tests.integration.event_flow import consumer, running, settings_of
from tests.support.notes_svc import consumer as notes_consumer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis
    from sqlalchemy import Connection

    from chassis.events.processor import Handle
    from tests.integration.databases import TestDatabase

STREAM = stream_of("thing")
# After its second attempt, an event rests for longer than a test takes.
STUCK = {"retry_first_s": 0.05, "retry_longest_s": 60, "attempts": 100}
# Any table that is there will do.
EFFECTS = "SELECT subject, sequence FROM outbox ORDER BY position"


def healthy(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Write down the events."""
    for event in events:
        connection.execute(
            text(
                "INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at) "
                "VALUES (gen_random_uuid(), '', :subject, :sequence, '{}', '', now())"
            ),
            {"subject": event.subject, "sequence": event.sequence},
        )


def effect(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Write down the events; one of type `poison` fails, after all have begun."""
    healthy(connection, events)
    if any(event.type == "poison" for event in events):
        raise RuntimeError("canary")


def send(
    stored: Redis, subject: uuid.UUID, *sequences: int, kind: str = "thing.made", data: dict[str, str] | None = None
) -> None:
    for sequence in sequences:
        event = CloudEvent(
            id=uuid.uuid4(),
            source="/test",
            type=kind,
            subject=subject,
            sequence=sequence,
            time=datetime.now(UTC),
            traceparent="",
            data=data or {},
        )
        stored.xadd(STREAM, {FIELD: event.to_json()})


async def consume(
    database: TestDatabase, redis_url: str, *, until_done: Any, handle: Handle = effect, **settings: Any
) -> None:
    """Run a consumer until it is so and nothing is pending."""
    async with (
        consumer(database.url, handle, redis=redis_url, resource="thing", **settings) as ours,
        connect_async(settings_of(redis_url)) as client,
    ):
        group = ConsumerGroup(client, stream=STREAM, group="test")
        await group.create_if_missing()

        async def is_done() -> bool:
            return until_done() and (await group.look()).pending == 0

        async with running(ours.run):
            await until(is_done, timeout_s=20)


async def until_effects(database: TestDatabase, expected: Sequence[tuple[uuid.UUID, int]]) -> None:
    """Return once exactly these events took effect, in this sequence."""

    async def is_done() -> bool:
        return database.query(EFFECTS) == list(expected)

    await until(is_done, timeout_s=30)


def value(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"stream": STREAM}) or 0


def letters(database: TestDatabase) -> list[tuple[str, str, int]]:
    rows = database.query("SELECT event, reason, attempts FROM dead_letters WHERE stream = %s ORDER BY died_at", STREAM)
    return [(title(event), reason, attempts) for event, reason, attempts in rows]


async def test_a_doubled_event_takes_effect_once_and_an_early_event_waits(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    subject = uuid.uuid4()
    send(stored, subject, 1, 3, 3, 1, 2, 2, 4, 1)

    await consume(notes_database, redis_url, until_done=lambda: len(notes_database.query(EFFECTS)) == 4, attempts=50)

    assert notes_database.query(EFFECTS) == [(subject, sequence) for sequence in (1, 2, 3, 4)]
    assert letters(notes_database) == []


async def test_a_poison_event_is_a_dead_letter_and_the_others_of_its_batch_take_effect(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    before, sick, after = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    send(stored, before, 1)
    send(stored, sick, 1, kind="poison")
    send(stored, sick, 2)
    send(stored, after, 1)
    counted = value("shop_events_consumed_total"), value("shop_events_dead_total")

    await consume(notes_database, redis_url, until_done=lambda: len(letters(notes_database)) == 2)

    assert (value("shop_events_consumed_total"), value("shop_events_dead_total")) == (counted[0] + 2, counted[1] + 2)
    assert notes_database.query(EFFECTS) == [(before, 1), (after, 1)]
    assert sorted(letters(notes_database)) == [
        (f"poison {sick} 1", "RuntimeError", 3),
        (f"thing.made {sick} 2", "GAP", 3),
    ]
    assert "canary" not in str(notes_database.query("SELECT * FROM dead_letters"))


async def test_a_malformed_entry_is_a_dead_letter_at_once(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    for sick in ({FIELD: "{"}, {FIELD: '{"specversion": "1.0"}'}, {"other": "1"}, {FIELD: "[]"}):
        stored.xadd(STREAM, sick)

    await consume(notes_database, redis_url, until_done=lambda: len(letters(notes_database)) == 4)

    assert letters(notes_database) == [("no event of ours", "Malformed", 1)] * 4
    assert notes_database.query("SELECT DISTINCT subject, sequence FROM dead_letters") == [(None, 0)]


async def test_dead_letters_are_tried_again_in_order(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    subject = uuid.uuid4()
    send(stored, subject, 2, 1, kind="poison")
    await consume(notes_database, redis_url, until_done=lambda: len(letters(notes_database)) == 2)

    async with connect_async(settings_of(redis_url)) as client:
        group = ConsumerGroup(client, stream=STREAM, group="test")
        for (event,) in notes_database.query("SELECT event FROM dead_letters ORDER BY sequence"):
            assert await group.send_again(event)
    await consume(notes_database, redis_url, until_done=lambda: len(notes_database.query(EFFECTS)) == 2, handle=healthy)

    assert notes_database.query(EFFECTS) == [(subject, 1), (subject, 2)]
    assert letters(notes_database) == []


async def test_effects_are_said_to_be_up_to_date_unless_something_is_missing(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    state = "SELECT as_of FROM inbox_state"
    entry = stored.xadd(STREAM, {FIELD: "{"})
    stored.mset({watermark_of(STREAM): "2026-01-01T00:00:00+00:00", watermark_entry_of(STREAM): entry})

    await consume(notes_database, redis_url, until_done=lambda: len(letters(notes_database)) == 1)
    missing = notes_database.query(state)
    notes_database.query("DELETE FROM dead_letters")
    known = f"{state} WHERE as_of IS NOT NULL"
    await consume(notes_database, redis_url, until_done=lambda: notes_database.query(known) != [])

    assert missing in ([], [(None,)])
    assert notes_database.query(state) == [(datetime(2026, 1, 1, tzinfo=UTC),)]
    behind = datetime.now(UTC) - datetime(2026, 1, 1, tzinfo=UTC)
    assert value("shop_consumer_behind_seconds") == pytest.approx(behind.total_seconds(), abs=600)


async def test_a_group_that_redis_forgot_is_made_again(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    first, second = uuid.uuid4(), uuid.uuid4()

    async def is_done(*subjects: uuid.UUID) -> bool:
        return {subject for subject, _ in notes_database.query(EFFECTS)} == set(subjects)

    async with consumer(notes_database.url, effect, redis=redis_url, resource="thing") as ours, running(ours.run):
        send(stored, first, 1)
        await until(lambda: is_done(first))
        stored.flushall()
        send(stored, first, 1)
        send(stored, second, 1)
        await until(lambda: is_done(first, second))

    assert notes_database.query(EFFECTS) == [(first, 1), (second, 1)]


async def test_events_in_backoff_delay_no_other_retry(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    subject = uuid.uuid4()
    for _ in range(1100):
        send(stored, uuid.uuid4(), 2)
    send(stored, subject, 2, 1)

    async with (
        consumer(notes_database.url, effect, redis=redis_url, resource="thing", **STUCK) as ours,
        running(ours.run),
    ):

        async def has_taken_effect() -> bool:
            return notes_database.query(EFFECTS) == [(subject, 1), (subject, 2)]

        # The others are tried again after a minute.
        await until(has_taken_effect, timeout_s=30)


async def test_a_value_that_is_new_is_tried_as_often_as_any_failure(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    author_id = uuid.uuid4()
    data = {"authorId": str(author_id), "state": "FROZEN"}
    send(stored, author_id, 1, kind="author.created", data=data)

    await consume(
        notes_database,
        redis_url,
        until_done=lambda: len(letters(notes_database)) == 1,
        handle=notes_consumer.handle,
    )

    assert letters(notes_database) == [(f"author.created {author_id} 1", "Malformed", 3)]


async def test_an_event_is_done_with_once_though_its_effect_counts(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    """No key of the effect hides a second one: the same entry comes again after its consumer died."""
    subject = uuid.uuid4()
    notes_database.query("CREATE TABLE IF NOT EXISTS counted (subject uuid)")

    def count(connection: Connection, events: Sequence[CloudEvent]) -> None:
        for event in events:
            connection.execute(text("INSERT INTO counted VALUES (:subject)"), {"subject": event.subject})

    def effects() -> list[tuple[Any, ...]]:
        return notes_database.query("SELECT count(*) FROM counted WHERE subject = %s", subject)

    send(stored, subject, 1, 2, 2, 3)
    try:
        await consume(notes_database, redis_url, until_done=lambda: effects() == [(3,)], handle=count)
        stored.xgroup_setid(STREAM, "test", id="0")
        stored.hset(f"{STREAM}:group:test", "read", "0-0")
        send(stored, subject, 3, 4)
        await consume(notes_database, redis_url, until_done=lambda: effects() >= [(4,)], handle=count)

        assert effects() == [(4,)]
    finally:
        notes_database.query("DROP TABLE counted")
