"""Users, the outbox, idempotency keys. Creates tables only, so it takes no lock that anybody waits for."""

from alembic import op

from chassis.events import outbox
from chassis.idempotency import store

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        CREATE TABLE users (
            id uuid NOT NULL,
            email text,
            email_key text,
            display_name text NOT NULL,
            profile jsonb,
            state text NOT NULL,
            roles text[] NOT NULL,
            password_hash text NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            version integer NOT NULL,
            CONSTRAINT users_pkey PRIMARY KEY (id),
            CONSTRAINT users_email_key UNIQUE (email_key),
            CONSTRAINT users_state_check CHECK (state IN ('ACTIVE', 'SUSPENDED', 'DELETED')),
            CONSTRAINT users_deleted_check CHECK (
                state <> 'DELETED'
                OR (email IS NULL AND email_key IS NULL AND profile IS NULL
                    AND display_name = '' AND password_hash = '')
            )
        )
    """)
    op.execute("CREATE INDEX users_state_id_idx ON users (state, id)")
    # Most lists show users that are not deleted, newest first.
    op.execute("CREATE INDEX users_present_idx ON users (id) WHERE state <> 'DELETED'")
    op.execute(outbox.DDL_V1)
    op.execute(store.DDL_V1)
