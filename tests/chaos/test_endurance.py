"""A fault a minute, for as long as CHAOS_MINUTES says: nothing is lost, and no process that lives through it grows.

The first replica of each service dies, hangs and is replaced. The second ones, the relays, the consumers and the edge
live through all of it, so what they hold is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from chassis.testing import until
from devstack.settings import REPOSITORY
from tests.chaos import faults
from tests.chaos.conftest import running_stack
from tests.chaos.followers import following
from tests.chaos.open_loop import crowd
from tests.chaos.record import now_s
from tests.chaos.sampling import Sampler, growth_of
from tests.chaos.traffic import Load, under_load
from tests.chaos.validation import until_counted, validate
from tests.support.logins import admins_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from devstack.stack import Stack
    from tests.chaos.followers import Follower
    from tests.chaos.record import Record
    from tests.chaos.report import Report

MINUTES: Final = int(os.environ.get("CHAOS_MINUTES", "0"))
# Buyers and watchers come with a token that is good for 15 minutes.
_SHIFT_MINUTES: Final = 10
# Of Redis, before anything is sampled.
_OUTAGES: Final = 8
# Caches and pools fill, and the collector rests (chassis/server.py): measured, memory grows for 15 to 30 minutes.
_WARM_UP_S: Final = 60.0 * min(MINUTES / 4, 15)
# Shorter runs break things and show what grew; it would be the warm-up that they judge.
_ENOUGH_MINUTES: Final = 60
_AWAY_S: Final = 10.0
# Of each kind, for two replicas with at most eight threads for it.
_CROWD: Final = 64
# A breaker that has opened stays so for a minute by default, and every fault would be judged with the one before it.
_ENV: Final = {"order_svc": {"BREAKER_RESET_TIMEOUT_S": "2"}}
_SAMPLES: Final = REPOSITORY / ".build" / "chaos" / "samples.csv"

pytestmark = [
    pytest.mark.skipif(MINUTES == 0, reason="CHAOS_MINUTES=60 breaks something once a minute for an hour"),
    pytest.mark.timeout(60 * MINUTES + 1500),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("endurance") / "home", extra_env=_ENV) as stack:
        yield stack


def _faults(stack: Stack) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    """Return the faults that take turns. Each returns when what it broke is there again."""
    postgres, redis = stack.postgres, stack.redis
    orders, users = stack.replicas("order_svc")[0], stack.replicas("user_svc")[0]
    assert postgres
    assert redis

    async def hang(service: str) -> None:
        async with faults.hanging(stack.replicas(service)[0], stack=stack):
            await asyncio.sleep(_AWAY_S)  # the fault lasts this long

    async def stay_away(stop: Callable[[], None], start: Callable[[], None]) -> None:
        await asyncio.to_thread(stop)
        await asyncio.sleep(_AWAY_S)  # the fault lasts this long
        await asyncio.to_thread(start)

    async def end_sessions() -> None:
        with psycopg.connect(postgres.superuser_url()) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    async def kill_redis() -> None:
        await asyncio.to_thread(redis.process.kill)
        await asyncio.to_thread(redis.process.wait_ready)

    return [
        ("kill -9 order_svc-1", lambda: faults.kill(orders, stack=stack)),
        ("kill -9 PostgreSQL", lambda: faults.kill_database(postgres)),
        ("user_svc-1 hangs", lambda: hang("user_svc")),
        ("kill -9 Redis", kill_redis),
        ("SIGTERM user_svc-1", lambda: faults.terminate(users, stack=stack)),
        ("PostgreSQL away", lambda: stay_away(postgres.stop, postgres.start)),
        ("kill -9 user_svc-1", lambda: faults.kill(users, stack=stack)),
        ("sessions ended", end_sessions),
        ("order_svc-1 hangs", lambda: hang("order_svc")),
        ("Redis away", lambda: stay_away(redis.process.stop, redis.start)),
        ("SIGTERM order_svc-1", lambda: faults.terminate(orders, stack=stack)),
    ]


@contextlib.asynccontextmanager
async def _sampled(stack: Stack) -> AsyncIterator[Sampler]:
    sampler = Sampler(stack)
    sampling = asyncio.create_task(sampler.sample_forever())
    try:
        yield sampler
    finally:
        sampling.cancel()
        await asyncio.wait([sampling])
        sampler.write(_SAMPLES)


async def _use_every_thread(stack: Stack) -> None:
    """Have each replica use all of its threads at once.

    A thread that first has work after half an hour brings some MiB with it, and would look like a leak.
    """
    async with crowd(stack.edge_url, token=admins_token(stack)) as http:
        logins = ({"email": f"nobody-{number}@example.com", "password": "wrong horse"} for number in range(_CROWD))
        await asyncio.gather(
            *(http.post("/api/v1/sessions", json=login) for login in logins),
            *(http.get(path) for path in ("/api/v1/users", "/api/v1/orders") for _ in range(_CROWD)),
        )


async def _take_backlogs(stack: Stack) -> None:
    """Have the workers take the events of ten seconds at once, again and again.

    Each of the first times leaves a worker with some MiB more, as far as its largest batches go. Of the order service's
    the memory was 90 MiB, and after eleven times 98, 99, 103, 105, 106, 106, 106, 106, 107, 107, 107. Once in eleven
    minutes that would look like a leak.
    """
    away = dict(_faults(stack))["Redis away"]
    load = Load(pause_s=0.05, patience_s=60, max_attempts=1_000_000, max_s=900)
    async with under_load(stack.edge_url, token=admins_token(stack), load=load) as traffic:
        for _ in range(_OUTAGES):
            await away()
            await traffic.goes_on(100, timeout_s=120)


def _changes(stack: Stack, *, after: int = 0) -> list[str]:
    """Return the ids of the changes of orders, in the feed's order, without the first ones."""
    with psycopg.connect(stack.database_url("orders")) as connection:
        rows = connection.execute("SELECT id FROM outbox ORDER BY transaction, position OFFSET %s", [after])
        return [str(event_id) for (event_id,) in rows]


