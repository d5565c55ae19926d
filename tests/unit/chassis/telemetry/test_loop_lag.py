from __future__ import annotations

import asyncio
import time

from chassis.telemetry.metrics import REGISTRY
from chassis.telemetry.metrics.process import measure_loop_lag_forever, watch_tasks


def late(le: str) -> float:
    """Return how many looks found the loop no later than this."""
    return REGISTRY.get_sample_value("shop_event_loop_lag_seconds_bucket", {"le": le}) or 0


def looks() -> float:
    return REGISTRY.get_sample_value("shop_event_loop_lag_seconds_count") or 0


async def test_a_loop_that_is_held_is_seen_to_be_late() -> None:
    before = looks() - late("0.25")
    measuring = asyncio.create_task(measure_loop_lag_forever())
    await asyncio.sleep(0)  # a turn of the loop, in which it sets its first timer

    time.sleep(0.4)  # noqa: ASYNC251  holds the loop, which is what is measured
    async with asyncio.timeout(10):
        while looks() - late("0.25") == before:  # noqa: ASYNC110  the metric has no event
            await asyncio.sleep(0)  # a turn of the loop, in which the timer may fire

    measuring.cancel()


async def test_tasks_that_have_not_ended_are_counted_when_they_are_asked_for() -> None:
    def tasks() -> float:
        return REGISTRY.get_sample_value("shop_asyncio_tasks") or 0

    watch_tasks(asyncio.get_running_loop())
    before = tasks()
    waiting = [asyncio.create_task(asyncio.Event().wait()) for _ in range(3)]
    during = tasks()
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)

    assert (before, during, tasks()) == (1, 4, 1)
