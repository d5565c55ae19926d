from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.chaos.sampling import ALLOWED, Held, Sample, growth_of

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE_S = 60.0


def samples(held: Held, value: Callable[[float], float], *, minutes: int, pid: int = 1) -> list[Sample]:
    """Return a look every five seconds; the value is by the minute."""
    return [
        Sample(process="order_svc-2", pid=pid, held=held, at_s=1000 + at_s, value=value(at_s / MINUTE_S))
        for at_s in range(0, int(minutes * MINUTE_S), 5)
    ]


def test_a_descriptor_that_leaks_every_ten_minutes_is_found() -> None:
    [found] = growth_of(samples(Held.DESCRIPTORS, lambda minute: 30 + minute // 10, minutes=60), warm_up_s=600)

    assert found.per_hour.low > ALLOWED[Held.DESCRIPTORS]
    assert found.minutes == 50


def test_a_task_that_leaks_every_ten_minutes_is_found_among_those_of_calls() -> None:
    calls = random.Random(1)

    def tasks(minute: float) -> float:
        return 20 + minute // 10 + calls.randrange(10)

    [found] = growth_of(samples(Held.TASKS, tasks, minutes=60), warm_up_s=600)

    assert found.per_hour.low > ALLOWED[Held.TASKS]


def test_tasks_of_calls_are_no_growth() -> None:
    calls = random.Random(1)

    [found] = growth_of(samples(Held.TASKS, lambda _: 20 + calls.randrange(10), minutes=60), warm_up_s=600)

    assert found.per_hour.high <= ALLOWED[Held.TASKS]


def test_memory_that_fills_in_the_beginning_is_no_growth() -> None:
    [found] = growth_of(samples(Held.MEMORY, lambda minute: 100 + min(minute, 10) * 5, minutes=60), warm_up_s=900)

    assert found.per_hour.high == 0


def test_the_longest_life_of_a_process_counts() -> None:
    lives = samples(Held.THREADS, lambda _: 5, minutes=10) + samples(Held.THREADS, lambda _: 9, minutes=20, pid=2)

    [found] = growth_of(lives, warm_up_s=60)

    assert (found.first, found.last, found.minutes) == (9, 9, 19)
