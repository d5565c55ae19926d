"""A replica of the previous release watches what a newer one writes beside it: statuses that it does not know."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from shop.event.v1 import order_events_pb2
from shop.order.v1 import order_pb2

from chassis.testing import new_uuid, plain_channel
from tests.integration.inprocess import database_settings
from tests.integration.order_svc.inprocess import order_service
from tests.integration.order_svc.watching import watching

if TYPE_CHECKING:
    from tests.integration.databases import TestDatabase

KINDS = {"order.status_changed": "OrderStatusChanged", "order.cancelled": "OrderCancelled"}
WRITE = """
    INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
    VALUES (%s, %s, %s, 2, CAST(%s AS jsonb), '', now())
"""
# By the field of the event, the field of the change that shows it.
SHOWN = {"from": "from_status", "to": "to_status"}


def data(kind: str, **changes: str) -> dict[str, Any]:
    """Return the data of an event, with every field of its message."""
    names = [field.json_name for field in order_events_pb2.DESCRIPTOR.message_types_by_name[KINDS[kind]].fields]
    ids = {name: new_uuid() for name in names if name.endswith("Id")}
    return {**ids, **{name: "CONFIRMED" for name in names if name not in ids}, **changes}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", SHOWN)
async def test_a_status_of_a_newer_release_is_shown_as_unspecified_and_holds_no_stream_up(
    orders_database: TestDatabase, users_address: str, kind: str, field: str
) -> None:
    newer, known = data(kind, **{field: "REFUNDED"}), data(kind)

    async with (
        order_service(database_settings(orders_database.url), users=users_address) as address,
        plain_channel(address) as channel,
        watching(channel) as watch,
    ):
        await watch.message()  # every later change follows
        for each in (newer, known):
            orders_database.query(WRITE, new_uuid(), kind, each["orderId"], json.dumps(each))
        changes = [await watch.change(), await watch.change()]

    assert [change.order_id for change in changes] == [newer["orderId"], known["orderId"]]
    assert getattr(changes[0], SHOWN[field]) == order_pb2.ORDER_STATUS_UNSPECIFIED
    assert getattr(changes[1], SHOWN[field]) == order_pb2.ORDER_STATUS_CONFIRMED
