"""Publishes the outbox to a Redis stream: every event, at least once, in order per subject.

One relay at a time publishes; the others stand by. Who publishes holds a lock for the length of one transaction, in
which it reads what is unpublished, sends it, and marks it once Redis has it. Killed in between, it sends the same
events once more: readers know them by `id` and `sequence`.

Redis may lose what it had: a crash costs its last second, a flush everything. The last entry of ours is kept in the
database, and Redis compares: if its stream ends before it, what was lost is published again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import structlog
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import text

from chassis import locks, metrics
from chassis.broker import FIELD, BrokerDown, stream_of, watermark_of
from chassis.cloudevents import CloudEvent, Malformed
from chassis.errors import DatabaseUnavailable
from chassis.worker import pause

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from redis import Redis
    from sqlalchemy import Connection, Row

    from chassis.db import Database

log = structlog.get_logger(__name__)

# The first version of what a relay needs in its database, beside the outbox. A later change is another constant.
DDL_V1: Final = """
CREATE TABLE relay_state (
    stream text NOT NULL,
    last_entry text NOT NULL,
    CONSTRAINT relay_state_pkey PRIMARY KEY (stream)
);
"""
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

_NOTHING: Final = "0-0"
_TICK_S: Final = 1.0
_LONGEST_BACKOFF_S: Final = 5.0

_is_work = text("SELECT 1 FROM outbox WHERE published_at IS NULL LIMIT 1")
_lock = text("SELECT pg_try_advisory_xact_lock(:key)")
# Positions of one subject are in the order of its changes: each change locks the row that the one before has written.
# Those of other subjects become visible in any order: what was passed over is found by what it lacks, not by a cursor.
_next = text("""
    SELECT position, id, type, subject, sequence, data, traceparent, occurred_at
    FROM outbox
    WHERE published_at IS NULL
    ORDER BY position
    LIMIT :batch
""")
# The time now, once for all: not that of the transaction, which may have begun before the one that published before.
_mark = text("UPDATE outbox SET published_at = (SELECT clock_timestamp()) WHERE position = ANY (:positions)")
_last_entry = text("SELECT last_entry FROM relay_state WHERE stream = :stream")
_remember = text("""
    INSERT INTO relay_state (stream, last_entry)
    VALUES (:stream, :entry)
    ON CONFLICT ON CONSTRAINT relay_state_pkey DO UPDATE SET last_entry = excluded.last_entry
""")
# The last that survived, and what was published with it, are published twice: that has no effect.
_forget = text("""
    UPDATE outbox
    SET published_at = NULL
    WHERE published_at >= coalesce((SELECT published_at FROM outbox WHERE id = :survivor), '-infinity')
""")
_replay = text("UPDATE outbox SET published_at = NULL WHERE occurred_at >= :since AND published_at IS NOT NULL")
# Looks at no more than the oldest thousand: nothing that is to go stands behind something that is to stay. The newest
# stays in any case: it is the place where those who watch are in a quiet week.
_remove = text("""
    DELETE FROM outbox
    WHERE position IN (
        SELECT position
        FROM (SELECT position, published_at FROM outbox ORDER BY position LIMIT 1000) AS oldest
        WHERE
            published_at < now() - make_interval(secs => :keep_s)
            AND position < (SELECT max(position) FROM outbox)
    )
""")

# One script, so that nothing can be lost between the comparison and the sending. Ids are `milliseconds-number`.
_PUBLISH: Final = (
    """
local function parts(id)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(number)
end
local last = '0-0'
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if not info['err'] then
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
end
local have_ms, have = parts(last)
local want_ms, want = parts(ARGV[1])
if have_ms < want_ms or (have_ms == want_ms and have < want) then return {0, last} end
for i = 3, #ARGV do
  last = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', '"""
    + FIELD
    + """', ARGV[i])
end
return {1, last}
"""
)


class RelaySettings(BaseSettings):
    """How a relay publishes."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="RELAY_")

    # How long an idle relay waits before it looks again: at most so late is an event, on average half of it.
    poll_s: Annotated[float, Field(ge=0.005, le=10)] = 0.08
    # Some hundred KiB to Redis at a time, and a transaction of some ten milliseconds.
    batch: Annotated[int, Field(ge=1, le=5000)] = 500
    # Some 60 MB. Readers that are further behind need what the outbox still has: `events replay`.
    stream_max_length: Annotated[int, Field(ge=1000)] = 100_000
    # How long published events stay in the outbox, to be published again: a week, for a fault before a long weekend.
    keep_s: Annotated[int, Field(ge=60)] = 7 * 24 * 3600
    # How often it is looked for older ones.
    sweep_s: Annotated[float, Field(gt=0, le=3600)] = 60


