"""A replica that hangs (SIGSTOP): its process is there and its connections are open, but it answers nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.chaos import faults
from tests.chaos.conftest import running_stack
from tests.chaos.open_loop import ask, call_at_a_pace, crowd
from tests.chaos.traffic import new_user
from tests.support.logins import admins_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devstack.stack import Stack
    from tests.chaos.report import Report

_READS_PER_S, _WRITES_PER_S = 50, 10
# Twice what the edge takes to find it by its health check, and less than the deadline of a call over REST.
_HANGS_S = 10

_READS = {"user_svc": "/api/v1/users/{0}", "order_svc": "/api/v1/orders?userId={0}"}
_WRITES = {"user_svc": ("PATCH", "/api/v1/users/{0}"), "order_svc": ("POST", "/api/v1/orders")}
_EFFECTS = {
    "user_svc": "SELECT version - 1 FROM users WHERE id = %s",
    "order_svc": "SELECT count(*) FROM orders WHERE user_id = %s",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("hanging") / "home") as stack:
        yield stack


@pytest.mark.parametrize("service", ["order_svc", "user_svc"])
async def test_while_one_of_two_replicas_hangs_reads_are_answered_and_no_write_is_sent_twice(
    service: str, stack: Stack, report: Report
) -> None:
    user_id = await new_user(stack.edge_url)
    item = {"productId": "a", "quantity": 1, "unitPrice": {"units": "12"}}
    body = {
        "user_svc": {"displayName": "Ada"},
        "order_svc": {"userId": user_id, "currencyCode": "EUR", "items": [item]},
    }
    verb, path = _WRITES[service]
    async with crowd(stack.edge_url, token=admins_token(stack)) as http:

        async def read() -> None:
            await ask(http, "GET", _READS[service].format(user_id))

        async def write() -> None:
            await ask(http, verb, path.format(user_id), json=body[service])

        before = await call_at_a_pace(read, per_s=_READS_PER_S, for_s=2)
        async with asyncio.TaskGroup() as loads, faults.hanging(stack.replicas(service)[0], stack=stack):
            reading = loads.create_task(call_at_a_pace(read, per_s=_READS_PER_S, for_s=_HANGS_S))
            writing = loads.create_task(call_at_a_pace(write, per_s=_WRITES_PER_S, for_s=_HANGS_S))
            await asyncio.sleep(_HANGS_S)  # how long the fault lasts
    reads, writes = reading.result(), writing.result()

    with psycopg.connect(stack.database_url("users" if service == "user_svc" else "orders")) as connection:
        row = connection.execute(_EFFECTS[service], [user_id]).fetchone()
    assert row
    report.say(
        f"{service} hangs for {_HANGS_S} s: reads {reads.latency()} (before: {before.latency()}); "
        f"writes {writes.latency()}"
    )
    assert reads.failed == {}
    # A second replica is asked after a second at most (ADR 34); the rest is what a read takes on this machine.
    assert reads.percentile_s(99) <= 1 + max(0.5, 5 * before.percentile_s(99))
    # The hanging replica does its calls when it continues; no other replica has done them meanwhile.
    assert writes.failed == {}
    assert row == (len(writes.calls),)
