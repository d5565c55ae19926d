"""While the limiter or its Redis is away or hangs, calls continue, each edge counts alone, and a metric says so."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest
from redis import Redis

from devstack.redis import RedisServer, find_redis
from tests.limits.callers import Request
from tests.limits.servers import RATE_LIMIT, REDIS_OPTIONS, RateLimiter, limits_of, two_edges
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devstack.process import Process
    from devstack.stack import Stack
    from tests.limits.callers import Caller
    from tests.limits.servers import RunningEdge

READ: Final = Request(method="GET", path="/api/v1/users")
METRIC: Final = "envoy_cluster_ratelimit_failure_mode_allowed"


def kill(process: Process) -> Callable[[], None]:
    process.kill_group()
    return process.restart


def freeze(process: Process) -> Callable[[], None]:
    pid = process.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    until(lambda: all(state_of(thread) == "T" for thread in Path(f"/proc/{pid}/task").iterdir()))
    return lambda: os.kill(pid, signal.SIGCONT)


def state_of(thread: Path) -> str:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("broken", ["limiter", "redis"])
@pytest.mark.parametrize("break_it", [kill, freeze])
def test_calls_go_on_under_each_edges_own_limit_and_are_counted_together_again_afterwards(
    edges: tuple[RunningEdge, RunningEdge],
    limiter: RateLimiter,
    redis: RedisServer,
    callers: Iterator[Caller],
    broken: str,
    break_it: Callable[[Process], Callable[[], None]],
) -> None:
    first, second = edges
    until(lambda: first.asks_the_limiter and second.asks_the_limiter, timeout_s=30)
    failed_before = total(first, METRIC) + total(second, METRIC)

    mend = break_it({"limiter": limiter.process, "redis": redis.process}[broken])
    try:
        let_in = next(callers).calls_let_in(first.url, second.url, request=READ, times=3 * RATE_LIMIT)
    finally:
        mend()

    assert let_in == 2 * RATE_LIMIT
    assert total(first, METRIC) + total(second, METRIC) - failed_before == 2 * RATE_LIMIT
    until(lambda: counts_together(first, second, next(callers)), timeout_s=60)


@contextlib.contextmanager
def redis_client(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url, decode_responses=True) as client:
        yield client


def total(edge: RunningEdge, metric: str) -> float:
    """Return what Prometheus would sum up of this metric."""
    lines = httpx.get(edge.metrics_url, trust_env=False).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{metric}{{"))


def counts_together(first: RunningEdge, second: RunningEdge, caller: Caller) -> bool:
    return caller.calls_let_in(first.url, second.url, request=READ, times=2 * RATE_LIMIT) == RATE_LIMIT


def test_more_addresses_than_redis_has_memory_for_are_counted_and_nobody_fails(
    stack: Stack, tmp_path: Path, callers: Iterator[Caller]
) -> None:
    program = find_redis()
    assert program
    with contextlib.ExitStack() as running:
        small = running.enter_context(contextlib.closing(RedisServer(program, tmp_path / "redis")))
        small.start()
        limiter = RateLimiter(
            small,
            tmp_path / "limiter",
            limits=limits_of(stack, tmp_path / "unused"),
            certificates=stack.certificates,
        )
        running.callback(limiter.process.stop)
        limiter.process.start()
        limiter.process.wait_ready()
        first, second = running.enter_context(two_edges(stack, tmp_path, rate_limiter=limiter.address))
        until(lambda: first.asks_the_limiter and second.asks_the_limiter, timeout_s=30)
        with redis_client(small) as client:  # connections, which take memory too, are open by now
            fill(client)

        statuses = {next(callers).call(edge.url, READ).status_code for edge in (first, second) for _ in range(100)}

        failed = total(first, METRIC) + total(second, METRIC)
        with redis_client(small) as client:
            memory, stats = client.info("memory"), client.info("stats")
    assert failed == 0
    assert statuses == {httpx.codes.OK}
    assert stats["evicted_keys"] >= 200
    assert memory["used_memory"] <= memory["maxmemory"] * 1.01


def fill(client: Redis) -> None:
    """Leave no memory free: what there is holds addresses that called before."""
    client.config_set("maxmemory-policy", REDIS_OPTIONS[REDIS_OPTIONS.index("--maxmemory-policy") + 1])
    # 1 MiB: the buffers of a few connections are small beside it.
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 1024 * 1024)
    for number in itertools.count():
        if client.info("stats")["evicted_keys"] > 0:
            return
        with client.pipeline(transaction=False) as pipeline:
            for each in range(1000):
                pipeline.set(f"edge_window_900s_1_masked_remote_address_10.0.{number}.{each}/32_0", 1, ex=3000)
            pipeline.execute()
