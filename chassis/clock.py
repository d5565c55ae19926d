"""Time and ids, as something that a test can put in a service's hands."""

from __future__ import annotations

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
    """Return a UUID of version 7 (RFC 9562): unique, and later ones sort after earlier ones."""
    return uuid_utils.compat.uuid7()
