"""Tables of the relay and the consumer. Creates tables only, which locks nothing that is in use."""

from alembic import op

from chassis.events import inbox, relay_state

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        CREATE TABLE known_users (
            id uuid NOT NULL,
            state text NOT NULL,
            updated_at timestamptz NOT NULL,
            applied_at timestamptz NOT NULL,
            CONSTRAINT known_users_pkey PRIMARY KEY (id),
            CONSTRAINT known_users_state_check CHECK (state IN ('ACTIVE', 'SUSPENDED', 'DELETED'))
        )
    """)
    # For orders that were placed while their buyer was being deleted.
    op.execute("CREATE INDEX known_users_deleted_idx ON known_users (applied_at) WHERE state = 'DELETED'")
    op.execute(inbox.DDL_V1)
    op.execute(relay_state.DDL_V1)
