"""The state of a stream in the database: published events, their entry ids, and the events that Redis has lost.

Every function is a statement or two in the transaction of its caller, which holds the relay's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from chassis.database import locks
from chassis.events.redis_streams import START, EntryId

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, Row

# The first version of the table, for a service's migration. A later change is another constant, never an edit.
DDL_V1: Final = """
CREATE TABLE relay_state (
    stream text NOT NULL,
    last_entry text NOT NULL,
    CONSTRAINT relay_state_pkey PRIMARY KEY (stream)
);
"""
# `position` replaces `last_entry`: the outbox has the entry ids of its events up to there. Events that were published
# before the first relay that writes `position` have no entry ids. Entries in (lost_after, lost_until] are lost. Events
# up to (swept_ms, swept_number) were removed.
DDL_V2: Final = (
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS position text",
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS lost_after text",
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS lost_until text",
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS swept_ms bigint NOT NULL DEFAULT 0",
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS swept_number bigint NOT NULL DEFAULT 0",
    "ALTER TABLE relay_state ADD COLUMN IF NOT EXISTS epoch integer NOT NULL DEFAULT 0",
)
# In the order of publishing; no query used the index that it replaces. A statement each, in Alembic's
# autocommit_block(). A migration that failed may have left an invalid index, so that is dropped first.
INDEX_V1: Final = (
    "DROP INDEX CONCURRENTLY IF EXISTS outbox_unpublished_position_idx",
    """
    CREATE INDEX CONCURRENTLY outbox_unpublished_position_idx ON outbox (position)
    WHERE published_at IS NULL
    """,
    "DROP INDEX CONCURRENTLY IF EXISTS outbox_unpublished_idx",
)

_COLUMNS: Final = "position, id, type, subject, sequence, data, traceparent, occurred_at, epoch"
_lock = text("SELECT pg_try_advisory_xact_lock(:key)")
_is_waiting = text("SELECT 1 FROM outbox WHERE published_at IS NULL LIMIT 1")
# Positions of one subject are in the order of its changes: each change locks the row that the change before it wrote.
# Positions of different subjects can become visible out of order, so the unpublished rows are selected: a cursor would
# pass over some of them.
_unpublished = text(f"""
    SELECT {_COLUMNS}
    FROM outbox
    WHERE published_at IS NULL
    ORDER BY position
    LIMIT :size
""")  # noqa: S608  put together from constants
# Sending an event again gives it a new entry id, behind the last lost one, so that it is no longer selected here. A
# relay that takes over from one that was killed therefore continues where that one was.
_lost = text(f"""
    SELECT {_COLUMNS}
    FROM outbox
    WHERE
        published_at IS NOT NULL
        AND (coalesce(entry_ms, 0), coalesce(entry_number, position)) > (:after_ms, :after_number)
        AND (coalesce(entry_ms, 0), coalesce(entry_number, position)) <= (:until_ms, :until_number)
    ORDER BY coalesce(entry_ms, 0), coalesce(entry_number, position)
    LIMIT :size
""")  # noqa: S608  put together from constants
_newest_but = text("""
    SELECT coalesce(entry_ms, 0), coalesce(entry_number, position)
    FROM outbox
    WHERE published_at IS NOT NULL
    ORDER BY coalesce(entry_ms, 0) DESC, coalesce(entry_number, position) DESC
    OFFSET :count
    LIMIT 1
""")
# The clock is read once for all rows. Not now(): this transaction may have begun before the one that published the
# previous batch, and published_at would go back.
_mark = text("""
    UPDATE outbox
    SET
        published_at = (SELECT clock_timestamp()),
        entry_ms = sent.ms,
        entry_number = sent.number,
        epoch = coalesce(outbox.epoch, :epoch)
    FROM unnest(CAST(:positions AS bigint[]), CAST(:ms AS bigint[]), CAST(:numbers AS bigint[]))
        AS sent (position, ms, number)
    WHERE outbox.position = sent.position AND (outbox.published_at IS NULL OR :again)
