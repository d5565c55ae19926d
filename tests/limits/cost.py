"""The cost of a read over REST with a rate limiter and without, in turns: `python -m tests.limits.cost`."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from devstack.redis import RedisServer, find_redis
from devstack.settings import Settings
from devstack.stack import Stack
from tests.limits.servers import RateLimiter, RunningEdge, limits_of
from tests.support.logins import NO_LIMITS, admins_token
from tests.support.ports import free_port
from tests.support.waiting import until

PAIRS = 6
READS = 150


def main() -> None:
    """Print both, and their ratios."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        folder = Path(name)
        settings = Settings(edge_port=free_port(), home=folder / "stack", replicas=1, **NO_LIMITS)
        stack = running.enter_context(Stack(settings))
        program = find_redis()
        assert program
        redis = running.enter_context(contextlib.closing(RedisServer(program, folder / "redis")))
        redis.start()
        limits = limits_of(stack, folder / "unused", **NO_LIMITS)
        limiter = RateLimiter(redis, folder / "limiter", limits=limits, certificates=stack.certificates)
        alone = RunningEdge(stack, folder / "alone", options=NO_LIMITS)
        limited = RunningEdge(stack, folder / "limited", options={**NO_LIMITS, "rate_limiter": limiter.address})
        for process in (limiter.process, alone.process, limited.process):
            running.callback(process.stop)
            process.start()
            process.wait_ready()
        until(lambda: limited.asks_the_limiter, timeout_s=30)
        token = admins_token(stack)
        processes = {"edge": limited.process, "limiter": limiter.process, "Redis": redis.process}
        figures = []
        for _ in range(PAIRS):
            without = reads(alone, token)
            before = {who: cpu_s(each.pid) for who, each in processes.items()}
            edge_alone = cpu_s(alone.process.pid)
            with_limiter = reads(limited, token)
            used = {who: (cpu_s(each.pid) - before[who]) * 1e6 / READS for who, each in processes.items()}
            reads(alone, token)
            used["edge alone"] = (cpu_s(alone.process.pid) - edge_alone) * 1e6 / READS
            figures.append((without, with_limiter, used))
            print(f"p50 {without:.2f} -> {with_limiter:.2f} ms", {k: f"{v:.0f} us" for k, v in used.items()})
        failed = limited.stat(r"cluster\..*\.ratelimit\.failure_mode_allowed")
        print(f"p50 ratio {statistics.median(b / a for a, b, _ in figures):.2f}; without an answer in time: {failed}")
        for who in figures[0][2]:
            print(who, f"{statistics.median(used[who] for _, _, used in figures):.0f} us a read")


def reads(edge: RunningEdge, token: str) -> float:
    """Return the median duration of a read, in ms."""
    durations = []
    with httpx.Client(base_url=edge.url, headers={"authorization": f"Bearer {token}"}, trust_env=False) as client:
        for _ in range(READS):
            began = time.perf_counter()
            client.get("/api/v1/users").raise_for_status()
            durations.append(time.perf_counter() - began)
    return statistics.median(durations) * 1000


def cpu_s(pid: int | None) -> float:
    """Return the CPU time that a process has used."""
    assert pid
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100  # ticks of Linux


if __name__ == "__main__":
    main()
