"""Replicas that die, and replicas that are replaced, under load."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from tests.chaos import faults
from tests.chaos.conftest import running_stack
from tests.chaos.record import now_s
from tests.chaos.traffic import Load, under_load
from tests.chaos.validation import validate
from tests.support.logins import admins_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devstack.stack import Stack
    from tests.chaos.report import Report


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("replicas") / "home") as stack:
        yield stack


@pytest.mark.parametrize("service", ["order_svc", "user_svc"])
async def test_a_killed_replica_costs_no_read_and_doubles_no_write(
    service: str, stack: Stack, rounds: range, report: Report
) -> None:
    replicas = itertools.cycle(stack.replicas(service))
    recoveries_s = []

    async with under_load(stack.edge_url, token=admins_token(stack), load=Load(patience_s=10)) as traffic:
        for _ in rounds:
            fault_s = now_s()
            await faults.kill(next(replicas), stack=stack)
            await traffic.goes_on()
            recoveries_s.append(traffic.record.recovered_after_s(fault_s))

    findings = validate(traffic.record, orders_url=stack.database_url("orders"))
    report.add(f"kill -9 {service}", traffic.record, findings, facts=f"recovered in {max(recoveries_s):.2f} s")
    assert traffic.record.failed_outcomes(writes=False) == {}
    assert traffic.record.errors == []
    assert findings.is_clean, findings


@pytest.mark.parametrize("service", ["order_svc", "user_svc"])
async def test_stopping_a_replica_fails_no_call(service: str, stack: Stack, rounds: range, report: Report) -> None:
    replicas = itertools.cycle(stack.replicas(service))

    async with under_load(stack.edge_url, token=admins_token(stack)) as traffic:
        for _ in rounds:
            await faults.terminate(next(replicas), stack=stack)
            await traffic.goes_on()

    findings = validate(traffic.record, orders_url=stack.database_url("orders"))
    report.add(f"SIGTERM {service}", traffic.record, findings)
    assert traffic.record.failed_outcomes() == {}
    assert traffic.record.errors == []
    assert findings.is_clean, findings


async def test_a_rollout_of_both_services_fails_no_call(stack: Stack, rounds: range, report: Report) -> None:
    async with under_load(stack.edge_url, token=admins_token(stack)) as traffic:
        for _ in rounds:
            await asyncio.gather(*(faults.roll_out(stack, service) for service in stack.service_names))
            await traffic.goes_on()

    findings = validate(traffic.record, orders_url=stack.database_url("orders"))
    report.add("rollout", traffic.record, findings)
    assert traffic.record.failed_outcomes() == {}
    assert traffic.record.errors == []
    assert findings.is_clean, findings


async def test_a_restart_of_the_only_edge_costs_connections_and_doubles_no_write(
    stack: Stack, rounds: range, report: Report
) -> None:
    recoveries_s = []

    async with under_load(stack.edge_url, token=admins_token(stack), load=Load(patience_s=20)) as traffic:
        for _ in rounds:
            fault_s = now_s()
            await faults.restart_edge(stack)
            await traffic.goes_on()
            recoveries_s.append(traffic.record.recovered_after_s(fault_s))

    findings = validate(traffic.record, orders_url=stack.database_url("orders"))
    report.add("edge restarted", traffic.record, findings, facts=f"last failure after {max(recoveries_s):.2f} s")
    assert traffic.record.given_up == []
    assert findings.is_clean, findings