class Outcome(Enum):
    """What one look at the outbox came to."""

    STANDBY = auto()
    DRAINED = auto()
    MORE = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What Redis said.

    Attributes:
        is_whole: whether the stream still has everything that was sent before; if not, nothing was sent now.
        last_entry: the last entry of the stream.
    """

    is_whole: bool
    last_entry: str


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
        self._broker = broker
        self._stream = stream_of(resource)
        self._source = source
        self._settings = settings
        self._script = broker.register_script(_PUBLISH)
        self._ticks_at = 0.0
        self._failures = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until told to stop."""
        while not stopping.is_set():
            if not await self._publishes():
                await pause(stopping, self._pause_s())

    async def sweep(self, stopping: asyncio.Event) -> None:
        """Remove old published events, in small batches, until told to stop."""
        while not stopping.is_set():
            await pause(stopping, self._settings.sweep_s)
            try:
                while not stopping.is_set() and await self._database.transaction(self._remove_some):
                    pass
            except DatabaseUnavailable as error:
                log.warning("relay.sweep_failed", exc_info=error)

    async def _publishes(self) -> bool:
        """Do what there is to do; return whether there may be more at once."""
        try:
            is_due = time.monotonic() >= self._ticks_at
            if not is_due and not await self._database.read(lambda connection: connection.scalar(_is_work)):
                return False
            outcome, sent = await self._database.transaction(self._publish)
        except (BrokerDown, DatabaseUnavailable) as error:
            self._failures += 1
            if self._failures == 1:  # and not once a second for an hour
                log.warning("relay.waiting", stream=self._stream, exc_info=error)
            return False
        if self._failures:
            log.info("relay.goes_on", stream=self._stream, failures=self._failures)
            self._failures = 0
        metrics.events_published(self._stream, count=sent)
        self._ticks_at = time.monotonic() + _TICK_S
        return outcome in {Outcome.MORE, Outcome.LOST}

    def _pause_s(self) -> float:
        poll_s = self._settings.poll_s
        return min(poll_s * 2.0 ** min(self._failures, 10), max(poll_s, _LONGEST_BACKOFF_S))

    def _publish(self, connection: Connection) -> tuple[Outcome, int]:
        """Publish what is there, if nobody else does; return what that came to, and how many were sent."""
        if not connection.scalar(_lock, {"key": locks.RELAY}):
            return Outcome.STANDBY, 0
        now: datetime = connection.execute(text("SELECT now()")).scalar_one()
        rows = connection.execute(_next, {"batch": self._settings.batch}).all()
        expected = connection.scalar(_last_entry, {"stream": self._stream}) or _NOTHING
        answer = self._send(rows, expected=expected)
        if not answer.is_whole:
            self._forget(connection, last_entry=answer.last_entry)
            return Outcome.LOST, 0
        if rows:
            connection.execute(_mark, {"positions": [row.position for row in rows]})
            connection.execute(_remember, {"stream": self._stream, "entry": answer.last_entry})
        if len(rows) == self._settings.batch:
            return Outcome.MORE, len(rows)
        # Whatever was committed when this transaction began is in the stream now.
        self._broker.set(watermark_of(self._stream), now.isoformat())
        return Outcome.DRAINED, len(rows)

    def _send(self, rows: Sequence[Row[Any]], *, expected: str) -> _Answer:
        events = [self._event(row).to_json() for row in rows]
        arguments: list[str | bytes] = [expected, str(self._settings.stream_max_length), *events]
        is_whole, last_entry = cast("list[Any]", self._script(keys=[self._stream], args=arguments))
        return _Answer(bool(is_whole), str(last_entry))

    def _event(self, row: Row[Any]) -> CloudEvent:
        return CloudEvent(
            id=row.id,
            source=self._source,
            type=row.type,
            subject=row.subject,
            sequence=row.sequence,
            time=row.occurred_at,
            traceparent=row.traceparent,
            data=row.data,
        )

    def _forget(self, connection: Connection, *, last_entry: str) -> None:
        """Take for unpublished what was published after the last event that Redis still has; everything without one."""
        survivor = self._last_event()
        connection.execute(text("SET LOCAL statement_timeout = '5min'"))  # it may be everything
        lost = connection.execute(_forget, {"survivor": survivor}).rowcount
        connection.execute(_remember, {"stream": self._stream, "entry": last_entry})
        log.warning("relay.stream_lost", stream=self._stream, survivor=str(survivor), published_again=lost)

    def _last_event(self) -> UUID | None:
        last: Any = self._broker.xrevrange(self._stream, count=1)
        try:
            return CloudEvent.from_json(last[0][1][FIELD]).id if last else None
        except (Malformed, KeyError):
            return None

    def _remove_some(self, connection: Connection) -> bool:
        return connection.execute(_remove, {"keep_s": self._settings.keep_s}).rowcount > 0


async def replay(database: Database, *, since: datetime) -> int:
    """Have the relay publish the events since this time again, in their order; return how many."""

    def forget(connection: Connection) -> int:
        connection.execute(text("SET LOCAL statement_timeout = '5min'"))
        return connection.execute(_replay, {"since": since}).rowcount

    return await database.transaction(forget)
