"""Reads a stream of events and lets each take effect once, in order per subject.

An event is acknowledged after its effect is committed. The transaction of the effect also writes the event's number
into the inbox: if the event is delivered again, the consumer finds it there and skips it. An entry stays unacknowledged
if it failed, came before its predecessor, or its consumer died; it is claimed again after a backoff, and becomes a dead
letter after the last attempt.

The position is the entry up to which everything took effect. It is stored in the database of the effects, and each step
compares it with the stream and the group, because each of the three may have lost entries, been moved, or been restored
to an earlier time. If entries behind the position are missing, their events come from the outbox, page by page
(replay.py), before anything newer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Final

import structlog
from pydantic import Field

from chassis.errors import DatabaseUnavailable
from chassis.events import inbox
from chassis.events.cloudevents import Malformed
from chassis.events.consumer_group import Entry, GroupMissing
from chassis.events.processor import EventProcessor, OutOfOrder, parsed
from chassis.events.redis_streams import BrokerDown, EntryId
from chassis.runtime.periodic import Failures, backoff_s, every
from chassis.settings import Constant, Section
from chassis.telemetry.metrics.events import consumer_lacks_events, consumer_looked_at, events_consumed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.database import Database
    from chassis.events.consumer_group import ConsumerGroup, Look
    from chassis.events.inbox import State
    from chassis.events.processor import Handle
    from chassis.events.replay import Page

log = structlog.get_logger(__name__)

# How long Redis holds a read while there is nothing new. Below REDIS_TIMEOUT_S; a stop by SIGTERM takes as long.
_WAIT_S: Final = 0.5
# How often pending entries are looked at.
_LOOK_AGAIN_S: Final = 0.2
# How often the position is saved.
_SAVE_S: Final = 2.0
# While Redis or the database is away.
_FIRST_BACKOFF_S: Final = 0.2
_LONGEST_BACKOFF_S: Final = 5.0


class ConsumerSettings(Section, env_prefix="CONSUMER_"):
    """How a consumer reads, and how patient it is."""

    batch: Constant[int] = 200
    """Events of one transaction, which then takes some ten milliseconds."""
    retry_first_s: Annotated[float, Field(gt=0, le=60)] = 0.2
    """The pause before the second attempt to apply an event; it doubles with each attempt."""
    retry_longest_s: Annotated[float, Field(gt=0, le=3600)] = 30
    """The longest of these pauses."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 10
    """Attempts until an event becomes a dead letter. With the pauses above this takes some 80 s: a deployment or a lock
    has ended by then, a defect has not."""

    def pause_s(self, attempts: int) -> float:
        """Return the pause before the next attempt at an event."""
        return backoff_s(attempts, first_s=self.retry_first_s, longest_s=self.retry_longest_s)


