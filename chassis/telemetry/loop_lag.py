"""The delay of the event loop.

Every call of a replica waits while one of them holds the loop. What a caller sends has bounds, so that none holds it
for more than 100 ms (docs/limits.md): this shows whether that is so.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from chassis.telemetry import metrics

# Often enough to find every delay of 100 ms; costs a ten-thousandth of a core.
_EVERY_S: Final = 0.1


async def measure_forever() -> None:
    """Record the delay between a timer's due time and its run, ten times a second, until cancelled.

    Not `periodic.every`: the pause itself is what is measured.
    """
    while True:
        due = time.monotonic() + _EVERY_S
        await asyncio.sleep(_EVERY_S)
        metrics.loop_lagged(max(time.monotonic() - due, 0))
