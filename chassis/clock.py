"""Time and ids. A service is given its clock, so that a test can set the time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import uuid_utils.compat

if TYPE_CHECKING:
    from uuid import UUID


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the time now, aware, in UTC."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the time now, aware, in UTC."""
        return datetime.now(UTC)


def new_id() -> UUID:
    """Return a UUID of version 7 (RFC 9562): unique, and sorted by the millisecond in which it is made."""
    # The library's own time never goes back. If the machine's clock is ahead for a moment, ids would stay ahead until
    # the time catches up, and lists would begin with them.
    return uuid_utils.compat.uuid7(nanoseconds=time.time_ns())
