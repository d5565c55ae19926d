"""The statements on orders. Set-based: a list in, a list out. Never commits."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Row, func, select, text

from chassis.clock import new_id
from chassis.database.keyed import KeyedRows
from chassis.database.statements import as_json, execute
from chassis.events import outbox
from chassis.idempotency.inserts import insert_once
from chassis.server.pagination import Page
from order_svc.model import BuyerId, Item, Order, OrderEvent, OrderFilter, OrderId, OrderStatus
from order_svc.tables import orders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chassis.database.keyed import Lookup
    from chassis.database.statement_pool import Fetch
    from chassis.idempotency.inserts import Insert
    from chassis.server.pagination import PageRequest
    from order_svc.commands import Transition

# In the order in which _to_order() takes them.
_COLUMNS: Final = tuple(orders.c)
# Items of one page. They become up to 2 MB of JSON at the edge, which holds the pages that its callers have asked for
# and do not read.
_MAX_PAGE_ITEMS: Final = 1000
# After this many items other calls run: 128 orders of 100 items would block the loop for 0.1 s.
_TURN_ITEMS: Final = 500

_INSERT: Final = insert_once(
    columns="""
        id uuid, user_id uuid, currency_code text, items jsonb, total_amount numeric, created_at timestamptz,
        history_id uuid
    """,
    inserts="""
        inserted AS (
            INSERT INTO orders (
                id, user_id, status, currency_code, items, total_amount, cancel_reason, created_at, updated_at, version
            )
            SELECT id, user_id, 'PENDING', currency_code, items, total_amount, '', created_at, created_at, 1
            FROM fresh
            RETURNING id
        ),
        history AS (
            INSERT INTO order_events (id, order_id, version, from_status, to_status, reason, occurred_at)
            SELECT history_id, id, 1, NULL, 'PENDING', '', created_at
            FROM fresh
        )
    """,
    returning="SELECT id FROM inserted",
)

_UPDATE: Final = outbox.write_with_events(
    columns="""
        id uuid, version integer, from_status text, status text, cancel_reason text, reason text,
        updated_at timestamptz, history_id uuid
    """,
    writes="""
        updated AS (
            UPDATE orders
            SET
                status = changed.status, cancel_reason = changed.cancel_reason,
                updated_at = changed.updated_at, version = changed.version
            FROM changed
            WHERE orders.id = changed.id AND orders.version = changed.version - 1
        ),
        history AS (
            INSERT INTO order_events (id, order_id, version, from_status, to_status, reason, occurred_at)
            SELECT history_id, id, version, from_status, status, reason, updated_at
            FROM changed
        )
    """,
)

# The version of an entry from before the column existed, or from a replica of the previous release: each change of the
# status is one step.
_VERSION_BY_STATUS: Final = """
    1 + coalesce(array_position(ARRAY['PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED'], from_status), 0)
"""
# In the order of versions: ids and times come from several machines, whose clocks differ. The owner is a condition of
# every page. An id that is not in the history has no version, so nothing follows it.
_HISTORY: Final = text(f"""
    WITH history AS (
        SELECT
            order_events.id, order_id, from_status, to_status, reason, occurred_at,
            coalesce(order_events.version, {_VERSION_BY_STATUS}) AS version
        FROM order_events
        JOIN orders ON orders.id = order_id
        WHERE order_id = :order_id AND user_id = coalesce(:owner, user_id)
    )
    SELECT id, order_id, from_status, to_status, reason, occurred_at
    FROM history
    WHERE CAST(:after AS uuid) IS NULL OR version > (SELECT version FROM history WHERE id = :after)
    ORDER BY version
    LIMIT :size
