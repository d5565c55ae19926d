"""Positions of the relay and the consumer, and dead letters, beside what they tell of.

Columns without a default or with a constant one: each locks its table for an instant. The index CONCURRENTLY: no writer
waits.
"""

from alembic import op

from chassis.events import inbox, outbox, relay_state, replay

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns, the table and the index."""
    for statement in (*outbox.DDL_V3, *relay_state.DDL_V2, *inbox.DDL_V2):
        op.execute(statement)
    with op.get_context().autocommit_block():
        for statement in replay.INDEX_V1:
            op.execute(statement)
