"""Applies events once and in the order of their subject. Events that cannot be applied become dead letters."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Protocol
from uuid import NAMESPACE_OID, uuid5

import structlog

from chassis.errors import DatabaseUnavailable
from chassis.events import inbox
from chassis.events.cloudevents import CloudEvent, Malformed
from chassis.events.inbox import DeadLetter, Number
from chassis.telemetry import tracing
from chassis.telemetry.metrics.events import event_died

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from chassis.database import Database
    from chassis.events.consumer_group import Entry
    from chassis.keys import Key

log = structlog.get_logger(__name__)


class Handle(Protocol):
    """The effect of events: statements in a transaction that it does not commit."""

    def __call__(self, connection: Connection, events: Sequence[CloudEvent]) -> None:
        """Let the events take effect; none has done so yet, and those of a subject are in order."""


class OutOfOrder(Exception):
    """The event before this one has not taken effect."""


class EventProcessor:
    """Applies the events of one stream in a database, for one group of its readers."""

    def __init__(self, database: Database, handle: Handle, *, stream: str, group: str) -> None:
        self._database = database
        self._handle = handle
        self._stream = stream
        self._group = group

    async def apply(self, events: Mapping[Entry, CloudEvent]) -> dict[Entry, Exception]:
        """Let the events take effect; return the entries that have not, each with its error.

        Raises:
            DatabaseUnavailable: no event has taken effect.
        """
        try:
            early = await self._database.transaction(lambda connection: self._apply_in_order(connection, events))
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  whatever a handler raises must not stop the others' events
            if len(events) == 1:
                return dict.fromkeys(events, error)
            failed: dict[Entry, Exception] = {}
            for entry, event in events.items():  # one by one, so that only the event that fails does not take effect
                failed |= await self.apply({entry: event})
            return failed
        return {entry: OutOfOrder() for entry in early}

    def _apply_in_order(self, connection: Connection, events: Mapping[Entry, CloudEvent]) -> list[Entry]:
        """Apply events that are next in their subject's sequence, and skip those that took effect before.

        Returns:
            The entries that came before their predecessors.
        """
        last = inbox.claim(connection, self._stream, (event.subject for event in events.values()))
        advanced: dict[Key, Number] = {}
        early: list[Entry] = []
        fresh: list[CloudEvent] = []
        for entry, event in events.items():
            number, last_number = Number(event.epoch, event.sequence), last[event.subject]
            if number <= last_number:  # it took effect before
                continue
            if number.sequence > last_number.sequence + 1:  # its predecessor has not taken effect
                early.append(entry)
            else:
                fresh.append(event)
                last[event.subject] = advanced[event.subject] = number
        if fresh:
            self._call_handle(connection, fresh)
            inbox.advance(connection, self._stream, advanced)
        inbox.revive(connection, self._stream, last)
        return early

    def _call_handle(self, connection: Connection, events: Sequence[CloudEvent]) -> None:
        parents = [(event.traceparent, str(event.id)) for event in events]
        with tracing.events_processed(self._stream, group=self._group, events=parents) as traces:
            # The events that the effect writes stand below this span.
            below = [
                dataclasses.replace(event, traceparent=traces.get(str(event.id), event.traceparent))
                for event in (events if traces else ())
            ]
            self._handle(connection, below or events)

    async def dead_letter(self, dead: Mapping[Entry, Exception]) -> None:
        """Keep entries that will not take effect as dead letters, each with its error."""
        letters = [letter_of(entry, error) for entry, error in dead.items()]
        await self._database.transaction(lambda connection: inbox.dead_letter(connection, self._stream, letters))
        for letter, error in zip(letters, dead.values(), strict=True):
            event_died(self._stream)
            log.error("consumer.dead_letter", stream=self._stream, letter=title(letter.event), exc_info=error)


def parsed(entries: Sequence[Entry]) -> tuple[dict[Entry, CloudEvent], dict[Entry, Exception]]:
    """Return the event of each entry, and the error of each entry that holds no event."""
    events: dict[Entry, CloudEvent] = {}
    failed: dict[Entry, Exception] = {}
    for entry in entries:
        try:
            events[entry] = CloudEvent.from_json(entry.text)
        except Malformed as malformed:
            failed[entry] = malformed
    return events, failed


def letter_of(entry: Entry, error: Exception) -> DeadLetter:
    """Return the dead letter of an entry: its event, or its text if that is no event."""
    key, sequence = uuid5(NAMESPACE_OID, entry.text), 0
    subject: Key | None = None
    with contextlib.suppress(Malformed):
        event = CloudEvent.from_json(entry.text)
        key, subject, sequence = event.id, event.subject, event.sequence
    return DeadLetter(
        key=key,
        subject=subject,
        sequence=sequence,
        event=entry.text.replace("\0", "\\u0000"),  # PostgreSQL keeps no NUL
        reason="GAP" if isinstance(error, OutOfOrder) else type(error).__name__,
        attempts=entry.attempts,
    )


def title(text: str) -> str:
    """Return type, subject and sequence of an event, for the log and the command line; nothing of its data."""
    try:
        event = CloudEvent.from_json(text)
    except Malformed:
        return "no event of ours"
    return f"{event.type} {event.subject} {event.sequence}"
