"""The outbox as a changefeed: each event once, in one order for every reader; new events appear at the end only.

Rows are numbered before they are committed, so they become visible in any order: a reader that remembered the last
number would lose an event that commits later with a lower one. Therefore a row is in the feed only once its transaction
and all earlier ones have ended; after that no row can appear before it. The price: a writing transaction that stays
open, in any database of the server, delays the feed.

Callers see a position as the id of its event. The id does not reveal how many events there are, and it survives a
restore of the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from typing_extensions import override

from chassis.database.database import allow
from chassis.watch.feed import START, Feed, FeedEvent, Page, Position, PositionLost

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from chassis.database import Database

# After outbox.DDL_V2. One statement at a time, in Alembic's autocommit_block(). A failed run of the migration leaves an
# invalid index, so drop that first.
INDEX_V1: Final = (
    "DROP INDEX CONCURRENTLY IF EXISTS outbox_transaction_position_idx",
    "CREATE INDEX CONCURRENTLY outbox_transaction_position_idx ON outbox (transaction, position)",
)


_newest = text("""
    SELECT transaction, position, id
    FROM outbox
    WHERE transaction < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY transaction DESC, position DESC
    LIMIT 1
""")
_position_of = text("SELECT transaction, position, id FROM outbox WHERE id = :id AND transaction IS NOT NULL")
# Whether the feed still has its first event: the sweep deletes the oldest rows and notes that it did. The number of the
# first row says nothing, because a transaction that is rolled back uses up its numbers. Rows from before the column
# `transaction` were never in the feed, so a missing one of those counts for nothing.
_is_complete = text("""
    SELECT
        NOT EXISTS (SELECT FROM relay_state WHERE (swept_ms, swept_number) > (0, 0))
        OR coalesce((SELECT transaction IS NULL FROM outbox ORDER BY position LIMIT 1), true)
""")
# Returns the page, and whether the row at its starting position still exists. Both come from one snapshot, so that no
# sweep between two snapshots goes unnoticed.
# Scans :size rows of all owners. The last row is always returned, so that the reader can advance its position.
# The starting position was read from the feed earlier, so its transaction must have ended. If the server says that it
# has not, the row is from another cluster: the database was restored.
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
    start AS (
        SELECT
            :position = 0 OR EXISTS (
                SELECT FROM outbox
                WHERE
                    id = :id
                    AND (transaction, position) = (CAST(:transaction AS xid8), :position)
                    AND transaction < pg_snapshot_xmin(pg_current_snapshot())
            ) AS exists_still
    )
    SELECT start.exists_still, page.*
    FROM start
    LEFT JOIN page ON owner = coalesce(:owner, owner) OR number = (SELECT count(*) FROM page)
    ORDER BY number
""")
# After a restore into a younger cluster, rows carry transaction ids from the future, and events written since then have
# lower ones. Give all rows up to the last restored one the same transaction id, so that `position` alone orders them.
# That id is at most the id of any event written since, and of any open transaction, which may still write one.
_renumber = text("""
    WITH restored AS MATERIALIZED (
        SELECT max(position) AS last
        FROM outbox
        WHERE transaction >= pg_snapshot_xmax(pg_current_snapshot())
    ),
    before AS MATERIALIZED (
        SELECT least(
            pg_snapshot_xmin(pg_current_snapshot()),
            (SELECT transaction FROM outbox WHERE position > restored.last ORDER BY transaction LIMIT 1)
        ) AS new_transaction
        FROM restored
    )
    UPDATE outbox
    SET transaction = new_transaction
    FROM restored, before
    WHERE position <= last AND transaction > new_transaction
""")


class Changefeed(Feed):
    """The feed of one service's outbox. `owner_field` names the owner's field in the events' data: `userId`."""

    def __init__(self, database: Database, *, owner_field: str) -> None:
        self._database = database
        self._owner_field = owner_field

    @override
    async def newest(self) -> Position:
        def find(connection: Connection) -> Position:
            row = connection.execute(_newest).one_or_none()
            return START if row is None else _to_position(row)

        return await self._database.read(find)

    @override
    async def position_of(self, event_id: UUID) -> Position:
        def find(connection: Connection) -> Position:
            if event_id == START.id and connection.scalar(_is_complete):
                return START
            row = connection.execute(_position_of, {"id": event_id}).one_or_none()
            if row is None:
                raise PositionLost
            return _to_position(row)

        return await self._database.read(find)

    @override
    async def read(self, after: Position, *, owner: str | None, size: int) -> Page:
        parameters = {
            "id": after.id,
            "transaction": str(after.transaction),
            "position": after.number,
            "owner": owner,
            "owner_field": self._owner_field,
            "size": size,
        }

        def find(connection: Connection) -> Page:
            rows = connection.execute(_page, parameters).all()
            if not rows[0].exists_still:
                raise PositionLost
            last = rows[-1]
            if last.number is None:
                return Page((), after, is_last=True)
            events = [
                FeedEvent(_to_position(row), row.type, row.subject, row.sequence, row.data, row.owner, row.occurred_at)
                for row in rows
                if owner is None or row.owner == owner
            ]
            return Page(events, _to_position(last), is_last=last.number < size)

        return await self._database.read(find)

    @override
    async def renumber_after_restore(self) -> int:
        def renumber(connection: Connection) -> int:
            allow(connection, timeout_s=300)  # seconds: it may update a week of events
            return connection.execute(_renumber).rowcount

        return await self._database.transaction(renumber)


def _to_position(row: Any) -> Position:
    return Position(int(row.transaction), row.position, row.id)
