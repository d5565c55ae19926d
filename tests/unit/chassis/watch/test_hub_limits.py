"""What a replica's streams may use: places, memory, reads of the database at a time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from chassis.errors import DatabaseUnavailable, Overloaded
from chassis.runtime import periodic
from chassis.watch.hub import WatchHub
from chassis.watch.settings import WatchSettings
from chassis.watch.subscription import Subscription
from tests.support.feed_in_memory import FeedInMemory
from tests.support.turns import some_turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from uuid import UUID


def a_hub(feed: FeedInMemory, **settings: Any) -> WatchHub[Any]:
    options = WatchSettings(**{"poll_s": 0.1, "heartbeat_s": 50, **settings})
    return WatchHub(feed, show=lambda event: event, heartbeat=lambda token: token, settings=options)


@contextlib.asynccontextmanager
async def running(hub: WatchHub[Any]) -> AsyncIterator[None]:
    polling = asyncio.create_task(hub.run_forever())
    await some_turns()
    yield
    polling.cancel()
    await asyncio.wait([polling])


async def opened(
    hub: WatchHub[Any], *, owner: str | None = None, caller: str = "", after: UUID | None = None
) -> AsyncGenerator[Any, None]:
    """Return a stream that has got its first message."""
    stream = hub.watch(owner=owner, after=after, caller=caller)
    await anext(stream)
    return stream


async def test_a_replica_has_a_maximum_of_streams_and_an_ended_one_frees_its_place() -> None:
    hub = a_hub(FeedInMemory(is_prompt=True), max_watchers=2)

    async with running(hub):
        streams = [await opened(hub, caller="ada"), await opened(hub)]
        with pytest.raises(Overloaded):
            await opened(hub)
        await streams[0].aclose()

        streams.append(await opened(hub))
        with pytest.raises(Overloaded):
            await opened(hub)


async def test_a_caller_has_a_maximum_of_streams_and_takes_no_place_of_others() -> None:
    hub = a_hub(FeedInMemory(is_prompt=True), max_of_one_caller=2)

    async with running(hub):
        streams = [await opened(hub, caller="ada"), await opened(hub, caller="ada")]
        with pytest.raises(Overloaded):
            await opened(hub, caller="ada")
        # Without a caller a stream is not counted.
        streams += [await opened(hub, caller=caller) for caller in ("bob", "bob", "", "", "")]
        await streams[0].aclose()

        streams.append(await opened(hub, caller="ada"))
        with pytest.raises(Overloaded):
            await opened(hub, caller="ada")


async def test_an_ended_stream_leaves_nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = weakref.WeakSet[Subscription[Any]]()

    def noted(*args: Any, **options: Any) -> Subscription[Any]:
        in_memory.add(made := Subscription[Any](*args, **options))
        return made

    monkeypatch.setattr("chassis.watch.hub.Subscription", noted)
    feed = FeedInMemory(is_prompt=True)
    hub = a_hub(feed, poll_s=50)  # so that a stream that resumes reads further than the hub has

    async with running(hub):
        kept = await opened(hub, owner="ada")
        await some_turns()  # in which the hub polls for once
        for owner in ("ada", "bob", None):
            ended = await opened(hub, owner=owner, caller="ada")
            feed.commit("ada")
            await ended.aclose()
        feed.commit("bob")
        resumed = await opened(hub, owner="bob", after=feed.timeline[0].position.id)
        await anext(resumed)
        waiting = asyncio.create_task(anext(resumed))
        await some_turns()
        waiting.cancel()
        await asyncio.wait([waiting])
        await resumed.aclose()
        del ended, resumed, waiting
        gc.collect()
        assert len(in_memory) == 1

        await kept.aclose()
        del kept
        gc.collect()
        assert len(in_memory) == 0


async def test_a_stream_that_is_opened_before_the_first_poll_waits_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chassis.watch.hub._FIRST_POLL_TIMEOUT_S", 0.01)
    hub = a_hub(FeedInMemory(is_prompt=True))

    with pytest.raises(DatabaseUnavailable):
        await opened(hub)
    async with running(hub):
        await opened(hub)


async def test_no_more_than_two_streams_read_the_database_at_a_time() -> None:
    feed = FeedInMemory()
    hub = a_hub(feed)
    start = feed.commit("ada").position.id

    async with running(hub):
        feed.questions.pop().settle()  # whether there was a restore
        opening = [asyncio.create_task(opened(hub, after=start)) for _ in range(5)]
        for _ in range(5):
            await some_turns()
            assert len(feed.questions) <= 2
            feed.questions.pop(0).settle()
        await asyncio.wait(opening)


async def test_while_the_database_is_away_polls_back_off_and_streams_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed = FeedInMemory()
    hub = a_hub(feed, poll_s=0.1)
    pauses: list[float] = []
    continued = asyncio.Semaphore(0)

    async def pause(seconds: float, _stopping: asyncio.Event | None = None) -> None:
        pauses.append(seconds)
        await continued.acquire()

    monkeypatch.setattr(periodic, "pause", pause)
    async with running(hub):
        for _ in range(8):
            feed.questions.pop().settle(error=DatabaseUnavailable())
            await some_turns()
            continued.release()
            await some_turns()

    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5])