class Consumer:
    """One process of a group, which lets events take effect in a database."""

    def __init__(self, database: Database, group: ConsumerGroup, handle: Handle, *, settings: ConsumerSettings) -> None:
        self._database = database
        self._group = group
        self._processor = EventProcessor(database, handle, stream=group.stream, group=group.group)
        self._settings = settings
        self._looks_again_at = 0.0
        self._saves_at = 0.0
        # While events are missing from the stream and come from the outbox.
        self._is_catching_up = False
        self._page_attempts = 0
        self._asks_again_at = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until `stopping` is set."""
        failures = Failures(
            failed="consumer.waiting",
            recovered="consumer.goes_on",
            errors=(*BrokerDown, DatabaseUnavailable),
            first_s=_FIRST_BACKOFF_S,
            longest_s=_LONGEST_BACKOFF_S,
            fields=lambda: {"stream": self._group.stream},
        )
        # No pause after a success: a step waits in Redis until there is something to read.
        await every(0, self._step_or_join, failures=failures, stopping=stopping)

    async def _step_or_join(self) -> bool:
        try:
            await self._step()
        except GroupMissing:
            await self._join()
        return True

    async def _join(self) -> None:
        state = await inbox.state(self._database.fetch, self._group.stream)
        await self._group.create_if_missing(EntryId.parse(state.position))
        log.info("consumer.joined", stream=self._group.stream, group=self._group.group, position=state.position)

    async def _step(self) -> None:
        # Redis first: then what the database knows is at least as new. Without the database there is nothing to do.
        look = await self._group.look()
        state = await inbox.state(self._database.fetch, self._group.stream)
        position = EntryId.parse(state.position)
        self._show(state)
        if reason := _misplacement(look, position):
            log.warning(reason, stream=self._group.stream, position=str(position), delivered=str(look.delivered))
            await self._group.go_to(position)
        elif look.is_broken or look.lacks(position):
            await self._catch_up(look, state, position)
        else:
            self._has_caught_up()
            await self._save_position(look, state, position)
            await self._consume(look, position)

    async def _consume(self, look: Look, position: EntryId) -> None:
        entries = await self._group.read(count=self._settings.batch, position=position)
        await self._take(entries)
        if time.monotonic() >= self._looks_again_at:
            await self._take(await self._group.claim_stale(pause_s=self._settings.pause_s))
            self._looks_again_at = time.monotonic() + _LOOK_AGAIN_S
        if not entries:
            await self._group.wait(look.delivered, wait_s=_LOOK_AGAIN_S if look.pending else _WAIT_S)

    async def _take(self, entries: Sequence[Entry]) -> None:
        """Apply the entries; acknowledge the ones that took effect, and keep hopeless ones as dead letters."""
        events, failed = parsed(entries)
        malformed = set(failed)
        if events:
            failed |= await self._processor.apply(events)
        done = [entry for entry in entries if entry not in failed]
        await self._group.acknowledge(done)
        events_consumed(self._group.stream, count=len(done))
        dead = {
            entry: error
            for entry, error in failed.items()
            if entry in malformed or entry.attempts >= self._settings.attempts
        }
        if dead:
            await self._processor.dead_letter(dead)
            # Only now: if this process dies in between, the entries are still pending.
            await self._group.acknowledge(list(dead))

    async def _catch_up(self, look: Look, state: State, position: EntryId) -> None:
        """Apply the next page of missing events from the outbox; after the last page, return to the stream."""
        stream = self._group.stream
        if not self._is_catching_up:
            log.error("consumer.events_missing", stream=stream, position=str(position), first=str(look.first))
            self._is_catching_up = True
            consumer_lacks_events(stream, is_so=True)
        if time.monotonic() < self._asks_again_at:
            await asyncio.sleep(_LOOK_AGAIN_S)
            return
        page = await self._group.ask(position, wait_s=_WAIT_S)
        if page is None or not await self._apply_page(page):
            return

        def save(connection: Connection) -> bool:
            if not page.is_complete:
                inbox.set_incomplete(connection, stream)
            return inbox.save_position(connection, stream, known=state.position, position=page.last)

        if not page.is_complete and not state.is_incomplete:
            log.error("consumer.events_gone", stream=stream, position=str(position))
        if await self._database.transaction(save) and page.is_last:
            await self._group.go_to(page.last)
            log.warning("consumer.events_replayed", stream=stream, position=str(page.last))

    def _has_caught_up(self) -> None:
        """Show that nothing is missing any more; another consumer of the group may have got the last page."""
        if self._is_catching_up:
            self._is_catching_up = False
            self._page_attempts = 0
            consumer_lacks_events(self._group.stream, is_so=False)

    async def _apply_page(self, page: Page) -> bool:
        """Apply a page; return False if some of its events have to be tried again."""
        self._page_attempts += 1
        entries = [Entry(name, event, self._page_attempts) for name, event in page.events]
        events, failed = parsed(entries)
        if events:
            failed |= await self._processor.apply(events)
        # The page has every event that the outbox still has. So the predecessor of an early event is a dead letter, or
        # was removed: another attempt would not help.
        retryable = [error for error in failed.values() if not isinstance(error, (OutOfOrder, Malformed))]
        if retryable and self._page_attempts < self._settings.attempts:
            self._asks_again_at = time.monotonic() + self._settings.pause_s(self._page_attempts)
            return False
        if failed:
            await self._processor.dead_letter(failed)
        events_consumed(self._group.stream, count=len(entries) - len(failed))
        self._page_attempts = 0
        return True

    async def _save_position(self, look: Look, state: State, position: EntryId) -> None:
        """Save the position, and the time up to which every change took effect unless some of them are missing."""
        if look.pending or time.monotonic() < self._saves_at:
            return
        stream = self._group.stream
        reached = max(position, look.delivered)
        is_whole = look.watermark_entry <= look.delivered and not state.dead_letters and not state.is_incomplete
        as_of = look.watermark if is_whole else None

        def save(connection: Connection) -> bool:
            return inbox.save_position(connection, stream, known=state.position, position=reached, as_of=as_of)

        if await self._database.transaction(save):
            await self._group.confirm(reached)
            self._show(dataclasses.replace(state, as_of=as_of or state.as_of))
        self._saves_at = time.monotonic() + _SAVE_S

    def _show(self, state: State) -> None:
        consumer_looked_at(
            self._group.stream,
            as_of=state.as_of,
            dead_letters=state.dead_letters,
            is_incomplete=state.is_incomplete,
        )


def _misplacement(look: Look, position: EntryId) -> str:
    """Return the log event that says why the group is not at the position where it was left; empty if it is."""
    if look.confirmed > position:
        return "consumer.database_restored"  # it had confirmed a later position than it knows now
    if look.read != look.delivered:
        return "consumer.group_moved"  # made anew or moved from outside: entries in between may not have been read
    return ""
