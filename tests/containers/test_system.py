"""The composed system: how its containers run, how they stop, and how they come back."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from chassis.service import services
from chassis.testing import until as until_async
from devstack import container_secrets
from devstack.certificates import Certificates
from devstack.settings import REPOSITORY
from envoy.files import FILES
from tests.chaos.traffic import Load, under_load
from tests.chaos.validation import validate
from tests.containers.engine import podman
from tests.containers.system import SERVICES, WORKERS
from tests.support.waiting import until

if TYPE_CHECKING:
    from envoy.files import File
    from tests.chaos.report import Report
    from tests.containers.engine import Container
    from tests.containers.system import ComposedSystem

OURS = [*SERVICES, *WORKERS, "edge"]
pytestmark = pytest.mark.timeout(300)


def _status(container: Container) -> dict[str, str]:
    lines = Path(f"/proc/{container.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("service", OURS)
def test_process_1_runs_as_an_unprivileged_user_without_capabilities(system: ComposedSystem, service: str) -> None:
    for container in system.containers(service):
        status = _status(container)

        assert set(status["Uid"].split()) == {"10001"}
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("service", OURS)
def test_the_root_file_system_is_read_only(system: ComposedSystem, service: str) -> None:
    for container in system.containers(service):
        written = container.run("python", "-c", "open('/app/x', 'w')")

        assert "Read-only file system" in written.stderr


def test_each_service_is_given_its_own_secrets_alone(system: ComposedSystem) -> None:
    servers = {service: system.containers(service.host)[0] for service in services()}

    for service, server in servers.items():
        assert sorted(server.run("ls", "/run/secrets").stdout.split()) == sorted(["DATABASE_URL", *service.secrets])
    workers = [container for name in WORKERS for container in system.containers(name)]
    for worker in workers:
        assert sorted(worker.run("ls", "/run/secrets").stdout.split()) == ["DATABASE_URL", "REDIS_URL"]
    for container in (*servers.values(), *workers):
        assert not re.search("(postgresql|redis)://", str(container.facts()))


def test_postgres_and_redis_are_out_of_reach_of_the_edge(system: ComposedSystem) -> None:
    [edge] = system.containers("edge")

    found = edge.run("python", "-c", "import socket; socket.getaddrinfo('postgres', 5432)")

    assert found.returncode != 0
    assert "gaierror" in found.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)
def test_the_files_of_the_page_are_in_the_image(system: ComposedSystem, file: File) -> None:
    answer = httpx.get(f"{system.edge_url}{file.path}", timeout=30, trust_env=False)

    assert answer.status_code == 200
    assert answer.headers["etag"] == file.etag
    assert answer.content == (REPOSITORY / file.source).read_bytes()


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


def test_new_certificates_are_used_without_a_restart(system: ComposedSystem) -> None:
    pids = {container.name: container.pid for service in OURS for container in system.containers(service)}

    Certificates(system.secrets / "authority").rotate()
    container_secrets.prepare(system.secrets)

    for service in SERVICES:
        for container in system.containers(service):
            until(lambda name=container.name: "tls.renewed" in podman("logs", name), timeout_s=30)
    assert {container.name: container.pid for service in OURS for container in system.containers(service)} == pids


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
