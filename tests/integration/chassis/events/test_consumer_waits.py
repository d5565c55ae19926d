"""A consumer waits while Redis or its database is away, and while there is nothing to do."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

import chassis.events.consumer
from chassis.errors import DatabaseUnavailable
from chassis.events import inbox
from chassis.events.consumer import Consumer, ConsumerSettings
from chassis.events.consumer_group import ConsumerGroup
from chassis.events.redis_streams import connect_async
from chassis.runtime import periodic
from chassis.testing import until
from devstack.ports import LOOPBACK, ReservedPort
from devstack.redis import RedisServer, find_redis
from tests.integration.chassis.events.test_consumer import (
    STREAM,
    STUCK,
    effect,
    healthy,
    letters,
    send,
    until_effects,
    value,
)
from tests.integration.event_flow import QUICK, consumer, opened, running, settings_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from redis import Redis
    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent
    from tests.integration.databases import TestDatabase

# Once for all: what is away stays away, and a pause takes no time.
PAUSES_S = [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address without a listener."""
    reserved = ReservedPort()
    yield f"{LOOPBACK}:{reserved.number}"
    reserved.release()


def without_pauses(
    monkeypatch: pytest.MonkeyPatch, *, then: Callable[[list[float], asyncio.Event], Awaitable[None]]
) -> None:
    """Let pauses pass at once; call `then` at each, with all so far and the event that stops the consumer."""
    pauses: list[float] = []

    async def pause(seconds: float, stopping: asyncio.Event | None = None) -> None:
        assert stopping is not None
        pauses.append(seconds)
        await then(pauses, stopping)

    monkeypatch.setattr(periodic, "pause", pause)


@pytest.mark.parametrize("away", ["Redis", "the database", "the database at the first start"])
async def test_while_a_dependency_is_down_retries_back_off_and_are_logged_once(
    notes_database: TestDatabase,
    redis_url: str,
    stored: Redis,
    monkeypatch: pytest.MonkeyPatch,
    nobody: str,
    away: str,
) -> None:
    paused: list[float] = []

    async def stop_in_the_end(pauses: list[float], stopping: asyncio.Event) -> None:
        paused[:] = pauses
        if len(pauses) == len(PAUSES_S):
            stopping.set()

    without_pauses(monkeypatch, then=stop_in_the_end)
    if away != "the database at the first start":
        stored.xgroup_create(STREAM, "test", id="0", mkstream=True)
    redis = f"redis://{nobody}/0" if away == "Redis" else redis_url
    database = notes_database.url if away == "Redis" else f"postgresql://nobody@{nobody}/nothing"

    with capture_logs() as logs:
        async with consumer(database, effect, redis=redis, resource="thing") as ours, asyncio.timeout(60):
            await ours.run(asyncio.Event())

    assert paused == pytest.approx(PAUSES_S)
    assert [entry["event"] for entry in logs if entry["event"].startswith("consumer.")] == ["consumer.waiting"]


