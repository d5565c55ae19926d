"""A relay waits while Redis is away, another relay publishes or nothing is to be sent; what it sends again, and how."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import chassis.events.relay
from chassis.database import locks
from chassis.events import recovery, relay_state, replay
from chassis.events.cloudevents import CloudEvent
from chassis.events.redis_streams import START, EntryId, connect_async, stream_of
from chassis.telemetry.metrics import REGISTRY
from chassis.testing import until
from tests.integration.chassis.events.test_consumer_waits import without_pauses
from tests.integration.chassis.events.test_relay import NO_REDIS, STREAM, sent, until_published, write
from tests.integration.event_flow import relay, running, settings_of

if TYPE_CHECKING:
    from redis import Redis

    from tests.integration.databases import TestDatabase

POLL_S = 0.1
STATE = "INSERT INTO relay_state (stream, last_entry, position, epoch) VALUES (%s, '', %s, %s)"


def counting(monkeypatch: pytest.MonkeyPatch, *functions: tuple[Any, str]) -> Counter[str]:
    """Count the calls of functions of modules, by name."""
    calls = Counter[str]()

    def count(original: Any, name: str) -> Any:
        def counted(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*args, **options)

        return counted

    for module, name in functions:
        monkeypatch.setattr(module, name, count(getattr(module, name), name))
    return calls


async def pauses_of(database: TestDatabase, monkeypatch: pytest.MonkeyPatch, *, redis: str, number: int) -> list[float]:
    """Run a relay until its last one of a number of pauses, which take no time; return them, in seconds."""
    paused: list[float] = []

    async def stop_in_the_end(pauses: list[float], stopping: asyncio.Event) -> None:
        paused[:] = pauses
        if len(pauses) == number:
            stopping.set()

    without_pauses(monkeypatch, then=stop_in_the_end)
    async with relay(database.url, redis=redis, resource="note", poll_s=POLL_S) as ours, asyncio.timeout(60):
        await ours.run(asyncio.Event())
    return paused


async def is_there(stored: Redis, key: str, *, entries: int = 1) -> bool:
    """Return whether Redis has the key; of a stream, this many entries."""
    return bool(stored.exists(key)) and (key != STREAM or stored.xlen(key) >= entries)


async def has_looked(calls: Counter[str], times: int) -> bool:
    """Return whether the relay has looked at its stream this often, for new requests too."""
    return calls["try_lock"] >= times


def published() -> float:
    return REGISTRY.get_sample_value("shop_events_published_total", {"stream": STREAM}) or 0


async def test_while_redis_is_down_the_relay_backs_off(
    notes_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused = await pauses_of(notes_database, monkeypatch, redis=NO_REDIS, number=7)

    assert paused == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])


async def test_an_idle_relay_polls_the_outbox_and_compares_the_stream_only_at_a_tick(
    notes_database: TestDatabase, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.events.relay, "_TICK_S", 600.0)
    calls = counting(monkeypatch, (relay_state, "is_waiting"), (relay_state, "try_lock"))

    paused = await pauses_of(notes_database, monkeypatch, redis=redis_url, number=5)

    assert paused == [POLL_S] * 5
    assert calls == {"try_lock": 1, "is_waiting": 4}
    assert notes_database.query("SELECT 1 FROM relay_state") == [], "a row written at each tick is a dead row at each"


async def test_a_relay_on_standby_pauses_between_its_attempts_and_counts_nothing(
    notes_database: TestDatabase, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.events.relay, "_TICK_S", 0.0)
    write(notes_database, 1)
    calls = counting(monkeypatch, (relay_state, "try_lock"))
    before = published()

    with notes_database.connect() as publishing:
        publishing.execute("SELECT pg_advisory_lock(%s)", [locks.RELAY])
        paused = await pauses_of(notes_database, monkeypatch, redis=redis_url, number=3)

    assert paused == [POLL_S] * 3
    assert calls == {"try_lock": 3}
    assert published() == before


async def test_the_relay_knows_its_last_entry_so_that_nothing_is_recovered_while_nothing_is_lost(
    notes_database: TestDatabase, redis_url: str, stored: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counting(monkeypatch, (recovery, "after_loss"), (recovery, "match_entries"))
    write(notes_database, *range(1, 8))

    async with relay(notes_database.url, redis=redis_url, resource="note", batch=3) as ours, running(ours.run):
        await until_published(notes_database)

    assert [event.sequence for event in sent(stored)] == list(range(1, 8))
    assert calls == {}


async def test_the_counters_of_a_new_stream_begin_at_zero(notes_database: TestDatabase) -> None:
    async with relay(notes_database.url, redis=NO_REDIS, resource="never seen"):
        labels = {"stream": stream_of("never seen")}

        for name in ("shop_stream_events_cut_total", "shop_events_vanished_total"):
            assert REGISTRY.get_sample_value(name, labels) == 0


async def test_a_reader_that_is_behind_gets_each_page_without_waiting_for_a_tick(
    notes_database: TestDatabase, redis_url: str, stored: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_TICK_S", "_SERVES_FOR_S"):
        monkeypatch.setattr(chassis.events.relay, name, 600.0)
    calls = counting(monkeypatch, (relay_state, "try_lock"))
    write(notes_database, 1)

    async with connect_async(settings_of(redis_url, timeout_s=30)) as client, asyncio.timeout(60):
        asking = asyncio.create_task(replay.ask(client, stream=STREAM, group="test", after=START, wait_s=20))
        await until(lambda: is_there(stored, f"{STREAM}:replay"))
        async with relay(notes_database.url, redis=redis_url, resource="note") as ours, running(ours.run):
            pages = [await asking]
            looks = calls["try_lock"]
            await until(lambda: has_looked(calls, looks + 3))
            pages.append(await replay.ask(client, stream=STREAM, group="test", after=START, wait_s=20))

    assert [page and len(page.events) for page in pages] == [1, 1]


async def test_after_a_page_the_relay_looks_for_the_next_request_at_once(
    notes_database: TestDatabase, redis_url: str, stored: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counting(monkeypatch, (relay_state, "try_lock"))
    stored.hset(f"{STREAM}:replay", "test", "0-0")

    async with relay(notes_database.url, redis=redis_url, resource="note", poll_s=600) as ours, running(ours.run):
        await until(lambda: has_looked(calls, 2))

    assert stored.exists(f"{STREAM}:replay:test")


async def test_an_event_has_the_epoch_in_which_it_was_first_published_whenever_it_is_sent(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    notes_database.query(STATE, STREAM, "0-0", 3)
    write(notes_database, 1, 2)

    async with (
        relay(notes_database.url, redis=redis_url, resource="note") as ours,
        running(ours.run),
        connect_async(settings_of(redis_url, timeout_s=30)) as client,
    ):
        await until_published(notes_database)
        first = [event.epoch for event in sent(stored)]
        # The first event is from before epochs were kept.
        notes_database.query("UPDATE outbox SET epoch = NULL WHERE sequence = 1")
        page = await replay.ask(client, stream=STREAM, group="test", after=START, wait_s=20)
        stored.flushall()
        await until(lambda: is_there(stored, STREAM, entries=2), timeout_s=30)

    assert page is not None
    assert first == [3, 3]
    assert [CloudEvent.from_json(text).epoch for _, text in page.events] == [0, 3]
    assert [event.epoch for event in sent(stored)] == [0, 3]


async def test_entries_that_are_sent_again_come_after_the_lost_ones_though_redis_clock_was_set_back(
    notes_database: TestDatabase, redis_url: str, stored: Redis
) -> None:
    lost = EntryId(round(time.time() * 1000) + 3_600_000, 0)
    write(notes_database, 1)
    notes_database.query("UPDATE outbox SET published_at = now(), entry_ms = %s, entry_number = 0", lost.ms)
    notes_database.query(STATE, STREAM, str(lost), 0)
    before = published()

    async with relay(notes_database.url, redis=redis_url, resource="note") as ours, running(ours.run):
        await until(lambda: is_there(stored, STREAM), timeout_s=30)
        write(notes_database, 2)
        await until_published(notes_database)

    entries = [EntryId.parse(entry) for entry, _ in stored.xrange(STREAM)]
    assert len(entries) == 2
    assert lost < entries[0] < entries[1]
    assert published() == before + 2
