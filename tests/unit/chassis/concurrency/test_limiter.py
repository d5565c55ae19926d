from __future__ import annotations

import asyncio

import pytest

from chassis.concurrency.limiter import CapacityLimiter
from chassis.errors import Overloaded
from tests.support.turns import some_turns


async def test_the_queue_is_bounded_and_the_next_caller_is_refused() -> None:
    limiter = CapacityLimiter(1, max_waiting=2)
    await limiter.acquire()
    waiting = [asyncio.create_task(limiter.acquire()) for _ in range(2)]
    await some_turns()

    with pytest.raises(Overloaded):
        await limiter.acquire()

    assert limiter.waiting == 2
    for _ in waiting:
        limiter.release()
    await asyncio.gather(*waiting)
    assert limiter.waiting == 0


async def test_waiting_callers_are_served_first_in_first_out() -> None:
    limiter = CapacityLimiter(1, max_waiting=3)
    order: list[int] = []

    async def work(number: int) -> None:
        await limiter.acquire()
        order.append(number)
        limiter.release()

    await limiter.acquire()
    tasks = [asyncio.create_task(work(number)) for number in range(3)]
    await some_turns()
    limiter.release()
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2]


async def test_a_caller_cancelled_while_waiting_takes_no_capacity() -> None:
    limiter = CapacityLimiter(1, max_waiting=1)
    await limiter.acquire()
    impatient = asyncio.create_task(limiter.acquire())
    await some_turns()

    impatient.cancel()
    await some_turns()

    assert limiter.waiting == 0
    limiter.release()
    async with asyncio.timeout(5):
        await limiter.acquire()


async def test_a_call_that_waits_too_long_is_refused_and_gives_up_its_place() -> None:
    limiter = CapacityLimiter(1, max_waiting=1, max_wait_s=0.01)
    await limiter.acquire()

    with pytest.raises(Overloaded):
        await limiter.acquire()

    assert limiter.waiting == 0
    limiter.release()
    await limiter.acquire()
    assert limiter.waiting == 0
