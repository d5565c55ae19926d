"""The parts of the server in memory that tests use beside the contract: users, refusals, time."""

from __future__ import annotations

import statistics
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from shop.order.v1.order_service_pb2 import CancelOrderRequest, GetOrderRequest, WatchOrdersRequest
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1.session_service_pb2 import CreateSessionRequest
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2 import GetUserRequest, ListUsersRequest
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import new_uuid
from protos.client import ShopError, watch
from protos.testing import ShopServer, refusals
from tests.support.requests import create_order_request, create_user_request

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


def test_it_starts_in_a_tenth_of_a_second_and_ends_as_fast() -> None:
    def lifetime_s() -> float:
        began = time.perf_counter()
        with ShopServer():
            pass
        return time.perf_counter() - began

    assert statistics.median(lifetime_s() for _ in range(5)) < 0.1


@pytest.mark.parametrize("reason", sorted(refusals.reasons()))
def test_the_next_call_fails_with_any_reason_that_a_test_names(shop: ShopServer, reason: str) -> None:
    ada = shop.create_user()
    with shop.connect_sync(ada) as channel:
        stub = OrderServiceStub(channel)
        stub.CreateOrder(create_order_request(ada.id))
        # Not TOKEN_EXPIRED: with that one the channel gets another token and repeats the call.
        shop.refuse(reason, rpc="CreateOrder")
        if reason in {"TOKEN_EXPIRED", "TOKEN_INVALID"}:
            shop.refuse(reason, rpc="CreateOrder")
        error = failure(stub, ada.id)
        stub.CreateOrder(create_order_request(ada.id))

    assert error.reason == reason
    assert error.message
    assert error.code is not grpc.StatusCode.UNKNOWN


def test_a_refusal_has_the_domain_and_the_facts_of_the_rpc_that_is_called(shop: ShopServer) -> None:
    ada = shop.create_user()
    admin = shop.token("ADMIN")
    with shop.connect_sync(token=admin) as channel:
        shop.refuse("USER_NOT_ACTIVE")
        of_orders = failure(OrderServiceStub(channel), ada.id)
        shop.refuse("USER_NOT_ACTIVE")
        with pytest.raises(ShopError) as of_users:
            UserServiceStub(channel).GetUser(GetUserRequest(id=ada.id))

    assert (of_orders.domain, of_orders.metadata) == ("shop.order.v1", {"userId": ada.id})
    assert (of_users.value.domain, of_users.value.metadata) == ("shop.user.v1", {"userId": ada.id})


def test_a_refusal_waits_for_its_rpc_and_for_a_good_request(shop: ShopServer) -> None:
    ada = shop.create_user()
    with shop.connect_sync(ada) as channel:
        stub = OrderServiceStub(channel)
        shop.refuse("OVERLOADED", rpc="CancelOrder")
        order = stub.CreateOrder(create_order_request(ada.id))
        with pytest.raises(ShopError, match="INVALID_FIELDS"):
            stub.CancelOrder(CancelOrderRequest(id="none"))
        with pytest.raises(ShopError, match="OVERLOADED") as failed:
            stub.CancelOrder(CancelOrderRequest(id=order.id))

    assert failed.value.retry_after == 1


def test_a_reason_that_no_service_gives_is_a_mistake(shop: ShopServer) -> None:
    with pytest.raises(ValueError, match=r"no service refuses with NO_TEA: it is one of AMOUNT_OUT_OF_RANGE, "):
        shop.refuse("NO_TEA")


def test_tokens_expire_by_the_clock_and_are_renewed(shop: ShopServer) -> None:
    ada = shop.create_user()
    token = shop.token("USER", subject=ada.id)
    with shop.connect_sync(ada) as own, shop.connect_sync(token=token) as fixed:
        request = GetUserRequest(id=ada.id)
        before = [UserServiceStub(channel).GetUser(request).id for channel in (own, fixed)]
        shop.clock.advance(timedelta(minutes=16))
        with pytest.raises(ShopError, match="TOKEN_EXPIRED"):
            UserServiceStub(fixed).GetUser(request)

        assert before == [ada.id, ada.id]
        assert UserServiceStub(own).GetUser(request).id == ada.id


def test_a_suspended_user_can_neither_order_nor_log_in(shop: ShopServer) -> None:
    ada = shop.create_user(email="ada@example.com", password="correct horse battery")
    shop.suspend(ada)
    login = CreateSessionRequest(email=ada.email, password=ada.password)
    with shop.connect_sync(token=shop.token("ADMIN")) as channel:
        assert failure(OrderServiceStub(channel), ada.id).reason == "USER_NOT_ACTIVE"
        with pytest.raises(ShopError, match="INVALID_CREDENTIALS"):
            SessionServiceStub(channel).CreateSession(login)


def test_users_have_the_roles_that_a_test_gives_them(shop: ShopServer) -> None:
    admin, ada = shop.create_user(roles=("USER", "ADMIN")), shop.create_user()
    with shop.connect_sync(admin) as channel:
        found = UserServiceStub(channel).ListUsers(ListUsersRequest()).users
    with shop.connect_sync(ada) as channel, pytest.raises(ShopError, match="ROLE_REQUIRED"):
        UserServiceStub(channel).ListUsers(ListUsersRequest())

    assert {user.id for user in found} == {admin.id, ada.id}


def test_orders_of_a_deleted_user_are_cancelled_and_counted_before(shop: ShopServer) -> None:
    with shop.connect_sync(token=shop.token("ADMIN")) as channel:
        users = UserServiceStub(channel)
        user = users.CreateUser(create_user_request())
        order = OrderServiceStub(channel).CreateOrder(create_order_request(user.id))
        counted = users.GetUser(GetUserRequest(id=user.id)).order_count
        shop.refuse("ETAG_MISMATCH", rpc="DeleteUser")
        with pytest.raises(ShopError, match="ETAG_MISMATCH"):
            users.DeleteUser(GetUserRequest(id=user.id))  # type: ignore[arg-type]  # the same field
        users.DeleteUser(GetUserRequest(id=user.id))  # type: ignore[arg-type]
        cancelled = OrderServiceStub(channel).GetOrder(GetOrderRequest(id=order.id))

    assert counted == 1
    assert cancelled.cancel_reason == "The user was deleted."


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
    monkeypatch.setattr("protos.testing.sessions.ACCESS_LIFETIME", timedelta(seconds=-4.5))
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
    monkeypatch.setattr("protos.testing.sessions.ACCESS_LIFETIME", timedelta(seconds=-4.5))
    with shop.connect_sync(shop.create_user()) as channel:
        stream = watch(OrderServiceStub(channel).WatchOrders, WatchOrdersRequest(), patience_s=0.5)
        next(stream)
        time.sleep(1)  # by now the stream has ended with its token

        assert next(stream).resume_token
        stream.close()


def test_two_servers_know_nothing_of_each_other(shop: ShopServer) -> None:
    with ShopServer() as other:
        user = shop.create_user()
        with (
            other.connect_sync(token=other.token("ADMIN")) as channel,
            pytest.raises(ShopError, match="USER_NOT_FOUND"),
        ):
            UserServiceStub(channel).GetUser(GetUserRequest(id=user.id))
        with other.connect_sync(token=shop.token("ADMIN")) as channel, pytest.raises(ShopError, match="TOKEN_INVALID"):
            UserServiceStub(channel).GetUser(GetUserRequest(id=new_uuid()))
