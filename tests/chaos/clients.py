"""A buyer's calls through the edge: over REST, as a web page makes them, and over gRPC with the typed client."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import httpx
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.client import CallPolicy, connect, reason_of
from tests.services.order_svc.placing import create_order_request, order_item

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# The load repeats calls itself, so that each attempt is seen.
_NO_RETRIES = CallPolicy(timeout_s=15, max_attempts=1)
_TIMEOUT_S = 15
_LIST_SIZE = 5


class CallFailed(Exception):
    """A call had no answer, or an error for one."""

    def __init__(self, outcome: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class SeenOrder:
    """An order as an answer shows it."""

    id: str
    status: str


class Buyer(Protocol):
    """One user's calls. Each raises CallFailed."""

    async def place(self, request_id: str) -> SeenOrder: ...

    async def confirm(self, order_id: str, request_id: str) -> SeenOrder: ...

    async def cancel(self, order_id: str, request_id: str) -> SeenOrder: ...

    async def get(self, order_id: str) -> SeenOrder: ...

    async def newest(self) -> SeenOrder: ...


class RestBuyer:
    """Calls over HTTP/1.1, on one connection that is kept alive."""

    def __init__(self, http: httpx.AsyncClient, user_id: str) -> None:
        self._http = http
        self._user_id = user_id

    async def place(self, request_id: str) -> SeenOrder:
        body = {
            "userId": self._user_id,
            "currencyCode": "EUR",
            "items": [{"productId": request_id, "quantity": 1, "unitPrice": {"units": "12"}}],
        }
        return await self._order("POST", "/api/v1/orders", request_id=request_id, json=body)

    async def confirm(self, order_id: str, request_id: str) -> SeenOrder:
        body = {"status": "ORDER_STATUS_CONFIRMED"}
        return await self._order("PATCH", f"/api/v1/orders/{order_id}/status", request_id=request_id, json=body)

    async def cancel(self, order_id: str, request_id: str) -> SeenOrder:
        return await self._order("POST", f"/api/v1/orders/{order_id}:cancel", request_id=request_id, json={})

    async def get(self, order_id: str) -> SeenOrder:
        return await self._order("GET", f"/api/v1/orders/{order_id}")

    async def newest(self) -> SeenOrder:
        answer = await self._ask("GET", "/api/v1/orders", params={"userId": self._user_id, "pageSize": _LIST_SIZE})
        return _from_json(answer["orders"][0])

    async def _order(self, method: str, path: str, *, request_id: str = "", **how: Any) -> SeenOrder:
        headers = {"idempotency-key": request_id} if request_id else {}
        return _from_json(await self._ask(method, path, headers=headers, **how))

    async def _ask(self, method: str, path: str, **how: Any) -> Any:
        try:
            response = await self._http.request(method, path, **how)
        except httpx.TransportError as error:
            raise CallFailed(type(error).__name__) from error
        if response.is_success:
            return response.json()
        raise refusal(response)


class GrpcBuyer:
    """Calls with the generated stub on one HTTP/2 connection."""

    def __init__(self, channel: grpc.aio.Channel, user_id: str) -> None:
        self._stub = OrderServiceStub(channel)
        self._user_id = user_id

    async def place(self, request_id: str) -> SeenOrder:
        items = [order_item(product_id=request_id)]
        request = create_order_request(self._user_id, items=items, request_id=request_id)
        return await self._order(self._stub.CreateOrder(request))

    async def confirm(self, order_id: str, request_id: str) -> SeenOrder:
        status = order_pb2.ORDER_STATUS_CONFIRMED
        request = pb.UpdateOrderStatusRequest(id=order_id, status=status, request_id=request_id)
        return await self._order(self._stub.UpdateOrderStatus(request))

    async def cancel(self, order_id: str, request_id: str) -> SeenOrder:
        return await self._order(self._stub.CancelOrder(pb.CancelOrderRequest(id=order_id, request_id=request_id)))

    async def get(self, order_id: str) -> SeenOrder:
        return await self._order(self._stub.GetOrder(pb.GetOrderRequest(id=order_id)))

    async def newest(self) -> SeenOrder:
        request = pb.ListOrdersRequest(user_id=self._user_id, page_size=_LIST_SIZE)
        try:
            answer = await self._stub.ListOrders(request)
        except grpc.aio.AioRpcError as error:
            raise _grpc_failure(error) from error
        return _from_message(answer.orders[0])

    async def _order(self, call: grpc.aio.UnaryUnaryCall[Any, order_pb2.Order]) -> SeenOrder:
        try:
            return _from_message(await call)
        except grpc.aio.AioRpcError as error:
            raise _grpc_failure(error) from error


def refusal(response: httpx.Response) -> CallFailed:
    """Return what an answer over REST that is no success says."""
    details = response.json().get("details", [])
    reason = next((detail["reason"] for detail in details if "reason" in detail), "without a reason")
    retry_after = response.headers.get("retry-after")
    return CallFailed(f"{response.status_code} {reason}", retry_after_s=float(retry_after) if retry_after else None)


@contextlib.asynccontextmanager
async def rest_buyer(edge_url: str, user_id: str, *, token: str) -> AsyncIterator[Buyer]:
    """Connect a buyer over REST."""
    async with rest_client(edge_url, token=token) as http:
        yield RestBuyer(http, user_id)


@contextlib.asynccontextmanager
async def grpc_buyer(edge_url: str, user_id: str, *, token: str) -> AsyncIterator[Buyer]:
    """Connect a buyer over gRPC."""
    async with connect(edge_url.removeprefix("http://"), policy=_NO_RETRIES, token=token) as channel:
        yield GrpcBuyer(channel, user_id)


def rest_client(edge_url: str, *, token: str = "") -> httpx.AsyncClient:
    """Return a client with one connection, which no proxy of this machine comes between."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    limits = httpx.Limits(max_connections=1)
    return httpx.AsyncClient(base_url=edge_url, timeout=_TIMEOUT_S, limits=limits, trust_env=False, headers=headers)


def _grpc_failure(error: grpc.aio.AioRpcError) -> CallFailed:
    retry_after = dict(error.trailing_metadata() or ()).get("retry-after")
    reason = reason_of(error) or "without a reason"  # gRPC's own words: there was no answer
    return CallFailed(f"{error.code().name} {reason}", retry_after_s=float(retry_after) if retry_after else None)


def _from_json(order: dict[str, str]) -> SeenOrder:
    return SeenOrder(order["id"], order["status"].removeprefix("ORDER_STATUS_"))


def _from_message(order: order_pb2.Order) -> SeenOrder:
    return SeenOrder(order.id, order_pb2.OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_"))
