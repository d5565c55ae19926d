"""Reads a stream of events and lets each take effect once, in order per subject.

An event is acknowledged when its effect is committed, together with its number in the inbox; a consumer that gets it
again finds it there. What is not acknowledged, because it failed, came before its predecessor, or its consumer died, is
taken again after a pause that grows, and is a dead letter in the end.

The position says up to which entry everything took effect. It stands in the database of the effects and is compared
with the stream and the group each time: either may have lost entries, been moved, or be older than it was. If entries
behind the position are missing, their events come from the outbox, page by page (replay.py), before anything newer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Final, Protocol
from uuid import NAMESPACE_OID, UUID, uuid5

import structlog
from pydantic import Field

from chassis.errors import DatabaseUnavailable
from chassis.events import inbox
from chassis.events.cloudevents import CloudEvent, Malformed
from chassis.events.consumer_group import Entry, GroupMissing
from chassis.events.inbox import DeadLetter, Number
from chassis.events.redis_streams import START, BrokerDown, EntryId
from chassis.runtime.periodic import Failures, backoff_s, every
from chassis.settings import Section
from chassis.telemetry import metrics, tracing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from chassis.database import Database
    from chassis.events.consumer_group import ConsumerGroup, Look
    from chassis.events.inbox import State
    from chassis.events.replay import Page

log = structlog.get_logger(__name__)

# How long Redis holds a question to which nothing has come. Below REDIS_TIMEOUT_S; SIGTERM waits for it too.
_WAIT_S: Final = 0.5
_LOOK_AGAIN_S: Final = 0.2
_NOTE_S: Final = 2.0
# While Redis or the database is away.
_FIRST_BACKOFF_S: Final = 0.2
_LONGEST_BACKOFF_S: Final = 5.0


class ConsumerSettings(Section, env_prefix="CONSUMER_"):
    """How a consumer reads, and how patient it is."""

    # Events of one transaction.
    batch: Annotated[int, Field(ge=1, le=5000)] = 200
    # The pause before the second attempt; it doubles with each one.
    retry_first_s: Annotated[float, Field(gt=0, le=60)] = 0.2
    retry_longest_s: Annotated[float, Field(gt=0, le=3600)] = 30
    # Some 80 s in all: a deployment or a lock is over by then, a defect is not.
    attempts: Annotated[int, Field(ge=1, le=100)] = 10

    def pause_s(self, attempts: int) -> float:
        """Return how long an event rests after so many attempts."""
        return backoff_s(attempts, first_s=self.retry_first_s, longest_s=self.retry_longest_s)


class Handle(Protocol):
    """What events do: statements, in a transaction that is not its to commit."""

    def __call__(self, connection: Connection, events: Sequence[CloudEvent]) -> None:
        """Let the events take effect; none has done so yet, and those of a subject are in order."""


class _OutOfOrder(Exception):
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
        self._is_mending = False
        self._page_attempts = 0
        self._mends_at = 0.0

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
        # Redis first: what the database knows then is at least as new. And without a database everything would fail.
        look = await self._group.look()
        state = await inbox.state(self._database.fetch, self._group.stream)
        position = _position_of(look, state)
        self._show(state)
        if look.read is None and state.position is None:  # made by a version that kept no positions
            await self._take_over_dead_letters()
            await self._group.adopt(look.delivered)
        elif reason := _misplacement(look, position):
            log.warning(reason, stream=self._group.stream, position=str(position), delivered=str(look.delivered))
            await self._group.go_to(position)
        elif look.is_broken or look.lacks(position):
            await self._mend(look, state, position)
        else:
            self._has_everything()
            await self._note(look, state, position)
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
        """Let the entries take effect; acknowledge those that have, and bury those that never will."""
        events, failed = _parsed(entries)
        hopeless = set(failed)
        if events:
            failed |= await self._apply(events)
        done = [entry for entry in entries if entry not in failed]
        await self._group.acknowledge(done)
        metrics.events_consumed(self._group.stream, count=len(done))
        dead = {
            entry: error
            for entry, error in failed.items()
            if entry in hopeless or entry.attempts >= self._settings.attempts
        }
        if dead:
            await self._bury(dead)
            # Only now: in between, a consumer that dies leaves them pending.
            await self._group.acknowledge(list(dead))

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
        return {entry: _OutOfOrder() for entry in early}

    def _work(self, connection: Connection, events: Mapping[Entry, CloudEvent]) -> list[Entry]:
        """Let events take effect whose predecessors did; return the early ones. Old news needs nothing."""
        stream = self._group.stream
        last = inbox.claim(connection, stream, (event.subject for event in events.values()))
        moved: dict[UUID, Number] = {}
        early: list[Entry] = []
        fresh: list[CloudEvent] = []
        for entry, event in events.items():
            number = Number(event.epoch, event.sequence)
            if number.is_old(last=last[event.subject]):
                continue
            if number.is_early(last=last[event.subject]):
                early.append(entry)
            else:
                fresh.append(event)
                last[event.subject] = moved[event.subject] = number
        if fresh:
            self._process(connection, fresh)
            inbox.advance(connection, stream, moved)
        inbox.revive(connection, stream, last)
        return early

    def _process(self, connection: Connection, events: Sequence[CloudEvent]) -> None:
        told = [(event.traceparent, str(event.id)) for event in events]
        with tracing.events_processed(self._group.stream, group=self._group.group, events=told) as traces:
            # The events that the effect writes stand below this span.
            below = [
                dataclasses.replace(event, traceparent=traces.get(str(event.id), event.traceparent))
                for event in (events if traces else ())
            ]
            self._handle(connection, below or events)

    async def _bury(self, dead: Mapping[Entry, Exception]) -> None:
        stream = self._group.stream
        letters = [_letter(entry, error) for entry, error in dead.items()]
        await self._database.transaction(lambda connection: inbox.dead_letter(connection, stream, letters))
        for letter, error in zip(letters, dead.values(), strict=True):
            metrics.event_died(stream)
            log.error("consumer.dead_letter", stream=stream, letter=title(letter.event), exc_info=error)

    async def _take_over_dead_letters(self) -> None:
        """Keep in the database what versions before kept in Redis."""
        stream = self._group.stream
        found = await self._group.old_dead_letters()
        letters = [
            dataclasses.replace(
                _letter(Entry("", each["event"], int(each["attempts"])), _OutOfOrder()), reason=each["reason"]
            )
            for each in found
        ]
        if letters:
            await self._database.transaction(lambda connection: inbox.dead_letter(connection, stream, letters))
            await self._group.forget_old_dead_letters()

    async def _mend(self, look: Look, state: State, position: EntryId) -> None:
        """Let the next page of missing events take effect; behind the last page, return to the stream."""
        stream = self._group.stream
        if not self._is_mending:
            log.error("consumer.events_missing", stream=stream, position=str(position), first=str(look.first))
            self._is_mending = True
            metrics.consumer_lacks_events(stream, is_so=True)
        if time.monotonic() < self._mends_at:
            await asyncio.sleep(_LOOK_AGAIN_S)
            return
        page = await self._group.ask(position, wait_s=_WAIT_S)
        if page is None or not await self._takes_effect(page):
            return

        def move(connection: Connection) -> bool:
            if not page.is_complete:
                inbox.set_incomplete(connection, stream)
            return inbox.note(connection, stream, known=state.position, position=page.last)

        if not page.is_complete and not state.is_incomplete:
            log.error("consumer.events_gone", stream=stream, position=str(position))
        if await self._database.transaction(move) and page.is_last:
            await self._group.go_to(page.last)
            log.warning("consumer.events_replayed", stream=stream, position=str(page.last))

    def _has_everything(self) -> None:
        """Show that nothing is missing, whichever consumer of the group got what was."""
        if self._is_mending:
            self._is_mending = False
            self._page_attempts = 0
            metrics.consumer_lacks_events(self._group.stream, is_so=False)

    async def _takes_effect(self, page: Page) -> bool:
        """Let a page take effect; return whether it is done with. Some of it may have to be tried again."""
        self._page_attempts += 1
        entries = [Entry(name, event, self._page_attempts) for name, event in page.events]
        events, failed = _parsed(entries)
        if events:
            failed |= await self._apply(events)
        # An early event comes here after everything that the outbox still has: its predecessor is dead, or gone.
        may_yet = [error for error in failed.values() if not isinstance(error, (_OutOfOrder, Malformed))]
        if may_yet and self._page_attempts < self._settings.attempts:
            self._mends_at = time.monotonic() + self._settings.pause_s(self._page_attempts)
            return False
        if failed:
            await self._bury(failed)
        metrics.events_consumed(self._group.stream, count=len(entries) - len(failed))
        self._page_attempts = 0
        return True

    async def _note(self, look: Look, state: State, position: EntryId) -> None:
        """Write how far the stream has taken effect, and up to when, unless something is missing of it."""
        if look.pending or time.monotonic() < self._notes_at:
            return
        stream = self._group.stream
        reached = max(position, look.delivered)
        is_whole = look.watermark_entry <= look.delivered and not state.dead_letters and not state.is_incomplete
        as_of = look.watermark if is_whole else None

        def write(connection: Connection) -> bool:
            return inbox.note(connection, stream, known=state.position, position=reached, as_of=as_of)

        if await self._database.transaction(write):
            await self._group.confirm(reached)
            self._show(dataclasses.replace(state, as_of=as_of or state.as_of))
        self._notes_at = time.monotonic() + _NOTE_S

    def _show(self, state: State) -> None:
        metrics.consumer_looked_at(self._group.stream, as_of=state.as_of, dead_letters=state.dead_letters)
        metrics.consumer_is_incomplete(self._group.stream, is_so=state.is_incomplete)


def _position_of(look: Look, state: State) -> EntryId:
    """Return the entry up to which everything took effect."""
    if state.position is not None:
        return EntryId.parse(state.position)
    # A version that kept no position had effects if it kept a time; it did not notice what was cut off.
    is_cut = look.first is not None and look.delivered < look.first and look.was_trimmed
    return START if state.as_of is None or is_cut else look.delivered


def _misplacement(look: Look, position: EntryId) -> str:
    """Return why the group does not stand where it was left; empty if it does."""
    if look.confirmed > position:
        return "consumer.database_restored"  # it knew more once than it does
    if look.read != look.delivered:
        return "consumer.group_moved"  # made anew or moved from outside: what it passed over was not read
    return ""


def _parsed(entries: Sequence[Entry]) -> tuple[dict[Entry, CloudEvent], dict[Entry, Exception]]:
    """Return the events, and why entries are none."""
    events: dict[Entry, CloudEvent] = {}
    failed: dict[Entry, Exception] = {}
    for entry in entries:
        try:
            events[entry] = CloudEvent.from_json(entry.text)
        except Malformed as malformed:
            failed[entry] = malformed
    return events, failed


def _letter(entry: Entry, error: Exception) -> DeadLetter:
    reason = "GAP" if isinstance(error, _OutOfOrder) else type(error).__name__
    try:
        event = CloudEvent.from_json(entry.text)
    except Malformed:
        return DeadLetter(
            key=uuid5(NAMESPACE_OID, entry.text),
            subject=None,
            sequence=0,
            event=entry.text,
            reason=reason,
            attempts=entry.attempts,
        )
    return DeadLetter(
        key=event.id,
        subject=event.subject,
        sequence=event.sequence,
        event=entry.text,
        reason=reason,
        attempts=entry.attempts,
    )


def title(text: str) -> str:
    """Return what an event is about, for a person; nothing of its data."""
    try:
        event = CloudEvent.from_json(text)
    except Malformed:
        return "no event of ours"
    return f"{event.type} {event.subject} {event.sequence}"
