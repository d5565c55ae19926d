"""Publishes the outbox to a Redis stream: every event, at least once, in order per subject.

One relay at a time publishes; the others are on standby. A batch is one transaction, which holds the relay's lock: it
reads unpublished events, sends them, and marks them with the ids of their entries once Redis has them.

Redis and the database can each go back in time. So each batch compares the stream with the last entry that the database
knows of, and if they do not agree, nothing is sent until recovery.py has made them agree. A reader that lacks events
gets them from the outbox (replay.py).
"""

from __future__ import annotations

import dataclasses
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import structlog
from pydantic import Field
from sqlalchemy import text

from chassis.clock import SystemClock
from chassis.database.database import earlier_now
from chassis.errors import DatabaseUnavailable
from chassis.events import recovery, relay_state, replay
from chassis.events.cloudevents import CloudEvent
from chassis.events.redis_streams import START, BrokerDown, stream_of
from chassis.events.stream import Ahead, Appending, Lost, Sent, Stream
from chassis.runtime.periodic import Failures, every
from chassis.settings import Constant, Section
from chassis.telemetry import tracing
from chassis.telemetry.metrics.events import events_cut, events_published, events_vanished

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from datetime import datetime

    from redis import Redis
    from sqlalchemy import Connection, Row

    from chassis.database import Database
    from chassis.events.relay_state import StreamState

log = structlog.get_logger(__name__)

# How often the stream is compared with the database while nothing is unpublished.
_TICK_S: Final = 1.0
_LONGEST_BACKOFF_S: Final = 5.0
# A reader that is behind asks for one page after the other. For this time after a page, the relay looks for the next
# request at each poll instead of each tick.
_SERVES_FOR_S: Final = 5.0
# Ten years.
_LONGEST_KEPT_S: Final = 10 * 365 * 24 * 3600


class RelaySettings(Section, env_prefix="RELAY_"):
    """How a relay publishes."""

    poll_s: Constant[float] = 0.08
    """How often an idle relay polls the outbox: the longest delay of an event; on average it is half of it."""
    batch: Constant[int] = 500
    """Events sent at a time: some hundred KiB to Redis, and a transaction of some ten milliseconds."""
    stream_max_length: Annotated[int, Field(ge=1000, le=100_000_000)] = 100_000
    """Entries of a stream, some 60 MB. Above this, the relay removes entries that every group has read."""
    stream_longest: Annotated[int, Field(ge=1000, le=100_000_000)] = 200_000
    """Entries of a stream above which the relay removes the oldest, read or not ([StreamCut](runbook.md#streamcut)). A
    group that had not read them gets them from the outbox, which is slower. Two such streams fill a Redis of 256 MB,
    and a full Redis takes no events."""
    keep_s: Annotated[int, Field(ge=60, le=_LONGEST_KEPT_S)] = 7 * 24 * 3600
    """How long published events stay in the outbox: 7 days, for a fault before a long weekend. A replay, or a Redis
    that lost everything, gets them from there."""
    sweep_s: Constant[float] = 60
    """How often published events older than `keep_s` are removed."""


