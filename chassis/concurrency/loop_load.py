"""Whether the event loop is short of CPU: only then does waiting for a larger batch save what others lack.

A loop is short of CPU if its thread works all the time, or if it is ready to work and other threads and processes hold
the cores. Linux counts both for each thread; elsewhere only the first is known.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Long enough that a look, 13 µs, costs nothing; short enough that a burst is noticed before it becomes a queue.
LOOK_EVERY_S: Final = 0.05
# Below 0.4 calls wait while CPU is free; above 0.75 they do not wait at saturation either, where replicas, edge and
# PostgreSQL share two cores and no thread gets more (docs/adr/0037-wait-only-when-cpu-is-short.md).
SHORT_ABOVE: Final = 0.5

# Linux: nanoseconds on a core, nanoseconds in the queue for one, number of turns.
_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")


class LoopLoad:
    """The load of one event loop. To be asked in the loop's own thread.

    Args:
        busy_s: returns for how many seconds, in all, the thread has run or waited for a core.
        now_s: the clock, in seconds.
    """

    def __init__(
        self, *, busy_s: Callable[[], float] | None = None, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._busy_s: Final = busy_s or thread_busy_s
        self._now_s: Final = now_s
        self._last_look: tuple[float, float] | None = None
        self._is_short = False

    def is_short_of_cpu(self) -> bool:
        """Return whether the loop was busy for more than half of the time between the last two looks.

        Looks again if the last look is 50 ms old or older. False until there were two.
        """
        now_s = self._now_s()
        if self._last_look is None:
            self._last_look = now_s, self._busy_s()
            return False
        looked_s, busy_s = self._last_look
        if now_s - looked_s >= LOOK_EVERY_S:
            self._last_look = now_s, self._busy_s()
            self._is_short = self._last_look[1] - busy_s > SHORT_ABOVE * (now_s - looked_s)
        return self._is_short


def thread_busy_s() -> float:
    """Return for how many seconds, in all, this thread has run or was ready to run and waited for a core.

    Without the wait where the kernel does not count it: then a loop counts as short of CPU by its own work only.
    """
    return time.thread_time() + _waited_s()


def _waited_s() -> float:
    try:
        return int(_SCHEDSTAT.read_bytes().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):  # macOS, or a sandbox that shows no such file
        return 0.0
