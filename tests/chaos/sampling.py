"""Samples of each process of a stack, every few seconds: memory, descriptors, threads, tasks, connections."""

from __future__ import annotations

import asyncio
import csv
import re
import statistics
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from devstack.services import Replica, Worker
from tests.chaos.record import now_s
from tests.chaos.slopes import FEWEST, Slope, slope_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from devstack.process import Process
    from devstack.stack import Stack

_EVERY_S: Final = 5.0
_HOUR_S: Final = 3600.0


class Held(StrEnum):
    """The measured quantities."""

    MEMORY = "RSS, MiB"
    DESCRIPTORS = "descriptors"
    THREADS = "threads"
    TASKS = "tasks"
    CONNECTIONS = "database connections"


# In an hour. Of memory, what an hour on a busy machine can tell from nothing: it measured 0.2 to 2.8 MiB with intervals
# up to 4.6, and half of that in its second half. 5 MiB would fill the gap between a consumer's 125 MiB and its limit of
# 256 in a day. Of the others, the least that can grow.
ALLOWED: Final[Mapping[Held, float]] = {
    Held.MEMORY: 5,
    Held.DESCRIPTORS: 1,
    Held.THREADS: 1,
    Held.TASKS: 1,
    Held.CONNECTIONS: 1,
}

_METRICS: Final[Mapping[Held, str]] = {
    Held.TASKS: r"^shop_asyncio_tasks (\S+)$",
    Held.CONNECTIONS: r"^db_client_connection_count\{.*\} (\S+)$",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at one thing that a process holds; `at_s` on the monotonic clock."""

    process: str
    pid: int
    held: Held
    at_s: float
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How much a process holds, and how much more of it each hour.

    Attributes:
        first, last: of the first and the last minute that count.
        minutes: how many minutes count.
        per_hour: the slope.
    """

    process: str
    held: Held
    first: float
    last: float
    minutes: int
    per_hour: Slope

    @property
    def is_too_much(self) -> bool:
        """Whether it grows for sure, and maybe by more than is allowed.

        One connection more, once in an hour, is [+0.00, +1.82]: a pool that has not reached its bound.
        """
        return self.per_hour.low > 0 and self.per_hour.high > ALLOWED[self.held]

    def __str__(self) -> str:
        figures = f"{self.first:.1f} -> {self.last:.1f} in {self.minutes} min"
        return f"{self.process:<18} {self.held:<20} {figures:<28} per hour {self.per_hour}"


class Sampler:
    """Looks at the processes of a stack.

    Attributes:
        samples: what it saw, in the order of time.
    """

    def __init__(self, stack: Stack) -> None:
        self.samples: list[Sample] = []
        self._stack = stack

    async def sample_forever(self) -> None:
        """Look at every process now and again, until cancelled."""
        async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
            while True:
                for process in self._processes():
                    await self._look_at(process, http)
                await asyncio.sleep(_EVERY_S)  # between two looks

    def _processes(self) -> Iterator[Process]:
        for service in self._stack.service_names:
            yield from self._stack.replicas(service)
        yield from self._stack.workers.values()
        yield self._stack.edge.process
        if self._stack.redis:
            yield self._stack.redis.process

    async def _look_at(self, process: Process, http: httpx.AsyncClient) -> None:
        pid = process.pid
        if pid is None:
            return
        try:
            found = _of_kernel(pid)
            if isinstance(process, Replica | Worker):
                found |= _of_metrics((await http.get(process.metrics_url)).text)
        except (OSError, httpx.TransportError):  # it has died, or hangs
            return
        at_s = now_s()
        self.samples += [
            Sample(process=process.name, pid=pid, held=held, at_s=at_s, value=value) for held, value in found.items()
        ]

    def write(self, path: Path) -> None:
        """Write every sample as CSV."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["process", "pid", "held", "at_s", "value"])
            rows.writerows([each.process, each.pid, each.held, f"{each.at_s:.1f}", each.value] for each in self.samples)


def growth_of(samples: Iterable[Sample], *, warm_up_s: float) -> list[Growth]:
    """Return what is known of how each process grew, in the life of it that was longest.

    Args:
        warm_up_s: the beginning of each life that does not count: caches and pools fill.
    """
    lives: dict[tuple[str, Held], dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        lives[sample.process, sample.held][sample.pid].append(sample)
    found = []
    for (process, held), of_pid in sorted(lives.items()):
        life = max(of_pid.values(), key=lambda life: life[-1].at_s - life[0].at_s)
        points = _minutes(life, after_s=life[0].at_s + warm_up_s)
        if len(points) < FEWEST:
            continue
        hours = [(at_s / _HOUR_S, value) for at_s, value in points]
        values = [value for _, value in points]
        found.append(
            Growth(
                process=process,
                held=held,
                first=values[0],
                last=values[-1],
                minutes=len(points),
                per_hour=slope_of(hours),
            )
        )
    return found


def _of_kernel(pid: int) -> dict[Held, float]:
    folder = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    if "VmRSS" not in status:  # it has ended and is not reaped yet
        raise ProcessLookupError(pid)
    return {
        Held.MEMORY: int(status["VmRSS"].split()[0]) / 1024,
        Held.DESCRIPTORS: sum(1 for _ in (folder / "fd").iterdir()),
        Held.THREADS: int(status["Threads"]),
    }


def _of_metrics(page: str) -> dict[Held, float]:
    return {
        held: sum(float(value) for value in re.findall(pattern, page, re.MULTILINE))
        for held, pattern in _METRICS.items()
    }


def _minutes(life: list[Sample], *, after_s: float) -> list[tuple[float, float]]:
    """Return one value of each minute: neighbours hang together less, and a fault's few seconds do not move it.

    The median; of tasks the least, for those of calls come and go, and a task that leaks stays.
    """
    value_of = min if life[0].held is Held.TASKS else statistics.median
    of_minute: dict[int, list[float]] = defaultdict(list)
    for sample in life:
        if sample.at_s >= after_s:
            of_minute[int((sample.at_s - after_s) // 60)].append(sample.value)
    return [(60.0 * minute, value_of(values)) for minute, values in sorted(of_minute.items())]
