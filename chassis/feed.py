"""The outbox as a feed: every event once, in an order that is the same for all and that nothing is added to later.

Positions become visible in any order, so who remembers the last position that was there loses what comes before it
later. A row is in the feed only once every transaction up to its own has ended: then nothing can come before it any
more. That has a price: a transaction that writes and stays open, in any database of the server, holds the feed up.

A place in the feed is known outside by the id of the event that stands there. It tells nothing, and it is still good
after the database was restored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

# After outbox.DDL_V2. A statement each, in Alembic's autocommit_block(). What a migration that failed has left is of no
# use, so it goes first.
INDEX_V1: Final = (
    "DROP INDEX CONCURRENTLY IF EXISTS outbox_transaction_position_idx",
    "CREATE INDEX CONCURRENTLY outbox_transaction_position_idx ON outbox (transaction, position)",
)


class Place(NamedTuple):
    """Where an event stands in the feed, and the event."""

    transaction: int
    position: int
    id: UUID


# Before every event.
START: Final = Place(0, 0, UUID(int=0))


@dataclass(frozen=True, slots=True)
class Told:
    """An event in the feed.

    Attributes:
        owner: what the data has under the name that was asked for; empty without.
    """

    place: Place
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
        events: those that were asked for, in their order.
        last: the last place that was looked at; None if nothing was there.
        is_last: whether there was no more.
    """

    events: Sequence[Told]
    last: Place | None
    is_last: bool


_newest = text("""
    SELECT transaction, position, id
    FROM outbox
    WHERE transaction < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY transaction DESC, position DESC
    LIMIT 1
""")
_place_of = text("SELECT transaction, position, id FROM outbox WHERE id = :id AND transaction IS NOT NULL")
# Rows are removed from the first on, and those that are older than the column are not in the feed.
_is_whole = text("""
    SELECT coalesce((SELECT position = 1 OR transaction IS NULL FROM outbox ORDER BY position LIMIT 1), true)
""")
# So many rows are looked at, whoever's they are; the last comes in any case, for the place.
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
    )
    SELECT *
    FROM page
    WHERE owner = coalesce(:owner, owner) OR number = (SELECT count(*) FROM page)
    ORDER BY number
""")
# In a cluster that is younger than the dump, restored rows have numbers that are yet to come. Together they are then
# one transaction: by position.
_bring_back = text("""
    UPDATE outbox
    SET transaction = pg_current_xact_id()
    WHERE transaction > pg_snapshot_xmax(pg_current_snapshot())
""")


def newest(connection: Connection) -> Place:
    """Return the end of the feed."""
    row = connection.execute(_newest).one_or_none()
    return START if row is None else _to_place(row)


def place_of(connection: Connection, event_id: UUID) -> Place | None:
    """Return where the event stands; None if it is gone or never was. The nil UUID stands before every event."""
    if event_id == START.id:
        return START if connection.scalar(_is_whole) else None
    row = connection.execute(_place_of, {"id": event_id}).one_or_none()
    return None if row is None else _to_place(row)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of the feed to read.

    Attributes:
        after: the place before it.
        owner: only the events of this owner; None for everybody's.
        owner_field: what the owner is called in the data.
        size: how many rows to look at.
    """

    after: Place
    owner: str | None
    owner_field: str
    size: int


def read(connection: Connection, wanted: Wanted) -> Page:
    """Return the next part of the feed."""
    after = wanted.after
    parameters = {
        "transaction": str(after.transaction),
        "position": after.position,
        "owner": wanted.owner,
        "owner_field": wanted.owner_field,
        "size": wanted.size,
    }
    rows = connection.execute(_page, parameters).all()
    if not rows:
        return Page((), None, is_last=True)
    events = [
        Told(_to_place(row), row.type, row.subject, row.sequence, row.data, row.owner, row.occurred_at)
        for row in rows
        if wanted.owner is None or row.owner == wanted.owner
    ]
    return Page(events, _to_place(rows[-1]), is_last=rows[-1].number < wanted.size)


def bring_back(connection: Connection) -> int:
    """Give rows of another cluster numbers of this one; return how many there were."""
    connection.execute(text("SET LOCAL statement_timeout = '5min'"))  # it may be a week's
    return connection.execute(_bring_back).rowcount


def _to_place(row: Any) -> Place:
    return Place(int(row.transaction), row.position, row.id)
