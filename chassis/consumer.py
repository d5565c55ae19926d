"""Reads a stream of events and lets each take effect once, in order per subject.

An event is acknowledged when its effect is committed, together with its number in the inbox; whoever gets it again
finds it there. What is not acknowledged, because it failed, came before its predecessor, or its consumer died, is taken
again after a pause that grows, and is a dead letter in the end.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import structlog
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.exceptions import ResponseError

from chassis import inbox, metrics
from chassis.broker import BrokerDown
from chassis.cloudevents import CloudEvent, Malformed
from chassis.consumer_group import DeadLetter
from chassis.errors import DatabaseUnavailable
from chassis.worker import pause

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from chassis.consumer_group import ConsumerGroup, Entry
    from chassis.db import Database

log = structlog.get_logger(__name__)

# How long Redis holds a question to which nothing has come. Below REDIS_TIMEOUT_S; SIGTERM waits for it too.
_WAIT_S: Final = 0.5
_LOOK_AGAIN_S: Final = 0.2
_NOTE_S: Final = 2.0
_LONGEST_BACKOFF_S: Final = 5.0


class ConsumerSettings(BaseSettings):
    """How a consumer reads, and how patient it is."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="CONSUMER_")

    # One transaction for so many.
    batch: Annotated[int, Field(ge=1, le=5000)] = 200
    # The pause before the second attempt; it doubles with each one.
    retry_first_s: Annotated[float, Field(gt=0, le=60)] = 0.2
    retry_longest_s: Annotated[float, Field(gt=0, le=3600)] = 30
    # Some 80 s in all: a deployment or a lock is over by then, a defect is not.
    attempts: Annotated[int, Field(ge=1, le=100)] = 10

    def pause_s(self, attempts: int) -> float:
        """Return how long an event rests after so many attempts."""
        return min(self.retry_first_s * 2.0 ** (attempts - 1), self.retry_longest_s)


class Handle(Protocol):
    """What events do: statements, in a transaction that is not its to commit."""

    def __call__(self, connection: Connection, events: Sequence[CloudEvent]) -> None:
        """Let the events take effect; none has done so yet, and those of a subject are in order."""


class _Early(Exception):
    """The event before this one has not taken effect."""


class Consumer:
    """One process's share of a group.

    Args:
        database: where the effects are.
        group: whose events.
        handle: what they do.
        settings: how.
    """

    def __init__(self, database: Database, group: ConsumerGroup, handle: Handle, *, settings: ConsumerSettings) -> None:
        self._database = database
        self._group = group
        self._handle = handle
        self._settings = settings
        self._looks_again_at = 0.0
        self._notes_at = 0.0
        self._failures = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until told to stop."""
        while not stopping.is_set():
            try:
                await self._step()
            except (BrokerDown, DatabaseUnavailable) as error:
                await self._wait(stopping, error)
                continue
            if self._failures:
                log.info("consumer.goes_on", stream=self._group.stream, failures=self._failures)
                self._failures = 0

    async def _wait(self, stopping: asyncio.Event, error: Exception) -> None:
        if isinstance(error, ResponseError) and str(error).startswith("NOGROUP"):
            await self._group.join()  # at the first start, and after Redis has lost everything
            log.info("consumer.joined", stream=self._group.stream, group=self._group.group)
            return
        self._failures += 1
        if self._failures == 1:  # and not once a second for an hour
            log.warning("consumer.waiting", stream=self._group.stream, exc_info=error)
        await pause(stopping, min(0.1 * 2 ** min(self._failures, 10), _LONGEST_BACKOFF_S))

    async def _step(self) -> None:
        # Without a database everything would fail, and become a dead letter in the end.
        await self._database.ping()
        # Before reading: what is read then is at least as new.
        watermark = await self._group.watermark()
        is_idle = await self._group.pending_count() == 0
        entries = await self._group.read(count=self._settings.batch, wait_s=_WAIT_S if is_idle else _LOOK_AGAIN_S)
        await self._take(entries)
        if time.monotonic() >= self._looks_again_at:
            await self._take(await self._group.take_over(pause_s=self._settings.pause_s))
            self._looks_again_at = time.monotonic() + _LOOK_AGAIN_S
        if watermark and len(entries) < self._settings.batch and time.monotonic() >= self._notes_at:
            await self._note(watermark)
            self._notes_at = time.monotonic() + _NOTE_S

    async def _take(self, entries: Sequence[Entry]) -> None:
        """Let the entries take effect; acknowledge those that have, and bury those that never will."""
        events: dict[Entry, CloudEvent] = {}
        failed: dict[Entry, Exception] = {}
        for entry in entries:
            try:
                events[entry] = CloudEvent.from_json(entry.text)
            except Malformed as malformed:
                failed[entry] = malformed
        if events:
            failed |= await self._apply(events)
        done = [entry for entry in entries if entry not in failed]
        await self._group.acknowledge(done)
        metrics.events_consumed(self._group.stream, count=len(done))
        for entry, error in failed.items():
            if entry.attempts >= self._settings.attempts or isinstance(error, Malformed):
                await self._bury(entry, error)

    async def _apply(self, events: Mapping[Entry, CloudEvent]) -> dict[Entry, Exception]:
        """Return which have not taken effect, and why.

        Raises:
            DatabaseUnavailable: none has.
        """
        try:
            early = await self._database.transaction(lambda connection: self._work(connection, events))
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  whatever a handler raises must not stop the others' events
            if len(events) == 1:
                return dict.fromkeys(events, error)
            failed: dict[Entry, Exception] = {}
            for entry, event in events.items():  # one of them is poison, and fails alone only for itself
                failed |= await self._apply({entry: event})
            return failed
        return {entry: _Early() for entry in early}

    def _work(self, connection: Connection, events: Mapping[Entry, CloudEvent]) -> list[Entry]:
        """Let those whose turn it is take effect; return those that came early. Old news is done with."""
        stream = self._group.stream
        last = inbox.claim(connection, stream, (event.subject for event in events.values()))
        moved: dict[UUID, int] = {}
        early: list[Entry] = []
        fresh: list[CloudEvent] = []
        for entry, event in events.items():
            if event.sequence > last[event.subject] + 1:
                early.append(entry)
            elif event.sequence == last[event.subject] + 1:
                fresh.append(event)
                last[event.subject] = moved[event.subject] = event.sequence
        if fresh:
            self._handle(connection, fresh)
            inbox.advance(connection, stream, moved)
        return early

    async def _bury(self, entry: Entry, error: Exception) -> None:
        reason = "GAP" if isinstance(error, _Early) else type(error).__name__
        now = datetime.now(UTC).isoformat()
        letter = DeadLetter(event=entry.text, reason=reason, attempts=entry.attempts, at=now)
        await self._group.bury(entry, letter)
        metrics.event_died(self._group.stream)
        log.error("consumer.dead_letter", stream=self._group.stream, letter=letter.title, exc_info=error)

    async def _note(self, watermark: datetime) -> None:
        """Write how up to date the effects are, unless something is missing of them."""
        if await self._group.pending_count() or await self._group.has_dead_letters():
            return
        stream = self._group.stream
        await self._database.transaction(lambda connection: inbox.set_as_of(connection, stream, watermark))
        metrics.consumer_is_as_of(stream, watermark)
