"""The outbox as a feed: each event once, in one order for every reader, and nothing is ever inserted before the end.

Numbers of rows become visible in any order, so a reader that remembers the last number loses an event that is committed
later with a lower one. A row is in the feed only once every transaction up to its own has ended: then nothing can come
before it. The price: a transaction that writes and stays open, in any database of the server, holds the feed up.

Outside, a position in the feed is the id of the event that stands there: it says nothing about how many events there
are, and it survives a restore of the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text

from chassis.database.database import allow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.database import Database

# After outbox.DDL_V2. A statement each, in Alembic's autocommit_block(). A migration that failed has left an index that
# is of no use, so that goes first.
INDEX_V1: Final = (
    "DROP INDEX CONCURRENTLY IF EXISTS outbox_transaction_position_idx",
    "CREATE INDEX CONCURRENTLY outbox_transaction_position_idx ON outbox (transaction, position)",
)


class Position(NamedTuple):
    """Where an event stands in the feed: by its transaction, then by its number in the outbox; and the event's id."""

    transaction: int
    number: int
    id: UUID


# Before every event.
START: Final = Position(0, 0, UUID(int=0))


class PositionLost(Exception):
    """The position is not in the feed any more: its event was swept, or the database was restored."""


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event in the feed.

    Attributes:
        owner: the value of the data's owner field; empty without one.
    """

    position: Position
    type: str
    subject: UUID
    sequence: int
    data: Mapping[str, Any]
    owner: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the feed.

    Attributes:
        events: the wanted ones, in the feed's order.
        last: the position up to which the feed was read, wanted or not.
        is_last: whether the feed had no more.
    """

    events: Sequence[FeedEvent]
    last: Position
    is_last: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of the feed to read.

    Attributes:
        after: the position before it.
        owner: only the events of this owner; None for the events of all.
        owner_field: the name of the owner's field in the data.
        size: how many rows to look at.
    """

    after: Position
    owner: str | None
    owner_field: str
    size: int


_newest = text("""
    SELECT transaction, position, id
    FROM outbox
    WHERE transaction < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY transaction DESC, position DESC
    LIMIT 1
""")
_position_of = text("SELECT transaction, position, id FROM outbox WHERE id = :id AND transaction IS NOT NULL")
# The sweep removes rows from the first on. Rows that are older than the column are not in the feed.
_is_whole = text("""
    SELECT coalesce((SELECT position = 1 OR transaction IS NULL FROM outbox ORDER BY position LIMIT 1), true)
""")
# The page and whether its beginning still stands, in one snapshot: in two, a sweep between them would go unnoticed.
# :size rows are looked at, of whatever owner; the last one comes in any case, for its position. A position that stands
# was in the feed before, so its transaction is over; if it is not, the server is younger than the row: a restore.
_page = text("""
    WITH page AS MATERIALIZED (
        SELECT
            transaction, position, id, type, subject, sequence, data, occurred_at,
            coalesce(data ->> :owner_field, '') AS owner,
            row_number() OVER (ORDER BY transaction, position) AS number
        FROM outbox
        WHERE
            (transaction, position) > (CAST(:transaction AS xid8), :position)
            AND transaction < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY transaction, position
        LIMIT :size
    ),
    beginning AS (
        SELECT
            :position = 0 OR EXISTS (
                SELECT FROM outbox
                WHERE
                    id = :id
                    AND (transaction, position) = (CAST(:transaction AS xid8), :position)
                    AND transaction < pg_snapshot_xmin(pg_current_snapshot())
            ) AS stands
    )
    SELECT beginning.stands, page.*
    FROM beginning
    LEFT JOIN page ON owner = coalesce(:owner, owner) OR number = (SELECT count(*) FROM page)
    ORDER BY number
""")
# In a cluster that is younger than the dump, restored rows have numbers that are yet to come, and events that were
# written since have lower ones. All rows up to the last restored one get one number, so that they are in the order of
# their positions: none higher than that of an event written since, or of a transaction that is open and may write one.
_bring_back = text("""
    WITH restored AS MATERIALIZED (
        SELECT max(position) AS last
        FROM outbox
        WHERE transaction >= pg_snapshot_xmax(pg_current_snapshot())
    ),
    before AS MATERIALIZED (
        SELECT least(
            pg_snapshot_xmin(pg_current_snapshot()),
            (SELECT transaction FROM outbox WHERE position > restored.last ORDER BY transaction LIMIT 1)
        ) AS every_new
        FROM restored
    )
    UPDATE outbox
    SET transaction = every_new
    FROM restored, before
    WHERE position <= last AND transaction > every_new
""")


class Changefeed:
    """The feed of one service's outbox.

    Args:
        database: with the outbox.
        owner_field: the name of the owner's field in the events' data: `userId`.
    """

    def __init__(self, database: Database, *, owner_field: str) -> None:
        self._database = database
        self._owner_field = owner_field

    async def newest(self) -> Position:
        """Return the end of the feed."""
        return await self._database.read(newest)

    async def position_of(self, event_id: UUID) -> Position:
        """Return where the event stands. The nil UUID stands before every event.

        Raises:
            PositionLost: the event is gone or never was.
        """
        return await self._database.read(lambda connection: position_of(connection, event_id))

    async def read(self, after: Position, *, owner: str | None, size: int) -> Page:
        """Return the part of the feed after the position, as Wanted has it.

        Raises:
            PositionLost: the position is not in the feed any more.
        """
        wanted = Wanted(after, owner, self._owner_field, size)
        return await self._database.read(lambda connection: read(connection, wanted))

    async def renumber_after_restore(self) -> int:
        """Give rows of another cluster numbers of this one; return how many there were."""
        return await self._database.transaction(renumber_after_restore)


def newest(connection: Connection) -> Position:
    """Return the end of the feed."""
    row = connection.execute(_newest).one_or_none()
    return START if row is None else _to_position(row)


def position_of(connection: Connection, event_id: UUID) -> Position:
    """Return where the event stands, as Changefeed.position_of() does."""
    if event_id == START.id and connection.scalar(_is_whole):
        return START
    row = connection.execute(_position_of, {"id": event_id}).one_or_none()
    if row is None:
        raise PositionLost
    return _to_position(row)


def read(connection: Connection, wanted: Wanted) -> Page:
    """Return a part of the feed, as Changefeed.read() does."""
    after = wanted.after
    parameters = {
        "id": after.id,
        "transaction": str(after.transaction),
        "position": after.number,
        "owner": wanted.owner,
        "owner_field": wanted.owner_field,
        "size": wanted.size,
    }
    rows = connection.execute(_page, parameters).all()
    if not rows[0].stands:
        raise PositionLost
    last = rows[-1]
    if last.number is None:
        return Page((), after, is_last=True)
    events = [
        FeedEvent(_to_position(row), row.type, row.subject, row.sequence, row.data, row.owner, row.occurred_at)
        for row in rows
        if wanted.owner is None or row.owner == wanted.owner
    ]
    return Page(events, _to_position(last), is_last=last.number < wanted.size)


def renumber_after_restore(connection: Connection) -> int:
    """Give rows of another cluster numbers of this one, as Changefeed.renumber_after_restore() does."""
    allow(connection, timeout_s=300)  # it may be a week's
    return connection.execute(_bring_back).rowcount


def _to_position(row: Any) -> Position:
    return Position(int(row.transaction), row.position, row.id)
