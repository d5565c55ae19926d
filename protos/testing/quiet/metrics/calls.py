"""No metrics of calls."""

from __future__ import annotations


class CallMetrics:
    """Counts nothing."""

    def __init__(self, _method: str) -> None:
        self.active = 0

    def ended(self, code: str, *, duration_s: float, trace_id: str) -> None:
        """Take no note of the end of a call."""


class StreamMetrics:
    """Counts nothing."""

    def __init__(self, _method: str) -> None:
        self.active = 0

    def ended(self, code: str) -> None:
        """Take no note of the end of a stream."""


def write_replayed(_method: str) -> None:
    """Take no note of a repeated write."""
