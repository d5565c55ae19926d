"""An order without its dependencies: the user service, the database."""

from __future__ import annotations

import asyncio
import re
import statistics
from typing import TYPE_CHECKING

import pytest
from grpc import aio
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.testing import new_uuid, refusal_of, until
from devstack.debug_channel import debug_credentials, debug_options
from tests.chaos import faults
from tests.chaos.clients import CallFailed, RestBuyer, rest_client
from tests.chaos.conftest import running_stack
from tests.chaos.record import now_s
from tests.chaos.traffic import Load, new_user, under_load
from tests.chaos.validation import until_counted, validate
from tests.services.order_svc.placing import create_order_request
from tests.services.order_svc.recovery import has_recovered
from tests.support.logins import admins_token
from tests.support.waiting import until as until_true

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from chassis.testing import Refusal
    from devstack.services import Replica
    from devstack.stack import Stack
    from tests.chaos.clients import SeenOrder
    from tests.chaos.report import Report

_FAIL_MAX = 5  # the product's default
_RESET_TIMEOUT_S = 2


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # The default of 60 s would be most of the time that all tests take.
    extra_env = {"order_svc": {"BREAKER_RESET_TIMEOUT_S": str(_RESET_TIMEOUT_S)}}
    home = tmp_path_factory.mktemp("dependencies") / "home"
    with running_stack(home, drain_s=0, extra_env=extra_env) as stack:  # no replica here is replaced in order
        yield stack


@pytest.fixture(scope="module")
def token(stack: Stack) -> str:
    """An admin's, from before anything was broken."""
    return admins_token(stack)


@pytest.fixture
async def buyer(stack: Stack, token: str) -> AsyncIterator[RestBuyer]:
    """A user who may order."""
    user_id = await new_user(stack.edge_url)
    async with rest_client(stack.edge_url, token=token) as http:
        yield RestBuyer(http, user_id)


@pytest.fixture
async def stranger(stack: Stack, token: str) -> AsyncIterator[RestBuyer]:
    """A user that the order service does not know."""
    async with rest_client(stack.edge_url, token=token) as http:
        yield RestBuyer(http, new_uuid())


@pytest.fixture
async def without_user_service(stack: Stack, buyer: RestBuyer) -> AsyncIterator[None]:
    """While the test runs the state of the buyer is unknown."""
    await faults.stop_service(stack, "user_svc")
    yield
    await faults.start_service(stack, "user_svc")
    await _as_before(stack, buyer)


async def _as_before(stack: Stack, buyer: RestBuyer) -> None:
    """Return when users and orders can be created again."""
    await _placed_again(buyer)
    for replica in stack.replicas("user_svc"):
        await faults.back_in_use(replica, stack=stack)
    # One order says something about one replica.
    await asyncio.to_thread(until_true, lambda: has_recovered(stack))


async def _failure_of(call: Awaitable[SeenOrder]) -> CallFailed:
    with pytest.raises(CallFailed) as failed:
        await call
    return failed.value


async def _placed_again(buyer: RestBuyer) -> None:
    """Return when an order can be placed."""

    async def is_placed() -> bool:
        try:
            await buyer.place(new_uuid())
        except CallFailed:
            return False
        return True

    await until(is_placed, timeout_s=20)


async def _asked_again(stranger: RestBuyer) -> None:
    """Return when the user service is asked, and does not know the stranger."""

    async def is_asked() -> bool:
        return "ORDERING_USER_NOT_FOUND" in (await _failure_of(stranger.place(new_uuid()))).outcome

    await until(is_asked, timeout_s=20)


def _channel_to(replica: Replica, *, stack: Stack) -> aio.Channel:
    """Return a channel to the replica itself, as an engineer who debugs it would make one."""
    return aio.secure_channel(
        replica.address, debug_credentials(stack.certificates), debug_options(replica.service.name)
    )


async def _refused_by(replica: Replica, *, stack: Stack, times: int) -> list[tuple[Refusal, float]]:
    """Return why the replica places no order, and how long it took to say so, once for each time it was asked."""
    answers = []
    async with _channel_to(replica, stack=stack) as channel:
        for _ in range(times):
            started_s = now_s()
            refusal = await refusal_of(OrderServiceStub(channel).CreateOrder(create_order_request(new_uuid())))
            answers.append((refusal, now_s() - started_s))
    return answers


async def _median_ms(call: Callable[[], Awaitable[object]]) -> float:
    durations = []
    for _ in range(51):
        started_s = now_s()
        await call()
        durations.append(now_s() - started_s)
    return statistics.median(durations) * 1000


