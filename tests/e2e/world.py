"""Users and orders to test with, and a request that succeeds for every method of the contract."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import httpx
import psycopg
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.system.v1 import system_service_pb2 as system
from shop.user.v1 import session_service_pb2 as sessions
from shop.user.v1 import user_service_pb2 as users
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import new_uuid
from devstack.process import stop_together
from tests.e2e.contract import BY_NAME, as_json
from tests.support.access_table import FROM_THE_BEGINNING
from tests.support.logins import log_in
from tests.support.replicas import orders_reach_users
from tests.support.requests import PASSWORD, create_order_request, create_user_request
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from google.protobuf.message import Message
    from shop.user.v1.user_pb2 import User

    from devstack.stack import Stack
    from tests.e2e.callers import Edge, Outcome


@dataclass(frozen=True, slots=True)
class World:
    """A running system, with users, orders and temporary faults."""

    stack: Stack
    edge: Edge

    def owner(self) -> str:
        """Return the id of a user whose own token is used for calls that only the user may make."""
        user = self.user()
        self.edge.owners[user.id] = self.token_of(user)
        return user.id

    def user(self, **changes: Any) -> User:
        """Create a user."""
        return UserServiceStub(self.edge.channel).CreateUser(create_user_request(**changes), timeout=10)

    def deleted_user(self) -> str:
        """Return the id of a user who was deleted."""
        user = self.user()
        UserServiceStub(self.edge.channel).DeleteUser(users.DeleteUserRequest(id=user.id), timeout=10)
        return user.id

    def order(self, user_id: str = "", **changes: Any) -> order_pb2.Order:
        """Place an order, for a new user if none is named."""
        request = create_order_request(user_id or self.user().id, **changes)
        return OrderServiceStub(self.edge.channel).CreateOrder(request, timeout=10)

    def request(self, name: str) -> Message:
        """Return a request that the method of this name answers with success, once."""
        return REQUESTS[name](self)

    def both(self, name: str, request: Message) -> list[Outcome]:
        """Return what the method answers over REST, then over gRPC."""
        rpc = BY_NAME[name]
        by_rest = self.edge.rest(rpc.bindings[0].call(_brief(request)))
        return [by_rest, self.edge.grpc(rpc, request)]

    def token_of(self, user: User) -> str:
        """Return an access token of a user that this world has made."""
        return log_in(self.edge.url, email=user.email, password=PASSWORD)["accessToken"]

    def user_with_roles(self, names: str) -> User:
        """Create a user with these roles, separated by commas. No rpc can; an operator does it so."""
        user = self.user()
        with self._database_of("users") as connection:
            connection.execute("UPDATE users SET roles = string_to_array(%s, ',') WHERE id = %s", (names, user.id))
        return user

    def expire_sessions(self) -> None:
        """Expire every session."""
        with self._database_of("users") as connection:
            connection.execute("UPDATE sessions SET expires_at = now()")

    @contextlib.contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Lock the table while the block runs."""
        with self._database_of(table) as connection, connection.transaction():
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            yield

    @contextlib.contextmanager
    def missing(self, table: str) -> Iterator[None]:
        """Rename the table while the block runs."""
        with self._database_of(table) as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO {table}_away".encode())
            try:
                yield
            finally:
                connection.execute(f"ALTER TABLE {table}_away RENAME TO {table}".encode())

    @contextlib.contextmanager
    def stopped(self, service: str) -> Iterator[None]:
        """Stop every replica of the service while the block runs."""
        replicas = self.stack.replicas(service)
        stop_together(list(replicas))
        try:
            yield
        finally:
            # Wait until the edge marks the replicas as unhealthy: a late mark would follow the repair.
            until(lambda: not self._edge_is_healthy())
            for replica in replicas:
                replica.start()
            for replica in replicas:
                replica.wait_ready()
            until(self._edge_is_healthy)
            until(self._edge_reaches_every_replica)
            until(lambda: orders_reach_users(self.stack))

    def _edge_is_healthy(self) -> bool:
        return self.edge.http.get("/healthz").is_success

    def _edge_reaches_every_replica(self) -> bool:
        """Return whether call after call is answered, each on its own connection, by each of the edge's threads."""
        paths = ("/health/users", "/health/orders") * 5
        return all(httpx.get(f"{self.edge.url}{path}", timeout=10, trust_env=False).is_success for path in paths)

    def _database_of(self, table: str) -> contextlib.closing[psycopg.Connection[Any]]:
        assert self.stack.postgres
        url = self.stack.postgres.superuser_url("users" if table == "users" else "orders")
        return contextlib.closing(psycopg.connect(url, autocommit=True))


