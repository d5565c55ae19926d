"""A feed of events in memory, for the hub of change streams."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from chassis.clock import new_id
from chassis.watch.feed import START, Page, Position, PositionLost

if TYPE_CHECKING:
    from uuid import UUID

    from chassis.clock import Clock
    from chassis.watch.feed import FeedEvent

# The contract: a resume token is valid for a week.
_KEPT: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Watching:
    """The settings of a hub, as WatchSettings has them, with changes that come at once."""

    poll_s: float = 0.01
    heartbeat_s: float = 15
    buffer: int = 1000
    page: int = 200
    max_watchers: int = 2000
    max_of_one_caller: int = 20


class FeedInMemory:
    """The events of one service, oldest first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: list[FeedEvent] = []

    def next_position(self) -> Position:
        """Return the position of the next event."""
        number = len(self._events) + 1
        return Position(number, number, new_id())

    def add(self, event: FeedEvent) -> None:
        """Add an event at the next position."""
        self._events.append(event)

    async def newest(self) -> Position:
        """Return the position of the newest event."""
        return self._events[-1].position if self._events else START

    async def position_of(self, event_id: UUID) -> Position:
        """Return the position of an event; of the nil UUID, the position before every event.

        Raises:
            PositionLost: there is no such event, or it is more than a week old.
        """
        oldest = self._clock.now() - _KEPT
        if event_id == START.id and (not self._events or self._events[0].occurred_at >= oldest):
            return START
        for event in self._events:
            if event.position.id == event_id and event.occurred_at >= oldest:
                return event.position
        raise PositionLost

    async def read(self, after: Position, *, owner: str | None, size: int) -> Page:
        """Return the page after the position."""
        scanned = self._events[after.number : after.number + size]
        events = [event for event in scanned if owner in {None, event.owner}]
        last = scanned[-1].position if scanned else after
        return Page(events, last, is_last=len(scanned) < size)

    async def renumber_after_restore(self) -> int:
        """Return 0: nothing is ever restored."""
        return 0
