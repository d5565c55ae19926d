"""Publishes the outbox to a Redis stream: every event, at least once, in order per subject.

One relay at a time publishes; the others stand by. The publishing one holds a lock for the length of one transaction,
in which it reads what is unpublished, sends it, and marks it with the ids of its entries once Redis has it.

The database and Redis can each go back in time, and neither is trusted. Redis compares its stream with the last entry
that the database knows of. If entries are lost, the events behind the last one that survived are sent again. If the
stream has entries that the database does not know of, it matches them with the outbox: a relay was killed between
sending and marking; or the database was restored to an earlier time, and then a new epoch begins. A reader that lacks
events asks for them, and gets them from the outbox (replay.py).
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Annotated, Any, Final

import structlog
from pydantic import Field
from sqlalchemy import text

from chassis.database import locks
from chassis.errors import DatabaseUnavailable
from chassis.events import replay
from chassis.events.cloudevents import CloudEvent, Malformed
from chassis.events.redis_streams import START, BrokerDown, EntryId, stream_of
from chassis.events.stream import Ahead, Appending, Lost, Stream
from chassis.runtime.periodic import Failures, every
from chassis.settings import Section
from chassis.telemetry import metrics, tracing

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from datetime import datetime

    from redis import Redis
    from sqlalchemy import Connection, Row

    from chassis.database import Database

log = structlog.get_logger(__name__)

# The first version of what a relay needs in its database, beside the outbox. A later change is another constant.
DDL_V1: Final = """
CREATE TABLE relay_state (
    stream text NOT NULL,
    last_entry text NOT NULL,
    CONSTRAINT relay_state_pkey PRIMARY KEY (stream)
);
"""
# `position` replaces `last_entry`: the outbox has the entries of its events up to there, and of none before the first
# relay that writes it. Events are lost in (lost_after, lost_until]. Events were removed up to (swept_ms, swept_number).
DDL_V2: Final = (
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS position text",
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS lost_after text",
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS lost_until text",
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS swept_ms bigint NOT NULL DEFAULT 0",
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS swept_number bigint NOT NULL DEFAULT 0",
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS epoch integer NOT NULL DEFAULT 0",
)
# In the order of publishing; the one that it replaces served nobody. A statement each, in Alembic's autocommit_block().
# What a migration that failed has left is of no use, so it goes first.
INDEX_V1: Final = (
    "DROP INDEX CONCURRENTLY IF EXISTS outbox_unpublished_position_idx",
    """
    CREATE INDEX CONCURRENTLY outbox_unpublished_position_idx ON outbox (position)
    WHERE published_at IS NULL
    """,
    "DROP INDEX CONCURRENTLY IF EXISTS outbox_unpublished_idx",
)

_TICK_S: Final = 1.0
_LONGEST_BACKOFF_S: Final = 5.0
# A reader asks for one page after the other: for this time after a page, the relay looks for the next question.
_SERVES_FOR_S: Final = 5.0
# Rows that one statement of a replay by hand looks at.
_REPLAY_PAGE: Final = 1000

_is_work = text("SELECT 1 FROM outbox WHERE published_at IS NULL LIMIT 1")
_lock = text("SELECT pg_try_advisory_xact_lock(:key)")
_COLUMNS: Final = "position, id, type, subject, sequence, data, traceparent, occurred_at, epoch"
# Positions of one subject are in the order of its changes: each change locks the row that the one before has written.
# Positions of other subjects become visible in any order: so rows are found by what they lack, and not by a cursor.
_next = text(f"""
    SELECT {_COLUMNS}
    FROM outbox
    WHERE published_at IS NULL
    ORDER BY position
    LIMIT :batch
""")  # noqa: S608  put together from constants
# Each batch gets new entries, behind the last lost one: so it is no longer among them, and a relay that is killed goes
# on where this one was.
_next_lost = text(f"""
    SELECT {_COLUMNS}
    FROM outbox
    WHERE
        published_at IS NOT NULL
        AND (coalesce(entry_ms, 0), coalesce(entry_number, position)) > (:after_ms, :after_number)
        AND (coalesce(entry_ms, 0), coalesce(entry_number, position)) <= (:until_ms, :until_number)
    ORDER BY coalesce(entry_ms, 0), coalesce(entry_number, position)
    LIMIT :batch
