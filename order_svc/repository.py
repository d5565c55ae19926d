"""The statements on orders. Set-based: a list in, a list out. Never commits."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Select, any_, bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from order_svc.model import BuyerId, Item, Order, OrderEvent, OrderFilter, OrderId, OrderStatus
from order_svc.tables import order_events, orders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chassis.pagination import PageRequest

_by_ids = select(orders).where(
    orders.c.id == any_(bindparam("ids", type_=ARRAY(UUID))),
    # Whose rows the caller may see stands in the query, so that no later line can forget it.
    orders.c.user_id == func.coalesce(bindparam("owner", type_=UUID), orders.c.user_id),
)
# In the order of the key, so that two transactions that lock the same orders cannot lock each other.
_by_ids_locked = _by_ids.order_by(orders.c.id).with_for_update()

_move = (
    update(orders)
    .where(orders.c.id == bindparam("key_id"), orders.c.version == bindparam("key_version"))
    .values(
        status=bindparam("status"),
        cancel_reason=bindparam("cancel_reason"),
        updated_at=bindparam("updated_at"),
        version=bindparam("version"),
    )
)


def insert_orders(connection: Connection, new: Sequence[Order]) -> None:
    """Write new orders."""
    connection.execute(insert(orders), [_to_row(order) for order in new])


def insert_events(connection: Connection, new: Sequence[OrderEvent]) -> None:
    """Write entries of histories."""
    rows = [
        {
            "id": event.id,
            "order_id": event.order_id,
            "from_status": event.from_status,
            "to_status": event.to_status,
            "reason": event.reason,
            "occurred_at": event.occurred_at,
        }
        for event in new
    ]
    connection.execute(insert(order_events), rows)


def find_orders(connection: Connection, ids: Sequence[OrderId], *, owner: BuyerId | None) -> list[Order]:
    """Return the orders that exist and, if an owner is given, are the owner's; in any order."""
    return [_to_order(row) for row in connection.execute(_by_ids, {"ids": list(ids), "owner": owner})]


def lock_orders(connection: Connection, ids: Sequence[OrderId], *, owner: BuyerId | None) -> list[Order]:
    """Return orders as find_orders() does, by id, and keep others from changing them until the transaction ends."""
    return [_to_order(row) for row in connection.execute(_by_ids_locked, {"ids": list(ids), "owner": owner})]


def move_orders(connection: Connection, moved: Sequence[Order]) -> None:
    """Write the next version of orders that this transaction has locked."""
    rows = [
        {
            "key_id": order.id,
            "key_version": order.version - 1,
            "status": order.status,
            "cancel_reason": order.cancel_reason,
            "updated_at": order.updated_at,
            "version": order.version,
        }
        for order in moved
    ]
    connection.execute(_move, rows)


def list_orders(connection: Connection, page: PageRequest, *, filters: OrderFilter) -> list[Order]:
    """Return a page of orders, newest first, and one more if there are more."""
    query: Select[Any] = select(orders).order_by(orders.c.id.desc()).limit(page.size + 1)
    if page.after is not None:
        query = query.where(orders.c.id < page.after)
    # Two conditions on one column if need be: somebody else's orders are then none.
    for user_id in (filters.owner, filters.user_id):
        if user_id is not None:
            query = query.where(orders.c.user_id == user_id)
    if filters.status is not None:
        query = query.where(orders.c.status == filters.status)
    return [_to_order(row) for row in connection.execute(query)]


def list_events(
    connection: Connection, page: PageRequest, *, order_id: OrderId, owner: BuyerId | None
) -> list[OrderEvent]:
    """Return a page of an order's history, oldest first, and one more if there are more."""
    query: Select[Any] = (
        select(order_events).where(order_events.c.order_id == order_id).order_by(order_events.c.id).limit(page.size + 1)
    )
    if page.after is not None:
        query = query.where(order_events.c.id > page.after)
    if owner is not None:
        query = query.join(orders, orders.c.id == order_events.c.order_id).where(orders.c.user_id == owner)
    return [_to_event(row) for row in connection.execute(query)]


def _to_row(order: Order) -> dict[str, object]:
    return {
        "id": order.id,
        "user_id": order.user_id,
        "status": order.status,
        "currency_code": order.currency_code,
        "items": [
            {
                "productId": item.product_id,
                "name": item.name,
                "quantity": item.quantity,
                # A string: a JSON number would be read as a float somewhere.
                "unitPrice": f"{item.unit_price:f}",
            }
            for item in order.items
        ],
        "total_amount": order.total_amount,
        "cancel_reason": order.cancel_reason,
        "created_at": order.created_at,
        "updated_at": order.updated_at,
        "version": order.version,
    }


def _to_order(row: Row[Any]) -> Order:
    return Order(
        id=OrderId(row.id),
        user_id=BuyerId(row.user_id),
        status=OrderStatus(row.status),
        currency_code=row.currency_code,
        items=tuple(
            Item(each["productId"], each["name"], each["quantity"], Decimal(each["unitPrice"])) for each in row.items
        ),
        cancel_reason=row.cancel_reason,
        created_at=row.created_at,
        updated_at=row.updated_at,
        version=row.version,
    )


def _to_event(row: Row[Any]) -> OrderEvent:
    return OrderEvent(
        id=row.id,
        order_id=OrderId(row.order_id),
        from_status=OrderStatus(row.from_status) if row.from_status else None,
        to_status=OrderStatus(row.to_status),
        reason=row.reason,
        occurred_at=row.occurred_at,
    )
