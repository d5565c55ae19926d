"""Hands the feed to those who watch it: each event once, in order, to whom it concerns.

One tail a replica looks for what is new, while anybody watches, and hands it out. Each watcher has a buffer: who reads
too slowly loses it and is told where to go on, and keeps nobody else waiting. Who comes with a token first catches up
by reading for itself, and then joins the others.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Generic, TypeVar

import structlog
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis import feed
from chassis.errors import DatabaseUnavailable, Overloaded, ResumeTokenExpired, ServerStopping, StreamTooSlow
from chassis.feed import START, Place, Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from uuid import UUID

    from chassis.db import Database
    from chassis.feed import Page, Told

log = structlog.get_logger(__name__)

Message = TypeVar("Message")

# Reading for those who catch up shares the lanes with lists: after a restart a thousand may come at once.
_CATCHING_UP_AT_ONCE: Final = 2
_LONGEST_BACKOFF_S: Final = 5.0
# Who comes while a replica starts waits for its first look at the database, but not for a database that is away.
_READY_WITHIN_S: Final = 2.0


class WatchSettings(BaseSettings):
    """How changes are told to those who watch."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="WATCH_")

    # How often it is looked for what is new, while anybody watches; on average a change is told half of it later.
    poll_s: Annotated[float, Field(ge=0.005, le=10)] = 0.1
    # A quarter of the edge's stream_idle_timeout: three may be lost on the way.
    sign_of_life_s: Annotated[float, Field(gt=0, le=55)] = 15
    # Changes that wait for one watcher: at 1,000 changes a second, which is what the database does, a second's.
    buffer: Annotated[int, Field(ge=1, le=100_000)] = 1000
    # Rows that one statement looks at, in a millisecond or two. Each of those who catch up may have so many in hand.
    page: Annotated[int, Field(ge=1, le=5000)] = 200
    # Twice what one replica was measured with.
    max_watchers: Annotated[int, Field(ge=1, le=100_000)] = 2000
    # Of one user on one replica: as many browser tabs as anybody has.
    max_of_one_caller: Annotated[int, Field(ge=1)] = 20


@dataclass(frozen=True, slots=True)
class _Handed(Generic[Message]):
    """What the tail hands out: one for all."""

    place: Place
    message: Message


class _Watcher(Generic[Message]):
    """One stream.

    Attributes:
        owner: whose changes it wants; None for everybody's.
        told: the place up to which its caller has been told everything.
        is_too_slow: whether its buffer was full.
    """

    __slots__ = ("_limit", "_waiting", "_wake", "is_too_slow", "owner", "told")

    def __init__(self, owner: str | None, *, limit: int) -> None:
        self.owner = owner
        self.told = START
        self.is_too_slow = False
        self._limit = limit
        self._waiting: deque[_Handed[Message]] = deque()
        self._wake = asyncio.Event()

    def offer(self, handed: _Handed[Message]) -> None:
        """Put a message into the buffer; if there is no room, drop all of it."""
        if not self.is_too_slow and len(self._waiting) < self._limit:
            self._waiting.append(handed)
        else:
            self.is_too_slow = True
            self._waiting.clear()
        self._wake.set()

    def take(self) -> Message | None:
        """Return the next message that its caller has not been told yet, if there is one."""
        while self._waiting:
            handed = self._waiting.popleft()
            if handed.place > self.told:
                self.told = handed.place
                return handed.message
        return None

    def wake(self) -> None:
        """Have it look around."""
        self._wake.set()

    async def woken(self, *, within_s: float) -> bool:
        """Return True once there is something to look at, False if there is nothing for so long."""
        self._wake.clear()
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True


