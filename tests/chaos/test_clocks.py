"""Clocks that jump under load and are right again: of a replica, of relays and consumers, of PostgreSQL."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from chassis.service import services
from chassis.testing import until
from tests.chaos.clients import CallFailed, refusal, rest_client
from tests.chaos.clocks import LIBRARY, Clock, clean_up
from tests.chaos.conftest import ROUNDS, running_stack
from tests.chaos.followers import changes_of, following, until_told
from tests.chaos.record import now_s
from tests.chaos.traffic import Load, under_load
from tests.chaos.validation import until_counted, validate
from tests.chaos.wrapped import WrappedPostgres
from tests.support.logins import admins_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

    from devstack.stack import Stack
    from tests.chaos.report import Report

pytestmark = [
    pytest.mark.skipif(LIBRARY is None, reason="install Debian's libfaketime"),
    pytest.mark.timeout(300 * ROUNDS),  # libfaketime makes every process slower
]

_HOUR_S: Final = 3600
# The longest that there are, so that a token outlives a jump of an hour less one minute.
_TOKENS_LIVE_S: Final = 3600
_ALMOST_AN_HOUR_S: Final = _HOUR_S - 60
_NEAR_S: Final = 60
_WORKERS: Final = tuple(f"{service.name}-worker" for service in services() if service.has_worker)
_SERVERS: Final = tuple(f"{service.name}-1" for service in services())
_DATABASE: Final = "PostgreSQL"
_ALL: Final = list(product((*_SERVERS, "workers", _DATABASE), (_ALMOST_AN_HOUR_S, 2 * _HOUR_S, -_HOUR_S)))
# Ids of the future, tokens of the past, watermarks and timeouts of the past.
_EVERYDAY: Final = [
    ("order_svc-1", _ALMOST_AN_HOUR_S),
    ("user_svc-1", -_HOUR_S),
    ("workers", -_HOUR_S),
    (_DATABASE, -_HOUR_S),
]
# To a clock that is ahead a token has expired, to one that is behind it is yet to be issued.
_REFUSED: Final = r"(401|UNAUTHENTICATED) TOKEN_(EXPIRED|INVALID)"
# A process whose clock is behind rejects new certificates as not valid yet.
_UNAVAILABLE: Final = r"(503|UNAVAILABLE) [A-Z]+(_[A-Z]+)*_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class _World:
    stack: Stack
    clocks: Mapping[str, Clock]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    folder = tmp_path_factory.mktemp("clocks")
    clean_up()
    clocks = {name: Clock(folder / name) for name in (*_SERVERS, *_WORKERS, _DATABASE)}
    words = " ".join(f"{name}={value}" for name, value in clocks[_DATABASE].env.items())
    extra_env: dict[str, Mapping[str, str]] = {
        **{name: clock.env for name, clock in clocks.items() if name != _DATABASE},
        "user_svc": {"SESSION_ACCESS_LIFETIME_S": str(_TOKENS_LIVE_S)},
        "order_svc": {"BREAKER_RESET_TIMEOUT_S": "2"},
    }
    with (
        WrappedPostgres(folder / "postgres", wrapper=f"env {words}") as postgres,
        running_stack(folder / "home", drain_s=0, extra_env=extra_env, postgres=postgres) as stack,
    ):
        yield _World(stack, clocks)
    clean_up()


async def _has_jumped(world: _World, victim: str, *, ahead_s: int) -> bool:
    """Return whether the victim goes by its clock, as far as that is seen from outside."""
    if victim == "workers":
        return True  # they go by the same kind of file, and say nothing while all is well
    if victim == _DATABASE:
        with psycopg.connect(world.stack.database_url("orders")) as connection:
            [(seen,)] = connection.execute("SELECT clock_timestamp()").fetchall()
    else:
        log = world.stack.home.logs / f"{victim}.log"
        *_, newest = re.findall(r'"timestamp":"([^"]+)"', log.read_text())
        seen = datetime.fromisoformat(newest)
    return abs((seen - datetime.now(UTC)).total_seconds() - ahead_s) < _NEAR_S


async def _log_in_and_look(stack: Stack) -> str:
    """Log in, use the token once, and return the outcome."""
    async with rest_client(stack.edge_url) as http:
        credentials = {"email": stack.admin_email, "password": stack.admin_password}
        try:
            session = await _answer_to(http, "POST", "/api/v1/sessions", json=credentials)
            bearer = {"authorization": f"Bearer {session['accessToken']}"}
            await _answer_to(http, "GET", "/api/v1/orders", headers=bearer)
        except CallFailed as failure:
            return failure.outcome
    return "ok"


async def _answer_to(http: httpx.AsyncClient, method: str, path: str, **how: object) -> dict[str, str]:
    response = await http.request(method, path, **how)
    if not response.is_success:
        raise refusal(response)
    return dict(response.json())


@pytest.mark.parametrize(("victim", "ahead_s"), _ALL if ROUNDS > 1 else _EVERYDAY)
async def test_a_clock_that_jumps_loses_doubles_and_disorders_nothing(
    world: _World, victim: str, ahead_s: int, rounds: range, report: Report
) -> None:
    stack = world.stack
    jumping = [world.clocks[name] for name in (_WORKERS if victim == "workers" else (victim,))]
    token, before = admins_token(stack), len(changes_of(stack))
    logins: list[str] = []

    try:
        async with following(stack.edge_url, token=token) as followers:
            async with under_load(stack.edge_url, token=token, load=Load(patience_s=60)) as traffic:
                for _ in rounds:
                    for clock in jumping:
                        clock.set(ahead_s)
                    await until(lambda: _has_jumped(world, victim, ahead_s=ahead_s), timeout_s=30)
                    await traffic.goes_on(100)
                    logins += await asyncio.gather(*(_log_in_and_look(stack) for _ in range(6)))
                    for clock in jumping:
                        clock.set(0)
                    await until(lambda: _has_jumped(world, victim, ahead_s=0), timeout_s=30)
                    right_s = now_s()
                    await traffic.goes_on(100)
            written = changes_of(stack)[before:]
            await until_told(followers.values(), number=len(written))
        await until_counted(traffic.record, edge_url=stack.edge_url, token=token, timeout_s=30)
    finally:
        for clock in jumping:
            clock.set(0)

    record = traffic.record
    findings = validate(record, orders_url=stack.database_url("orders"))
    recovered_s = record.recovered_after_s(right_s)
    facts = f"{len(written)} changes watched; last failure {recovered_s:.2f} s after it was right; logins {set(logins)}"
    report.add(f"clock of {victim} {ahead_s / _HOUR_S:+.2f} h", record, findings, facts=facts)
    assert findings.is_clean, findings
    assert record.given_up == []
    assert {how: follower.told for how, follower in followers.items()} == dict.fromkeys(followers, written)
    typed = f"({_REFUSED})|({_UNAVAILABLE})|429 OVERLOADED"  # of hashes, on a slow machine
    assert [each.outcome for each in record.failures if not re.fullmatch(typed, each.outcome)] == []
    assert [outcome for outcome in logins if outcome != "ok" and not re.fullmatch(typed, outcome)] == []
    # Lists are by id, which is by the clock of the replica that made it.
    assert [each for each in record.failed_reads if " wrong" in each and victim != "order_svc-1"] == []
    if victim == "workers":
        assert record.failures == []
    if victim == _DATABASE:  # its timeouts go by the time of day, and may end a transaction when that jumps
        assert [each.outcome for each in record.failures if not re.fullmatch(_UNAVAILABLE, each.outcome)] == []
    assert recovered_s < 5
