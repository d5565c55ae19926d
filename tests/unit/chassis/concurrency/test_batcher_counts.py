"""A batcher's counters: running, waiting and usual calls; it keeps no reference to finished calls."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from typing import TYPE_CHECKING

import pytest

from chassis import context
from chassis.concurrency.batcher import Batcher
from chassis.context import Call
from chassis.errors import DatabaseUnavailable, DeadlineExceeded, Overloaded
from tests.support.turns import finished_tasks, some_turns
from tests.unit.chassis.concurrency.test_batcher import (
    Poisoned,
    Store,
    a_batcher,
    answer_to,
    limits,
    submit,
    until_ended,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


async def test_a_batch_whose_calls_are_all_cancelled_is_not_run() -> None:
    store = Store()
    batcher = a_batcher(store, linger_s=0.0)
    running = submit(batcher, 0)
    await some_turns()
    waiting = submit(batcher, 1, 2)
    await some_turns()

    for call in waiting:
        call.cancel()
    await until_ended(store, [*running, *waiting])
    await some_turns()

    assert store.begun == [[0]]
    assert await until_ended(store, submit(batcher, 3)) == [answer_to(3)]


async def test_calls_cancelled_in_the_turn_of_their_batch_leave_no_empty_batch() -> None:
    store = Store()
    batcher = a_batcher(store, linger_s=0.0)

    calls = submit(batcher, 1, 2)
    await asyncio.sleep(0)  # they wait now, and their batch is about to be sent
    for call in calls:
        call.cancel()
    await some_turns()

    assert store.begun == []
    assert await until_ended(store, submit(batcher, 3)) == [answer_to(3)]


@pytest.mark.parametrize("at_once", [1, 2, 3])
async def test_no_more_batches_run_at_once_than_allowed(at_once: int) -> None:
    store = Store()
    batcher = a_batcher(store, max_items=2, at_once=at_once, linger_s=0.0)

    calls = submit(batcher, *range(8))
    await some_turns()

    assert [len(batch) for batch in store.begun] == [2] * at_once
    store.end_one()
    await some_turns()
    assert [len(batch) for batch in store.begun] == [2] * (at_once + 1)
    assert await until_ended(store, calls) == [answer_to(item) for item in range(8)]


@pytest.mark.parametrize("at_once", [1, 2])
async def test_places_are_freed_however_a_batch_ends(at_once: int) -> None:
    store = Store(poisoned=frozenset({1, 3}))
    batcher = a_batcher(store, max_items=2, max_waiting=4, at_once=at_once, linger_s=0.0)

    for _ in range(3):
        answers = await until_ended(store, submit(batcher, 0, 1, 2, 3))
        assert [type(answer) for answer in answers] == [str, Poisoned, str, Poisoned]

    with contextlib.suppress(Overloaded):
        refused = asyncio.gather(*submit(batcher, 4, 5, 6, 7, 8), return_exceptions=True)
        await some_turns()
        while not refused.done():
            store.end_one()
            await asyncio.sleep(0)  # a turn of the loop
    assert [type(answer) for answer in await refused] == [str, str, str, str, Overloaded]


async def test_calls_that_are_not_run_get_the_last_failure() -> None:
    failures: list[DatabaseUnavailable] = []

    async def run(_items: Sequence[int]) -> list[str]:
        failures.append(DatabaseUnavailable())
        raise failures[-1]

    batcher: Batcher[int, str] = Batcher(run, name="test", alone=run, limits=limits())

    outcomes = await asyncio.gather(*submit(batcher, 1, 2, 3, 4), return_exceptions=True)

    # The batch's own, then two single runs; the other calls get the failure of the second.
    assert outcomes == [failures[1], failures[2], failures[2], failures[2]]


async def test_failures_that_are_not_consecutive_do_not_end_the_single_runs() -> None:
    lost = {2, 4, 6}
    begun: list[int] = []

    async def together(_items: Sequence[int]) -> list[str]:
        raise Poisoned

    async def alone(items: Sequence[int]) -> list[str]:
        begun.extend(items)
        if lost & set(items):
            raise DatabaseUnavailable
        return [answer_to(item) for item in items]

    batcher: Batcher[int, str] = Batcher(together, name="test", alone=alone, limits=limits())

    outcomes = await asyncio.gather(*submit(batcher, *range(1, 8)), return_exceptions=True)

    assert begun == list(range(1, 8))
    assert [type(outcome) for outcome in outcomes] == [str, DatabaseUnavailable] * 3 + [str]


async def test_a_deadline_that_is_now_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    batcher = a_batcher(store)
    now = time.monotonic()

    async def late() -> str:
        context.set_current_call(Call(method="/m", deadline=now))
        return await batcher.submit(1)

    with monkeypatch.context() as patch:
        patch.setattr("chassis.concurrency.batcher.time.monotonic", lambda: now)
        with pytest.raises(DeadlineExceeded):
            await late()

    assert store.begun == []


async def test_a_running_batch_is_referenced_until_its_end() -> None:
    class Mark:
        pass

    marks: list[weakref.ref[Mark]] = []

    async def together(_items: Sequence[int]) -> list[str]:
        mark = Mark()
        marks.append(weakref.ref(mark))
        # Referenced by this coroutine only, like an answer from outside.
        await asyncio.get_running_loop().create_future()
        return [repr(mark)]

    batcher: Batcher[int, str] = Batcher(together, name="test", alone=together, limits=limits())
    call = asyncio.create_task(batcher.submit(1))
    await some_turns()

    gc.collect()

    assert marks[0]() is not None
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_an_answered_call_leaves_no_reference() -> None:
    store = Store()
    batcher = a_batcher(store, linger_s=0.0)
    before = finished_tasks()

    for item in range(20):
        assert await until_ended(store, submit(batcher, item)) == [answer_to(item)]
    await some_turns()

    # The last one may still be held by the loop.
    assert finished_tasks() <= before + 1


async def test_a_batch_that_was_planned_for_later_and_sent_at_once_is_not_sent_again() -> None:
    store = Store()
    batcher = a_batcher(store, linger_s=0.05, max_items=2, at_once=2)
    await until_ended(store, submit(batcher, 1, 2))
    one = submit(batcher, 3)  # waits for company
    await some_turns()
    two = submit(batcher, 4)  # and is complete with it
    await some_turns()
    assert store.begun[1:] == [[3, 4]]
    late = submit(batcher, 5)
    await some_turns()

    assert await until_ended(store, [*one, *two, *late]) == [answer_to(item) for item in (3, 4, 5)]

    assert store.begun[1:] == [[3, 4], [5]]


async def test_a_cancelled_batch_cancels_each_of_its_calls() -> None:
    async def together(_items: Sequence[int]) -> list[str]:
        raise asyncio.CancelledError

    batcher: Batcher[int, str] = Batcher(together, name="test", alone=together, limits=limits())

    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*submit(batcher, 1, 2, 3), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 3
