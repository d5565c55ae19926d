"""Parcels, and the tables that every service has."""

from alembic import op

from chassis.idempotency.base_tables import base_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        CREATE TABLE parcels (
            id «key» NOT NULL,
            display_name text NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            version integer NOT NULL,
            CONSTRAINT parcels_pkey PRIMARY KEY (id)
        )
    """)
    # [each read]
    op.execute("""
        CREATE TABLE known_cargos (
            id «cargo key» NOT NULL,
            last_event text NOT NULL,
            last_at timestamptz NOT NULL,
            CONSTRAINT known_cargos_pkey PRIMARY KEY (id)
        )
    """)
    # [end]
    # [uuid key]
    base_tables(op)
    # [end]
    # [text key]
    base_tables(op, key="text")
    # [end]