async def test_five_failed_lookups_open_the_breaker_of_a_replica(
    stack: Stack, without_user_service: None, report: Report
) -> None:
    for replica in stack.replicas("order_svc"):
        answers = await _refused_by(replica, stack=stack, times=_FAIL_MAX + 51)

        closed, opened = answers[:_FAIL_MAX], answers[_FAIL_MAX:]
        assert {refusal.reason for refusal, _ in answers} == {"USER_SERVICE_UNAVAILABLE"}
        # Closed: "the next call may succeed", in 1 s. Open: the time that is left.
        assert [refusal.retry_after_s for refusal, _ in closed] == [1] * _FAIL_MAX
        assert opened[0][0].retry_after_s == pytest.approx(_RESET_TIMEOUT_S, abs=0.2)
        median_ms = statistics.median(duration_s for _, duration_s in opened) * 1000
        report.say(f"breaker open, at {replica.name}: median {median_ms:.1f} ms")
        assert median_ms < 50


async def test_an_open_breaker_answers_at_once_through_the_edge_too(
    stranger: RestBuyer, without_user_service: None, report: Report
) -> None:
    async def place() -> CallFailed:
        return await _failure_of(stranger.place(new_uuid()))

    for _ in range(4 * _FAIL_MAX):  # enough for both replicas
        await place()

    outcomes = {(await place()).outcome for _ in range(10)}
    assert outcomes == {"503 USER_SERVICE_UNAVAILABLE"}
    median_ms = await _median_ms(place)

    report.say(f"breaker open, through the edge: median {median_ms:.1f} ms")
    assert median_ms < 100


async def test_without_the_user_service_orders_of_known_users_are_placed_and_all_are_read_and_cancelled(
    stack: Stack, buyer: RestBuyer, stranger: RestBuyer, report: Report
) -> None:
    pids = [replica.pid for replica in stack.replicas("order_svc")]
    await faults.stop_service(stack, "user_svc")
    await _placed_again(buyer)  # its event may be on its way

    orders = [await buyer.place(new_uuid()) for _ in range(20)]
    for order in orders:
        failure = await _failure_of(stranger.place(new_uuid()))
        assert failure.outcome == "503 USER_SERVICE_UNAVAILABLE"
        assert failure.retry_after_s in {1, _RESET_TIMEOUT_S}
        assert await buyer.get(order.id) == order
        assert (await buyer.newest()).id == orders[-1].id
        assert (await buyer.cancel(order.id, new_uuid())).status == "CANCELLED"

    await faults.start_service(stack, "user_svc")
    back_s = now_s()
    await _asked_again(stranger)
    recovered_s = now_s() - back_s
    report.say(
        f"user service down: {len(orders)} orders of a known user, {len(orders)} x 503 for a stranger, "
        f"{3 * len(orders)} reads and cancels of {3 * len(orders)} answered; "
        f"asked again {recovered_s:.2f} s after it was back (reset timeout {_RESET_TIMEOUT_S} s)"
    )
    await _as_before(stack, buyer)
    assert recovered_s < _RESET_TIMEOUT_S + 2
    assert [replica.pid for replica in stack.replicas("order_svc")] == pids


async def test_a_killed_database_is_a_clean_error_and_loses_nothing(
    stack: Stack, token: str, rounds: range, report: Report
) -> None:
    assert stack.postgres
    outages_s, recoveries_s = [], []

    async with under_load(stack.edge_url, token=token, load=Load(patience_s=20)) as traffic:
        for _ in rounds:
            fault_s = now_s()
            await faults.kill_database(stack.postgres)
            outages_s.append(now_s() - fault_s)
            await traffic.goes_on(500)
            recoveries_s.append(traffic.record.recovered_after_s(fault_s))

    findings = validate(traffic.record, orders_url=stack.database_url("orders"))
    facts = f"database away for {max(outages_s):.2f} s, last failure after {max(recoveries_s):.2f} s"
    report.add("kill -9 PostgreSQL", traffic.record, findings, facts=facts)
    assert traffic.record.given_up == []
    assert findings.is_clean, findings
    assert traffic.record.failures
    for failure in traffic.record.failures:
        # The user service has lost its database too, so the state of the buyer is unknown.
        assert re.fullmatch(r"(503|UNAVAILABLE) (DATABASE|USER_SERVICE)_UNAVAILABLE", failure.outcome)
        assert failure.retry_after_s
    assert max(recoveries_s) < max(outages_s) + _RESET_TIMEOUT_S + 3


async def test_without_redis_no_call_fails_and_every_event_arrives_when_it_is_back(
    stack: Stack, token: str, report: Report
) -> None:
    redis = stack.redis
    if redis is None:
        pytest.skip("this machine has no redis-server")

    async with under_load(stack.edge_url, token=token) as traffic:
        await asyncio.to_thread(redis.process.stop)
        await traffic.goes_on()
        await asyncio.to_thread(redis.start)
        await traffic.goes_on()

    await until_counted(traffic.record, edge_url=stack.edge_url, token=token, timeout_s=30)
    findings = validate(traffic.record, orders_url=stack.database_url("orders"))
    report.add("Redis away", traffic.record, findings, facts=f"{len(traffic.record.placed)} orders counted")
    assert traffic.record.failed_outcomes() == {}
    assert traffic.record.errors == []
    assert findings.is_clean, findings
