"""Sessions, their refresh tokens, failed logins, signing keys. Creates tables only: no lock that anybody waits for."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        CREATE TABLE sessions (
            id uuid NOT NULL,
            user_id uuid NOT NULL,
            chain_key bytea NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            ended_at timestamptz,
            CONSTRAINT sessions_pkey PRIMARY KEY (id),
            CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id)
        )
    """)
    op.execute("CREATE INDEX sessions_user_id_idx ON sessions (user_id)")
    op.execute("CREATE INDEX sessions_expires_at_idx ON sessions (expires_at)")
    op.execute("""
        CREATE TABLE refresh_tokens (
            token_hash bytea NOT NULL,
            session_id uuid NOT NULL,
            used_at timestamptz,
            CONSTRAINT refresh_tokens_pkey PRIMARY KEY (token_hash),
            CONSTRAINT refresh_tokens_session_id_fkey
                FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE
        )
    """)
    op.execute("CREATE INDEX refresh_tokens_session_id_idx ON refresh_tokens (session_id)")
    op.execute("""
        CREATE TABLE login_attempts (
            account bytea NOT NULL,
            failures integer NOT NULL,
            locked_until timestamptz NOT NULL,
            last_at timestamptz NOT NULL,
            CONSTRAINT login_attempts_pkey PRIMARY KEY (account)
        )
    """)
    op.execute("CREATE INDEX login_attempts_last_at_idx ON login_attempts (last_at)")
    op.execute("""
        CREATE TABLE signing_keys (
            kid text NOT NULL,
            sealed_key bytea NOT NULL,
            created_at timestamptz NOT NULL,
            active_from timestamptz NOT NULL,
            CONSTRAINT signing_keys_pkey PRIMARY KEY (kid)
        )
    """)