""")
_positions = text("SELECT position, id FROM outbox WHERE id = ANY (:ids)")
_oldest = text("SELECT occurred_at FROM outbox ORDER BY position LIMIT 1")
_state = text("SELECT position, lost_after, lost_until, epoch FROM relay_state WHERE stream = :stream")
_save = text("""
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
# Published events are the oldest rows, so it is enough to look at the oldest 1,000. Of the outdated events the last one
# of the feed stays: its id was the resume token of every watcher until the next event, which is not outdated. An event
# that was published in the future, because the database's clock was wrong, would keep all behind it until then.
_remove = text("""
    WITH outdated AS (
        SELECT position, transaction
        FROM (
            SELECT
                position, transaction,
                CASE WHEN published_at > now() + interval '1 hour' THEN occurred_at ELSE published_at END AS since
            FROM outbox
            ORDER BY position
            LIMIT 1000
        ) AS oldest
        WHERE since < :before
    )
    DELETE FROM outbox
    WHERE position IN (
        SELECT position
        FROM outdated
        ORDER BY transaction DESC NULLS LAST, position DESC
        OFFSET 1
    )
    RETURNING coalesce(entry_ms, 0), coalesce(entry_number, position)
""")
_swept = text("""
    UPDATE relay_state
    SET swept_ms = :ms, swept_number = :number
    WHERE stream = :stream AND (swept_ms, swept_number) < (:ms, :number)
""")


@dataclass(frozen=True, slots=True)
class StreamState:
    """The state of the stream, as the database knows it.

    Attributes:
        position: the last entry that it knows of.
        lost_after, lost_until: the events of the entries after the first and up to the second are sent again.
        epoch: how often the database was restored to an earlier time.
    """

    position: EntryId = START
    lost_after: EntryId = START
    lost_until: EntryId = START
    epoch: int = 0

    @property
    def is_recovering(self) -> bool:
        """Whether lost events have still to be sent again."""
        return self.lost_after < self.lost_until


def try_lock(connection: Connection) -> bool:
    """Take the relay's lock until the end of the transaction; return False if another relay holds it."""
    return bool(connection.scalar(_lock, {"key": locks.RELAY}))


def is_waiting(connection: Connection) -> bool:
    """Return whether any event is unpublished."""
    return connection.scalar(_is_waiting) is not None


def load(connection: Connection, stream: str) -> StreamState:
    """Return the state of the stream; that of an empty one if no relay has saved any."""
    row = connection.execute(_state, {"stream": stream}).one_or_none()
    if row is None:
        return StreamState()
    position, lost_after, lost_until = (EntryId.parse(each) for each in row[:3])
    return StreamState(position, lost_after, lost_until, row.epoch)


def save(connection: Connection, stream: str, state: StreamState) -> None:
    """Write the state of the stream."""
    values = {
        "position": str(state.position),
        "lost_after": str(state.lost_after) if state.is_recovering else None,
        "lost_until": str(state.lost_until) if state.is_recovering else None,
        "epoch": state.epoch,
    }
    connection.execute(_save, {"stream": stream, **values})


def next_rows(connection: Connection, state: StreamState, *, size: int) -> Sequence[Row[Any]]:
    """Return the rows to send next, at most `size`: lost ones while the stream recovers, else unpublished ones."""
    if not state.is_recovering:
        return connection.execute(_unpublished, {"size": size}).all()
    bounds = {
        "after_ms": state.lost_after.ms,
        "after_number": state.lost_after.number,
        "until_ms": state.lost_until.ms,
        "until_number": state.lost_until.number,
    }
    return connection.execute(_lost, {"size": size, **bounds}).all()


def mark_published(connection: Connection, entries: Mapping[int, EntryId], *, epoch: int, again: bool = True) -> None:
    """Mark the events at these positions as published, each under its entry id.

    Args:
        connection: inside the transaction.
        entries: by position in the outbox.
        epoch: of events that are published for the first time; the others keep theirs.
        again: whether an event that is marked already gets its new entry.
    """
    if entries:
        values = {
            "positions": list(entries),
            "ms": [each.ms for each in entries.values()],
            "numbers": [each.number for each in entries.values()],
            "epoch": epoch,
            "again": again,
        }
        connection.execute(_mark, values)


def newest_entry_but(connection: Connection, count: int) -> EntryId:
    """Return the last entry that has `count` published entries after it; START if there are no more than those."""
    found = connection.execute(_newest_but, {"count": count}).one_or_none()
    return EntryId(*found) if found else START


def positions_of(connection: Connection, event_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the position in the outbox of each of these events; events that it does not have are absent."""
    return {row.id: row.position for row in connection.execute(_positions, {"ids": list(event_ids)})}


def oldest_change_at(connection: Connection) -> datetime | None:
    """Return when the oldest event of the outbox occurred; None if the outbox is empty."""
    found: datetime | None = connection.scalar(_oldest)
    return found


def remove_published(connection: Connection, stream: str, *, before: datetime) -> bool:
    """Remove events that were published before this time, at most 999; return whether any was."""
    removed = [EntryId(*row) for row in connection.execute(_remove, {"before": before})]
    if removed:
        newest = max(removed)
        connection.execute(_swept, {"stream": stream, "ms": newest.ms, "number": newest.number})
    return bool(removed)
