"""Checks of answers with real clients before and after a load, because load generators do not check them."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
import httpx
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1.user_service_pb2 import GetUserRequest
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import bearer, new_uuid
from tests.perf import dataset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shop.order.v1.order_pb2 import Order
    from shop.order.v1.order_service_pb2 import CreateOrderRequest
    from shop.user.v1.user_pb2 import User

_ASKED: Final = 20
_TIMEOUT_S: Final = 10
_Code: TypeAlias = grpc.StatusCode


class WrongAnswer(Exception):
    """A system does not do what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcTarget:
    """A server that is asked over gRPC.

    Attributes:
        address: host:port.
        token: an admin's access token; empty for systems that need none.
        certificates: the caller's, for mutual TLS; None for clear text.
        server_name: in the server's certificate.
    """

    address: str
    token: str = field(default="", repr=False)
    certificates: Path | None = None
    server_name: str = ""

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """Connect while the block runs."""
        options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
        if self.certificates is None:
            with grpc.insecure_channel(self.address, options) as channel:
                yield channel
            return
        ca, key, certificate = ((self.certificates / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
        options.append(("grpc.ssl_target_name_override", self.server_name))
        with grpc.secure_channel(self.address, grpc.ssl_channel_credentials(ca, key, certificate), options) as channel:
            yield channel

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of each call."""
        return bearer(self.token) if self.token else ()


def user_over_grpc(target: GrpcTarget, number: int = 1) -> User:
    """Return the user that was loaded with this number."""
    with target.channel() as channel:
        request = GetUserRequest(id=dataset.user_id(number))
        return UserServiceStub(channel).GetUser(request, metadata=target.metadata, timeout=_TIMEOUT_S)


def order_over_grpc(target: GrpcTarget) -> Order:
    """Place an order of the user with number 7, and return it."""
    with target.channel() as channel:
        request = _order(dataset.user_id(7))
        return OrderServiceStub(channel).CreateOrder(request, metadata=target.metadata, timeout=_TIMEOUT_S)


def grpc_reads(target: GrpcTarget) -> None:
    """Check that users are found, each the right one.

    Raises:
        WrongAnswer: they are not. So do all below.
    """
    for number in _some_numbers():
        user = user_over_grpc(target, number)
        _require((user.id, user.email) == (dataset.user_id(number), _email(number)), user)


def grpc_writes(target: GrpcTarget) -> None:
    """Check that orders are placed with the right total, and refused without an existing buyer."""
    with target.channel() as channel:
        place = OrderServiceStub(channel).CreateOrder
        order = place(_order(dataset.user_id(7)), metadata=target.metadata, timeout=_TIMEOUT_S)
        _require((order.user_id, order.total_amount.units) == (dataset.user_id(7), 25), order)
        try:
            place(_order(new_uuid()), metadata=target.metadata, timeout=_TIMEOUT_S)
        except grpc.RpcError as refused:
            _require(refused.code() is grpc.StatusCode.FAILED_PRECONDITION, refused)
        else:
            raise WrongAnswer(f"{target.address} takes orders of nobody")


def rest_reads(url: str, *, token: str) -> None:
    """Check that users are found over REST, each the right one, with all that there is to know."""
    with _client(url, token) as http:
        for number in _some_numbers():
            user = http.get(f"/api/v1/users/{dataset.user_id(number)}").raise_for_status().json()
            _require((user["id"], user["email"]) == (dataset.user_id(number), _email(number)), user)
            _require({"displayName", "profile", "state", "roles", "createdAt", "updatedAt", "etag"} <= set(user), user)


def rest_is_empty(url: str) -> None:
    """Check that each request over REST has the ready user or order for an answer, also without a token."""
    with _client(url, "") as http:
        user = http.get(f"/api/v1/users/{dataset.user_id(7)}").raise_for_status().json()
        _require((user["id"], user["email"]) == (dataset.user_id(1), _email(1)), user)
        body = dataset.order_json(dataset.user_id(8))
        first, second = (http.post("/api/v1/orders", json=body).raise_for_status().json() for _ in range(2))
        _require(first == second and first["userId"] == dataset.user_id(7), first)


def rest_writes(url: str, *, token: str, is_peer: bool) -> None:
    """Check that orders are placed over REST with the right total, and refused without an existing buyer."""
    body = dataset.peer_order_json if is_peer else dataset.order_json
    with _client(url, token) as http:
        placed = http.post("/api/v1/orders", json=body(dataset.user_id(7)))
        order: Any = placed.json()
        total = order["totalAmount"] if is_peer else int(order["totalAmount"]["units"])
        _require((placed.status_code, order["userId"], total) == (201, dataset.user_id(7), 25), order)
        refused = http.post("/api/v1/orders", json=body(new_uuid()))
        _require(refused.status_code == 400, refused.text)


def rest_does_the_same(url: str, *, token: str) -> None:
    """Check what the peers that do the shop's work do as it does: tokens, validation, and each order once."""
    user = f"/api/v1/users/{dataset.user_id(7)}"
    for wrong in ("", f"{token[:-8]}AAAAAAAA"):
        with _client(url, wrong) as http:
            _require(http.get(user).status_code == 401, f"{url} reads with the token {wrong!r}")
            placed = http.post("/api/v1/orders", json=dataset.order_json(dataset.user_id(7)))
            _require(placed.status_code == 401, f"{url} takes orders with the token {wrong!r}")
    with _client(url, token) as http:
        key, order = {"idempotency-key": new_uuid()}, dataset.order_json(dataset.user_id(7))
        first, again = (http.post("/api/v1/orders", json=order, headers=key) for _ in range(2))
        _require((first.status_code, again.status_code) == (201, 201), again.text)
        _require(first.json() == again.json(), (first.text, again.text))
        other = dataset.order_json(dataset.user_id(8))
        reused = http.post("/api/v1/orders", json=other, headers=key)
        _require((reused.status_code, _reason(reused)) == (409, "REQUEST_ID_REUSED"), reused.text)
        invalid = http.post("/api/v1/orders", json={**order, "items": [{**order["items"][0], "quantity": 0}]})
        _require((invalid.status_code, _reason(invalid)) == (400, "INVALID_FIELDS"), invalid.text)


def grpc_needs_tokens(users: GrpcTarget, orders: GrpcTarget) -> None:
    """Check that a call without a token is refused, whatever certificate it comes with."""
    _require_code(users, GetUserRequest(id=dataset.user_id(7)), _Code.UNAUTHENTICATED, token="")
    _require_code(orders, _order(dataset.user_id(7)), _Code.UNAUTHENTICATED, token="")


def grpc_places_once(orders: GrpcTarget) -> None:
    """Check that an order is validated, and placed once for its request id."""
    order = _order(dataset.user_id(7))
    with orders.channel() as channel:
        place = OrderServiceStub(channel).CreateOrder
        first, again = (place(order, metadata=orders.metadata, timeout=_TIMEOUT_S) for _ in range(2))
    _require(first == again, (first, again))
    order.items[0].quantity = 3
    _require_code(orders, order, _Code.ALREADY_EXISTS, token=orders.token)
    order.items[0].quantity = 0
    _require_code(orders, order, _Code.INVALID_ARGUMENT, token=orders.token)


def _require_code(target: GrpcTarget, request: GetUserRequest | CreateOrderRequest, code: _Code, *, token: str) -> None:
    """Check the status of a call with this token."""
    with target.channel() as channel:
        call: Any = UserServiceStub(channel).GetUser
        if not isinstance(request, GetUserRequest):
            call = OrderServiceStub(channel).CreateOrder
        try:
            answer = call(request, metadata=bearer(token) if token else (), timeout=_TIMEOUT_S)
        except grpc.RpcError as refused:
            _require(refused.code() is code, f"{target}, {request}: {refused.code()} for {code}")
        else:
            raise WrongAnswer(f"{target}, {request}: {answer} for {code}")


def _reason(answer: httpx.Response) -> str:
    """Return the reason of a refusal: the shop's is among the details, as google.rpc.ErrorInfo."""
    body = answer.json()
    details = [each for each in body.get("details") or [] if "reason" in each]
    return str(body.get("reason") or (details[0]["reason"] if details else ""))


def _client(url: str, token: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=False)


def _order(buyer: str) -> CreateOrderRequest:
    message = dataset.order_message(buyer)
    message.request_id = new_uuid()
    return message


def _some_numbers() -> list[int]:
    return random.sample(range(1, dataset.USERS + 1), _ASKED)


def _email(number: int) -> str:
    return f"user{number}@example.com"


def _require(is_right: bool, answer: object) -> None:  # noqa: FBT001  reads like an assert
    if not is_right:
        raise WrongAnswer(str(answer))
