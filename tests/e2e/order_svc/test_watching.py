"""WatchOrders through the edge: as server-sent events, over gRPC, over gRPC-Web, with the typed client."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import grpc
import httpx
import pytest
from shop.order.v1 import order_service_pb2 as orders
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.client import connect
from envoy.in_flight import STATS_PATH, calls_in_flight
from protos.client import connect_sync
from tests.e2e.callers import server_sent
from tests.e2e.contract import as_json
from tests.services.order_svc.placing import place_order
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shop.order.v1.order_pb2 import Order

    from devstack.stack import Stack
    from tests.e2e.callers import Edge
    from tests.e2e.contract import Json
    from tests.e2e.world import World

PATH: Final = "/api/v1/orders:watch"
RPC: Final = "/shop.order.v1.OrderService/WatchOrders"


def change_of(order: Order, messages: Iterator[Json]) -> Json:
    """Return the first change of the order, past heartbeats and what tests before this one may have changed."""
    changes = (message["change"] for message in messages if message.get("change"))
    return next(change for change in changes if change["orderId"] == order.id)


def test_rest_callers_get_server_sent_events(world: World, edge: Edge) -> None:
    compressed = {"accept-encoding": "gzip, br, zstd"}
    with edge.http.stream("GET", PATH, headers=compressed) as response:
        events = server_sent(response)
        first = next(events)
        order = place_order(world)
        change = change_of(order, events)

    assert response.headers["content-type"] == "text/event-stream"
    assert "content-encoding" not in response.headers  # which would wait for more to compress
    assert response.headers["cache-control"] == "no-store"
    assert first.keys() == {"resumeToken"}
    assert change == {
        "id": change["id"],
        "orderId": order.id,
        "userId": order.user_id,
        "fromStatus": "ORDER_STATUS_UNSPECIFIED",
        "toStatus": "ORDER_STATUS_PENDING",
        "etag": order.etag,
        "occurredAt": as_json(order)["updatedAt"],
    }


def test_grpc_callers_get_the_same(world: World, edge: Edge) -> None:
    stream: Any = OrderServiceStub(edge.channel).WatchOrders(orders.WatchOrdersRequest(), timeout=60)
    messages = map(as_json, stream)
    next(messages)
    order = place_order(world)

    change = change_of(order, messages)

    stream.cancel()
    assert (change["orderId"], change["etag"]) == (order.id, order.etag)


@pytest.mark.parametrize("content_type", ["application/grpc-web+proto", "application/grpc-web-text"])
def test_pages_get_the_same_by_grpc_web(world: World, edge: Edge, content_type: str) -> None:
    is_text = content_type.endswith("-text")
    request = b"\0\0\0\0\0"
    headers = {"content-type": content_type, "accept": content_type, "x-grpc-web": "1"}
    content = base64.b64encode(request) if is_text else request

    with edge.http.stream("POST", RPC, content=content, headers=headers) as response:
        messages = map(as_json, web_messages(response, is_text=is_text))
        next(messages)
        order = place_order(world)
        change = change_of(order, messages)

    assert response.headers["content-type"].startswith("application/grpc-web")
    assert (change["orderId"], change["etag"]) == (order.id, order.etag)


def web_messages(response: httpx.Response, *, is_text: bool) -> Iterator[orders.WatchOrdersResponse]:
    buffer = b""
    for chunk in response.iter_raw():
        buffer += base64.b64decode(chunk) if is_text else chunk
        while len(buffer) >= 5 and len(buffer) >= (end := 5 + int.from_bytes(buffer[1:5], "big")):
            assert buffer[0] == 0, buffer
            yield orders.WatchOrdersResponse.FromString(buffer[5:end])
            buffer = buffer[end:]


def test_the_typed_client_watches_with_its_own_token(world: World, edge: Edge) -> None:
    buyer = world.user()

    with connect_sync(edge.authority, token=world.token_of(buyer)) as channel:
        stream: Any = OrderServiceStub(channel).WatchOrders(orders.WatchOrdersRequest())
        next(stream)
        place_order(world)
        order = place_order(world, buyer.id)
        first = next(each for each in stream if each.HasField("change"))
        stream.cancel()

    assert first.change.order_id == order.id


@pytest.mark.parametrize("timeout_s", [0.1, 1, 2])
def test_a_stream_ends_at_its_callers_deadline_as_any_call_does(edge: Edge, timeout_s: float) -> None:
    stream: Any = OrderServiceStub(edge.channel).WatchOrders(orders.WatchOrdersRequest(), timeout=timeout_s)

    with pytest.raises(grpc.RpcError) as ended:
        list(stream)

    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_page_whose_stream_ends_at_its_deadline_is_told_so(edge: Edge) -> None:
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "grpc-timeout": "1S"}

    body = edge.http.post(RPC, content=b"\0\0\0\0\0", headers=headers).content

    assert b"DEADLINE_EXCEEDED" in body  # in the last message
    assert b"grpc-status:4" in body


async def test_the_typed_client_watches_under_asyncio(world: World, edge: Edge) -> None:
    async with connect(edge.authority, token=edge.token) as channel:
        stream = OrderServiceStub(channel).WatchOrders(orders.WatchOrdersRequest())
        first = await stream.read()
        stream.cancel()

    assert isinstance(first, orders.WatchOrdersResponse)
    assert first.resume_token


def test_a_quiet_stream_sends_heartbeats(world: World, edge: Edge) -> None:
    headers = {"authorization": f"Bearer {world.token_of(world.user())}"}
    with edge.http.stream("GET", PATH, headers=headers) as response:
        events = server_sent(response)
        heartbeats = [next(events) for _ in range(3)]

    assert all(each.keys() == {"resumeToken"} and each["resumeToken"] for each in heartbeats)


def test_streams_are_not_among_the_calls_that_an_edge_waits_for_before_it_stops(stack: Stack, edge: Edge) -> None:
    def stats() -> str:
        return httpx.get(f"{stack.edge.admin_url}{STATS_PATH}", trust_env=False).text

    with edge.http.stream("GET", PATH) as response:
        events = server_sent(response)  # kept: without it the response is closed
        next(events)
        until(lambda: "cluster.order_svc_streams.upstream_rq_active: 1" in stats())
        until(lambda: "http.edge.downstream_rq_active: 1" in stats())  # streams of tests before have ended

        assert calls_in_flight(stats()) == 0


def test_a_verb_or_a_parameter_that_is_not_there_is_refused(edge: Edge) -> None:
    by_post = edge.http.post(PATH)
    by_name = edge.http.get(PATH, params={"colour": "red"})

    assert (by_post.status_code, by_name.status_code) == (404, 400)
