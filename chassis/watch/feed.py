"""A feed of events, as the hub reads it: positions, events, pages. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from chassis.keys import Key


class Position(NamedTuple):
    """The place of an event in the feed: its transaction, then its number in the outbox; and the event's id."""

    transaction: int
    number: int
    id: UUID


# The position before every event.
START: Final = Position(0, 0, UUID(int=0))


class PositionLost(Exception):
    """The position is not in the feed any more, because its event was swept or the database was restored."""


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event in the feed.

    Attributes:
        owner: the value of the data's owner field; empty without one.
    """

    position: Position
    type: str
    subject: Key
    sequence: int
    data: Mapping[str, Any]
    owner: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the feed.

    Attributes:
        events: the events that match the query, in the order of the feed.
        last: the position of the last row that was scanned, whether it matches or not.
        is_last: whether the feed has no rows after it.
    """

    events: Sequence[FeedEvent]
    last: Position
    is_last: bool


class Feed(Protocol):
    """Events in one order. Changefeed has them in a database."""

    async def newest(self) -> Position:
        """Return the position of the newest event."""

    async def position_of(self, event_id: UUID) -> Position:
        """Return the position of an event; of the nil UUID, the position before every event.

        Raises:
            PositionLost: there is no such event, or not any more.
        """

    async def read(self, after: Position, *, owner: str | None, size: int) -> Page:
        """Return the page after the position: of the next `size` events those of this owner; None for all owners.

        Raises:
            PositionLost: the position is not in the feed any more.
        """

    async def renumber_after_restore(self) -> int:
        """Put events that were restored from another cluster into the order of this one; return their number."""
