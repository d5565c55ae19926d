"""The limiter, as the chart deploys it, with a Redis that speaks TLS only and wants a password."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import pytest

from tests.failover_redis.servers import Server, made_certificates
from tests.helm.chart import pods
from tests.limits.callers import Request
from tests.limits.servers import RATE_LIMIT, RateLimiter, limits_of, two_edges
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from devstack.stack import Stack
    from tests.limits.callers import Caller

READ: Final = Request(method="GET", path="/api/v1/users")
PASSWORD: Final = "canary-of-the-limiter"


@pytest.fixture(scope="module")
def env(tls: Path) -> Mapping[str, str]:
    """The environment of the chart's container, with these tests' certificate authority and without the password."""
    [limiter] = [spec for name, spec in pods("limits") if name == "rate-limiter"]
    [container] = limiter["containers"]
    values = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    return {**values, "REDIS_TLS_CACERT": str(tls / "ca.crt")}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def redis(tls: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "redis", {"requirepass": PASSWORD, "save": '""'}, tls=tls)
    server.process.start()
    server.process.wait_ready()
    yield server
    server.process.stop()


@pytest.mark.parametrize("login", [PASSWORD, f"default:{PASSWORD}"], ids=["password", "user and password"])
def test_two_edges_are_counted_together(
    stack: Stack,
    redis: Server,
    env: Mapping[str, str],
    callers: Iterator[Caller],
    tmp_path: Path,
    login: str,
) -> None:
    with (
        running_limiter(stack, redis, tmp_path / "limiter", env={**env, "REDIS_AUTH": login}) as limiter,
        two_edges(stack, tmp_path, rate_limiter=limiter.address) as (first, second),
    ):
        until(lambda: first.asks_the_limiter and second.asks_the_limiter, timeout_s=30)

        let_in = next(callers).calls_let_in(first.url, second.url, request=READ, times=2 * RATE_LIMIT)

    assert let_in == RATE_LIMIT
    assert {key.startswith(env["CACHE_KEY_PREFIX"]) for key in redis.ask("KEYS", "*")} == {True}


def test_a_redis_whose_certificate_an_unknown_authority_signed_gets_neither_password_nor_keys(
    stack: Stack, redis: Server, env: Mapping[str, str], callers: Iterator[Caller], tmp_path: Path
) -> None:
    another = made_certificates(tmp_path / "another")
    secrets = {"REDIS_AUTH": PASSWORD, "REDIS_TLS_CACERT": str(another / "ca.crt")}
    with (
        running_limiter(stack, redis, tmp_path / "limiter", env={**env, **secrets}) as limiter,
        two_edges(stack, tmp_path, rate_limiter=limiter.address) as (first, second),
    ):
        let_in = next(callers).calls_let_in(first.url, second.url, request=READ, times=3 * RATE_LIMIT)

    assert let_in == 2 * RATE_LIMIT
    assert redis.ask("KEYS", "*") == []
    assert "tls: failed to verify certificate" in (tmp_path / "limiter" / "rate-limiter.log").read_text()


@contextlib.contextmanager
def running_limiter(stack: Stack, redis: Server, folder: Path, *, env: Mapping[str, str]) -> Iterator[RateLimiter]:
    limits = limits_of(stack, folder.parent / "unused")
    limiter = RateLimiter(redis, folder, limits=limits, certificates=stack.certificates, env=env)
    limiter.process.start()
    try:
        yield limiter
    finally:
        limiter.process.stop()
