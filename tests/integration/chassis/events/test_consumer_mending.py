"""A consumer fetches the events that its stream lacks, page by page, and reports it."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

import chassis.events.consumer
from chassis.events.cloudevents import CloudEvent
from chassis.testing import until
from tests.integration.chassis.events.test_consumer import EFFECTS, STREAM, effect, letters, until_effects, value
from tests.integration.event_flow import consumer, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from redis import Redis
    from sqlalchemy import Connection

    from tests.integration.databases import TestDatabase

ASKED, ANSWER = f"{STREAM}:replay", f"{STREAM}:replay:test"
LACKS = "shop_consumer_lacks_events"


def an_event(subject: uuid.UUID, sequence: int, *, kind: str = "thing.made") -> str:
    event = CloudEvent(
        id=uuid.uuid4(),
        source="/test",
        type=kind,
        subject=subject,
        sequence=sequence,
        time=datetime.now(UTC),
        traceparent="",
        data={},
    )
    return event.to_json().decode()


class LostStream:
    """A stream whose entries are gone, and the relay that has their events.

    Attributes:
        served: after which entries it was asked for events.
        lacked: whether the consumer was shown to lack events, at each question.
    """

    def __init__(self, stored: Redis, pages: Iterable[Sequence[str]], *, is_complete: bool = True) -> None:
        self._stored = stored
        self._is_complete = is_complete
        self.served: list[str] = []
        self.lacked: list[float] = []
        self._pages: dict[str, dict[str, Any]] = {}
        after = "0-0"
        for number, events in enumerate(pages, start=1):
            stored.xadd(STREAM, {"event": "gone"}, id=f"{number}-0")
            page = {"last": f"{number}-0", "events": [[f"{number}-0", event] for event in events], "is_last": False}
            self._pages[after] = {"after": after, "is_complete": is_complete, **page}
            after = f"{number}-0"
        self._pages[f"{number - 1}-0"]["is_last"] = True
        stored.xtrim(STREAM, maxlen=0, approximate=False)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async def serve() -> None:
            while True:
                if after := self._stored.hget(ASKED, "test"):
                    self._stored.hdel(ASKED, "test")
                    self.lacked.append(value(LACKS))
                    self.served.append(after)
                    self._stored.rpush(ANSWER, json.dumps(self._pages[after]))
                await asyncio.sleep(0.005)  # a request is a field in Redis, which has no event

        task = asyncio.create_task(serve())
        yield
        task.cancel()


@pytest.fixture(autouse=True)
def _in_quick_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chassis.events.consumer, "_LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(chassis.events.consumer, "_SAVE_S", 0.01)


async def mend(database: TestDatabase, redis_url: str, stream: LostStream, *, last: str, **settings: Any) -> list[str]:
    """Run a consumer until it has taken all pages and stands behind the last; return what it said."""

    async def is_done() -> bool:
        return database.query("SELECT position FROM inbox_state") == [(last,)] and value(LACKS) == 0

    with capture_logs() as logs:
        async with (
            consumer(database.url, effect, redis=redis_url, resource="thing", **settings) as ours,
            stream.serving(),
            running(ours.run),
        ):
            await until(is_done, timeout_s=30)
    return [entry["event"] for entry in logs if entry["event"].startswith("consumer.")]


async def test_pages_take_effect_in_sequence_and_are_logged_once(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    subject = uuid.uuid4()
    stream = LostStream(stored, [[an_event(subject, 1), an_event(subject, 2)], [an_event(subject, 3)]])
    counted = value("shop_events_consumed_total")

    told = await mend(notes_database, redis_url, stream, last="2-0")

    assert notes_database.query(EFFECTS) == [(subject, 1), (subject, 2), (subject, 3)]
    assert stream.served == ["0-0", "1-0"]
    assert stream.lacked == [1, 1]
    assert value("shop_events_consumed_total") == counted + 3
    assert sorted(told) == ["consumer.events_missing", "consumer.events_replayed", "consumer.joined"]


async def test_missing_events_make_the_stream_incomplete_and_are_logged_once(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    pages = [[an_event(uuid.uuid4(), 1)] for _ in range(3)]
    stream = LostStream(stored, pages, is_complete=False)

    told = await mend(notes_database, redis_url, stream, last="3-0")

    assert told.count("consumer.events_gone") == 1
    assert notes_database.query("SELECT incomplete_since IS NOT NULL FROM inbox_state") == [(True,)]


async def test_a_poison_event_of_a_page_has_as_many_attempts_as_any_other(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    sick, well = [uuid.uuid4(), uuid.uuid4()], [uuid.uuid4(), uuid.uuid4()]
    pages = [[an_event(sick[n], 1, kind="poison"), an_event(well[n], 1)] for n in range(2)]
    stream = LostStream(stored, pages)
    counted = value("shop_events_consumed_total")

    await mend(notes_database, redis_url, stream, last="2-0", attempts=3)

    assert letters(notes_database) == [(f"poison {subject} 1", "RuntimeError", 3) for subject in sick]
    assert notes_database.query(EFFECTS) == [(subject, 1) for subject in well]
    assert stream.served == ["0-0"] * 3 + ["1-0"] * 3
    assert value("shop_events_consumed_total") == counted + 2


async def test_a_permanent_failure_is_a_dead_letter_at_once(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    orphan = uuid.uuid4()
    stream = LostStream(stored, [["{", an_event(orphan, 2)]])

    await mend(notes_database, redis_url, stream, last="1-0")

    assert sorted(letters(notes_database)) == [
        ("no event of ours", "Malformed", 1),
        (f"thing.made {orphan} 2", "GAP", 1),
    ]
    assert stream.served == ["0-0"]


async def test_a_failed_page_backs_off_before_its_retry(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    tried_at: list[float] = []
    subject = uuid.uuid4()
    stream = LostStream(stored, [[an_event(subject, 1)]])

    def handle(connection: Connection, events: Sequence[CloudEvent]) -> None:
        tried_at.append(time.monotonic())
        if len(tried_at) < 3:
            raise RuntimeError("canary")
        effect(connection, events)

    options = {"attempts": 5, "retry_first_s": 0.1}
    async with (
        consumer(notes_database.url, handle, redis=redis_url, resource="thing", **options) as ours,
        stream.serving(),
        running(ours.run),
    ):
        await until_effects(notes_database, [(subject, 1)])

    first, second, third = tried_at
    assert second - first >= 0.1
    assert third - second >= 0.2
    assert len(stream.served) == 3
