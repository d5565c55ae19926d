"""The faults of a stack."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from chassis.testing import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from devstack.postgres import PostgresServer
    from devstack.services import Replica
    from devstack.stack import Stack


async def kill(replica: Replica, *, stack: Stack) -> None:
    """Kill a replica (-9) and return when the edge counts on the one that the stack starts instead."""
    await asyncio.to_thread(replica.kill)
    await back_in_use(replica, stack=stack)


async def terminate(replica: Replica, *, stack: Stack) -> None:
    """Send SIGTERM to a replica and return when the edge counts on the one that the stack starts instead."""
    pid = replica.pid

    async def has_ended() -> bool:
        return replica.pid != pid

    replica.terminate()
    await until(has_ended, timeout_s=30)
    await back_in_use(replica, stack=stack)


@contextlib.asynccontextmanager
async def hanging(replica: Replica, *, stack: Stack) -> AsyncIterator[None]:
    """Stop the replica's process while the block runs; then it continues with the calls that it has taken."""
    assert replica.pid
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(replica.pid, signal.SIGCONT)
        await back_in_use(replica, stack=stack)


async def roll_out(stack: Stack, service: str) -> None:
    """Restart the replicas of a service one after the other, the next when the edge counts on the last."""
    for replica in stack.replicas(service):
        await asyncio.to_thread(replica.restart)
        await back_in_use(replica, stack=stack)


async def back_in_use(replica: Replica, *, stack: Stack) -> None:
    """Return when the replica serves and the edge has seen that: until then any other one is alone."""
    await asyncio.to_thread(replica.wait_ready)
    flags = f"::{replica.address}::health_flags::"

    async def is_in_use() -> bool:
        async with httpx.AsyncClient(base_url=stack.edge.admin_url, trust_env=False) as admin:
            clusters = (await admin.get("/clusters")).text
        # Its calls and its streams have a cluster each.
        return 0 < clusters.count(flags) == clusters.count(f"{flags}healthy\n")

    await until(is_in_use)


async def stop_service(stack: Stack, service: str) -> None:
    """Stop every replica of a service until they are started again."""
    await asyncio.gather(*(asyncio.to_thread(replica.stop) for replica in stack.replicas(service)))


async def start_service(stack: Stack, service: str) -> None:
    """Start every replica of a service and return when they serve."""
    for replica in stack.replicas(service):
        await asyncio.to_thread(replica.start)
    for replica in stack.replicas(service):
        await asyncio.to_thread(replica.wait_ready)


async def kill_database(postgres: PostgresServer) -> None:
    """Kill PostgreSQL (-9) and return when the server that the stack starts instead answers."""
    await asyncio.to_thread(postgres.kill)
    await asyncio.to_thread(postgres.process.wait_ready)


async def restart_edge(stack: Stack) -> None:
    """Drain the edge, stop it, start it and return when it serves."""
    await asyncio.to_thread(stack.edge.process.restart)


def processes_of(home: Path) -> list[int]:
    """Return the processes that write to a log in a stack's folder: all that the stack has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "fd" / "1").readlink().is_relative_to(home):
                found.append(int(entry.name))
        except OSError:  # another process, or one that has ended meanwhile
            continue
    return found


def kill_all(pids: Iterable[int]) -> None:
    """Kill processes (-9), as a power cut would."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@contextlib.contextmanager
def gone_after(pids: Iterable[int], *, timeout_s: float) -> Iterator[None]:
    """Leave the block, which must end these processes, once they have closed their files and ports.

    A process loses its entries in /proc with its first thread. Its other threads may hold its sockets a little longer.
    """
    with contextlib.ExitStack() as ends:
        opened = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                opened.append(os.pidfd_open(pid))
                ends.callback(os.close, opened[-1])
        yield
        for end in opened:
            assert select.select([end], [], [], timeout_s)[0]