def _brief(request: Message) -> dict[str, Any]:
    """Return the request as a caller would write it: without what it does not say."""
    said = {field.json_name for field, _ in request.ListFields()}
    return {name: value for name, value in as_json(request).items() if name in said}


def request_json(request: Message) -> dict[str, Any]:
    """Return the request as a caller would write it in JSON."""
    return _brief(request)


def _update_user(world: World) -> Message:
    user = world.user()
    return users.UpdateUserRequest(
        id=user.id, email=f"eve-{new_uuid()}@example.com", display_name="Eve", etag=user.etag, request_id=new_uuid()
    )


def _change_password(world: World) -> Message:
    return users.ChangePasswordRequest(
        id=world.owner(), current_password=PASSWORD, new_password=PASSWORD + "!", request_id=new_uuid()
    )


def _create_session(world: World) -> Message:
    return sessions.CreateSessionRequest(email=world.user().email, password=PASSWORD)


def _refresh_session(world: World) -> Message:
    session = SessionServiceStub(world.edge.channel).CreateSession(_create_session(world), timeout=10)
    return sessions.RefreshSessionRequest(refresh_token=session.refresh_token)


def _create_user(_world: World) -> Message:
    request = create_user_request(display_name="Žofie 👩🏽", request_id=new_uuid())
    request.profile.update({"theme": "dark", "sizes": [1, 2.5, None, True], "deep": {"er": {}}})
    return request


def _list_users(world: World) -> Message:
    return users.ListUsersRequest(page_size=2, email=world.user().email, state=cast("Any", 1))


def _batch_get_users(world: World) -> Message:
    return users.BatchGetUsersRequest(ids=[new_uuid(), world.user().id, world.deleted_user()])


def _create_order(world: World) -> Message:
    price = {"currency_code": "EUR", "units": 4, "nanos": 500_000_000}
    items: list[Any] = [
        {"product_id": "tea", "name": "Tea", "quantity": 3, "unit_price": price},
        {"product_id": "gift", "quantity": 1, "unit_price": {}},
    ]
    return create_order_request(world.user().id, items=items, request_id=new_uuid())


def _list_orders(world: World) -> Message:
    order = world.order()
    world.order(order.user_id)
    return orders.ListOrdersRequest(page_size=1, user_id=order.user_id, status=order_pb2.ORDER_STATUS_PENDING)


def _update_order_status(world: World) -> Message:
    order = world.order()
    return orders.UpdateOrderStatusRequest(
        id=order.id,
        status=order_pb2.ORDER_STATUS_CONFIRMED,
        reason="in stock",
        etag=order.etag,
        request_id=new_uuid(),
    )


def _cancel_order(world: World) -> Message:
    order = world.order()
    return orders.CancelOrderRequest(id=order.id, reason="changed my mind", etag=order.etag, request_id=new_uuid())


def _watch_orders(world: World) -> Message:
    return orders.WatchOrdersRequest(user_id=world.order().user_id, resume_token=FROM_THE_BEGINNING)


REQUESTS: Final[Mapping[str, Callable[[World], Message]]] = {
    "CreateUser": _create_user,
    "GetUser": lambda world: users.GetUserRequest(id=world.user().id),
    "BatchGetUsers": _batch_get_users,
    "ListUsers": _list_users,
    "UpdateUser": _update_user,
    "ChangePassword": _change_password,
    # As an admin, who needs no password: a DELETE has no place for one.
    "DeleteUser": lambda world: users.DeleteUserRequest(id=world.user().id, request_id=new_uuid()),
    "CreateOrder": _create_order,
    "GetOrder": lambda world: orders.GetOrderRequest(id=world.order().id),
    "ListOrders": _list_orders,
    "UpdateOrderStatus": _update_order_status,
    "CancelOrder": _cancel_order,
    "ListOrderEvents": lambda world: orders.ListOrderEventsRequest(id=world.order().id, page_size=5),
    "WatchOrders": _watch_orders,
    "CreateSession": _create_session,
    "RefreshSession": _refresh_session,
    "DeleteSession": lambda _world: sessions.DeleteSessionRequest(id=new_uuid()),
    "GetJwks": lambda _world: sessions.GetJwksRequest(),
    "GetHealth": lambda _world: system.GetHealthRequest(),
}
"""A request that succeeds, for every method of the contract."""
