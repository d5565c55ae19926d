"""Limits of an address hold over several edges: real Envoys, Envoy's rate limit service, a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
import pytest
from redis import Redis

from chassis.service import services
from tests.limits.callers import (
    GRPC,
    GRPC_WEB,
    SHARED,
    Caller,
    Request,
    is_refused,
    over_grpc,
    request_of,
    until_a_window_has_time_left,
)
from tests.limits.servers import RATE_LIMIT, two_edges

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from devstack.redis import RedisServer
    from devstack.stack import Stack
    from envoy.limits import Limit
    from tests.limits.servers import RateLimiter, RunningEdge

READ: Final = Request(method="GET", path="/api/v1/users")
# These headers differ between the two answers: HTTP/1.1 closes a connection if it is answered before the request ends,
# and the counter, edge or limiter, sets the end of the window.
_OF_THE_ANSWER_ALONE: Final = {"date", "x-request-id", "connection", "x-ratelimit-reset"}


@pytest.mark.parametrize("limit", SHARED, ids=lambda limit: "-".join(limit.name or ("call",)))
def test_calls_spread_over_two_edges_are_limited_to_one_edges_limit(
    edges: tuple[RunningEdge, RunningEdge], caller: Caller, limit: Limit
) -> None:
    first, second = edges
    until_a_window_has_time_left(limit.window_s)

    let_in = caller.calls_let_in(first.url, second.url, request=request_of(limit), times=2 * limit.amount)

    assert let_in == limit.amount


def test_both_ports_of_an_edge_count_together(edges: tuple[RunningEdge, RunningEdge], caller: Caller) -> None:
    edge, _ = edges

    let_in = caller.calls_let_in(edge.url, edge.tls_url, request=READ, times=2 * RATE_LIMIT)

    assert let_in == RATE_LIMIT


def test_without_a_limiter_each_edge_counts_for_itself(stack: Stack, caller: Caller, tmp_path: Path) -> None:

    with two_edges(stack, tmp_path) as (first, second):
        let_in = caller.calls_let_in(first.url, second.url, request=READ, times=3 * RATE_LIMIT)

    assert let_in == 2 * RATE_LIMIT


def test_another_address_is_not_affected(edges: tuple[RunningEdge, RunningEdge], callers: Iterator[Caller]) -> None:
    first, second = edges

    next(callers).calls_let_in(first.url, second.url, request=READ, times=2 * RATE_LIMIT)
    let_in = next(callers).calls_let_in(first.url, second.url, request=READ, times=RATE_LIMIT)

    assert let_in == RATE_LIMIT


@pytest.mark.parametrize("request_", [READ, over_grpc(GRPC), over_grpc(GRPC_WEB)], ids=["rest", "grpc", "grpc-web"])
def test_a_refusal_of_the_limiters_is_the_edges_own(
    edges: tuple[RunningEdge, RunningEdge], caller: Caller, request_: Request
) -> None:
    first, second = edges
    caller.calls_let_in(first.url, second.url, request=READ, times=RATE_LIMIT)

    the_limiters = caller.call(first.url, request_)
    assert first.stat(r"cluster\..*\.ratelimit\.over_limit") > 0
    # Used up here as well, so that the edge refuses before it asks.
    caller.calls_let_in(first.url, request=READ, times=RATE_LIMIT)
    refused_before = first.stat(r"edge\.http_local_rate_limit\.rate_limited")
    the_edges = caller.call(first.url, request_)

    assert first.stat(r"edge\.http_local_rate_limit\.rate_limited") == refused_before + 1
    assert is_refused(the_limiters)
    assert parts_of(the_limiters) == parts_of(the_edges)
    assert 0 < int(the_limiters.headers["x-ratelimit-reset"]) <= 900


def parts_of(response: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    headers = {name: value for name, value in response.headers.items() if name not in _OF_THE_ANSWER_ALONE}
    return response.status_code, response.content, headers


def test_what_one_edge_refuses_costs_no_call_of_the_limiter(
    edges: tuple[RunningEdge, RunningEdge], caller: Caller
) -> None:
    edge, _ = edges
    before = asked(edge)

    caller.calls_let_in(edge.url, request=READ, times=3 * RATE_LIMIT)

    assert asked(edge) - before == RATE_LIMIT


def asked(edge: RunningEdge) -> int:
    return edge.stat(r"cluster\..*\.ratelimit\.(ok|over_limit|error)")


def test_every_key_in_redis_expires_within_the_hour(
    edges: tuple[RunningEdge, RunningEdge], redis: RedisServer, caller: Caller
) -> None:
    first, second = edges
    for limit in SHARED:
        caller.calls_let_in(first.url, second.url, request=request_of(limit), times=2)

    keys = commands(redis, "KEYS", "*")

    assert len(keys) >= len(SHARED)
    assert all(0 < int(commands(redis, "TTL", key)[0]) <= 3600 for key in keys)


def commands(redis: RedisServer, *words: str) -> list[str]:
    with Redis.from_url(redis.url, decode_responses=True) as client:
        answer = client.execute_command(*words)
    return [str(each) for each in answer] if isinstance(answer, list) else [str(answer)]


@pytest.mark.parametrize("who", ["edge", *(service.name for service in services()), ""])
def test_only_the_edge_may_ask_the_limiter(stack: Stack, limiter: RateLimiter, who: str) -> None:
    ca = stack.certificates.authority.read_bytes()
    own = stack.certificates.folder_of(who).path
    pair = [(own / name).read_bytes() for name in ("tls.key", "tls.crt")] if who else []
    options = (("grpc.enable_http_proxy", 0), ("grpc.default_authority", "rate-limiter"))
    target = f"{limiter.address.host}:{limiter.address.port}"

    with grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, *pair), options) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
        )
        with pytest.raises(grpc.RpcError) as refusal:
            ask(b"", timeout=10)

    code = refusal.value.code()
    # The empty question is refused by its reader.
    assert code is (grpc.StatusCode.UNKNOWN if who == "edge" else grpc.StatusCode.UNAVAILABLE)
