"""Taking turns at what there are few of, with a bound for those who wait."""

from __future__ import annotations

import asyncio
from typing import Final

from chassis.errors import Overloaded


class CapacityLimiter:
    """So many at a time; the others wait, in the order in which they came. Who gives up while waiting leaves no trace.

    Args:
        number: at a time.
        max_waiting: how many may wait.

    Attributes:
        waiting: how many wait now.
    """

    def __init__(self, number: int, *, max_waiting: int) -> None:
        self._free: Final = asyncio.Semaphore(number)
        self._max_waiting: Final = max_waiting
        self.waiting = 0

    async def acquire(self) -> None:
        """Return when it is the caller's turn.

        Raises:
            Overloaded: too many wait already.
        """
        if self.waiting >= self._max_waiting:
            raise Overloaded
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1

    def release(self) -> None:
        """Let the next one have its turn."""
        self._free.release()
