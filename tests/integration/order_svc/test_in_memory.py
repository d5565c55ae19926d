"""Orders in the server for the tests of callers: what tests do with them beside the contract, and their streams."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from shop.order.v1.order_pb2 import ORDER_STATUS_DELIVERED
from shop.order.v1.order_service_pb2 import (
    CancelOrderRequest,
    GetOrderRequest,
    ListOrderEventsRequest,
    UpdateOrderStatusRequest,
    WatchOrdersRequest,
)
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1.user_service_pb2 import DeleteUserRequest, GetUserRequest
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import new_uuid
from protos.client import ShopError, watch
from protos.testing import ShopServer
from tests.services.order_svc.placing import create_order_request
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def shop() -> Iterator[ShopServer]:
    with ShopServer() as server:
        yield server


def failure(stub: OrderServiceStub, user_id: str) -> ShopError:
    with pytest.raises(ShopError) as failed:
        stub.CreateOrder(create_order_request(user_id))
    return failed.value


def test_a_refusal_has_the_domain_and_the_facts_of_the_rpc_that_is_called(shop: ShopServer) -> None:
    ada = shop.create_user()
    with shop.connect_sync(token=shop.token("ADMIN")) as channel:
        shop.refuse("USER_NOT_ACTIVE")
        of_orders = failure(OrderServiceStub(channel), ada.id)
        shop.refuse("USER_NOT_ACTIVE")
        with pytest.raises(ShopError) as of_users:
            UserServiceStub(channel).GetUser(GetUserRequest(id=ada.id))

    assert (of_orders.domain, of_orders.metadata) == ("shop.order.v1", {"userId": ada.id})
    assert (of_users.value.domain, of_users.value.metadata) == ("shop.user.v1", {"userId": ada.id})


def test_a_refused_transition_is_one_from_the_status_that_the_request_wants(shop: ShopServer) -> None:
    with shop.connect_sync(token=shop.token("ADMIN")) as channel:
        orders = OrderServiceStub(channel)
        shop.refuse("INVALID_STATUS_TRANSITION", rpc="UpdateOrderStatus")
        with pytest.raises(ShopError) as delivered:
            orders.UpdateOrderStatus(UpdateOrderStatusRequest(id=new_uuid(), status=ORDER_STATUS_DELIVERED))
        shop.refuse("INVALID_STATUS_TRANSITION", rpc="CancelOrder")
        with pytest.raises(ShopError) as cancelled:
            orders.CancelOrder(CancelOrderRequest(id=new_uuid()))

    assert delivered.value.message == (
        "The order is PENDING and cannot become DELIVERED. It can become CONFIRMED, CANCELLED."
    )
    assert cancelled.value.metadata == {"from": "DELIVERED", "to": "CANCELLED", "allowed": ""}


def test_a_suspended_user_cannot_order(shop: ShopServer) -> None:
    ada = shop.create_user()
    shop.suspend(ada)
    with shop.connect_sync(token=shop.token("ADMIN")) as channel:
        assert failure(OrderServiceStub(channel), ada.id).reason == "USER_NOT_ACTIVE"


def test_orders_of_a_deleted_user_are_cancelled_and_counted_before(shop: ShopServer) -> None:
    with shop.connect_sync(token=shop.token("ADMIN")) as channel:
        users = UserServiceStub(channel)
        user = users.CreateUser(create_user_request())
        order = OrderServiceStub(channel).CreateOrder(create_order_request(user.id))
        counted = users.GetUser(GetUserRequest(id=user.id)).order_count
        users.DeleteUser(DeleteUserRequest(id=user.id))
        cancelled = OrderServiceStub(channel).GetOrder(GetOrderRequest(id=order.id))

    assert counted == 1
    assert cancelled.cancel_reason == "The user was deleted."


def test_a_reason_that_is_given_after_the_buyers_deletion_is_not_stored(shop: ShopServer) -> None:
    ada = shop.create_user()
    with shop.connect_sync(token=shop.token("ADMIN")) as channel:
        orders = OrderServiceStub(channel)
        order = orders.CreateOrder(create_order_request(ada.id))
        for step in (2, 3, 4):  # shipped
            orders.UpdateOrderStatus(UpdateOrderStatusRequest(id=order.id, status=cast("Any", step)))
        UserServiceStub(channel).DeleteUser(DeleteUserRequest(id=ada.id))
        delivered = UpdateOrderStatusRequest(id=order.id, status=cast("Any", 5), reason="left with Ada's neighbour")
        orders.UpdateOrderStatus(delivered)
        history = orders.ListOrderEvents(ListOrderEventsRequest(id=order.id)).events

    assert [entry.reason for entry in history] == [""] * 5


def test_a_watch_outlives_a_server_that_says_it_stops(shop: ShopServer) -> None:
    ada = shop.create_user()
    with shop.connect_sync(ada) as channel:
        stub = OrderServiceStub(channel)
        stream = watch(stub.WatchOrders, WatchOrdersRequest())
        next(stream)
        shop.refuse("SERVER_STOPPING", rpc="WatchOrders")
        again = watch(stub.WatchOrders, WatchOrdersRequest())
        assert next(again).resume_token
        order = stub.CreateOrder(create_order_request(ada.id))

        assert next(stream).change.order_id == next(again).change.order_id == order.id
        stream.close()
        again.close()


def test_an_open_stream_ends_with_a_refusal_and_a_watch_misses_nothing(shop: ShopServer) -> None:
    ada = shop.create_user()
    with shop.connect_sync(ada) as channel:
        stub = OrderServiceStub(channel)
        stream = stub.WatchOrders(WatchOrdersRequest())
        first = next(stream)
        with contextlib.closing(watch(stub.WatchOrders, WatchOrdersRequest())) as watched:
            next(watched)
            for _ in "ab":
                shop.refuse("SERVER_STOPPING", rpc="WatchOrders")
            order = stub.CreateOrder(create_order_request(ada.id))
            changes = (message.change.order_id for message in watched if message.HasField("change"))
            assert next(changes) == order.id
        with pytest.raises(ShopError) as ended:
            list(stream)

    assert (ended.value.reason, ended.value.metadata) == ("SERVER_STOPPING", {"resumeToken": first.resume_token})


def test_a_watch_tries_again_when_its_login_fails_for_a_moment(shop: ShopServer) -> None:
    shop.refuse("DATABASE_UNAVAILABLE", rpc="CreateSession")
    with shop.connect_sync(shop.create_user()) as channel:
        stream = watch(OrderServiceStub(channel).WatchOrders, WatchOrdersRequest())
        assert next(stream).resume_token
        stream.close()


async def test_a_watch_of_grpc_aio_tries_again_when_its_login_fails_for_a_moment(shop: ShopServer) -> None:
    shop.refuse("DATABASE_UNAVAILABLE", rpc="CreateSession")
    async with shop.connect(shop.create_user()) as channel:
        stream = watch(OrderServiceStub(channel).WatchOrders, WatchOrdersRequest())
        assert (await anext(stream)).resume_token
        await stream.aclose()


def test_a_watch_outlives_its_access_token(shop: ShopServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # With the leeway of 5 s each token is good for half a second.
    monkeypatch.setattr("protos.testing.user_svc.sessions.ACCESS_LIFETIME", timedelta(seconds=-4.5))
    with shop.connect_sync(shop.create_user()) as channel:
        stream = watch(OrderServiceStub(channel).WatchOrders, WatchOrdersRequest())
        began = time.monotonic()
        # Only the first message of a stream comes at once.
        heard = [next(stream).resume_token for _ in range(4)]
        stream.close()

    assert all(heard)
    assert time.monotonic() - began > 1


def test_a_caller_that_takes_long_over_a_message_does_not_use_up_the_patience(
    shop: ShopServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protos.testing.user_svc.sessions.ACCESS_LIFETIME", timedelta(seconds=-4.5))
    with shop.connect_sync(shop.create_user()) as channel:
        stream = watch(OrderServiceStub(channel).WatchOrders, WatchOrdersRequest(), patience_s=0.5)
        next(stream)
        time.sleep(1)  # by now the stream has ended with its token

        assert next(stream).resume_token
        stream.close()
