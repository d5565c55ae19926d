"""Makes large messages so that other calls of the replica are answered in between."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Row = TypeVar("Row")
Made = TypeVar("Made")


class LargeMessages:
    """Makes one message at a time, and after each one leaves the loop to others for as long as it took.

    The calls of one batch get their rows in the same turn of the loop: if each of them made a large message there, no
    other call would be served meanwhile. gRPC takes one new call in a turn. If every turn made such a message, a new
    call would still wait for as many of them as calls came before it.
    """

    def __init__(self) -> None:
        self._making = asyncio.Lock()
        self._free_at_s = 0.0

    async def make(self, show: Callable[[Row], Made], row: Row) -> Made:
        """Return the message of the row. Calls take turns in the order of their arrival."""
        async with self._making:
            await asyncio.sleep(self._free_at_s - time.monotonic())
            began_s = time.monotonic()
            try:
                return show(row)
            finally:
                self._free_at_s = 2 * time.monotonic() - began_s
