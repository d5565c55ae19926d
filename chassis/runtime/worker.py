"""A process that works in the background until it gets a signal: a relay and a consumer."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import structlog

from chassis.runtime.shutdown import stop_on_signal
from chassis.telemetry.metrics.process import watch_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Part = Callable[[asyncio.Event], Awaitable[None]]

log = structlog.get_logger(__name__)


async def work(parts: Mapping[str, Part]) -> None:
    """Run the parts until SIGTERM or SIGINT, then let each finish its current work; after 29 s exit by force.

    Args:
        parts: coroutine functions by name; each must return soon after the event that it gets is set.

    Raises:
        Exception: that of the first part that fails, with a note that names it; the other parts are stopped.
    """
    stopping = stop_on_signal()
    watch_tasks(asyncio.get_running_loop())
    log.info("worker.started", parts=list(parts), pid=os.getpid())
    try:
        async with asyncio.TaskGroup() as tasks:
            for name, part in parts.items():
                tasks.create_task(_run(name, part, stopping))
            await stopping.wait()
            log.info("worker.draining")
    except ExceptionGroup as failed:
        # The first failure ends the process. Raise that error alone: the command line does not handle groups.
        raise failed.exceptions[0] from None
    log.info("worker.stopped")


async def _run(name: str, part: Part, stopping: asyncio.Event) -> None:
    try:
        await part(stopping)
    except Exception as error:
        error.add_note(f"This part of the worker has failed: {name}.")
        raise
    finally:
        # If one part fails, the others are cancelled. redis-py can swallow a cancellation, so set the event too.
        stopping.set()
