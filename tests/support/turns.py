"""Turns of the running event loop, and tasks that it has finished."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Turns:
    """A number of turns.

    Attributes:
        count: so far.
        longest_s: the CPU time of this thread in the longest of them.
    """

    def __init__(self) -> None:
        self.count = 0
        self.longest_s = 0.0


async def some_turns() -> None:
    """Let every callback run that can run without an event from outside."""
    for _ in range(20):
        await asyncio.sleep(0)  # a turn of the loop: what must not happen has no event to wait for


@contextlib.asynccontextmanager
async def counted_turns() -> AsyncIterator[Turns]:
    """Count the turns that other tasks get while the block runs."""
    turns = Turns()

    async def count() -> None:
        while True:
            turns.count += 1
            began_s = time.thread_time()
            await asyncio.sleep(0)  # a turn of the loop is what is counted
            turns.longest_s = max(turns.longest_s, time.thread_time() - began_s)

    counting = asyncio.create_task(count())
    try:
        yield turns
    finally:
        counting.cancel()


def finished_tasks() -> int:
    """Return the number of finished tasks that are still referenced."""
    gc.collect()
    return sum(isinstance(each, asyncio.Task) and each.done() for each in gc.get_objects())