class Watchers(Generic[Message]):
    """Everybody who watches on this replica.

    Args:
        database: with the outbox.
        owner_field: what the owner is called in the events' data: `userId`.
        show: makes a message of an event; all who are told of it get the same one. None for what is not shown.
        sign_of_life: makes one of a resume token.
        settings: how.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner_field: str,
        show: Callable[[Told], Message | None],
        sign_of_life: Callable[[UUID], Message],
        settings: WatchSettings,
    ) -> None:
        self._database = database
        self._owner_field = owner_field
        self._show = show
        self._sign_of_life = sign_of_life
        self._settings = settings
        self._of_caller: Counter[str] = Counter()
        self._joined: dict[str | None, set[_Watcher[Message]]] = {}
        self._everybody: set[_Watcher[Message]] = set()
        # The place up to which everything was handed out; None while nobody has joined.
        self._tail: Place | None = None
        self._is_wanted = asyncio.Event()
        self._catching_up = asyncio.Semaphore(_CATCHING_UP_AT_ONCE)
        self._ready = asyncio.Event()
        self._is_stopping = False
        self._failures = 0

    async def watch(self, *, owner: str | None, after: UUID | None, caller: str = "") -> AsyncGenerator[Message, None]:
        """Yield a sign of life at once, then every change behind the token, and a sign of life now and then.

        Args:
            owner: whose changes; None for everybody's.
            after: the resume token; None to begin now.
            caller: whose streams are counted together; empty for nobody's.

        Raises:
            Overloaded: too many watch already, or too many of this caller.
            ResumeTokenExpired: nothing is known of the token.
            DatabaseUnavailable: nobody can say what has changed.
            StreamTooSlow, ServerStopping: it goes on somewhere else.
        """
        watcher = self._admitted(owner, caller=caller, after=after)
        try:
            watcher.told = await self._beginning(after)
            joined_at = None if after else self._join(watcher)
            yield self._sign_of_life(watcher.told.id)
            while joined_at is None or watcher.told < joined_at:
                page = await self._page_for(watcher)
                for event in page.events:
                    self._require_going_on(watcher)
                    watcher.told = event.place
                    if (message := self._show(event)) is not None:
                        yield message
                watcher.told = page.last or joined_at or watcher.told
                if joined_at is None and page.is_last:
                    joined_at = self._join(watcher)
            while True:
                yield await self._next(watcher)
        finally:
            self._leave(watcher, caller=caller)

    async def run_forever(self) -> None:
        """Look for what is new whenever anybody watches, until cancelled."""
        while True:
            try:
                await self._follow()
            except Exception as error:  # whatever it is, those who watch must not take it for silence
                self._failures += 1
                if self._failures == 1:  # and not ten times a second for an hour
                    log.warning("watchers.waiting", watchers=len(self._everybody), exc_info=error)
            poll_s = self._settings.poll_s
            await asyncio.sleep(min(poll_s * 2.0 ** min(self._failures, 10), max(poll_s, _LONGEST_BACKOFF_S)))

    def stop(self) -> None:
        """End every stream and begin no other."""
        self._is_stopping = True
        for watcher in self._everybody:
            watcher.wake()

    async def _follow(self) -> None:
        """Hand out what is new."""
        if not self._ready.is_set():
            if count := await self._database.transaction(feed.bring_back):
                log.warning("watchers.restored_events", count=count)
            self._ready.set()
        await self._is_wanted.wait()
        while await self._hands_out():
            pass
        if self._failures:
            log.info("watchers.go_on", failures=self._failures)
            self._failures = 0

    async def _hands_out(self) -> bool:
        """Hand out a page; return whether there may be more."""
        tail = self._tail
        if tail is None:
            return False
        page = await self._read(tail, owner=None)
        if self._tail is not tail:  # all have left meanwhile, and somebody else has come
            return False
        for event in page.events:
            concerned = (*self._joined.get(None, ()), *self._joined.get(event.owner, ()))
            message = self._show(event) if concerned else None
            if message is not None:
                handed = _Handed(event.place, message)
                for watcher in concerned:
                    watcher.offer(handed)
        self._tail = page.last or tail
        return not page.is_last

    async def _read(self, after: Place, *, owner: str | None) -> Page:
        wanted = Wanted(after, owner, self._owner_field, self._settings.page)
        return await self._database.read(lambda connection: feed.read(connection, wanted))

    async def _page_for(self, watcher: _Watcher[Message]) -> Page:
        async with self._catching_up:
            return await self._read(watcher.told, owner=watcher.owner)

    async def _beginning(self, after: UUID | None) -> Place:
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                await self._ready.wait()
        except TimeoutError:
            raise DatabaseUnavailable from None
        if after is None and self._tail is not None and not self._failures:
            return self._tail
        async with self._catching_up:
            if after is None:
                return await self._database.read(feed.newest)
            place = await self._database.read(lambda connection: feed.place_of(connection, after))
        if place is None:
            raise ResumeTokenExpired
        return place

    async def _next(self, watcher: _Watcher[Message]) -> Message:
        while True:
            self._require_going_on(watcher)
            if (message := watcher.take()) is not None:
                return message
            is_woken = await watcher.woken(within_s=self._settings.sign_of_life_s)
            # No sign of life while nobody knows what happens: whoever stands between then ends the stream for idling.
            if not is_woken and not self._failures:
                watcher.told = max(watcher.told, self._tail or START)
                return self._sign_of_life(watcher.told.id)

    def _require_going_on(self, watcher: _Watcher[Message]) -> None:
        token = str(watcher.told.id)
        if watcher.is_too_slow:
            raise StreamTooSlow(resume_token=token)
        if self._is_stopping:
            raise ServerStopping(resume_token=token)

    def _admitted(self, owner: str | None, *, caller: str, after: UUID | None) -> _Watcher[Message]:
        if self._is_stopping:
            raise ServerStopping(resume_token=str(after or ""))
        settings = self._settings
        if len(self._everybody) >= settings.max_watchers or self._of_caller[caller] >= settings.max_of_one_caller:
            raise Overloaded("Too many streams are open already. Close some, or try again shortly.")
        if caller:
            self._of_caller[caller] += 1
        watcher: _Watcher[Message] = _Watcher(owner, limit=settings.buffer)
        self._everybody.add(watcher)
        return watcher

    def _join(self, watcher: _Watcher[Message]) -> Place:
        """Have the tail hand out to it too; return the place from which on it does."""
        self._joined.setdefault(watcher.owner, set()).add(watcher)
        if self._tail is None:
            self._tail = watcher.told
            self._is_wanted.set()
        return self._tail

    def _leave(self, watcher: _Watcher[Message], *, caller: str) -> None:
        if caller:
            self._of_caller[caller] -= 1
            if not self._of_caller[caller]:
                del self._of_caller[caller]
        self._everybody.discard(watcher)
        others = self._joined.get(watcher.owner, set())
        others.discard(watcher)
        if not others:
            self._joined.pop(watcher.owner, None)
        if not self._joined:
            self._tail = None
            self._is_wanted.clear()
