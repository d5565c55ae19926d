"""The tables that every service has beside its own: outbox, relay, inbox and idempotency keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chassis.events import inbox, outbox, relay_state, replay
from chassis.idempotency import store

if TYPE_CHECKING:
    from types import ModuleType

    from chassis.keys import KeyType


def base_tables(op: ModuleType, *, key: KeyType = "uuid") -> None:
    """Create the tables, as they are in this version of the chassis, in the first migration of a new service.

    A later version of the chassis says in CHANGELOG.md which statements to add in a further migration. They do nothing
    where they have been applied, so that the same migrations also make a new database.

    Args:
        op: the module `alembic.op`.
        key: the type of the keys of the service's resources.
    """
    first = (outbox.DDL_V1 if key == "uuid" else outbox.DDL_V1_TEXT, store.DDL_V1, inbox.DDL_V1, relay_state.DDL_V1)
    for statement in (*first, *outbox.DDL_V2, *outbox.DDL_V3, *relay_state.DDL_V2, *inbox.DDL_V2):
        op.execute(statement)
    with op.get_context().autocommit_block():
        for statement in (*relay_state.INDEX_V1, *replay.INDEX_V1):
            op.execute(statement)
