"""Delivers the changefeed to subscriptions: each event once, in order, to every subscription that it concerns.

While a replica has subscriptions, one tail reads the newest events and pushes them to all live subscriptions. Each
subscription has a buffer of its own. If a caller reads too slowly, its buffer is dropped and its stream ends with a
resume token, so that no caller delays another. A caller with a resume token first catches up by reading pages itself,
and then becomes live.

A subscription's position passes an event in two cases: the event was delivered, or it does not concern the
subscription. A heartbeat carries the position; the position advances to the tail's only while no event waits. So no
resume token is ever ahead of what was delivered, in whatever order timers and pushes happen.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final, Generic

import structlog

from chassis.errors import DatabaseUnavailable, Overloaded, ResumeTokenExpired, ServerStopping, StreamTooSlow
from chassis.runtime.periodic import Failures, every
from chassis.watch.feed import START, PositionLost
from chassis.watch.subscription import Message, Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from uuid import UUID

    from chassis.errors import DomainError
    from chassis.watch.feed import Feed, FeedEvent, Page, Position
    from chassis.watch.settings import WatchSettings

log = structlog.get_logger(__name__)

# Catching up shares the connections with lists, and after a restart a thousand streams may resume at once.
_MAX_CONCURRENT_CATCH_UPS: Final = 2
_MAX_BACKOFF_S: Final = 5.0
# A stream that is opened during start-up waits this long for the first poll, then fails with DatabaseUnavailable.
_FIRST_POLL_TIMEOUT_S: Final = 2.0


class WatchHub(Generic[Message]):
    """The change streams of one replica.

    Args:
        feed: the changefeed.
        show: makes the message of an event; None for an event that is not shown.
        heartbeat: makes the message that carries a resume token alone.
        settings: intervals and limits.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        show: Callable[[FeedEvent], Message | None],
        heartbeat: Callable[[UUID], Message],
        settings: WatchSettings,
    ) -> None:
        self._feed = feed
        self._show = show
        self._heartbeat = heartbeat
        self._settings = settings
        self._streams_of_caller: Counter[str] = Counter()
        self._subscriptions: set[Subscription[Message]] = set()
        self._live_by_owner: dict[str | None, set[Subscription[Message]]] = {}
        # Live subscriptions whose own pages reached further than the tail.
        self._ahead_of_tail: set[Subscription[Message]] = set()
        # Every event up to here was pushed; None while no subscription is live.
        self._tail: Position | None = None
        self._tail_has_work = asyncio.Event()
        self._catch_up_slots = asyncio.Semaphore(_MAX_CONCURRENT_CATCH_UPS)
        # Set once rows of another cluster have transaction ids of this one, so that positions can be compared.
        self._is_renumbered = asyncio.Event()
        self._is_stopping = False
        # Any failure counts: without an answer of the database, heartbeats must stop.
        self._failures = Failures(
            failed="watchers.waiting",
            recovered="watchers.go_on",
            first_s=2 * settings.poll_s,
            longest_s=max(settings.poll_s, _MAX_BACKOFF_S),
            fields=lambda: {"watchers": len(self._subscriptions)},
        )

    async def watch(self, *, owner: str | None, after: UUID | None, caller: str = "") -> AsyncGenerator[Message, None]:
        """Yield a heartbeat at once, then every change after the token, and a heartbeat at each interval without one.

        Args:
            owner: deliver the changes of this owner only; None for the changes of all.
            after: the resume token; None to start with the next change.
            caller: count the stream against this caller's limit; if empty, the stream is not counted.

        Raises:
            Overloaded: the replica, or this caller, has too many open streams.
            ResumeTokenExpired: the event of the token is gone.
            DatabaseUnavailable: the database does not answer, or was restored: resume with the last token.
            StreamTooSlow, ServerStopping: resume with the token of the error.
        """
        subscription = self._admit(owner, caller=caller, after=after)
        try:
            subscription.start_after(await self._start_position(after))
            if after is None:  # usually at the tail's position, so that there are no pages to read first
                self._go_live(subscription)
            yield self._heartbeat(subscription.position.id)
            while True:
                yield await self._next_message(subscription)
        except PositionLost:
            raise await self._lost_position_error(subscription) from None
        finally:
            self._remove(subscription, caller=caller)

    async def run_forever(self) -> None:
        """Push new events to live subscriptions until cancelled. If polling fails, retry with backoff."""
        await every(self._settings.poll_s, self._poll, failures=self._failures)

    def stop(self) -> None:
        """End every stream with ServerStopping and refuse new ones."""
        self._is_stopping = True
        for subscription in self._subscriptions:
            subscription.notify()

    async def _poll(self) -> None:
        """Push every new event; wait first while no subscription is live."""
        if not self._is_renumbered.is_set():
            if count := await self._feed.renumber_after_restore():
                log.warning("watchers.restored_events", count=count)
            self._is_renumbered.set()
            if not self._live_by_owner:
                self._tail_has_work.clear()
        await self._tail_has_work.wait()
        while await self._push_page():
            pass

    async def _push_page(self) -> bool:
        """Read one page after the tail and push its events; return whether there may be more pages."""
        tail = self._tail
        if tail is None:
            return False
        try:
            page = await self._feed.read(tail, owner=None, size=self._settings.page)
        except PositionLost:
            self._lose_all()
            return False
        if self._tail != tail:  # during the read all live subscriptions left and a new one came
            return False
        self._require_found(page)
        for event in page.events:
            concerned = (*self._live_by_owner.get(None, ()), *self._live_by_owner.get(event.owner, ()))
            message = self._show(event) if concerned else None
            if message is not None:
                delivery = (event.position, message)
                for subscription in concerned:
                    subscription.push(delivery)
        # In the same turn of the loop as the pushes: a subscription with an empty buffer may advance to the tail.
        self._tail = page.last
        return not page.is_last

    def _require_found(self, page: Page) -> None:
        """Mark a subscription ahead of the tail as lost if the page passes its position without containing its event.

        A restore that removed only events ahead of the tail leaves the tail's own position valid, so that reading the
        page does not raise PositionLost.
        """
        found = {event.position for event in page.events}
        for subscription in [each for each in self._ahead_of_tail if each.read_to[:2] <= page.last[:2]]:
            self._ahead_of_tail.discard(subscription)
            if subscription.read_to not in found:
                subscription.is_lost = True
                subscription.notify()

    def _lose_all(self) -> None:
        """End every stream: positions from before and after a restore have no common order."""
        log.warning("watchers.position_lost", watchers=len(self._subscriptions))
        for subscription in self._subscriptions:
            subscription.is_lost = True
            subscription.notify()
        self._live_by_owner.clear()
        self._ahead_of_tail.clear()
        self._tail = None
        self._renumber_before_next_read()

    def _renumber_before_next_read(self) -> None:
        """Have the next poll renumber restored rows; until then new streams wait."""
        self._is_renumbered.clear()
        self._tail_has_work.set()

    async def _start_position(self, after: UUID | None) -> Position:
        try:
            async with asyncio.timeout(_FIRST_POLL_TIMEOUT_S):
                await self._is_renumbered.wait()
        except TimeoutError:
            raise DatabaseUnavailable from None
        if after is None and self._tail is not None and not self._failures.count:
            return self._tail
        async with self._catch_up_slots:
            if after is None:
                return await self._feed.newest()
            try:
                return await self._feed.position_of(after)
            except PositionLost:
                raise ResumeTokenExpired from None

    async def _next_message(self, subscription: Subscription[Message]) -> Message:
        """Return the next change, or a heartbeat if `heartbeat_s` seconds pass without one."""
        time = asyncio.get_running_loop().time
        heartbeat_s = self._settings.heartbeat_s
        due = time() + heartbeat_s
        is_due = False
        while True:
            self._require_open(subscription)
            if (message := subscription.pop()) is not None:
                return message
            # No heartbeat while polling fails: the edge then ends the stream as idle, and the client reconnects.
            if is_due and not self._failures.count:
                subscription.advance_to(self._tail or START)
                return self._heartbeat(subscription.position.id)
            if subscription.is_caught_up:
                is_due = await subscription.is_quiet(for_s=heartbeat_s)
            else:
                await self._catch_up(subscription)
                is_due = time() >= due

    async def _catch_up(self, subscription: Subscription[Message]) -> None:
        """Read the next page for the subscription. After the last page the subscription becomes live.

        One more page is read after that: it closes the gap to the tail and shows that the position is still valid.
        """
        async with self._catch_up_slots:
            page = await self._feed.read(subscription.read_to, owner=subscription.owner, size=self._settings.page)
        subscription.add_page(page)
        if subscription.is_live and self._tail is not None and subscription.read_to > self._tail:
            self._ahead_of_tail.add(subscription)
        if page.is_last and subscription.is_live:
            subscription.is_caught_up = True
        elif page.is_last:
            self._require_open(subscription)  # a lost subscription must not become live
            self._go_live(subscription)

    async def _lost_position_error(self, subscription: Subscription[Message]) -> DomainError:
        """Return the error for a stream whose position is not in the changefeed any more."""
        try:
            async with self._catch_up_slots:
                await self._feed.position_of(subscription.position.id)
        except PositionLost:
            return ResumeTokenExpired()
        self._renumber_before_next_read()
        return DatabaseUnavailable()  # the event still exists, with another transaction id: the caller can resume

    def _require_open(self, subscription: Subscription[Message]) -> None:
        token = str(subscription.position.id)
        if subscription.is_lost:
            raise PositionLost
        if subscription.is_too_slow:
            raise StreamTooSlow(resume_token=token)
        if self._is_stopping:
            raise ServerStopping(resume_token=token)

    def _admit(self, owner: str | None, *, caller: str, after: UUID | None) -> Subscription[Message]:
        if self._is_stopping:
            raise ServerStopping(resume_token=str(after or ""))
        settings = self._settings
        is_full = len(self._subscriptions) >= settings.max_watchers
        if is_full or self._streams_of_caller[caller] >= settings.max_of_one_caller:
            raise Overloaded("Too many streams are open already. Close some, or try again shortly.")
        if caller:
            self._streams_of_caller[caller] += 1
        subscription = Subscription(owner, show=self._show, limit=settings.buffer)
        self._subscriptions.add(subscription)
        return subscription

    def _go_live(self, subscription: Subscription[Message]) -> None:
        """Have the tail push new events to the subscription; the first live subscription sets the tail's position."""
        self._live_by_owner.setdefault(subscription.owner, set()).add(subscription)
        subscription.is_live = True
        if self._tail is None:
            self._tail = subscription.read_to
            self._tail_has_work.set()
        subscription.is_caught_up = self._tail == subscription.read_to
        if subscription.read_to > self._tail:
            self._ahead_of_tail.add(subscription)

    def _remove(self, subscription: Subscription[Message], *, caller: str) -> None:
        if caller:
            self._streams_of_caller[caller] -= 1
            if not self._streams_of_caller[caller]:
                del self._streams_of_caller[caller]
        self._subscriptions.discard(subscription)
        self._ahead_of_tail.discard(subscription)
        same_owner = self._live_by_owner.get(subscription.owner, set())
        same_owner.discard(subscription)
        if not same_owner:
            self._live_by_owner.pop(subscription.owner, None)
        if not self._live_by_owner:
            self._tail = None
            self._tail_has_work.clear()
