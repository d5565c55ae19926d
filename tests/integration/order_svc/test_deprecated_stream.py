"""The edge's own answer to a deprecated rpc that is a stream, with no service behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.envoy.test_deprecation import edge_where_are_deprecated, said
from tests.integration.envoy.test_edge_config import reason_of
from tests.support.deprecated import headers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx


@pytest.fixture(scope="module")
def lonely_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with edge_where_are_deprecated(["WatchOrders"], tmp_path_factory.mktemp("edge")) as client:
        yield client


def test_a_refused_stream_says_over_rest_that_the_rpc_is_deprecated(lonely_edge: httpx.Client) -> None:
    response = lonely_edge.get("/api/v1/orders:watch")

    assert reason_of(response) == "SERVICE_UNAVAILABLE"
    assert said(response) == headers_of("Orders/watchOrders")


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc-web+proto"])
@pytest.mark.parametrize(("token", "status"), [({}, "14"), ({"authorization": ""}, "16")])
def test_so_does_a_refused_stream_over_grpc(
    lonely_edge: httpx.Client, kind: str, token: dict[str, str], status: str
) -> None:
    is_web = {"x-grpc-web": "1"} if "web" in kind else {}
    headers = {"content-type": kind, **is_web, **token}

    response = lonely_edge.post("/shop.order.v1.OrderService/WatchOrders", content=b"\0" * 5, headers=headers)

    assert response.headers["grpc-status"] == status
    assert said(response) == headers_of("Orders/watchOrders")
