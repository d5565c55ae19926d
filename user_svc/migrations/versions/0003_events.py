"""Tables of the relay and the consumer, and the count of a user's orders.

Creates tables. The column takes an exclusive lock on users for a moment: its default is constant, so no row is written.
"""

from alembic import op

from chassis.events import inbox, relay_state

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column, create the tables."""
    op.execute("ALTER TABLE users ADD COLUMN order_count integer NOT NULL DEFAULT 0")
    op.execute(inbox.DDL_V1)
    op.execute(relay_state.DDL_V1)
