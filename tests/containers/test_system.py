"""The composed system: how its containers run, how they stop, and how they come back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from chassis.service import services
from devstack import container_secrets
from devstack.certificates import Certificates
from devstack.settings import REPOSITORY
from envoy.files import FILES
from tests.containers.engine import podman
from tests.containers.system import SERVICES, WORKERS
from tests.support.waiting import until

if TYPE_CHECKING:
    from envoy.files import File
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


def test_new_certificates_are_used_without_a_restart(system: ComposedSystem) -> None:
    pids = {container.name: container.pid for service in OURS for container in system.containers(service)}

    Certificates(system.secrets / "authority").rotate()
    container_secrets.prepare(system.secrets)

    for service in SERVICES:
        for container in system.containers(service):
            until(lambda name=container.name: "tls.renewed" in podman("logs", name), timeout_s=30)
    assert {container.name: container.pid for service in OURS for container in system.containers(service)} == pids
