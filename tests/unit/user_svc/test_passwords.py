"""How many passwords are hashed at a time, who is refused, and that nothing is forgotten while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest

from chassis.errors import Overloaded
from chassis.telemetry.metrics import REGISTRY
from tests.support.turns import finished_tasks, some_turns
from user_svc.passwords import Passwords
from user_svc.settings import PasswordSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def settings(*, workers: int, max_waiting: int = 10) -> PasswordSettings:
    return PasswordSettings(memory_kib=8, workers=workers, max_waiting=max_waiting)


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    """One worker."""
    ours = Passwords(settings(workers=1))
    yield ours
    await ours.close()


class Work:
    """Work that takes a turn and ends when the test says so, with a failure if one is given."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.begun = self.ended = 0
        self.may_end = asyncio.Event()
        self._failure = failure

    async def __call__(self) -> int:
        self.begun += 1
        await self.may_end.wait()
        self.ended += 1
        if self._failure:
            raise self._failure
        return self.begun


@pytest.mark.parametrize(("workers", "waiting"), [(1, 1), (2, 3)])
def test_running_and_waiting_hashes_are_bounded_and_free_their_places(workers: int, waiting: int) -> None:
    passwords = Passwords(settings(workers=workers, max_waiting=waiting))

    for _ in range(2):
        with contextlib.ExitStack() as places:
            for _ in range(workers + waiting):
                places.enter_context(passwords.place())
            with pytest.raises(Overloaded):
                places.enter_context(passwords.place())


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_more_hashes_run_than_there_are_workers_and_the_rest_follow(workers: int) -> None:
    passwords = Passwords(settings(workers=workers))
    work = Work()
    calls = [asyncio.create_task(passwords.in_turn(work)) for _ in range(5)]
    await some_turns()
    begun_at_first, waiting = work.begun, REGISTRY.get_sample_value("shop_password_hashes_waiting")

    work.may_end.set()
    await asyncio.gather(*calls)

    assert (begun_at_first, waiting) == (workers, 5 - workers)
    assert work.begun == 5
    await passwords.close()


async def test_a_running_hash_of_a_cancelled_call_occupies_its_worker_until_its_end(passwords: Passwords) -> None:
    left, next_one = Work(), Work()
    caller = asyncio.create_task(passwords.in_turn(left))
    await some_turns()
    caller.cancel()
    following = asyncio.create_task(passwords.in_turn(next_one))
    await some_turns()
    gc.collect()
    begun_meanwhile = next_one.begun

    left.may_end.set()
    next_one.may_end.set()
    await following

    assert (begun_meanwhile, left.ended, next_one.ended) == (0, 1, 1)


@pytest.mark.parametrize("failure", [None, RuntimeError("canary")])
async def test_a_stop_waits_for_running_hashes_and_starts_no_other(failure: Exception | None) -> None:
    passwords = Passwords(settings(workers=2))
    works = [Work(failure), Work()]
    callers = [asyncio.create_task(passwords.in_turn(work)) for work in works]
    await some_turns()
    for caller in callers:
        caller.cancel()
    closing = asyncio.create_task(passwords.close())
    works[0].may_end.set()
    await some_turns()
    is_closed_early = closing.done()

    works[1].may_end.set()
    await closing

    assert not is_closed_early
    assert [work.ended for work in works] == [1, 1]
    with pytest.raises(RuntimeError):
        await passwords.hash("a password of tests")


async def test_a_failure_of_a_cancelled_call_is_not_reported_by_the_loop(passwords: Passwords) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, about: told.append(about))
    work = Work(RuntimeError("canary"))
    caller = asyncio.create_task(passwords.in_turn(work))
    await some_turns()

    caller.cancel()
    work.may_end.set()
    await some_turns()
    gc.collect()

    assert work.ended == 1
    assert [about["message"] for about in told if "never retrieved" in about["message"]] == []


async def test_a_finished_hash_leaves_no_reference(passwords: Passwords) -> None:
    work = Work()
    work.may_end.set()
    before = finished_tasks()

    for _ in range(20):
        await passwords.in_turn(work)
    await some_turns()

    assert finished_tasks() <= before + 1  # the last one may still be held by the loop


async def test_a_hash_is_counted_with_the_time_that_it_took(passwords: Passwords) -> None:
    def value(suffix: str) -> float:
        return REGISTRY.get_sample_value(f"shop_password_hash_duration_seconds_{suffix}") or 0

    before = value("count"), value("sum")

    await passwords.hash("a password of tests")

    assert value("count") == before[0] + 1
    assert 0 < value("sum") - before[1] < 30
