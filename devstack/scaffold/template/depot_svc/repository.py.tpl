"""The statements on «parcels». Set-based: a list in, a list out. Never commits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chassis.database.database import as_json, execute, uuid_array
from chassis.events import outbox
from chassis.idempotency.inserts import insert_once
from depot_svc.model import Parcel, ParcelId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.database.statement_pool import Fetch
    from chassis.idempotency.inserts import Insert
    from chassis.server.pagination import PageRequest

# In the order in which _to_parcel() takes them.
_COLUMNS: Final = "parcels.id, display_name, created_at, updated_at, version"

_INSERT: Final = insert_once(
    columns="id uuid, display_name text, created_at timestamptz",
    inserts="""
        inserted AS (
            INSERT INTO parcels (id, display_name, created_at, updated_at, version)
            SELECT id, display_name, created_at, created_at, 1
            FROM fresh
            RETURNING id
        )
    """,
    returning="SELECT id FROM inserted",
)
_BY_IDS: Final = f"""
    SELECT wanted.n, {_COLUMNS}
    FROM unnest(CAST(%s AS uuid[])) WITH ORDINALITY AS wanted (id, n)
    JOIN parcels ON parcels.id = wanted.id
"""  # noqa: S608  put together from constants
# In the order of the key, so that two transactions that lock the same «parcels» cannot lock each other.
_BY_IDS_LOCKED: Final = f"{_BY_IDS} ORDER BY parcels.id FOR UPDATE OF parcels"
_BY_IDS_LOCKED_IF_FREE: Final = f"{_BY_IDS_LOCKED} SKIP LOCKED"
_UPDATE: Final = f"""
    WITH changed AS MATERIALIZED (
        SELECT *
        FROM json_to_recordset(CAST(%s AS json)) AS changed (
            id uuid, display_name text, updated_at timestamptz, version integer, {outbox.COLUMNS}
        )
    ),
    updated AS (
        UPDATE parcels
        SET display_name = changed.display_name, updated_at = changed.updated_at, version = changed.version
        FROM changed
        WHERE parcels.id = changed.id AND parcels.version = changed.version - 1
    )
    {outbox.insert_from("changed")}
"""  # noqa: S608  put together from constants
_PAGE: Final = f"""
    SELECT {_COLUMNS} FROM parcels WHERE id < coalesce(CAST(%s AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    ORDER BY id DESC
    LIMIT %s
"""  # noqa: S608  put together from constants


@dataclass(frozen=True, slots=True)
class ParcelUpdate:
    """The next version of «a parcel», to write, and the event that tells of it."""

    parcel: Parcel
    event: outbox.Event


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


async def find_parcels(fetch: Fetch, ids: Sequence[ParcelId]) -> list[Parcel | None]:
    """Return for each id the «parcel», or None if there is none."""
    return _in_order(await fetch(_BY_IDS, uuid_array(ids)), len(ids))


def lock_parcels(connection: Connection, ids: Sequence[ParcelId], *, wait: bool) -> list[Parcel | None]:
    """Return what find_parcels() does, and lock the rows until the transaction ends.

    Args:
        connection: inside the transaction.
        ids: which.
        wait: whether to wait for rows that other transactions have locked; otherwise those «parcels» are None.
    """
    return _in_order(execute(connection, _BY_IDS_LOCKED if wait else _BY_IDS_LOCKED_IF_FREE, uuid_array(ids)), len(ids))


def update_parcels(connection: Connection, updates: Sequence[ParcelUpdate]) -> None:
    """Write the next version of different «parcels» that this transaction has locked, and their events."""
    if not updates:
        return
    rows = [
        {
            "id": each.parcel.id,
            "display_name": each.parcel.display_name,
            "updated_at": each.parcel.updated_at,
            "version": each.parcel.version,
            **each.event.row(),
        }
        for each in updates
    ]
    execute(connection, _UPDATE, as_json(rows))


def list_parcels(connection: Connection, page: PageRequest) -> list[Parcel]:
    """Return a page of «parcels», newest first, and one more if there are more."""
    return [_to_parcel(row) for row in execute(connection, _PAGE, page.after, page.size + 1)]


def _in_order(rows: Sequence[Sequence[Any]], count: int) -> list[Parcel | None]:
    found: list[Parcel | None] = [None] * count
    for n, *columns in rows:
        found[n - 1] = _to_parcel(columns)
    return found


def _to_parcel(columns: Sequence[Any]) -> Parcel:
    parcel_id, display_name, created_at, updated_at, version = columns
    return Parcel(
        id=parcel_id, display_name=display_name, created_at=created_at, updated_at=updated_at, version=version
    )
