"""Notes and known authors, and the tables that every service has."""

from alembic import op

from chassis.idempotency.base_tables import base_tables
from chassis.watch import changefeed

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        CREATE TABLE notes (
            id uuid NOT NULL,
            author_id uuid NOT NULL,
            body text NOT NULL,
            labels jsonb NOT NULL,
            state text NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            version integer NOT NULL,
            CONSTRAINT notes_pkey PRIMARY KEY (id),
            CONSTRAINT notes_state_check CHECK (state IN ('OPEN', 'ARCHIVED'))
        )
    """)
    op.execute("CREATE INDEX notes_author_id_id_idx ON notes (author_id, id)")
    op.execute("""
        CREATE TABLE known_authors (
            id uuid NOT NULL,
            state text NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT known_authors_pkey PRIMARY KEY (id),
            CONSTRAINT known_authors_state_check CHECK (state IN ('ACTIVE', 'SUSPENDED', 'CLOSED'))
        )
    """)
    base_tables(op)
    with op.get_context().autocommit_block():
        for statement in changefeed.INDEX_V1:
            op.execute(statement)
