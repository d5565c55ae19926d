"""The statements on «parcels». Set-based: a list in, a list out. Never commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

# [uuid key]
from sqlalchemy import Uuid, column, select, table
# [end]
# [text key]
from sqlalchemy import Text, column, select, table
# [end]

from chassis.database.keyed import KeyedRows, Lookup
from chassis.database.statements import as_json, execute
from chassis.events import outbox
from chassis.idempotency.inserts import insert_once
from depot_svc.model import Parcel, ParcelId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.database.statement_pool import Fetch
    from chassis.idempotency.inserts import Insert
    from chassis.server.pagination import Page, PageRequest

# In the order in which _to_parcel() takes them.
_PARCELS: Final = table(
    "parcels",
    # [uuid key]
    column("id", Uuid),
    # [end]
    # [text key]
    column("id", Text),
    # [end]
    column("display_name"),
    column("created_at"),
    column("updated_at"),
    column("version"),
)
_INSERT: Final = insert_once(
    columns="id «key», display_name text, created_at timestamptz",
    inserts="""
        inserted AS (
            INSERT INTO parcels (id, display_name, created_at, updated_at, version)
            SELECT id, display_name, created_at, created_at, 1
            FROM fresh
            RETURNING id
        )
    """,
    returning="SELECT id FROM inserted",
    # [text key]
    key="text",
    # [end]
)
_UPDATE: Final = outbox.write_with_events(
    columns="id «key», display_name text, updated_at timestamptz, version integer",
    writes="""
        updated AS (
            UPDATE parcels
            SET display_name = changed.display_name, updated_at = changed.updated_at, version = changed.version
            FROM changed
            WHERE parcels.id = changed.id AND parcels.version = changed.version - 1
        )
    """,
    # [text key]
    key="text",
    # [end]
)


async def insert_parcels(fetch: Fetch, inserts: Sequence[Insert[Parcel]]) -> set[ParcelId]:
    """Insert new «parcels», as InsertBatch says."""
    rows = [
        {
            "id": parcel.id,
            "display_name": parcel.display_name,
            "created_at": parcel.created_at,
            **each.row(),
        }
        for each in inserts
        for parcel in (each.resource,)
    ]
    return {ParcelId(parcel_id) for (parcel_id,) in await fetch(_INSERT, as_json(rows))}


async def find_parcels(fetch: Fetch, lookups: Sequence[Lookup[ParcelId]]) -> list[Parcel | None]:
    """Return for each lookup the «parcel», or None if there is none."""
    return await _ROWS.find(fetch, lookups)


def lock_parcels(connection: Connection, lookups: Sequence[Lookup[ParcelId]], *, wait: bool) -> list[Parcel | None]:
    """Return what find_parcels() does, and lock the rows as KeyedRows.lock() does."""
    return _ROWS.lock(connection, lookups, wait=wait)


def update_parcels(connection: Connection, changed: Sequence[tuple[Parcel, outbox.Event]]) -> None:
    """Write the next version of different «parcels», locked by this transaction, and their events."""
    if not changed:
        return
    rows = [
        {
            "id": parcel.id,
            "display_name": parcel.display_name,
            "updated_at": parcel.updated_at,
            "version": parcel.version,
            **event.row(),
        }
        for parcel, event in changed
    ]
    execute(connection, _UPDATE, as_json(rows))


# [uuid key]
def list_parcels(connection: Connection, page: PageRequest) -> Page[Parcel]:
    """Return a page of «parcels», newest first."""
    query = page.newest_first(select(_PARCELS), _PARCELS.c.id)
    # [end]
# [text key]
def list_parcels(connection: Connection, page: PageRequest[str]) -> Page[Parcel]:
    """Return a page of «parcels», in the order of their ids."""
    query = page.in_order(select(_PARCELS), _PARCELS.c.id)
    # [end]
    return page.split([_to_parcel(row) for row in connection.execute(query)])


def _to_parcel(columns: Sequence[Any]) -> Parcel:
    parcel_id, display_name, created_at, updated_at, version = columns
    return Parcel(
        id=parcel_id, display_name=display_name, created_at=created_at, updated_at=updated_at, version=version
    )


_ROWS: Final = KeyedRows(list(_PARCELS.c), _to_parcel)
