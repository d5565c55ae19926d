"""The time of the shop, which a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class MovableClock:
    """The machine's clock, moved forward by what a test says."""

    def __init__(self) -> None:
        self._by = timedelta(0)

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        return datetime.now(UTC) + self._by

    def advance(self, by: timedelta) -> None:
        """Let time pass: tokens, sessions and kept answers expire, waits end. Streams that are open stay open.

        Raises:
            ValueError: the time is negative.
        """
        if by < timedelta(0):
            raise ValueError(f"time does not go back: {by} is negative")
        self._by += by
