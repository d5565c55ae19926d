"""Which passwords are being checked, so that only wrong ones count. Creates a table, so nothing waits for its lock.

Replicas of the release before count in login_attempts before the hash and do not see reservations: while both serve,
an account has a few more free tries.
"""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table."""
    op.execute("""
        CREATE TABLE attempt_reservations (
            id uuid NOT NULL,
            account bytea NOT NULL,
            expires_at timestamptz NOT NULL,
            CONSTRAINT attempt_reservations_pkey PRIMARY KEY (id)
        )
    """)
    op.execute("CREATE INDEX attempt_reservations_account_idx ON attempt_reservations (account)")
    op.execute("CREATE INDEX attempt_reservations_expires_at_idx ON attempt_reservations (expires_at)")
