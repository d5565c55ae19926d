"""OrderService, rpc by rpc: what it answers and why it refuses."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from google.type.money_pb2 import Money
from grpc import StatusCode
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as pb
from shop.user.v1 import user_service_pb2

from chassis.testing import bearer, new_uuid, refusal_of, token_of
from tests.services.order_svc.placing import create_order_request, order_item

if TYPE_CHECKING:
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase

PENDING = order_pb2.ORDER_STATUS_PENDING
CONFIRMED = order_pb2.ORDER_STATUS_CONFIRMED
PROCESSING = order_pb2.ORDER_STATUS_PROCESSING
SHIPPED = order_pb2.ORDER_STATUS_SHIPPED
DELIVERED = order_pb2.ORDER_STATUS_DELIVERED
CANCELLED = order_pb2.ORDER_STATUS_CANCELLED

WAY = (CONFIRMED, PROCESSING, SHIPPED, DELIVERED)

# CONTRACT: where an order in each status can go, at the hands of staff and of its buyer.
STAFF = {
    PENDING: [CONFIRMED, CANCELLED],
    CONFIRMED: [PROCESSING, CANCELLED],
    PROCESSING: [SHIPPED, CANCELLED],
    SHIPPED: [DELIVERED],
    DELIVERED: [],
    CANCELLED: [],
}
OWNER_CANCELS = (PENDING, CONFIRMED)


def short_name(status: order_pb2.OrderStatus.ValueType) -> str:
    return order_pb2.OrderStatus.Name(status).removeprefix("ORDER_STATUS_")


async def test_a_new_order_is_pending_and_has_its_totals(
    orders: OrderServiceAsyncStub, buyer: User, clock: ManualClock
) -> None:
    tea = order_item(units=1, nanos=500_000_000, quantity=3, product_id="tea-1", name="Tea ✨")
    gift = order_item(units=0, quantity=10_000, product_id="gift", name="")

    order = await orders.CreateOrder(create_order_request(buyer.id, items=[tea, gift]))

    assert (order.user_id, order.status, order.cancel_reason) == (buyer.id, PENDING, "")
    assert [(each.product_id, each.name, each.quantity) for each in order.items] == [
        ("tea-1", "Tea ✨", 3),
        ("gift", "", 10_000),
    ]
    assert order.items[0].unit_price == Money(currency_code="EUR", units=1, nanos=500_000_000)
    assert order.items[0].total_price == Money(currency_code="EUR", units=4, nanos=500_000_000)
    assert order.items[1].total_price == Money(currency_code="EUR")
    assert order.total_amount == Money(currency_code="EUR", units=4, nanos=500_000_000)
    assert order.created_at == order.updated_at
    assert order.created_at.ToMicroseconds() == round(clock.now().timestamp() * 1_000_000)


async def test_a_placed_order_can_be_read(orders: OrderServiceAsyncStub, buyer: User) -> None:
    placed = await orders.CreateOrder(create_order_request(buyer.id))

    found = await orders.GetOrder(pb.GetOrderRequest(id=placed.id))

    assert found == placed


@pytest.mark.parametrize(
    ("items", "total"),
    [
        ([order_item(units=0, nanos=100_000, quantity=1)], "0.0001"),
        ([order_item(units=0, nanos=100_000_000, quantity=3)], "0.3000"),
        ([order_item(units=0, nanos=333_300_000, quantity=3)], "0.9999"),
        ([order_item(units=0, nanos=999_900_000, quantity=10_000)] * 100, "999900.0000"),
        ([order_item(units=99_999_999_999, nanos=999_900_000, quantity=10_000)], "999999999999999.0000"),
        ([order_item(units=999_999_999_999, nanos=999_900_000)] * 100, "99999999999999.9900"),
    ],
)
async def test_money_is_exact(
    orders: OrderServiceAsyncStub,
    orders_database: TestDatabase,
    buyer: User,
    items: list[dict[str, Any]],
    total: str,
) -> None:
    # The currency with the most decimals.
    placed = await orders.CreateOrder(create_order_request(buyer.id, currency_code="CLF", items=items))

    found = await orders.GetOrder(pb.GetOrderRequest(id=placed.id))
    [(kept,)] = orders_database.query("SELECT total_amount FROM orders")
    [(event,)] = orders_database.query("SELECT data FROM outbox")

    assert decimal_of(placed.total_amount) == decimal_of(found.total_amount) == kept == Decimal(total)
    assert event["amount"] == total
    assert Decimal(event["total"]["units"]) + Decimal(event["total"]["nanos"]).scaleb(-9) == Decimal(total)


async def test_a_price_may_name_the_orders_currency(orders: OrderServiceAsyncStub, buyer: User) -> None:
    item = order_item(unit_price=Money(currency_code="JPY", units=5))

    order = await orders.CreateOrder(create_order_request(buyer.id, currency_code="JPY", items=[item]))

    assert order.total_amount == Money(currency_code="JPY", units=5)


async def test_an_order_has_one_currency(orders: OrderServiceAsyncStub, buyer: User) -> None:
    items = [order_item(), order_item(unit_price=Money(currency_code="USD", units=5))]

    refusal = await refusal_of(orders.CreateOrder(create_order_request(buyer.id, items=items)))

    assert (refusal.code, refusal.domain) == (StatusCode.INVALID_ARGUMENT, "shop.order.v1")
    assert (refusal.reason, refusal.fields) == ("CURRENCY_MISMATCH", ("items[1].unitPrice.currencyCode",))


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ([order_item(), order_item(units=10**12)], "items[1].unitPrice"),
        ([order_item(units=2**63 - 1, nanos=999_999_999, quantity=10_000)], "items[0].unitPrice"),
        ([order_item(units=10**11, quantity=10_000)], "items"),
        ([order_item(units=10**12 - 1, quantity=10_000)] * 100, "items"),
    ],
)
async def test_an_amount_too_large_is_refused(
    orders: OrderServiceAsyncStub, buyer: User, items: list[dict[str, Any]], field: str
) -> None:
    refusal = await refusal_of(orders.CreateOrder(create_order_request(buyer.id, items=items)))

    assert (refusal.code, refusal.domain) == (StatusCode.INVALID_ARGUMENT, "shop.order.v1")
    assert (refusal.reason, refusal.fields) == ("AMOUNT_OUT_OF_RANGE", (field,))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"user_id": "1"}, "userId"),
        ({"currency_code": "eur"}, "currencyCode"),
        ({"currency_code": "EUR\n"}, "currencyCode"),
        ({"items": []}, "items"),
        ({"items": [order_item()] * 101}, "items"),
        ({"items": [order_item(quantity=0)]}, "items[0].quantity"),
        ({"items": [order_item(quantity=10_001)]}, "items[0].quantity"),
        ({"items": [order_item(), order_item(quantity=-1)]}, "items[1].quantity"),
        ({"items": [order_item(product_id="")]}, "items[0].productId"),
        ({"items": [order_item(product_id="x" * 65)]}, "items[0].productId"),
        ({"items": [order_item(product_id="a\x00")]}, "items[0].productId"),
        ({"items": [order_item(name="x" * 256)]}, "items[0].name"),
        ({"items": [order_item(name="a\x00")]}, "items[0].name"),
        ({"items": [order_item(units=-1)]}, "items[0].unitPrice"),
        ({"items": [order_item(nanos=-1)]}, "items[0].unitPrice"),
        ({"items": [order_item(nanos=1_000_000_000)]}, "items[0].unitPrice"),
        ({"items": [order_item(unit_price=Money(currency_code="E"))]}, "items[0].unitPrice"),
        ({"items": [order_item(unit_price=None)]}, "items[0].unitPrice"),
        ({"request_id": "x"}, "requestId"),
    ],
)
async def test_an_order_that_breaks_a_rule_is_refused_by_the_fields_name(
    orders: OrderServiceAsyncStub, buyer: User, changes: dict[str, Any], field: str
) -> None:
    refusal = await refusal_of(orders.CreateOrder(create_order_request(**{"user_id": buyer.id, **changes})))

    assert (refusal.code, refusal.domain) == (StatusCode.INVALID_ARGUMENT, "shop.system.v1")
    assert (refusal.reason, set(refusal.fields)) == ("INVALID_FIELDS", {field})


async def test_the_buyer_must_exist(orders: OrderServiceAsyncStub) -> None:
    nobody = new_uuid()

    refusal = await refusal_of(orders.CreateOrder(create_order_request(nobody)))

    assert (refusal.code, refusal.domain) == (StatusCode.FAILED_PRECONDITION, "shop.order.v1")
    assert (refusal.reason, refusal.metadata) == ("ORDERING_USER_NOT_FOUND", {"userId": nobody})


async def test_a_deleted_user_cannot_order(
    orders: OrderServiceAsyncStub, users: UserServiceAsyncStub, buyer: User
) -> None:
    await users.DeleteUser(user_service_pb2.DeleteUserRequest(id=buyer.id))

    refusal = await refusal_of(orders.CreateOrder(create_order_request(buyer.id)))

    assert (refusal.code, refusal.domain) == (StatusCode.FAILED_PRECONDITION, "shop.order.v1")
    assert (refusal.reason, refusal.metadata) == ("USER_NOT_ACTIVE", {"userId": buyer.id})


async def test_a_suspended_user_cannot_order(
    orders: OrderServiceAsyncStub, users_database: TestDatabase, buyer: User
) -> None:
    users_database.query("UPDATE users SET state = 'SUSPENDED'")

    refusal = await refusal_of(orders.CreateOrder(create_order_request(buyer.id)))

    assert (refusal.reason, refusal.metadata) == ("USER_NOT_ACTIVE", {"userId": buyer.id})


async def test_a_refused_order_leaves_nothing_behind(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase
) -> None:
    before = orders_database.everything()

    await refusal_of(orders.CreateOrder(create_order_request(new_uuid(), request_id=new_uuid())))

    assert orders_database.everything() == before


async def test_an_unknown_order_is_not_found(orders: OrderServiceAsyncStub) -> None:
    nothing = new_uuid()

    refusals = [
        await refusal_of(orders.GetOrder(pb.GetOrderRequest(id=nothing))),
        await refusal_of(orders.UpdateOrderStatus(pb.UpdateOrderStatusRequest(id=nothing, status=CONFIRMED))),
        await refusal_of(orders.CancelOrder(pb.CancelOrderRequest(id=nothing))),
        await refusal_of(orders.ListOrderEvents(pb.ListOrderEventsRequest(id=nothing))),
    ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain) == (StatusCode.NOT_FOUND, "shop.order.v1")
        assert (refusal.reason, refusal.metadata) == ("ORDER_NOT_FOUND", {"orderId": nothing})


async def test_an_order_goes_all_the_way_to_its_buyer(
    orders: OrderServiceAsyncStub, buyer: User, clock: ManualClock
) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))

    etags = {order.etag}
    for status in WAY:
        clock.advance(timedelta(seconds=1))
        before, order = order, await move(orders, order.id, status, etag=order.etag)
        assert order.status == status
        assert order.updated_at.seconds == before.updated_at.seconds + 1
        etags.add(order.etag)

    assert len(etags) == 5
    assert await orders.GetOrder(pb.GetOrderRequest(id=order.id)) == order


@pytest.mark.parametrize("current", STAFF, ids=short_name)
async def test_staff_can_make_the_transitions_of_the_contract_and_no_others(
    orders: OrderServiceAsyncStub, buyer: User, current: order_pb2.OrderStatus.ValueType
) -> None:
    allowed = STAFF[current]

    for wanted in STAFF:
        order = await order_in(orders, buyer, current)
        if wanted in allowed:
            assert (await move(orders, order.id, wanted)).status == wanted
            continue
        refusal = await refusal_of(move(orders, order.id, wanted))
        assert (refusal.code, refusal.domain) == (StatusCode.FAILED_PRECONDITION, "shop.order.v1")
        assert (refusal.reason, refusal.metadata) == (
            "INVALID_STATUS_TRANSITION",
            {
                "from": short_name(current),
                "to": short_name(wanted),
                "allowed": ",".join(short_name(each) for each in allowed),
            },
        )
        assert await orders.GetOrder(pb.GetOrderRequest(id=order.id)) == order


@pytest.mark.parametrize("status", [0, 99])
async def test_an_unknown_status_of_an_update_is_refused(
    orders: OrderServiceAsyncStub, buyer: User, status: int
) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    request = pb.UpdateOrderStatusRequest(id=order.id)
    request.status = status

    refusal = await refusal_of(orders.UpdateOrderStatus(request))

    assert (refusal.code, refusal.reason, set(refusal.fields)) == (
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELDS",
        {"status"},
    )


@pytest.mark.parametrize("current", [PENDING, CONFIRMED, PROCESSING, SHIPPED, DELIVERED], ids=short_name)
async def test_buyers_can_cancel_until_the_order_is_being_packed(
    orders: OrderServiceAsyncStub, buyer: User, current: order_pb2.OrderStatus.ValueType
) -> None:
    order = await order_in(orders, buyer, current)
    request = pb.CancelOrderRequest(id=order.id, reason="changed my mind")

    if current in OWNER_CANCELS:
        cancelled = await orders.CancelOrder(request, metadata=bearer(token_of(buyer.id)))

        assert (cancelled.status, cancelled.cancel_reason) == (CANCELLED, "changed my mind")
    else:
        refusal = await refusal_of(orders.CancelOrder(request, metadata=bearer(token_of(buyer.id))))

        assert refusal.reason == "INVALID_STATUS_TRANSITION"
        assert refusal.metadata == {"from": short_name(current), "to": "CANCELLED", "allowed": ""}


async def test_a_second_cancel_succeeds_and_changes_nothing(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, buyer: User
) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    first = await orders.CancelOrder(pb.CancelOrderRequest(id=order.id, reason="one", etag=order.etag))
    before = orders_database.everything()

    second = await orders.CancelOrder(pb.CancelOrderRequest(id=order.id, reason="two", etag=order.etag))

    assert second == first
    assert orders_database.everything() == before


async def test_staff_cancels_with_a_reason(orders: OrderServiceAsyncStub, buyer: User) -> None:
    order = await order_in(orders, buyer, PROCESSING)

    cancelled = await move(orders, order.id, CANCELLED, reason="out of stock")

    assert (cancelled.status, cancelled.cancel_reason) == (CANCELLED, "out of stock")


async def test_a_stale_etag_is_refused_with_the_current_one(orders: OrderServiceAsyncStub, buyer: User) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    current = (await move(orders, order.id, CONFIRMED)).etag

    refusals = [
        await refusal_of(move(orders, order.id, PROCESSING, etag=order.etag)),
        await refusal_of(orders.CancelOrder(pb.CancelOrderRequest(id=order.id, etag=order.etag))),
    ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain) == (StatusCode.ABORTED, "shop.system.v1")
        assert (refusal.reason, refusal.metadata) == ("ETAG_MISMATCH", {"etag": current})


async def test_orders_are_listed_newest_first_by_buyer_and_status(orders: OrderServiceAsyncStub, buyer: User) -> None:
    first = await orders.CreateOrder(create_order_request(buyer.id))
    second = await orders.CreateOrder(create_order_request(buyer.id))
    confirmed = await move(orders, first.id, CONFIRMED)

    async def listed(**filters: Any) -> list[order_pb2.Order]:
        return list((await orders.ListOrders(pb.ListOrdersRequest(**filters))).orders)

    assert await listed() == [second, confirmed]
    assert await listed(user_id=buyer.id) == [second, confirmed]
    assert await listed(user_id=new_uuid()) == []
    assert await listed(status=CONFIRMED) == [confirmed]
    assert await listed(user_id=buyer.id, status=PENDING) == [second]
    assert await listed(user_id=buyer.id, status=SHIPPED) == []


async def test_the_history_lists_every_change_oldest_first(
    orders: OrderServiceAsyncStub, buyer: User, clock: ManualClock
) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    clock.advance(timedelta(minutes=1))
    await move(orders, order.id, CONFIRMED, reason="paid")
    clock.advance(timedelta(minutes=1))
    cancelled = await orders.CancelOrder(pb.CancelOrderRequest(id=order.id, reason="too late"))

    events = (await orders.ListOrderEvents(pb.ListOrderEventsRequest(id=order.id))).events

    assert [(each.from_status, each.to_status, each.reason) for each in events] == [
        (order_pb2.ORDER_STATUS_UNSPECIFIED, PENDING, ""),
        (PENDING, CONFIRMED, "paid"),
        (CONFIRMED, CANCELLED, "too late"),
    ]
    assert {each.order_id for each in events} == {order.id}
    assert [each.occurred_at.seconds - order.created_at.seconds for each in events] == [0, 60, 120]
    assert events[-1].occurred_at == cancelled.updated_at


async def test_a_change_of_an_order_has_one_event_with_its_version(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, buyer: User, clock: ManualClock
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = (("traceparent", trace),)
    item = order_item(units=1, nanos=500_000_000, quantity=3)
    order = await orders.CreateOrder(create_order_request(buyer.id, items=[item]), metadata=metadata)
    confirm = pb.UpdateOrderStatusRequest(id=order.id, status=CONFIRMED, reason="canary")
    await orders.UpdateOrderStatus(confirm, metadata=metadata)
    await orders.CancelOrder(pb.CancelOrderRequest(id=order.id, reason="canary"), metadata=metadata)
    await orders.CancelOrder(pb.CancelOrderRequest(id=order.id), metadata=metadata)
    await refusal_of(move(orders, order.id, SHIPPED))

    rows = orders_database.query(
        "SELECT type, subject::text, sequence, data, traceparent, occurred_at FROM outbox ORDER BY position"
    )

    plain = {"orderId": order.id, "userId": buyer.id}
    created = rows[0][3]
    assert created == {**plain, "amount": "4.50", "currencyCode": "EUR", "total": {"units": "4", "nanos": 500_000_000}}
    assert [(row[0], row[3]) for row in rows[1:]] == [
        ("order.status_changed", {**plain, "from": "PENDING", "to": "CONFIRMED"}),
        ("order.cancelled", {**plain, "from": "CONFIRMED", "to": "CANCELLED"}),
    ]
    assert rows[0][0] == "order.created"
    assert [row[2] for row in rows] == [1, 2, 3]
    assert {(row[1], row[4], row[5]) for row in rows} == {(order.id, trace, clock.now())}


async def test_text_is_kept_as_text(orders: OrderServiceAsyncStub, buyer: User) -> None:
    text = """'; DROP TABLE orders; -- " \\ %s :x {} ✨"""

    order = await orders.CreateOrder(create_order_request(buyer.id, items=[order_item(name=text, product_id=text)]))
    cancelled = await orders.CancelOrder(pb.CancelOrderRequest(id=order.id, reason=text))

    assert (cancelled.items[0].name, cancelled.items[0].product_id, cancelled.cancel_reason) == (text, text, text)


def decimal_of(money: Money) -> Decimal:
    return Decimal(money.units) + Decimal(money.nanos).scaleb(-9)


async def move(
    orders: OrderServiceAsyncStub, order_id: str, status: order_pb2.OrderStatus.ValueType, **fields: str
) -> order_pb2.Order:
    return await orders.UpdateOrderStatus(pb.UpdateOrderStatusRequest(id=order_id, status=status, **fields))


async def order_in(
    orders: OrderServiceAsyncStub, buyer: User, status: order_pb2.OrderStatus.ValueType
) -> order_pb2.Order:
    """Place an order and bring it into the status."""
    order = await orders.CreateOrder(create_order_request(buyer.id))
    if status == CANCELLED:
        return await orders.CancelOrder(pb.CancelOrderRequest(id=order.id))
    for step in WAY[: WAY.index(status) + 1] if status in WAY else ():
        order = await move(orders, order.id, step)
    return order
