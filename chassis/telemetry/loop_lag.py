"""How late the event loop is.

Every call of a replica waits while one of them holds the loop. What a caller sends has bounds, so that none holds it
for more than 100 ms (docs/architecture.md): this shows whether that is so.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from chassis.telemetry import metrics

# Ten times a second finds every block of 100 ms, and takes a ten-thousandth of a core.
_EVERY_S: Final = 0.1


async def measure_forever() -> None:
    """Measure how much later than asked for the loop lets a timer run."""
    while True:
        due = time.monotonic() + _EVERY_S
        await asyncio.sleep(_EVERY_S)
        metrics.loop_lagged(max(time.monotonic() - due, 0))
