"""Where each event stands among all, and the index to read them by, for WatchOrders.

A column without a default, then its default: locks the outbox for an instant. The index CONCURRENTLY: no writer waits.
"""

from alembic import op

from chassis.events import outbox
from chassis.watch import changefeed

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column and the index."""
    for statement in outbox.DDL_V2:
        op.execute(statement)
    with op.get_context().autocommit_block():
        for statement in changefeed.INDEX_V1:
            op.execute(statement)
