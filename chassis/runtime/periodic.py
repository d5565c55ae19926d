"""Background work: repeated until it is cancelled or the process stops, with a backoff while it fails.

    failures = Failures(failed="keys.sweep_failed", recovered="keys.sweep_recovered")
    await every(600, remove_expired_keys, failures=failures)

The log gets two lines per outage, however long it lasts: one for its first failure and one for its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Work = Callable[[], Awaitable[bool | None]]
    """Returns True if there is more to do: then it is called again without a pause."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Failures:
    """The failures in a row of one piece of work: which ones it survives, how they are logged, the pauses after them.

    Attributes:
        failed: the event of the first failure in a row; a warning with the exception.
        recovered: the event of the success that ends the row, with `failures`, their number; None logs nothing.
        errors: what may fail. Any other exception ends the work: it is a defect.
        first_s: the pause after the first failure; it doubles with each further one. None: as after a success.
        longest_s: the longest of these pauses.
        fields: what both events show besides.
        count: how many failures there were since the last success.
    """

    failed: str
    recovered: str | None
    errors: tuple[type[Exception], ...] = (Exception,)
    first_s: float | None = None
    longest_s: float = 5.0
    fields: Callable[[], Mapping[str, object]] = dict
    count: int = 0

    def add(self, error: Exception) -> None:
        """Count a failure."""
        self.count += 1
        if self.count == 1:
            log.warning(self.failed, **self.fields(), exc_info=error)

    def end(self) -> None:
        """Begin a new row, because the work has succeeded."""
        if self.count and self.recovered:
            log.info(self.recovered, **self.fields(), failures=self.count)
        self.count = 0

    def pause_s(self, usual_s: float) -> float:
        """Return how long to pause before the next attempt, which is `usual_s` after a success."""
        if not self.count or self.first_s is None:
            return usual_s
        return backoff_s(self.count, first_s=self.first_s, longest_s=self.longest_s)


async def every(seconds: float, work: Work, *, failures: Failures, stopping: asyncio.Event | None = None) -> None:
    """Do the work at once and after each pause, until cancelled.

    Args:
        seconds: the pause after a success, from the end of one round to the beginning of the next.
        work: may be cancelled at any await. Returns True if there is more to do at once.
        failures: what the work survives.
        stopping: when it is set this returns, as soon as the round of work that has begun is over.

    Raises:
        Exception: that of the work, unless it is one of `failures.errors`.
    """
    while stopping is None or not stopping.is_set():
        try:
            has_more = await work()
        except failures.errors as error:
            failures.add(error)
        else:
            failures.end()
            if has_more:
                continue
        await pause(failures.pause_s(seconds), stopping)


async def pause(seconds: float, stopping: asyncio.Event | None = None) -> None:
    """Return after this time, or as soon as `stopping` is set."""
    if stopping is None:
        await asyncio.sleep(seconds)
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


def backoff_s(attempts: int, *, first_s: float, longest_s: float) -> float:
    """Return the pause after this many failed attempts: `first_s`, doubled by each further one, at most `longest_s`."""
    return min(first_s * 2.0 ** min(attempts - 1, 60), longest_s)
