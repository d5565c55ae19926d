"""How the edge's configuration treats the streams of orders."""

from __future__ import annotations

from tests.integration.envoy.test_edge_config import ENVIRONMENTS, addresses, configuration, routes


def test_streams_last_longer_than_calls_and_do_not_count_among_them() -> None:
    edge = ENVIRONMENTS["laptop"]
    path = "/shop.order.v1.OrderService/WatchOrders"
    clusters = {each["name"]: each for each in configuration(edge)["static_resources"]["clusters"]}

    over_grpc, *others = [each for each in routes(edge) if each["match"].get("path") == path]
    over_rest = [each for each in routes(edge) if "orders:watch" in str(each["match"])]

    assert over_grpc["route"]["cluster"] == "order_svc_streams"
    assert over_grpc["route"]["max_stream_duration"] == {"max_stream_duration": "3660s"}
    assert all(each["route"] == over_grpc["route"] for each in others)
    assert over_rest
    assert all("'key': 'grpc-timeout', 'value': '3660S'" in str(each) for each in over_rest)
    of_calls, of_streams = clusters["order_svc"], clusters["order_svc_streams"]
    assert addresses(of_streams) == addresses(of_calls)
    assert of_streams["circuit_breakers"]["thresholds"][0]["max_requests"] == 10_000
    assert of_calls["circuit_breakers"]["thresholds"][0]["max_requests"] == 1024
    assert "user_svc_streams" not in clusters