class _Shift:
    """Ten minutes of one load and its watchers, with a fault in each."""

    def __init__(self, stack: Stack, report: Report) -> None:
        self.stack = stack
        self.report = report
        self.token = admins_token(stack)
        self.before = len(_changes(stack))

    async def work(self, turns: list[tuple[str, Callable[[], Awaitable[None]]]]) -> None:
        """Run the faults, one a minute, and compare the acknowledged writes with the databases afterwards."""
        load = Load(pause_s=0.05, patience_s=60, max_attempts=1_000_000, max_s=60 * (_SHIFT_MINUTES + 4))
        began: list[tuple[str, float]] = []
        async with following(self.stack.edge_url, token=self.token) as followers:
            async with under_load(self.stack.edge_url, token=self.token, load=load) as traffic:
                for fault, run in turns:
                    began.append((fault, now_s()))
                    await run()
                    await traffic.goes_on(100, timeout_s=120)
                    await asyncio.sleep(max(began[-1][1] + 60 - now_s(), 0))  # one fault a minute
            written = _changes(self.stack, after=self.before)
            await self._are_told(followers, len(written))
        await until_counted(traffic.record, edge_url=self.stack.edge_url, token=self.token)
        self._say_what_callers_saw(began, traffic.record)
        self._judge(traffic.record, followers, written)

    @staticmethod
    async def _are_told(followers: dict[str, Follower], changes: int) -> None:
        async def are_told() -> bool:
            return all(len(follower.told) >= changes for follower in followers.values())

        await until(are_told, timeout_s=60)

    def _say_what_callers_saw(self, began: list[tuple[str, float]], record: Record) -> None:
        ends_s = [began_s for _, began_s in began[1:]] + [float("inf")]
        for (fault, began_s), ends in zip(began, ends_s, strict=True):
            failures = [each for each in record.failures if began_s <= each.started_s + each.duration_s < ends]
            last_s = max((each.started_s + each.duration_s - began_s for each in failures), default=0)
            outcomes = sorted({f"{each.kind} {each.outcome}" for each in failures})
            self.report.say(f"    {fault}: {len(failures)} failed, the last after {last_s:.1f} s {outcomes}")

    def _judge(self, record: Record, followers: dict[str, Follower], written: list[str]) -> None:
        findings = validate(record, orders_url=self.stack.database_url("orders"))
        self.report.add("a fault a minute", record, findings, facts=f"{len(written)} changes watched")
        assert findings.is_clean, findings
        assert record.given_up == []
        assert [failure for failure in record.failed_reads if " wrong" in failure] == []
        untyped = {
            failure.outcome
            for failure in record.failures
            if not re.fullmatch(r"(503|504|UNAVAILABLE|DEADLINE_EXCEEDED) [A-Z_]+", failure.outcome)
        }
        assert untyped == set()
        for how, follower in followers.items():
            assert follower.told == written, how


async def test_a_fault_a_minute_loses_nothing_and_lets_nothing_grow(stack: Stack, report: Report) -> None:
    turns = _faults(stack)
    schedule = [turns[number % len(turns)] for number in range(MINUTES)]

    await _use_every_thread(stack)
    await _take_backlogs(stack)
    async with _sampled(stack) as sampler:
        for first in range(0, MINUTES, _SHIFT_MINUTES):
            await _Shift(stack, report).work(schedule[first : first + _SHIFT_MINUTES])
    grown = growth_of(sampler.samples, warm_up_s=_WARM_UP_S)

    for each in grown:
        report.say(f"    {each}")
    if MINUTES < _ENOUGH_MINUTES:
        return
    assert [str(each) for each in grown if each.is_too_much] == []
    assert {each.process for each in grown} >= {"order_svc-2", "user_svc-2", *stack.workers, stack.edge.process.name}
