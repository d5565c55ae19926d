"""Containers that stop or are killed under load."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from chassis.testing import until as until_async
from tests.chaos.traffic import Load, under_load
from tests.chaos.validation import validate
from tests.containers.engine import podman
from tests.containers.system import SERVICES

if TYPE_CHECKING:
    from tests.chaos.report import Report
    from tests.containers.engine import Container
    from tests.containers.system import ComposedSystem


@pytest.mark.parametrize("service", SERVICES)
async def test_stopping_a_container_fails_no_call(
    system: ComposedSystem, admin_token: str, service: str, report: Report
) -> None:
    async with under_load(system.edge_url, token=admin_token) as traffic:
        for container in system.containers(service):
            await asyncio.to_thread(podman, "stop", "--time", "30", container.name)
            assert container.state["ExitCode"] == 0
            podman("start", container.name)
            await _in_use(system, service)
            await traffic.goes_on()

    findings = validate(traffic.record, orders_url=system.database_url("orders"))
    report.add(f"podman stop {service}", traffic.record, findings)
    assert traffic.record.failed_outcomes() == {}, system.errors()
    assert traffic.record.errors == []
    assert findings.is_clean, findings


@pytest.mark.parametrize("service", SERVICES)
async def test_a_killed_container_heals(system: ComposedSystem, admin_token: str, service: str, report: Report) -> None:
    [container, *_] = system.containers(service)
    pid = container.pid

    async with under_load(system.edge_url, token=admin_token, load=Load(patience_s=10)) as traffic:
        os.kill(pid, signal.SIGKILL)
        await until_async(lambda: _is_back(container, pid), timeout_s=60)
        await _in_use(system, service)
        await traffic.goes_on()

    findings = validate(traffic.record, orders_url=system.database_url("orders"))
    report.add(f"kill -9 {service}", traffic.record, findings)
    assert traffic.record.failed_outcomes(writes=False) == {}
    assert traffic.record.errors == []
    assert findings.is_clean, findings


async def test_a_stopped_edge_finishes_the_calls_that_are_under_way(
    system: ComposedSystem, admin_token: str, report: Report
) -> None:
    [edge] = system.containers("edge")

    async with under_load(system.edge_url, token=admin_token, load=Load(patience_s=60)) as traffic:
        await asyncio.to_thread(podman, "stop", "--time", "30", edge.name)
        assert edge.state["ExitCode"] == 0
        podman("start", edge.name)
        await asyncio.to_thread(system.wait_healthy, "edge")
        await traffic.goes_on()

    findings = validate(traffic.record, orders_url=system.database_url("orders"))
    report.add("podman stop edge", traffic.record, findings)
    assert traffic.record.given_up == []
    assert findings.is_clean, findings


async def _is_back(container: Container, pid: int) -> bool:
    return await asyncio.to_thread(lambda: container.pid not in {0, pid})


async def _in_use(system: ComposedSystem, service: str) -> None:
    """Return when every container of the service serves and the edge has seen that: until then another is alone."""
    await asyncio.to_thread(system.wait_healthy, service)
    [edge] = system.containers("edge")
    cluster = service.replace("-", "_")
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9901/clusters').read().decode())"
    wanted = {container.address(f"{system.project}_services") for container in system.containers(service)}

    async def is_seen() -> bool:
        clusters = (await asyncio.to_thread(edge.run, "python", "-c", ask)).stdout
        return all(f"{cluster}::{address}:50051::health_flags::healthy\n" in clusters for address in wanted)

    await until_async(is_seen, timeout_s=30)
