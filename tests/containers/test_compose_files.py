"""The compose files, as compose itself reads them."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from devstack import container_secrets
from devstack.settings import REPOSITORY
from tests.containers.engine import COMPOSE

if TYPE_CHECKING:
    from pathlib import Path

OURS = ["user-svc", "order-svc", "user-svc-migrate", "order-svc-migrate", "edge"]
pytestmark = pytest.mark.skipif(not COMPOSE.exists(), reason="make .tools/docker-compose builds it")


def _services(*files: str) -> dict[str, Any]:
    flags = [part for file in ("compose.yaml", *files) for part in ("--file", str(REPOSITORY / "docker" / file))]
    command = [str(COMPOSE), *flags, "config", "--format", "json"]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "level=warning" not in done.stderr
    return dict(json.loads(done.stdout)["services"])


@pytest.mark.parametrize("files", [(), ("compose.dev.yaml",), ("compose.prod.yaml",)])
def test_every_container_of_ours_is_locked_down(files: tuple[str, ...]) -> None:
    services = _services(*files)

    for name in OURS:
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
        assert not services[name].get("privileged")


def test_only_the_edge_is_published_and_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in _services().items() if "ports" in service}

    assert list(published) == ["edge"]
    assert {port["host_ip"] for port in published["edge"]} == {"127.0.0.1"}


def test_no_password_is_in_the_file() -> None:
    for name, service in _services().items():
        for variable, value in (service.get("environment") or {}).items():
            assert "PASSWORD" not in variable or variable.endswith("_FILE"), name
            assert "://" not in str(value).replace("dns:///", ""), (name, variable)


def test_every_secret_of_the_file_is_made(tmp_path: Path) -> None:
    container_secrets.prepare(tmp_path)

    wanted = {secret["source"] for service in _services().values() for secret in service.get("secrets", ())}
    assert wanted <= {path.name for path in tmp_path.iterdir()}


def test_in_production_every_service_has_three_replicas_limits_and_restarts() -> None:
    services = _services("compose.prod.yaml")

    for name in ("user-svc", "order-svc"):
        deploy = services[name]["deploy"]
        assert deploy["replicas"] == 3
        assert deploy["resources"]["limits"] == {"cpus": 0.5, "memory": str(512 * 1024**2)}
        assert deploy["resources"]["reservations"]["memory"] == str(256 * 1024**2)
        assert deploy["restart_policy"]["condition"] == "on-failure"
        assert {"delay", "max_attempts"} <= deploy["restart_policy"].keys()


def test_secrets_are_kept_until_their_file_is_removed(tmp_path: Path) -> None:
    container_secrets.prepare(tmp_path)
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}

    container_secrets.prepare(tmp_path)
    assert {path: path.read_text() for path in before} == before

    (tmp_path / "user_svc_password").unlink()
    container_secrets.prepare(tmp_path)

    assert (tmp_path / "user_svc_password").read_text() in (tmp_path / "user_svc_database_url").read_text()
    assert (tmp_path / "user_svc_password").read_text() != before[tmp_path / "user_svc_password"]
    assert (tmp_path / "keys_secret").read_text() == before[tmp_path / "keys_secret"]
