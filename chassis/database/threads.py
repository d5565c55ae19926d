"""The threads in which transactions and lists run."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from chassis.concurrency.limiter import CapacityLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class DatabaseThreads:
    """Threads for one kind of work, each with one connection.

    Args:
        max_waiting: how many calls may wait for one of them.
        max_wait_s: how long each of them may wait.
    """

    def __init__(self, name: str, number: int, *, max_waiting: int, max_wait_s: float) -> None:
        # Also if there are none of a kind, as in a worker: the executor starts no thread before it has work.
        self._threads: Final = ThreadPoolExecutor(max(number, 1), thread_name_prefix=name)
        self._limiter: Final = CapacityLimiter(number, max_waiting=max_waiting, max_wait_s=max_wait_s)

    @property
    def waiting(self) -> int:
        """How many calls wait for a thread."""
        return self._limiter.waiting

    async def run(self, work: Callable[[], T]) -> T:
        """Return what the work returns. If the caller leaves, work that has begun is finished, other work is dropped.

        Raises:
            Overloaded: too many calls wait already, or this one waited too long.
        """
        # Calls wait here and not in the executor, whose queue keeps the work of callers that have left.
        await self._limiter.acquire()
        # The work sees the call it serves: threads of an executor do not inherit the context.
        context = contextvars.copy_context()
        job = asyncio.get_running_loop().run_in_executor(self._threads, context.run, work)
        job.add_done_callback(self._end)
        # The thread is free when the work is done, not when its caller leaves.
        return await asyncio.shield(job)

    def _end(self, job: asyncio.Future[Any]) -> None:
        self._limiter.release()
        if not job.cancelled():
            job.exception()  # marks it as retrieved: the caller may have left

    def close(self) -> None:
        """Wait for the work that runs; begin no other."""
        self._threads.shutdown(wait=True, cancel_futures=True)
