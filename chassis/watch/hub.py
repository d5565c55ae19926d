"""Delivers the feed to its subscriptions: each event once, in order, to every subscription that it concerns.

One tail per replica reads what is new while there are subscriptions, and offers it to them. Each subscription has a
buffer: if its caller reads too slowly, the buffer is dropped and the stream ends with a token to resume from, so no
caller keeps another one waiting. A caller with a token first catches up by reads of its own, and then joins the tail.

A position moves past an event in two cases: the event was delivered, or it does not concern the subscription. A
heartbeat carries the position, and the position follows the tail only while nothing waits in the buffer. So no token is
ever ahead of what was delivered, in whatever order timers and offers come.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Generic, TypeVar

import structlog
from pydantic import Field

from chassis.errors import (
    DatabaseUnavailable,
    DomainError,
    Overloaded,
    ResumeTokenExpired,
    ServerStopping,
    StreamTooSlow,
)
from chassis.settings import Section
from chassis.watch.changefeed import START, PositionLost

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from uuid import UUID

    from chassis.watch.changefeed import Changefeed, FeedEvent, Page, Position

log = structlog.get_logger(__name__)

Message = TypeVar("Message")

# Catching up shares the lanes with lists: after a restart a thousand streams may be resumed at once.
_CATCHING_UP_AT_ONCE: Final = 2
_LONGEST_BACKOFF_S: Final = 5.0
# A stream that is opened while the replica starts waits for the first look at the database, but not for a database that
# is away.
_READY_WITHIN_S: Final = 2.0


class WatchSettings(Section, env_prefix="WATCH_"):
    """How changes are delivered to streams."""

    # How often the tail looks for what is new; on average a change is delivered half of it later.
    poll_s: Annotated[float, Field(ge=0.005, le=10)] = 0.1
    # Between two heartbeats. A quarter of the edge's stream_idle_timeout: three may be lost on the way.
    sign_of_life_s: Annotated[float, Field(gt=0, le=55)] = 15
    # Changes that wait for one watcher: at 1,000 changes a second, which is what the database does, a second's.
    buffer: Annotated[int, Field(ge=1, le=100_000)] = 1000
    # Rows that one statement looks at, in a millisecond or two. Each caller that catches up may have one page in hand.
    page: Annotated[int, Field(ge=1, le=5000)] = 200
    # Twice what one replica was measured with.
    max_watchers: Annotated[int, Field(ge=1, le=100_000)] = 2000
    # Streams of one user on one replica: more than a person has browser tabs.
    max_of_one_caller: Annotated[int, Field(ge=1)] = 20


@dataclass(frozen=True, slots=True)
class _Change(Generic[Message]):
    """An event as the tail offers it: one message for all."""

    position: Position
    message: Message


class _Subscription(Generic[Message]):
    """One stream: how far it is, and what waits for it.

    Attributes:
        owner: whose events it wants; None for the events of all.
        position: every event up to here was delivered, or does not concern it.
        read_to: up to here it has read by itself.
        is_joined: whether the tail offers it what is new.
        is_current: whether everything that it has not read by itself was offered.
        is_too_slow: whether its buffer was full.
        is_lost: whether the database was restored under it.
    """

    __slots__ = (
        "_limit",
        "_missed",
        "_offered",
        "_show",
        "_wake",
        "is_current",
        "is_joined",
        "is_lost",
        "is_too_slow",
        "owner",
        "position",
        "read_to",
    )

    def __init__(self, owner: str | None, *, show: Callable[[FeedEvent], Message | None], limit: int) -> None:
        self.owner = owner
        self.position = self.read_to = START
        self.is_joined = self.is_current = self.is_too_slow = self.is_lost = False
        self._show = show
        self._limit = limit
        self._missed: deque[FeedEvent] = deque()
        self._offered: deque[_Change[Message]] = deque()
        self._wake = asyncio.Event()

    def begin(self, position: Position) -> None:
        """Begin after the position."""
        self.position = self.read_to = position

    def read(self, page: Page) -> None:
        """Add a page that it has read by itself, after `read_to`."""
        self._missed.extend(page.events)
        self.read_to = page.last

    def offer(self, change: _Change[Message]) -> None:
        """Put a change into the buffer; if the buffer is full, drop all of it."""
        if not self.is_too_slow and len(self._offered) < self._limit:
            self._offered.append(change)
        else:
            self.is_too_slow = True
            self._offered.clear()
        self.wake()

    def take(self) -> Message | None:
        """Return the next message and move to its position; None, and move to `read_to`, if nothing waits."""
        while self._missed:
            event = self._missed.popleft()
            self.position = event.position
            if (message := self._show(event)) is not None:
                return message
        self.position = max(self.position, self.read_to)
        while self.is_current and self._offered:
            change = self._offered.popleft()
            if change.position > self.position:  # else it has read that by itself
                self.position = change.position
                return change.message
        return None

    def follow(self, tail: Position) -> None:
        """Move to the tail, unless something waits: what the tail has passed and not offered does not concern it."""
        if self.is_current and not self._missed and not self._offered:
            self.position = max(self.position, tail)

    def wake(self) -> None:
        """Have the stream look again."""
        self._wake.set()

    async def is_quiet(self, *, for_s: float) -> bool:
        """Return False when it is woken, True when it was not for this time.

        True does not say that nothing waits: an offer may come in the turn of the loop in which the time is over.
        """
        self._wake.clear()
        try:
            async with asyncio.timeout(for_s):
                await self._wake.wait()
        except TimeoutError:
            return True
        return False


class WatchHub(Generic[Message]):
    """The streams of this replica.

    Args:
        feed: of the events.
        show: makes the message of an event; None for an event that is not shown.
        heartbeat: makes the message of a resume token alone.
        settings: how.
    """

    def __init__(
        self,
        feed: Changefeed,
        *,
        show: Callable[[FeedEvent], Message | None],
        heartbeat: Callable[[UUID], Message],
        settings: WatchSettings,
    ) -> None:
        self._feed = feed
        self._show = show
        self._heartbeat = heartbeat
        self._settings = settings
        self._of_caller: Counter[str] = Counter()
        self._everybody: set[_Subscription[Message]] = set()
        self._joined: dict[str | None, set[_Subscription[Message]]] = {}
        # Subscriptions that have read further than the tail.
        self._ahead: set[_Subscription[Message]] = set()
        # The position up to which everything was offered; None while nothing has joined.
        self._tail: Position | None = None
        self._is_wanted = asyncio.Event()
        self._catching_up = asyncio.Semaphore(_CATCHING_UP_AT_ONCE)
        self._ready = asyncio.Event()
        self._is_stopping = False
        self._failures = 0

    async def watch(self, *, owner: str | None, after: UUID | None, caller: str = "") -> AsyncGenerator[Message, None]:
        """Yield a heartbeat at once, then every change after the token, and a heartbeat whenever it is quiet.

        Args:
            owner: whose changes; None for the changes of all.
            after: the resume token; None to begin now.
            caller: whose streams are counted together; empty for a caller whose streams are not counted.

        Raises:
            Overloaded: too many streams are open, or too many of this caller.
            ResumeTokenExpired: the event of the token is gone.
            DatabaseUnavailable: the database does not answer, or was restored: resume with the last token.
            StreamTooSlow, ServerStopping: resume with the token of the error.
        """
        subscription = self._admitted(owner, caller=caller, after=after)
        try:
            subscription.begin(await self._beginning(after))
            if after is None:  # usually at the tail, so that there is nothing to catch up with
                self._join(subscription)
            yield self._heartbeat(subscription.position.id)
            while True:
                yield await self._next(subscription)
        except PositionLost:
            raise await self._end_of(subscription) from None
        finally:
            self._leave(subscription, caller=caller)

    async def run_forever(self) -> None:
        """Offer what is new while there are subscriptions, until cancelled."""
        while True:
            try:
                await self._follow_feed()
            except Exception as error:  # whatever it is: without an answer there must be no heartbeat
                self._failures += 1
                if self._failures == 1:  # and not ten times a second for an hour
                    log.warning("watchers.waiting", watchers=len(self._everybody), exc_info=error)
            poll_s = self._settings.poll_s
            await asyncio.sleep(min(poll_s * 2.0 ** min(self._failures, 10), max(poll_s, _LONGEST_BACKOFF_S)))

    def stop(self) -> None:
        """End every stream and begin no other."""
        self._is_stopping = True
        for subscription in self._everybody:
            subscription.wake()

    async def _follow_feed(self) -> None:
        """Offer what is new."""
        if not self._ready.is_set():
            if count := await self._feed.renumber_after_restore():
                log.warning("watchers.restored_events", count=count)
            self._ready.set()
            if not self._joined:
                self._is_wanted.clear()
        await self._is_wanted.wait()
        while await self._offers_page():
            pass
        if self._failures:
            log.info("watchers.go_on", failures=self._failures)
            self._failures = 0

    async def _offers_page(self) -> bool:
        """Offer a page; return whether there may be more."""
        tail = self._tail
        if tail is None:
            return False
        try:
            page = await self._feed.read(tail, owner=None, size=self._settings.page)
        except PositionLost:
            self._lose()
            return False
        if self._tail != tail:  # all have left meanwhile, and another one has joined
            return False
        self._require_passed(page)
        for event in page.events:
            concerned = (*self._joined.get(None, ()), *self._joined.get(event.owner, ()))
            message = self._show(event) if concerned else None
            if message is not None:
                change = _Change(event.position, message)
                for subscription in concerned:
                    subscription.offer(change)
        # In the same turn of the loop as the offers: a subscription without an offer may follow the tail.
        self._tail = page.last
        return not page.is_last

    def _require_passed(self, page: Page) -> None:
        """End a stream that was ahead of the tail if the tail passes its position without finding its event there.

        The tail's own position does not show a restore that removed only what was ahead of it.
        """
        passed = {event.position for event in page.events}
        for subscription in [each for each in self._ahead if each.read_to[:2] <= page.last[:2]]:
            self._ahead.discard(subscription)
            if subscription.read_to not in passed:
                subscription.is_lost = True
                subscription.wake()

    def _lose(self) -> None:
        """End every stream: old and new positions cannot be put into one order."""
        log.warning("watchers.position_lost", watchers=len(self._everybody))
        for subscription in self._everybody:
            subscription.is_lost = True
            subscription.wake()
        self._joined.clear()
        self._ahead.clear()
        self._tail = None
        self._bring_back()

    def _bring_back(self) -> None:
        """Have the tail look for restored events before it or a new stream reads on."""
        self._ready.clear()
        self._is_wanted.set()

    async def _beginning(self, after: UUID | None) -> Position:
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                await self._ready.wait()
        except TimeoutError:
            raise DatabaseUnavailable from None
        if after is None and self._tail is not None and not self._failures:
            return self._tail
        async with self._catching_up:
            if after is None:
                return await self._feed.newest()
            try:
                return await self._feed.position_of(after)
            except PositionLost:
                raise ResumeTokenExpired from None

    async def _next(self, subscription: _Subscription[Message]) -> Message:
        """Return the next change, or a heartbeat if `sign_of_life_s` passes without one."""
        time = asyncio.get_running_loop().time
        heartbeat_s = self._settings.sign_of_life_s
        due = time() + heartbeat_s
        is_due = False
        while True:
            self._require_going_on(subscription)
            if (message := subscription.take()) is not None:
                return message
            # No heartbeat while the database does not answer: the edge then ends the stream for being idle.
            if is_due and not self._failures:
                subscription.follow(self._tail or START)
                return self._heartbeat(subscription.position.id)
            if subscription.is_current:
                is_due = await subscription.is_quiet(for_s=heartbeat_s)
            else:
                await self._catch_up(subscription)
                is_due = time() >= due

    async def _catch_up(self, subscription: _Subscription[Message]) -> None:
        """Read the next page of what the subscription has missed; after the last one, join the tail.

        A page that was read after it had joined closes the gap to the tail, and shows that its position still stands.
        """
        async with self._catching_up:
            page = await self._feed.read(subscription.read_to, owner=subscription.owner, size=self._settings.page)
        subscription.read(page)
        if subscription.is_joined and self._tail is not None and subscription.read_to > self._tail:
            self._ahead.add(subscription)
        if page.is_last and subscription.is_joined:
            subscription.is_current = True
        elif page.is_last:
            self._require_going_on(subscription)  # one that is lost must not join the others
            self._join(subscription)

    async def _end_of(self, subscription: _Subscription[Message]) -> DomainError:
        """Return why a stream ends whose position is lost."""
        try:
            async with self._catching_up:
                await self._feed.position_of(subscription.position.id)
        except PositionLost:
            return ResumeTokenExpired()
        self._bring_back()
        return DatabaseUnavailable()  # to be resumed: the position has only changed its number

    def _require_going_on(self, subscription: _Subscription[Message]) -> None:
        token = str(subscription.position.id)
        if subscription.is_lost:
            raise PositionLost
        if subscription.is_too_slow:
            raise StreamTooSlow(resume_token=token)
        if self._is_stopping:
            raise ServerStopping(resume_token=token)

    def _admitted(self, owner: str | None, *, caller: str, after: UUID | None) -> _Subscription[Message]:
        if self._is_stopping:
            raise ServerStopping(resume_token=str(after or ""))
        settings = self._settings
        if len(self._everybody) >= settings.max_watchers or self._of_caller[caller] >= settings.max_of_one_caller:
            raise Overloaded("Too many streams are open already. Close some, or try again shortly.")
        if caller:
            self._of_caller[caller] += 1
        subscription = _Subscription(owner, show=self._show, limit=settings.buffer)
        self._everybody.add(subscription)
        return subscription

    def _join(self, subscription: _Subscription[Message]) -> None:
        """Have the tail offer to it what is new."""
        self._joined.setdefault(subscription.owner, set()).add(subscription)
        subscription.is_joined = True
        if self._tail is None:
            self._tail = subscription.read_to
            self._is_wanted.set()
        subscription.is_current = self._tail == subscription.read_to
        if subscription.read_to > self._tail:
            self._ahead.add(subscription)

    def _leave(self, subscription: _Subscription[Message], *, caller: str) -> None:
        if caller:
            self._of_caller[caller] -= 1
            if not self._of_caller[caller]:
                del self._of_caller[caller]
        self._everybody.discard(subscription)
        self._ahead.discard(subscription)
        others = self._joined.get(subscription.owner, set())
        others.discard(subscription)
        if not others:
            self._joined.pop(subscription.owner, None)
        if not self._joined:
            self._tail = None
            self._is_wanted.clear()
