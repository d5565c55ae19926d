"""A process that works in the background until it is told to stop: a relay, a consumer."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import structlog

from chassis.runtime.shutdown import force_exit_after_grace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = structlog.get_logger(__name__)


async def work(name: str, *parts: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run the parts until SIGTERM or SIGINT, then let each finish what it has begun; by force after 29 s.

    Args:
        name: of the process, for the log.
        parts: each returns soon after the event that it is given is set.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    log.info("worker.started", worker=name, pid=os.getpid())
    try:
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(_run(part, stopping))
            await stopping.wait()
            log.info("worker.draining", worker=name)
            force_exit_after_grace()
    except ExceptionGroup as failed:
        # The first defect ends the process; whoever started it knows errors, and no groups of them.
        raise failed.exceptions[0] from None
    log.info("worker.stopped", worker=name)


async def _run(part: Callable[[asyncio.Event], Awaitable[None]], stopping: asyncio.Event) -> None:
    try:
        await part(stopping)
    finally:
        # If one fails the others are cancelled. Redis's client has been seen to swallow that; they do look at this.
        stopping.set()
