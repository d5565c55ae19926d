"""Callers with an address of their own, and one request for each limit that the limiter counts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx

from envoy.limits import limits
from tests.limits.servers import PUBLIC_WRITE_LIMIT, RATE_LIMIT
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envoy.limits import Limit

GRPC: Final = {"content-type": "application/grpc", "te": "trailers"}
GRPC_WEB: Final = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
_RESOURCE_EXHAUSTED: Final = "8"

SHARED: Final = tuple(
    limit for limit in limits(rate_limit=RATE_LIMIT, public_write_limit=PUBLIC_WRITE_LIMIT) if limit.is_shared
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that counts for a limit, and for no stricter one."""

    method: str
    path: str
    headers: Mapping[str, str] | None = None
    content: bytes = b""


_TIME_FOR_A_TEST_S: Final = 20

_REQUESTS: Final = {
    None: Request(method="GET", path="/api/v1/users"),
    ("limit", "public_write"): Request(
        method="POST", path="/api/v1/sessions", headers={"content-type": "application/json"}, content=b"{}"
    ),
    ("health", "question"): Request(method="GET", path="/health"),
}


def request_of(limit: Limit) -> Request:
    """Return a request that counts for the limit.

    Raises:
        KeyError: there is none for it yet.
    """
    return _REQUESTS[limit.name]


def over_grpc(headers: Mapping[str, str]) -> Request:
    """Return a read over gRPC or gRPC-Web: an empty message."""
    return Request(method="POST", path="/shop.user.v1.UserService/GetUser", headers=headers, content=bytes(5))


def until_a_window_has_time_left(window_s: int) -> None:
    """Return when the current window lasts longer than a test calls: each window counts anew."""
    until(lambda: time.time() % window_s < window_s - _TIME_FOR_A_TEST_S, timeout_s=2 * _TIME_FOR_A_TEST_S)


class Caller:
    """A client that calls from one address, with a token."""

    def __init__(self, address: str, *, token: str) -> None:
        # The certificate of the TLS port is not what is tested here.
        transport = httpx.HTTPTransport(local_address=address, verify=False)
        self.client: Final = httpx.Client(transport=transport, headers={"authorization": f"Bearer {token}"}, timeout=30)

    def call(self, url: str, request: Request) -> httpx.Response:
        """Return what the edge at this URL answers."""
        return self.client.request(
            request.method, f"{url}{request.path}", headers=request.headers, content=request.content
        )

    def calls_let_in(self, *urls: str, request: Request, times: int) -> int:
        """Send calls in turn to each URL; return how many were admitted."""
        return sum(not is_refused(self.call(urls[number % len(urls)], request)) for number in range(times))


def is_refused(response: httpx.Response) -> bool:
    """Whether the answer says that there were too many calls."""
    return response.status_code == httpx.codes.TOO_MANY_REQUESTS or (
        response.headers.get("grpc-status") == _RESOURCE_EXHAUSTED
    )
