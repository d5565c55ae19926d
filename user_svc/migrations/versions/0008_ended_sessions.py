"""The index by which the sweep finds sessions that were ended. CONCURRENTLY: writers wait for it nowhere."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the index; anew, if an earlier try was interrupted and left one that is not valid."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS sessions_ended_at_idx")
        op.execute("CREATE INDEX CONCURRENTLY sessions_ended_at_idx ON sessions (ended_at) WHERE ended_at IS NOT NULL")