async def test_a_consumer_resumes_when_redis_is_back_and_logs_the_next_failure_too(
    notes_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = find_redis()
    if program is None:
        pytest.skip("this machine has no redis-server")
    server = RedisServer(program, tmp_path)

    async def is_at(event: str) -> bool:
        return event in {entry["event"] for entry in logs}

    async def start_or_stop(pauses: list[float], stopping: asyncio.Event) -> None:
        if len(pauses) == 3:
            await asyncio.to_thread(server.start)
        elif len(pauses) > 3:
            stopping.set()

    without_pauses(monkeypatch, then=start_or_stop)
    try:
        with capture_logs() as logs:
            async with consumer(notes_database.url, effect, redis=server.url, resource="thing") as ours:
                work = asyncio.create_task(ours.run(asyncio.Event()))
                await until(lambda: is_at("consumer.goes_on"), timeout_s=30)
                await asyncio.to_thread(server.process.stop)
                await asyncio.wait_for(work, 30)
    finally:
        server.close()

    told = [entry for entry in logs if entry["event"].startswith("consumer.")]
    assert [entry["event"] for entry in told] == [
        "consumer.waiting",
        "consumer.joined",
        "consumer.goes_on",
        "consumer.waiting",
    ]
    assert told[2]["failures"] == 3


async def test_no_event_becomes_a_dead_letter_while_the_database_is_down(
    notes_database: TestDatabase, redis_url: str, stored: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[str]()

    async def go_on(_pauses: list[float], _stopping: asyncio.Event) -> None:
        await asyncio.sleep(0.01)  # until the entry may be tried again

    def handle(connection: Connection, events: Sequence[CloudEvent]) -> None:
        calls["all"] += 1
        if calls["all"] <= 5:
            raise DatabaseUnavailable
        healthy(connection, events)

    without_pauses(monkeypatch, then=go_on)
    monkeypatch.setattr(chassis.events.consumer, "_LOOK_AGAIN_S", 0.01)
    subject = uuid.uuid4()
    send(stored, subject, 1)

    options = {"attempts": 2, "retry_first_s": 0.01}
    async with (
        consumer(notes_database.url, handle, redis=redis_url, resource="thing", **options) as ours,
        running(ours.run),
    ):
        await until_effects(notes_database, [(subject, 1)])

    assert letters(notes_database) == []


async def test_the_state_of_a_stream_is_shown_from_the_first_poll_on(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    notes_database.query("INSERT INTO inbox_state (stream, incomplete_since) VALUES (%s, now())", STREAM)
    letter = "INSERT INTO dead_letters VALUES (%s, gen_random_uuid(), NULL, 0, '', '', 1, now())"
    for _ in range(2):
        notes_database.query(letter, STREAM)

    async def is_shown() -> bool:
        return (value("shop_dead_letters"), value("shop_consumer_is_incomplete")) == (2, 1)

    async with consumer(notes_database.url, effect, redis=redis_url, resource="thing") as ours, running(ours.run):
        await until(is_shown)


class Counting:
    """Counts what a consumer asks, and lets it ask."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, group: ConsumerGroup) -> None:
        self.calls = Counter[str]()
        for name in ("look", "claim_stale"):
            self._watch(monkeypatch, group, name)
        self._watch(monkeypatch, inbox, "save_position")

    def _watch(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            self.calls[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize(
    ("often", "seldom", "counted"),
    [
        ("_LOOK_AGAIN_S", "_WAIT_S", "look"),
        ("_WAIT_S", "_LOOK_AGAIN_S", "claim_stale"),
        ("_WAIT_S", "_SAVE_S", "save_position"),
    ],
)
async def test_an_idle_consumer_makes_each_periodic_call_at_its_own_interval(
    notes_database: TestDatabase,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    often: str,
    seldom: str,
    counted: str,
) -> None:
    monkeypatch.setattr(chassis.events.consumer, often, 0.01)
    monkeypatch.setattr(chassis.events.consumer, seldom, 0.1)
    began = time.monotonic()

    async with opened(notes_database.url) as database, connect_async(settings_of(redis_url)) as client:
        group = ConsumerGroup(client, stream=STREAM, group="test")
        counting = Counting(monkeypatch, group)

        async def has_asked() -> bool:
            return counting.calls[counted] >= 6

        async with running(Consumer(database, group, effect, settings=ConsumerSettings(**QUICK)).run):
            await until(has_asked, timeout_s=30)
            calls, taken_s = counting.calls[counted], time.monotonic() - began

    # The first ones join the group.
    assert calls <= taken_s / 0.1 + 3


async def test_the_position_stays_before_an_event_that_has_not_taken_effect(
    notes_database: TestDatabase, redis_url: str, stored: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.events.consumer, "_SAVE_S", 0.0)
    monkeypatch.setattr(chassis.events.consumer, "_LOOK_AGAIN_S", 0.01)
    send(stored, uuid.uuid4(), 2)  # its first event never comes

    async with opened(notes_database.url) as database, connect_async(settings_of(redis_url)) as client:
        group = ConsumerGroup(client, stream=STREAM, group="test")
        counting = Counting(monkeypatch, group)

        async def has_looked_often() -> bool:
            return counting.calls["look"] >= 8

        async with running(Consumer(database, group, effect, settings=ConsumerSettings(**STUCK)).run):
            await until(has_looked_often, timeout_s=30)

    position = notes_database.query("SELECT position FROM inbox_state WHERE stream = %s", STREAM)
    assert position in ([], [(None,)], [("0-0",)])
