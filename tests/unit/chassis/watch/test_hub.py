"""Many streams at once on a running loop, with heartbeats as short as the changes are apart."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop

from chassis.testing import until
from chassis.watch.feed import FeedEvent
from chassis.watch.hub import WatchHub
from chassis.watch.settings import WatchSettings
from tests.support.feed_in_memory import FeedInMemory

if TYPE_CHECKING:
    from collections.abc import Callable

STREAMS: Final = 200
DELIVERIES: Final = int(os.environ.get("WATCH_DELIVERIES", "10000"))
SETTINGS: Final = WatchSettings(poll_s=0.005, heartbeat_s=0.02, buffer=1000, max_of_one_caller=STREAMS)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_no_change_is_lost_to_a_heartbeat(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """`WATCH_DELIVERIES=200000 pytest tests/unit/chassis/watch/test_hub.py` delivers as many changes on each loop."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        feed, received = runner.run(deliver(DELIVERIES // STREAMS))

    committed = [event.position.id for event in feed.timeline]
    lost = doubled = heartbeats = 0
    for messages in received:
        told = [message.position.id for message in messages if isinstance(message, FeedEvent)]
        lost += len(set(committed) - set(told))
        doubled += len(told) - len(set(told))
        heartbeats += len(messages) - len(told)
        assert told == [event_id for event_id in committed if event_id in set(told)]  # in order
    assert (lost, doubled) == (0, 0), f"of {len(committed) * STREAMS}"
    assert heartbeats > len(committed)


async def deliver(count: int) -> tuple[FeedInMemory, list[list[Any]]]:
    """Commit changes, each when the heartbeats of the last one are due; return what each stream received."""
    feed = FeedInMemory(is_prompt=True)
    hub: WatchHub[Any] = WatchHub(feed, show=lambda event: event, heartbeat=lambda token: token, settings=SETTINGS)
    received: list[list[Any]] = [[] for _ in range(STREAMS)]

    async def follow(messages: list[Any]) -> None:
        async for message in hub.watch(owner=None, after=None):
            messages.append(message)  # noqa: PERF401  it never ends, so there is no list to extend by

    tasks = [asyncio.create_task(hub.run_forever()), *(asyncio.create_task(follow(each)) for each in received)]

    async def have_begun() -> bool:
        return all(received)

    await until(have_begun)
    offset_s = itertools.cycle((0, 0.0005, 0.001, 0.0015, 0.002))
    for _ in range(count):
        await asyncio.sleep(SETTINGS.heartbeat_s - SETTINGS.poll_s + next(offset_s))  # the pace of the changes
        last = feed.commit("ada")

    async def have_passed_the_last() -> bool:
        return all(token_in(messages[-1]) == last.position.id for messages in received)

    await until(have_passed_the_last)
    await asyncio.sleep(2 * SETTINGS.heartbeat_s)  # a doubled change would come now
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return feed, received


def token_in(message: Any) -> Any:
    return message.position.id if isinstance(message, FeedEvent) else message