""")  # noqa: S608  put together from constants


async def insert_orders(fetch: Fetch, inserts: Sequence[Insert[Order]]) -> set[OrderId]:
    """Insert new orders with their first history entries, as InsertBatch says."""
    rows = [
        {
            "id": order.id,
            "user_id": order.user_id,
            "currency_code": order.currency_code,
            "items": [_to_json(item) for item in order.items],
            "total_amount": f"{order.total_amount:f}",
            "created_at": order.created_at,
            "history_id": new_id(),
            **each.row(),
        }
        for each in inserts
        for order in (each.resource,)
    ]
    return {OrderId(order_id) for (order_id,) in await fetch(_INSERT, as_json(rows))}


async def find_orders(fetch: Fetch, lookups: Sequence[Lookup[OrderId]]) -> list[Order | None]:
    """Return for each lookup the order, or None if there is none that the caller may see."""
    found: list[Order | None] = [None] * len(lookups)
    left = _TURN_ITEMS
    for n, *columns in await fetch(_ROWS.by_keys, *_ROWS.parameters(lookups)):
        found[n - 1] = order = _to_order(columns)
        left -= len(order.items)
        if left <= 0:
            await asyncio.sleep(0)
            left = _TURN_ITEMS
    return found


def lock_orders(connection: Connection, lookups: Sequence[Lookup[OrderId]], *, wait: bool) -> list[Order | None]:
    """Return orders as find_orders() does, and lock them as KeyedRows.lock() does."""
    return _ROWS.lock(connection, lookups, wait=wait)


def update_orders(connection: Connection, changes: Sequence[tuple[Transition, outbox.Event]]) -> None:
    """Write the next version of different orders that this transaction has locked, their histories and events."""
    if not changes:
        return
    rows = [
        {
            "id": each.order.id,
            "version": each.order.version,
            "from_status": each.before,
            "status": each.order.status,
            "cancel_reason": each.order.cancel_reason,
            "reason": each.reason,
            "updated_at": each.order.updated_at,
            "history_id": new_id(),
            **event.row(),
        }
        for each, event in changes
    ]
    execute(connection, _UPDATE, as_json(rows))


def list_orders(connection: Connection, page: PageRequest, *, filters: OrderFilter) -> Page[Order]:
    """Return a page of orders, newest first.

    The page ends early once its orders have many items, which bounds both the answer and what is read for it.
    """
    query = page.newest_first(select(orders), orders.c.id)
    if filters.buyer is not None:
        query = query.where(orders.c.user_id == filters.buyer)
    if filters.status is not None:
        query = query.where(orders.c.status == filters.status)
    found = query.subquery()
    items_so_far = func.sum(func.jsonb_array_length(found.c["items"])).over(order_by=found.c.id.desc(), rows=(None, -1))
    counted = select(found, func.coalesce(items_so_far, 0).label("items_before"), func.count().over().label("found"))
    numbered = counted.subquery()
    rows = connection.execute(
        select(numbered).where(numbered.c.items_before < _MAX_PAGE_ITEMS).order_by(numbered.c.id.desc())
    ).all()
    shown = [_to_order(row[: len(_COLUMNS)]) for row in rows[: page.size]]
    return Page(shown, has_more=bool(rows) and rows[0].found > len(shown))


def list_events(
    connection: Connection, page: PageRequest, *, order_id: OrderId, owner: BuyerId | None
) -> Page[OrderEvent]:
    """Return a page of an order's history, oldest first."""
    parameters = {"order_id": order_id, "owner": owner, "after": page.after, "size": page.size + 1}
    return page.split([_to_event(row) for row in connection.execute(_HISTORY, parameters)])


def _to_json(item: Item) -> dict[str, object]:
    return {
        "productId": item.product_id,
        "name": item.name,
        "quantity": item.quantity,
        # A string: a JSON number would be read as a float somewhere.
        "unitPrice": f"{item.unit_price:f}",
    }


def _to_order(columns: Sequence[Any]) -> Order:
    order_id, user_id, status, currency_code, items, cancel_reason, created_at, updated_at, version = columns
    return Order(
        id=order_id,
        user_id=user_id,
        status=OrderStatus(status),
        currency_code=currency_code,
        items=tuple(
            [Item(each["productId"], each["name"], each["quantity"], Decimal(each["unitPrice"])) for each in items]
        ),
        cancel_reason=cancel_reason,
        created_at=created_at,
        updated_at=updated_at,
        version=version,
    )


_ROWS: Final = KeyedRows(_COLUMNS, _to_order, owner=orders.c.user_id)


def _to_event(row: Row[Any]) -> OrderEvent:
    return OrderEvent(
        id=row.id,
        order_id=OrderId(row.order_id),
        from_status=OrderStatus(row.from_status) if row.from_status else None,
        to_status=OrderStatus(row.to_status),
        reason=row.reason,
        occurred_at=row.occurred_at,
    )
