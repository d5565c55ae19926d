"""The version of the order in each entry of its history, to order them by.

A column without a default: locks the history for an instant. The backfill locks some thousand entries at a time, which
nothing else changes; entries of replicas that are being replaced are left without a version, and read all the same. The
index CONCURRENTLY: no writer waits. The next release fills in what was left and makes the column NOT NULL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from alembic import op
from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

revision = "0005"
down_revision = "0004"

# As order_svc.tables has it at this revision.
_VERSION_BY_STATUS: Final = """
    1 + coalesce(array_position(ARRAY['PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED'], from_status), 0)
"""
# By the key, so that no batch looks at what another one has filled. The update keeps to the batch's snapshot.
_backfill = text(f"""
    WITH batch AS MATERIALIZED (SELECT id FROM order_events WHERE id > :after ORDER BY id LIMIT :batch),
    filled AS (
        UPDATE order_events
        SET version = {_VERSION_BY_STATUS}
        FROM batch
        WHERE order_events.id = batch.id AND version IS NULL
    )
    SELECT id FROM batch ORDER BY id DESC LIMIT 1
""")  # noqa: S608  put together from constants


def upgrade() -> None:
    """Add the column, fill it and index it."""
    op.execute("ALTER TABLE order_events ADD COLUMN IF NOT EXISTS version integer")
    with op.get_context().autocommit_block():
        fill(op.get_bind())
        # An index that a failed migration left behind is invalid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS order_events_order_id_version_key")
        op.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY order_events_order_id_version_key ON order_events (order_id, version)"
        )


def fill(connection: Connection, *, batch: int = 5000) -> None:
    """Fill in the versions, a transaction for each batch."""
    last: UUID | None = UUID(int=0)
    while last is not None:
        last = connection.scalar(_backfill, {"after": last, "batch": batch})