""")  # noqa: S608  put together from constants
# A stream held no more than this: older entries had been cut off before, and a reader that lacks them asks.
_oldest_lost = text("""
    SELECT coalesce(entry_ms, 0), coalesce(entry_number, position)
    FROM outbox
    WHERE published_at IS NOT NULL
    ORDER BY coalesce(entry_ms, 0) DESC, coalesce(entry_number, position) DESC
    OFFSET :length
    LIMIT 1
""")
# The time now, once for all: not that of the transaction, which may have begun before the one that published before.
_mark = text("""
    UPDATE outbox
    SET
        published_at = (SELECT clock_timestamp()),
        entry_ms = sent.ms,
        entry_number = sent.number,
        epoch = coalesce(outbox.epoch, :epoch)
    FROM unnest(CAST(:positions AS bigint[]), CAST(:ms AS bigint[]), CAST(:numbers AS bigint[]))
        AS sent (position, ms, number)
    WHERE outbox.position = sent.position
""")
_find = text("SELECT position, id FROM outbox WHERE id = ANY (:ids)")
_oldest = text("SELECT occurred_at FROM outbox ORDER BY position LIMIT 1")
_state = text("SELECT position, lost_after, lost_until, epoch FROM relay_state WHERE stream = :stream")
_remember = text("""
    INSERT INTO relay_state (stream, last_entry, position, lost_after, lost_until, epoch)
    VALUES (:stream, :position, :position, :lost_after, :lost_until, :epoch)
    ON CONFLICT ON CONSTRAINT relay_state_pkey DO UPDATE
    SET
        last_entry = excluded.last_entry,
        position = excluded.position,
        lost_after = excluded.lost_after,
        lost_until = excluded.lost_until,
        epoch = excluded.epoch
""")
_replay = text("""
    WITH page AS (
        SELECT position, occurred_at, published_at
        FROM outbox
        WHERE position > :after
        ORDER BY position
        LIMIT :size
    ),
    again AS (
        UPDATE outbox
        SET published_at = NULL
        FROM page
        WHERE outbox.position = page.position AND page.occurred_at >= :since AND page.published_at IS NOT NULL
        RETURNING outbox.position
    )
    SELECT (SELECT max(position) FROM page) AS last, (SELECT count(*) FROM again) AS count
""")
# Looks at no more than the oldest thousand: nothing that is to go stands behind something that is to stay. The newest
# stays in any case: in a quiet week it is the resume token of every watcher.
_remove = text("""
    DELETE FROM outbox
    WHERE position IN (
        SELECT position
        FROM (SELECT position, published_at FROM outbox ORDER BY position LIMIT 1000) AS oldest
        WHERE
            published_at < now() - make_interval(secs => :keep_s)
            AND position < (SELECT max(position) FROM outbox)
    )
    RETURNING coalesce(entry_ms, 0), coalesce(entry_number, position)
""")
_swept = text("""
    UPDATE relay_state
    SET swept_ms = :ms, swept_number = :number
    WHERE stream = :stream AND (swept_ms, swept_number) < (:ms, :number)
