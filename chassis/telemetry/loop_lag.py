"""The delay of the event loop.

While one call holds the loop, every other call of the replica waits. Requests are bounded so that no call holds the
loop for more than 100 ms (docs/limits.md); this metric shows whether the bounds suffice.
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
