"""Orders, their history, the outbox, idempotency keys. Creates tables only: no lock that anybody waits for."""

from alembic import op

from chassis.events import outbox
from chassis.idempotency import store

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("""
        CREATE TABLE orders (
            id uuid NOT NULL,
            user_id uuid NOT NULL,
            status text NOT NULL,
            currency_code text NOT NULL,
            items jsonb NOT NULL,
            total_amount numeric(24, 9) NOT NULL,
            cancel_reason text NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            version integer NOT NULL,
            CONSTRAINT orders_pkey PRIMARY KEY (id),
            CONSTRAINT orders_status_check CHECK (
                status IN ('PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'CANCELLED')
            ),
            CONSTRAINT orders_total_check CHECK (total_amount >= 0)
        )
    """)
    # Lists are newest first: by user, by status, by both.
    op.execute("CREATE INDEX orders_user_id_id_idx ON orders (user_id, id)")
    op.execute("CREATE INDEX orders_user_id_status_id_idx ON orders (user_id, status, id)")
    op.execute("CREATE INDEX orders_status_id_idx ON orders (status, id)")
    op.execute("""
        CREATE TABLE order_events (
            id uuid NOT NULL,
            order_id uuid NOT NULL,
            from_status text,
            to_status text NOT NULL,
            reason text NOT NULL,
            occurred_at timestamptz NOT NULL,
            CONSTRAINT order_events_pkey PRIMARY KEY (id),
            CONSTRAINT order_events_order_id_fkey FOREIGN KEY (order_id) REFERENCES orders (id)
        )
    """)
    op.execute("CREATE INDEX order_events_order_id_id_idx ON order_events (order_id, id)")
    op.execute(outbox.DDL_V1)
    op.execute(store.DDL_V1)
