"""While the user service is down, orders are refused at once and other calls are served; recovery needs no restart."""

from __future__ import annotations

import contextlib
import statistics
from typing import TYPE_CHECKING

from grpc import StatusCode, aio
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub
from structlog.testing import capture_logs

from chassis.client.breaker import BreakerSettings
from chassis.testing import new_uuid, plain_channel, refusal_of, until
from tests.integration.inprocess import database_settings
from tests.integration.order_svc.inprocess import order_service
from tests.integration.user_svc.inprocess import user_service
from tests.services.order_svc.placing import create_order_request
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User

    from chassis.testing import Refusal
    from tests.integration.databases import TestDatabase

RESET_TIMEOUT_S = 1


async def test_after_5_failures_orders_are_refused_at_once_until_the_user_service_is_back(
    users_database: TestDatabase, orders_database: TestDatabase
) -> None:
    users_settings = database_settings(users_database.url)
    async with contextlib.AsyncExitStack() as rest:
        async with user_service(users_settings) as users_address:
            breaker = BreakerSettings(fail_max=5, success_threshold=2, reset_timeout_s=RESET_TIMEOUT_S)
            settings = database_settings(orders_database.url)
            address = await rest.enter_async_context(order_service(settings, users=users_address, breaker=breaker))
            orders = OrderServiceStub(await rest.enter_async_context(plain_channel(address)))
            async with plain_channel(users_address) as channel:
                user = await UserServiceStub(channel).CreateUser(create_user_request())
            order = await orders.CreateOrder(create_order_request(user.id))
        create = create_order_request(user.id)

        for _ in range(5):
            require_user_service_unavailable(await refusal_of(orders.CreateOrder(create)))
        refusals, median_s = await refused_while_open(orders, create)

        for refusal in refusals:
            require_user_service_unavailable(refusal)
        times_left_s = [refusal.retry_after_s or 0 for refusal in refusals]
        assert 0 < times_left_s[0] < RESET_TIMEOUT_S
        assert times_left_s == sorted(set(times_left_s), reverse=True)
        assert median_s < 0.05  # it looks into the projection, and the machine is busy; a call may take 2 s
        assert await orders.GetOrder(pb.GetOrderRequest(id=order.id)) == order
        assert (await orders.ListOrders(pb.ListOrdersRequest())).orders
        assert (await orders.CancelOrder(pb.CancelOrderRequest(id=order.id))).status == order_pb2.ORDER_STATUS_CANCELLED

        port = int(users_address.rpartition(":")[2])
        await rest.enter_async_context(user_service(users_settings, port=port))
        await until(lambda: succeeds(orders, create))
        for _ in range(3):
            assert await succeeds(orders, create)


async def test_a_user_service_with_a_stuck_database_opens_the_breaker_too(
    orders: OrderServiceAsyncStub, users_database: TestDatabase, buyer: User
) -> None:
    create = create_order_request(buyer.id)
    with users_database.locked("LOCK TABLE users"):
        # One after the other: concurrent orders share one call of the user service, and would be one failure.
        for _ in range(5):
            require_user_service_unavailable(await refusal_of(orders.CreateOrder(create)), retry_after_header="1")
        refusals, median_s = await refused_while_open(orders, create)

    for refusal in refusals:
        require_user_service_unavailable(refusal, retry_after_header="60")
    assert median_s < 0.05


async def test_a_missing_buyer_does_not_count_as_a_failure(orders: OrderServiceAsyncStub) -> None:
    refusals = [await refusal_of(orders.CreateOrder(create_order_request(new_uuid()))) for _ in range(20)]

    assert {refusal.reason for refusal in refusals} == {"ORDERING_USER_NOT_FOUND"}


async def refused_while_open(
    orders: OrderServiceAsyncStub, create: pb.CreateOrderRequest
) -> tuple[list[Refusal], float]:
    """Return 20 refusals and the median of the seconds that each took, by the service's own log.

    The test's own clock would also measure how busy the machine is with other things.
    """
    with capture_logs() as logged:
        refusals = [await refusal_of(orders.CreateOrder(create)) for _ in range(20)]
    took_ms = [entry["duration_ms"] for entry in logged if entry["event"] == "rpc.handled"]
    return refusals, statistics.median(took_ms) / 1000


async def succeeds(orders: OrderServiceAsyncStub, create: pb.CreateOrderRequest) -> bool:
    """Return whether an order is placed rather than refused for want of the user service."""
    try:
        await orders.CreateOrder(create)
    except aio.AioRpcError as error:
        if error.code() is StatusCode.UNAVAILABLE:
            return False
        raise
    return True


def require_user_service_unavailable(refusal: Refusal, *, retry_after_header: str = "1") -> None:
    assert (refusal.code, refusal.domain) == (StatusCode.UNAVAILABLE, "shop.order.v1")
    assert refusal.reason == "USER_SERVICE_UNAVAILABLE"
    assert refusal.retry_after_s is not None
    assert refusal.retry_after_s > 0
    assert refusal.retry_after_header == retry_after_header
