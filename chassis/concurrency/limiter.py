"""A limit to how many calls use something at a time, with a bound for the calls that wait."""

import asyncio
from typing import Final

from chassis.errors import Overloaded


class CapacityLimiter:
    """Allows `number` holders at a time; others wait in the order of their arrival.

    A waiting call that is cancelled gives up its place.

    Args:
        number: of holders at a time.
        max_waiting: how many calls may wait.
        max_wait_s: how long each may wait; None for any time.
    """

    def __init__(self, number: int, *, max_waiting: int, max_wait_s: float | None = None) -> None:
        self._free: Final = asyncio.Semaphore(number)
        self._max_waiting: Final = max_waiting
        self._max_wait_s: Final = max_wait_s
        self.waiting = 0

    async def acquire(self) -> None:
        """Return when the caller holds the limiter; it must release() it.

        Raises:
            Overloaded: too many calls wait already, or this one waited too long.
        """
        if not self._free.locked():
            await self._free.acquire()  # does not wait: a timer for each call would cost 4 µs
            return
        if self.waiting >= self._max_waiting:
            raise Overloaded
        self.waiting += 1
        try:
            async with asyncio.timeout(self._max_wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise Overloaded from None
        finally:
            self.waiting -= 1

    def release(self) -> None:
        """Let the next waiting call hold the limiter."""
        self._free.release()
