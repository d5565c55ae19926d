"""One stream of changes: its position, and the changes that wait to be sent."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from chassis.watch.feed import START

if TYPE_CHECKING:
    from collections.abc import Callable

    from chassis.watch.feed import FeedEvent, Page, Position

Message = TypeVar("Message")


class Subscription(Generic[Message]):
    """One stream.

    Its events come from two sources: pages that it reads itself while it catches up, and deliveries that the tail
    pushes into its buffer. `pop` returns the events of the pages first, and skips deliveries that a page had already.

    Args:
        owner: deliver the events of this owner only; None for all events.
        show: makes the message of an event; None for an event that is not shown.
        limit: how many deliveries the buffer holds.

    Attributes:
        position: every event up to here was delivered, or does not concern this subscription.
        read_to: the position up to which the subscription has read pages itself.
        is_live: whether the tail pushes new events to it.
        is_caught_up: whether every event after `read_to` was pushed.
        is_too_slow: whether its buffer overflowed.
        is_lost: whether the database was restored, so that its position has no meaning any more.
    """

    def __init__(self, owner: str | None, *, show: Callable[[FeedEvent], Message | None], limit: int) -> None:
        self.owner = owner
        self.position = self.read_to = START
        self.is_live = self.is_caught_up = self.is_too_slow = self.is_lost = False
        self._show = show
        self._limit = limit
        self._page_events: deque[FeedEvent] = deque()
        self._deliveries: deque[tuple[Position, Message]] = deque()
        self._notified = asyncio.Event()

    def start_after(self, position: Position) -> None:
        """Set the position after which events are delivered."""
        self.position = self.read_to = position

    def add_page(self, page: Page) -> None:
        """Add a page of the changefeed that was read after `read_to`."""
        self._page_events.extend(page.events)
        self.read_to = page.last

    def push(self, delivery: tuple[Position, Message]) -> None:
        """Add an event's position and its message to the buffer; a full one is emptied, and its stream is too slow.

        All subscriptions share the delivery.
        """
        if not self.is_too_slow and len(self._deliveries) < self._limit:
            self._deliveries.append(delivery)
        else:
            self.is_too_slow = True
            self._deliveries.clear()
        self.notify()

    def pop(self) -> Message | None:
        """Return the next message and advance to its position; if none waits, advance to `read_to` and return None."""
        while self._page_events:
            event = self._page_events.popleft()
            self.position = event.position
            if (message := self._show(event)) is not None:
                return message
        self.position = max(self.position, self.read_to)
        while self.is_caught_up and self._deliveries:
            position, message = self._deliveries.popleft()
            if position > self.position:  # otherwise a page had this event already
                self.position = position
                return message
        return None

    def advance_to(self, tail: Position) -> None:
        """Advance to the tail's position if no event waits: events that were passed and not pushed concern others."""
        if self.is_caught_up and not self._page_events and not self._deliveries:
            self.position = max(self.position, tail)

    def notify(self) -> None:
        """Wake up the stream: its state or its buffer has changed."""
        self._notified.set()

    async def is_quiet(self, *, for_s: float) -> bool:
        """Return True if `for_s` seconds pass without a notification; return False as soon as one comes.

        True does not mean that the buffer is empty: a push may come in the turn of the loop in which the time ends.
        """
        self._notified.clear()
        try:
            async with asyncio.timeout(for_s):
                await self._notified.wait()
        except TimeoutError:
            return True
        return False
