"""Where each event stands among all. A column without a default, then its default: locks the outbox for an instant."""

from alembic import op

from chassis.events import outbox

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column."""
    for statement in outbox.DDL_V2:
        op.execute(statement)