class Relay:
    """Publishes the events of one resource.

    Args:
        broker: Redis, with decoded responses.
        resource: `order`: names the stream.
        source: names the service in the events: `/order_svc`.
    """

    def __init__(
        self, database: Database, broker: Redis, *, resource: str, source: str, settings: RelaySettings
    ) -> None:
        self._database = database
        self._stream = stream_of(resource)
        self._source = source
        self._settings = settings
        self._entries = Stream(
            broker, self._stream, max_length=settings.stream_max_length, longest=settings.stream_longest
        )
        self._pages = replay.Pages(broker, self._stream, to_json=self._json)
        self._ticks_at = 0.0
        self._serves_until = 0.0
        # From zero: Prometheus sees no increase in a counter whose series begins with its first event.
        events_cut(self._stream, count=0)
        events_vanished(self._stream, count=0)

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until `stopping` is set."""
        poll_s = self._settings.poll_s
        failures = Failures(
            failed="relay.waiting",
            recovered="relay.goes_on",
            errors=(*BrokerDown, DatabaseUnavailable),
            first_s=2 * poll_s,
            longest_s=max(poll_s, _LONGEST_BACKOFF_S),
            fields=lambda: {"stream": self._stream},
        )
        await every(poll_s, self._publish_if_due, failures=failures, stopping=stopping)

    async def sweep(self, stopping: asyncio.Event) -> None:
        """Remove old published events, in batches of at most 1,000, until `stopping` is set."""
        keep, clock = timedelta(seconds=self._settings.keep_s), SystemClock()

        async def remove_batch() -> bool:
            before = await earlier_now(self._database, clock) - keep
            return await self._database.transaction(
                lambda connection: relay_state.remove_published(connection, self._stream, before=before)
            )

        failures = Failures(
            failed="relay.sweep_failed", recovered="relay.sweep_recovered", errors=(DatabaseUnavailable,)
        )
        await every(self._settings.sweep_s, remove_batch, failures=failures, stopping=stopping)

    async def _publish_if_due(self) -> bool:
        """Publish a batch if events wait or the stream is due to be compared; return whether there may be more."""
        is_due = time.monotonic() >= self._ticks_at or time.monotonic() < self._serves_until
        if not is_due and not await self._database.read(relay_state.is_waiting):
            return False
        has_more, sent = await self._database.transaction(self._publish)
        events_published(self._stream, count=sent)
        # Lost events are marked as published, so is_waiting() does not see them: while there is more, it is due.
        self._ticks_at = 0.0 if has_more else time.monotonic() + _TICK_S
        return has_more

    def _publish(self, connection: Connection) -> tuple[bool, int]:
        """Publish a batch, unless another relay holds the lock.

        Returns:
            Whether there may be more to do at once, and how many events were sent.
        """
        if not relay_state.try_lock(connection):
            return False, 0
        now: datetime = connection.execute(text("SELECT now()")).scalar_one()
        state = relay_state.load(connection, self._stream)
        rows = relay_state.next_rows(connection, state, size=self._settings.batch)
        is_last = len(rows) < self._settings.batch
        # Then the stream has every event that was committed before this transaction began.
        is_complete = is_last and not state.is_recovering
        began_ns = time.time_ns()
        answer = self._send(rows, state, watermark=now.isoformat() if is_complete else "")
        if not isinstance(answer, Sent):
            relay_state.save(connection, self._stream, self._recovered(connection, state, answer))
            return True, 0
        if answer.cut:
            events_cut(self._stream, count=answer.cut)
            log.warning("relay.stream_cut", stream=self._stream, entries=answer.cut)
        if rows:
            entries = dict(zip((row.position for row in rows), answer.entries, strict=True))
            relay_state.mark_published(connection, entries, epoch=state.epoch)
            tracing.events_sent(self._stream, ((row.traceparent, str(row.id)) for row in rows), began_ns=began_ns)
            state = dataclasses.replace(state, position=answer.entries[-1])
        if is_last and state.is_recovering:
            log.info("relay.stream_recovered", stream=self._stream)
            state = dataclasses.replace(state, lost_after=START, lost_until=START)
            relay_state.save(connection, self._stream, state)
        elif rows:
            relay_state.save(connection, self._stream, state)
        if not is_complete:
            return True, len(rows)
        return self._serve(connection, state), len(rows)

    def _recovered(self, connection: Connection, state: StreamState, answer: Lost | Ahead) -> StreamState:
        """Return the state after a step of recovery; nothing was sent."""
        if isinstance(answer, Lost):
            return recovery.after_loss(connection, self._entries, state, survivor=answer.survivor)
        return recovery.match_entries(connection, self._entries, state, last=answer.last, size=self._settings.batch)

    def _serve(self, connection: Connection, state: StreamState) -> bool:
        """Answer the readers that ask for pages; return whether any did.

        Every event has its entry by now, so the pages are complete.
        """
        if not self._pages.serve(connection, last=state.position):
            return False
        self._serves_until = time.monotonic() + _SERVES_FOR_S
        return True

    def _send(self, rows: Sequence[Row[Any]], state: StreamState, *, watermark: str) -> Sent | Lost | Ahead:
        return self._entries.append(
            Appending(
                # An event that is published for the first time gets the current epoch.
                events=[self._json(row, epoch=0 if state.is_recovering else state.epoch) for row in rows],
                expected=state.position,
                floor=max(state.position, state.lost_until),
                after=state.lost_after if state.is_recovering else state.position,
                watermark=watermark,
            )
        )

    def _json(self, row: Row[Any], *, epoch: int = 0) -> bytes:
        return CloudEvent(
            id=row.id,
            source=self._source,
            type=row.type,
            subject=row.subject,
            sequence=row.sequence,
            time=row.occurred_at,
            traceparent=row.traceparent,
            data=row.data,
            epoch=epoch if row.epoch is None else row.epoch,
        ).to_json()
