"""The table of access, and a valid request for every rpc: shared by the tests in process and at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.system.v1 import system_service_pb2
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as users_pb

from tests.support.requests import PASSWORD, create_order_request, create_user_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message
    from shop.user.v1.user_pb2 import User


@dataclass(frozen=True, slots=True)
class Subject:
    """A user with an order and a session."""

    owner: User
    order: order_pb2.Order
    session: sessions_pb.Session


# The resume token of a stream that delivers every change.
FROM_THE_BEGINNING = str(UUID(int=0))

CALLERS = ("anonymous", "other", "owner", "support", "admin", "service")

# The table of the contract, written down a second time: an option in a proto that says something else is a mistake.
ALLOWED = {
    "shop.user.v1.UserService.CreateUser": "everybody",
    "shop.user.v1.UserService.GetUser": "owner admin service",
    "shop.user.v1.UserService.BatchGetUsers": "admin service",
    "shop.user.v1.UserService.ListUsers": "admin",
    "shop.user.v1.UserService.UpdateUser": "owner admin",
    "shop.user.v1.UserService.ChangePassword": "owner",
    "shop.user.v1.UserService.DeleteUser": "owner admin",
    "shop.user.v1.SessionService.CreateSession": "everybody",
    "shop.user.v1.SessionService.RefreshSession": "everybody",
    "shop.user.v1.SessionService.DeleteSession": "owner admin",
    "shop.user.v1.SessionService.GetJwks": "everybody",
    "shop.order.v1.OrderService.CreateOrder": "owner support admin service",
    "shop.order.v1.OrderService.GetOrder": "owner support admin service",
    "shop.order.v1.OrderService.ListOrders": "owner support admin service",
    "shop.order.v1.OrderService.UpdateOrderStatus": "support admin service",
    "shop.order.v1.OrderService.CancelOrder": "owner support admin service",
    "shop.order.v1.OrderService.ListOrderEvents": "owner support admin service",
    "shop.order.v1.OrderService.WatchOrders": "owner support admin service",
    "shop.system.v1.SystemService.GetHealth": "everybody",
}

# Answers about another user's resource: the same as about one that does not exist.
NOTHING = "an empty answer"
FOREIGN = {
    "shop.user.v1.UserService.GetUser": "USER_NOT_FOUND",
    "shop.user.v1.UserService.UpdateUser": "USER_NOT_FOUND",
    "shop.user.v1.UserService.ChangePassword": "USER_NOT_FOUND",
    "shop.user.v1.UserService.DeleteUser": "USER_NOT_FOUND",
    "shop.user.v1.SessionService.DeleteSession": NOTHING,
    "shop.order.v1.OrderService.CreateOrder": "ORDERING_USER_NOT_FOUND",
    "shop.order.v1.OrderService.GetOrder": "ORDER_NOT_FOUND",
    "shop.order.v1.OrderService.ListOrders": NOTHING,
    "shop.order.v1.OrderService.CancelOrder": "ORDER_NOT_FOUND",
    "shop.order.v1.OrderService.ListOrderEvents": "ORDER_NOT_FOUND",
    "shop.order.v1.OrderService.WatchOrders": NOTHING,
}


def expected(method: str, caller: str) -> str:
    """Return what the contract has for this cell."""
    allowed = ALLOWED[method].split()
    if caller in allowed or allowed == ["everybody"]:
        return "OK"
    if caller == "anonymous":
        return "TOKEN_INVALID"
    if caller == "service" or "owner" not in allowed:
        return "ROLE_REQUIRED"
    return FOREIGN[method]


# By rpc, a valid request about the owner's resources; tests of FOREIGN replace the id.
REQUESTS: dict[str, Callable[[Subject], Message]] = {
    "shop.user.v1.UserService.CreateUser": lambda _: create_user_request(),
    "shop.user.v1.UserService.GetUser": lambda subject: users_pb.GetUserRequest(id=subject.owner.id),
    "shop.user.v1.UserService.BatchGetUsers": lambda subject: users_pb.BatchGetUsersRequest(ids=[subject.owner.id]),
    "shop.user.v1.UserService.ListUsers": lambda _: users_pb.ListUsersRequest(),
    "shop.user.v1.UserService.UpdateUser": lambda subject: users_pb.UpdateUserRequest(
        id=subject.owner.id, display_name="Eve was here"
    ),
    "shop.user.v1.UserService.ChangePassword": lambda subject: users_pb.ChangePasswordRequest(
        id=subject.owner.id, current_password=PASSWORD, new_password="another horse battery"
    ),
    "shop.user.v1.UserService.DeleteUser": lambda subject: users_pb.DeleteUserRequest(
        id=subject.owner.id, current_password=PASSWORD
    ),
    "shop.user.v1.SessionService.CreateSession": lambda subject: sessions_pb.CreateSessionRequest(
        email=subject.owner.email, password=PASSWORD
    ),
    "shop.user.v1.SessionService.RefreshSession": lambda subject: sessions_pb.RefreshSessionRequest(
        refresh_token=subject.session.refresh_token
    ),
    "shop.user.v1.SessionService.DeleteSession": lambda subject: sessions_pb.DeleteSessionRequest(
        id=subject.session.id
    ),
    "shop.user.v1.SessionService.GetJwks": lambda _: sessions_pb.GetJwksRequest(),
    "shop.order.v1.OrderService.CreateOrder": lambda subject: create_order_request(subject.owner.id),
    "shop.order.v1.OrderService.GetOrder": lambda subject: orders_pb.GetOrderRequest(id=subject.order.id),
    "shop.order.v1.OrderService.ListOrders": lambda subject: orders_pb.ListOrdersRequest(user_id=subject.owner.id),
    "shop.order.v1.OrderService.UpdateOrderStatus": lambda subject: orders_pb.UpdateOrderStatusRequest(
        id=subject.order.id, status=order_pb2.ORDER_STATUS_CONFIRMED
    ),
    "shop.order.v1.OrderService.CancelOrder": lambda subject: orders_pb.CancelOrderRequest(id=subject.order.id),
    "shop.order.v1.OrderService.ListOrderEvents": lambda subject: orders_pb.ListOrderEventsRequest(id=subject.order.id),
    "shop.order.v1.OrderService.WatchOrders": lambda subject: orders_pb.WatchOrdersRequest(
        user_id=subject.owner.id, resume_token=FROM_THE_BEGINNING
    ),
    "shop.system.v1.SystemService.GetHealth": lambda _: system_service_pb2.GetHealthRequest(),
}
