"""The outbox's index for the relay, instead of one that nothing used. CONCURRENTLY: writers wait for neither."""

from alembic import op

from chassis.events import relay_state

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Replace the index."""
    with op.get_context().autocommit_block():
        for statement in relay_state.INDEX_V1:
            op.execute(statement)
