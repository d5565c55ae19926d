"""A process that works in the background until it gets a signal: a relay, a consumer."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import structlog

from chassis.runtime.shutdown import stop_on_signal
from chassis.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = structlog.get_logger(__name__)


async def work(name: str, *parts: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run the parts until SIGTERM or SIGINT, then let each finish its current work; after 29 s exit by force.

    Args:
        name: the process's name in the log.
        parts: coroutine functions; each must return soon after the event that it gets is set.

    Raises:
        Exception: that of the first part that fails; the other parts are stopped.
    """
    stopping = stop_on_signal()
    metrics.watch_tasks(asyncio.get_running_loop())
    log.info("worker.started", worker=name, pid=os.getpid())
    try:
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(_run(part, stopping))
            await stopping.wait()
            log.info("worker.draining", worker=name)
    except ExceptionGroup as failed:
        # The first failure ends the process. Raise that error alone: the command line does not handle groups.
        raise failed.exceptions[0] from None
    log.info("worker.stopped", worker=name)


async def _run(part: Callable[[asyncio.Event], Awaitable[None]], stopping: asyncio.Event) -> None:
    try:
        await part(stopping)
    finally:
        # If one part fails, the others are cancelled. redis-py can swallow a cancellation, so set the event too.
        stopping.set()
