"""Entries of a faulty or foreign publisher: each is applied, skipped or a dead letter, and none stops another."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from chassis.events.cloudevents import CloudEvent
from chassis.events.consumer_group import ConsumerGroup
from chassis.events.redis_streams import AFTER, FIELD, connect_async, stream_of
from chassis.testing import until
from tests.integration.event_flow import consumer, relay, running, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis import Redis
    from sqlalchemy import Connection

    from tests.integration.databases import TestDatabase

STREAM = stream_of("thing")
EVENT: Final = CloudEvent(
    id=uuid.uuid4(),
    source="/test",
    type="thing.made",
    subject=uuid.uuid4(),
    sequence=1,
    time=datetime.now(UTC),
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    data={"authorId": "ada"},
    epoch=1,
)
# JSON of values that a column, a conversion or a comparison may not take.
VALUES: Final = (
    "null",
    "-1",
    str(2**31),
    str(2**63),
    str(10**30),
    "1e999",
    '""',
    '"\\u0000"',
    f'"{10**30}"',
    '"9999-12-31T23:59:59-23:59"',
    '"2026-01-01"',
    f'"{"x" * 300}"',
    '["a"]',
    '{"a": 1}',
)
# Values of `after`, which names the entry before, that are no ids.
BEFORE: Final = (b"", b"x", b"1", b"1-", b"-1-1", b"1-1-1", b"1-x", b"\xff")
# Neither an event nor JSON; some not even text.
TEXTS: Final = (b"", b"\0", b'{"a": "\0"}', b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf{}", b"[" * 5000, b"NaN")


def sick() -> Iterator[dict[str, bytes]]:
    """Yield entries: with each text, after each of BEFORE, and an event with each value in each of its attributes."""
    yield from ({FIELD: each} for each in TEXTS)
    yield from ({FIELD: b"{}", AFTER: each} for each in BEFORE)
    for name in json.loads(EVENT.to_json()):
        for value in VALUES:
            own = {"id": str(uuid.uuid4()), "subject": str(uuid.uuid4()), name: "$"}
            yield {FIELD: json.dumps(json.loads(EVENT.to_json()) | own).replace('"$"', value).encode()}


def keep(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Write down what the database has columns for."""
    for each in events:
        connection.execute(
            text(
                "INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at) "
                "VALUES (gen_random_uuid(), :type, :subject, :sequence, '{}', :traceparent, :time)"
            ),
            {
                "type": each.type,
                "subject": each.subject,
                "sequence": each.sequence,
                "traceparent": each.traceparent,
                "time": each.time,
            },
        )


async def test_no_entry_stops_the_entries_behind_it(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    for each in sick():
        stored.xadd(STREAM, dict(each))
    stored.xadd(STREAM, {FIELD: EVENT.to_json()})

    async with (
        consumer(notes_database.url, keep, redis=redis_url, resource="thing", attempts=1) as ours,
        connect_async(settings_of(redis_url)) as client,
    ):
        group = ConsumerGroup(client, stream=STREAM, group="test")
        await group.create_if_missing()

        async def is_done() -> bool:
            return bool(notes_database.query("SELECT 1 FROM outbox WHERE subject = %s", EVENT.subject))

        async def is_nothing_pending() -> bool:
            return (await group.look()).pending == 0

        async with running(ours.run):
            await until(is_done, timeout_s=60)
            await until(is_nothing_pending, timeout_s=60)

    [(kept,)] = notes_database.query("SELECT count(*) FROM dead_letters WHERE subject IS NULL")
    assert kept >= len(TEXTS)


async def test_no_entry_stops_a_relay_that_finds_it(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    notes_database.query(
        "INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at) "
        "VALUES (gen_random_uuid(), '', gen_random_uuid(), 1, '{}', '', now())"
    )
    for each in sick():
        stored.xadd(STREAM, dict(each))

    async def is_published() -> bool:
        return bool(notes_database.query("SELECT 1 FROM outbox WHERE published_at IS NOT NULL"))

    async with relay(notes_database.url, redis=redis_url, resource="thing") as ours, running(ours.run):
        await until(is_published, timeout_s=60)

    assert stored.xlen(STREAM) == len(list(sick())) + 1
