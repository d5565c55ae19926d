"""The tables of the users and their sessions, as SQLAlchemy Core sees them. migrations/ is what creates them."""

from sqlalchemy import Column, DateTime, Integer, LargeBinary, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

_metadata = MetaData()

users = Table(
    "users",
    _metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", Text),
    Column("email_key", Text),
    Column("display_name", Text),
    Column("profile", JSONB(none_as_null=True)),
    Column("state", Text),
    Column("roles", ARRAY(Text)),
    Column("password_hash", Text),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("version", Integer),
    Column("order_count", Integer),
)

sessions = Table(
    "sessions",
    _metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid),
    Column("chain_key", LargeBinary),
    Column("created_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
)

refresh_tokens = Table(
    "refresh_tokens",
    _metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("session_id", Uuid),
    Column("used_at", DateTime(timezone=True)),
)

login_attempts = Table(
    "login_attempts",
    _metadata,
    Column("account", LargeBinary, primary_key=True),
    Column("failures", Integer),
    Column("locked_until", DateTime(timezone=True)),
    Column("last_at", DateTime(timezone=True)),
)

attempt_reservations = Table(
    "attempt_reservations",
    _metadata,
    Column("id", Uuid, primary_key=True),
    Column("account", LargeBinary),
    Column("expires_at", DateTime(timezone=True)),
)

signing_keys = Table(
    "signing_keys",
    _metadata,
    Column("kid", Text, primary_key=True),
    Column("sealed_key", LargeBinary),
    Column("created_at", DateTime(timezone=True)),
    Column("active_from", DateTime(timezone=True)),
)