""")


class RelaySettings(Section, env_prefix="RELAY_"):
    """How a relay publishes."""

    # How long an idle relay waits before it looks again: at most so late is an event, on average half of it.
    poll_s: Annotated[float, Field(ge=0.005, le=10)] = 0.08
    # Some hundred KiB to Redis at a time, and a transaction of some ten milliseconds.
    batch: Annotated[int, Field(ge=1, le=5000)] = 500
    # Some 60 MB. Above this, entries go that every group has read.
    stream_max_length: Annotated[int, Field(ge=1000)] = 100_000
    # Above this, entries go though a group has not read them: it gets them from the outbox, which is slower. Two such
    # streams fill the 256 MB that Redis has beside us; a full Redis takes no event of anybody.
    stream_longest: Annotated[int, Field(ge=1000)] = 200_000
    # How long published events stay in the outbox, to be published again: a week, for a fault before a long weekend.
    keep_s: Annotated[int, Field(ge=60)] = 7 * 24 * 3600
    # How often it is looked for older ones.
    sweep_s: Annotated[float, Field(gt=0, le=3600)] = 60


class Outcome(Enum):
    """The result of one look at the outbox."""

    STANDBY = auto()
    DRAINED = auto()
    MORE = auto()


@dataclass(frozen=True, slots=True)
class _State:
    """The state of the stream, as the database knows it.

    Attributes:
        position: the last entry that it knows of.
        lost_after, lost_until: the relay sends the events of the entries between them again, the last one included.
        epoch: how often the database was restored to an earlier time.
    """

    position: EntryId = START
    lost_after: EntryId = START
    lost_until: EntryId = START
    epoch: int = 0

    @property
    def is_recovering(self) -> bool:
        return self.lost_after < self.lost_until


class Relay:
    """Publishes the events of one resource.

    Args:
        database: of the service, with its outbox.
        broker: where to.
        resource: `order`: names the stream.
        source: names the service in the events: `/order_svc`.
        settings: how.
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
        # From zero: Prometheus sees no increase in a counter that begins with its first event.
        metrics.events_cut(self._stream, count=0)
        metrics.events_vanished(self._stream, count=0)

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
        failures = Failures(
            failed="relay.sweep_failed", recovered="relay.sweep_recovered", errors=(DatabaseUnavailable,)
        )
        await every(
            self._settings.sweep_s,
            lambda: self._database.transaction(self._remove_some),
            failures=failures,
            stopping=stopping,
        )

    async def _publish_if_due(self) -> bool:
        """Publish a batch if events wait or the stream is due to be compared; return whether there may be more."""
        is_due = time.monotonic() >= self._ticks_at or time.monotonic() < self._serves_until
        if not is_due and not await self._database.read(lambda connection: connection.scalar(_is_work)):
            return False
        outcome, sent = await self._database.transaction(self._publish)
        metrics.events_published(self._stream, count=sent)
        has_more = outcome is Outcome.MORE
        # What is sent again is not unpublished, so the next look does not find it there.
        self._ticks_at = 0.0 if has_more else time.monotonic() + _TICK_S
        return has_more

    def _publish(self, connection: Connection) -> tuple[Outcome, int]:
        """Publish a batch, unless another relay holds the lock; return the result, and the number of events sent."""
        if not connection.scalar(_lock, {"key": locks.RELAY}):
            return Outcome.STANDBY, 0
        now: datetime = connection.execute(text("SELECT now()")).scalar_one()
        state = self._read_state(connection)
        rows = self._next(connection, state)
        is_last = len(rows) < self._settings.batch
        # Then the stream has every event that was committed before this transaction began.
        is_complete = is_last and not state.is_recovering
        began_ns = time.time_ns()
        answer = self._send(rows, state, watermark=now.isoformat() if is_complete else "")
        if isinstance(answer, Lost):
            self._remember(connection, self._after_loss(connection, state, survivor=answer.survivor))
            return Outcome.MORE, 0
        if isinstance(answer, Ahead):
            self._remember(connection, self._match(connection, state, last=answer.last))
            return Outcome.MORE, 0
        if answer.cut:
            metrics.events_cut(self._stream, count=answer.cut)
            log.warning("relay.stream_cut", stream=self._stream, entries=answer.cut)
        if rows:
            entries = dict(zip((row.position for row in rows), answer.entries, strict=True))
            _write_entries(connection, entries, state)
            tracing.events_sent(self._stream, ((row.traceparent, str(row.id)) for row in rows), began_ns=began_ns)
            state = dataclasses.replace(state, position=answer.entries[-1])
        if is_last and state.is_recovering:
            log.info("relay.stream_recovered", stream=self._stream)
            state = dataclasses.replace(state, lost_after=START, lost_until=START)
            self._remember(connection, state)
        elif rows:
            self._remember(connection, state)
        if not is_complete:
            return Outcome.MORE, len(rows)
        return self._serve(connection, state), len(rows)

    def _serve(self, connection: Connection, state: _State) -> Outcome:
        """Give readers the pages that they ask for: only now, when every event has its entry."""
        if not self._pages.serve(connection, last=state.position):
            return Outcome.DRAINED
        self._serves_until = time.monotonic() + _SERVES_FOR_S
        return Outcome.MORE

    def _next(self, connection: Connection, state: _State) -> Sequence[Row[Any]]:
        if not state.is_recovering:
            return connection.execute(_next, {"batch": self._settings.batch}).all()
        bounds = {
            "after_ms": state.lost_after.ms,
            "after_number": state.lost_after.number,
            "until_ms": state.lost_until.ms,
            "until_number": state.lost_until.number,
        }
        return connection.execute(_next_lost, {"batch": self._settings.batch, **bounds}).all()

    def _send(self, rows: Sequence[Row[Any]], state: _State, *, watermark: str) -> Any:
        return self._entries.append(
            Appending(
                # An event that is published for the first time gets the epoch of now.
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

    def _after_loss(self, connection: Connection, state: _State, *, survivor: EntryId) -> _State:
        """Return the state in which the events of lost entries are sent again, the newest that a stream holds."""
        oldest = connection.execute(_oldest_lost, {"length": self._settings.stream_max_length}).one_or_none()
        lost_after = max(survivor, EntryId(*oldest) if oldest else START)
        if state.is_recovering:  # and lost some of what it had recovered
            lost_after = min(lost_after, state.lost_after)
        lost_until = max(state.position, state.lost_until)
        log.warning("relay.stream_lost", stream=self._stream, survivor=str(survivor), after=str(lost_after))
        return dataclasses.replace(state, position=survivor, lost_after=lost_after, lost_until=lost_until)

    def _match(self, connection: Connection, state: _State, *, last: EntryId) -> _State:
        """Give events of the outbox the entries that the stream has of them; return the state that knows these."""
        found = self._entries.read_after(state.position, count=self._settings.batch)
        events: dict[EntryId, CloudEvent] = {}
        for entry, sent in found:
            try:
                events[entry] = CloudEvent.from_json(sent)
            except Malformed:
                continue
        ids = [event.id for event in events.values()]
        positions = {row.id: row.position for row in connection.execute(_find, {"ids": ids})}
        known = {positions[event.id]: entry for entry, event in events.items() if event.id in positions}
        _write_entries(connection, known, state)
        oldest = connection.scalar(_oldest)
        vanished = [e for e in events.values() if e.id not in positions and (oldest is None or e.time > oldest)]
        state = dataclasses.replace(state, position=found[-1][0] if found else last)
        if not vanished:
            return state
        # The numbers of its events begin again where they were: readers must not take them for old news.
        metrics.events_vanished(self._stream, count=len(vanished))
        log.error("relay.database_restored", stream=self._stream, vanished=len(vanished), epoch=state.epoch + 1)
        return dataclasses.replace(state, epoch=state.epoch + 1)

    def _read_state(self, connection: Connection) -> _State:
        row = connection.execute(_state, {"stream": self._stream}).one_or_none()
        if row is None:
            return _State()
        position, lost_after, lost_until = (EntryId.parse(each) for each in row[:3])
        return _State(position, lost_after, lost_until, row.epoch)

    def _remember(self, connection: Connection, state: _State) -> None:
        values = {
            "position": str(state.position),
            "lost_after": str(state.lost_after) if state.is_recovering else None,
            "lost_until": str(state.lost_until) if state.is_recovering else None,
            "epoch": state.epoch,
        }
        connection.execute(_remember, {"stream": self._stream, **values})

    def _remove_some(self, connection: Connection) -> bool:
        removed = [EntryId(*row) for row in connection.execute(_remove, {"keep_s": self._settings.keep_s})]
        if removed:
            newest = max(removed)
            connection.execute(_swept, {"stream": self._stream, "ms": newest.ms, "number": newest.number})
        return bool(removed)


def _write_entries(connection: Connection, entries: dict[int, EntryId], state: _State) -> None:
    """Mark the events at these positions as published."""
    if entries:
        values = {
            "positions": list(entries),
            "ms": [each.ms for each in entries.values()],
            "numbers": [each.number for each in entries.values()],
            "epoch": state.epoch,
        }
        connection.execute(_mark, values)


async def publish_again(database: Database, *, since: datetime) -> int:
    """Have the relay publish the events since this time again, in their order; return how many.

    In transactions of a thousand rows each: if it is interrupted, run it again.
    """
    count, last = 0, 0

    def some(connection: Connection) -> tuple[int | None, int]:
        row = connection.execute(_replay, {"after": last, "since": since, "size": _REPLAY_PAGE}).one()
        return row[0], row[1]

    while True:
        reached, again = await database.transaction(some)
        count += again
        if reached is None:
            return count
        last = reached
