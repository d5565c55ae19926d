"""One stack for the suite, in front of which tests put edges of their own."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest

from devstack.redis import RedisServer, find_redis
from devstack.settings import Settings
from devstack.stack import Stack
from envoy.limits import RATE_LIMIT_WINDOW_S
from tests.limits.callers import Caller, until_a_window_has_time_left
from tests.limits.servers import PROGRAM, RateLimiter, limits_of, two_edges
from tests.support.logins import NO_LIMITS, admins_token
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.limits.servers import RunningEdge

_ADDRESSES = (f"127.0.{high}.{low}" for high, low in itertools.product(range(100, 256), range(1, 255)))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not PROGRAM.exists():
        pytest.skip("Envoy's rate limit service is not there: `make rate-limiter` builds it (needs Go)")
    if find_redis() is None:
        pytest.skip("there is no redis-server: on Debian, apt-get install redis-server")
    home = tmp_path_factory.mktemp("stack")
    env = {"user_svc": {"ARGON2_MEMORY_KIB": "64", "SESSION_ACCESS_LIFETIME_S": "3600"}}
    settings = Settings(edge_port=free_port(), home=home, drain_s=0.2, replicas=1, **NO_LIMITS)
    with Stack(settings, extra_env=env) as stack:
        yield stack


@pytest.fixture(scope="session")
def token(stack: Stack) -> str:
    """The admin's, for reads that succeed."""
    return admins_token(stack)


@pytest.fixture(scope="module")
def redis(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    program = find_redis()
    assert program
    with contextlib.closing(RedisServer(program, tmp_path_factory.mktemp("redis"))) as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def limiter(stack: Stack, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RateLimiter]:
    folder = tmp_path_factory.mktemp("limiter")
    limits = limits_of(stack, folder / "unused")
    limiter = RateLimiter(redis, folder / "limits", limits=limits, certificates=stack.certificates)
    limiter.process.start()
    limiter.process.wait_ready()
    yield limiter
    limiter.process.stop()


@pytest.fixture(scope="module")
def edges(
    stack: Stack, limiter: RateLimiter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningEdge, RunningEdge]]:
    """Two edges that ask the limiter."""
    with two_edges(stack, tmp_path_factory.mktemp("edges"), rate_limiter=limiter.address) as edges:
        yield edges


@pytest.fixture
def callers(token: str) -> Iterator[Iterator[Caller]]:
    """Callers, each at a new address; not before a window has time left for a whole test."""
    until_a_window_has_time_left(RATE_LIMIT_WINDOW_S)
    with contextlib.ExitStack() as open_clients:

        def fresh() -> Iterator[Caller]:
            for address in _ADDRESSES:
                caller = Caller(address, token=token)
                open_clients.enter_context(caller.client)
                yield caller

        yield fresh()


@pytest.fixture
def caller(callers: Iterator[Caller]) -> Caller:
    """One of them."""
    return next(callers)
