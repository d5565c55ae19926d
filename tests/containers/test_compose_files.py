"""The compose files, as compose itself reads them."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack import container_secrets
from devstack.settings import REPOSITORY
from envoy.environments import METRICS_PORT
from tests.containers.engine import COMPOSE
from tests.containers.system import SERVICES, WORKERS

OURS = [*SERVICES, *(f"{name}-migrate" for name in SERVICES), *WORKERS, "edge"]
LIMITER = ["redis-limits", "rate-limiter-config", "rate-limiter"]
PAGES = ["prometheus", "jaeger", "grafana"]
pytestmark = pytest.mark.skipif(not COMPOSE.exists(), reason="make .tools/docker-compose builds it")


def _services(*files: str) -> dict[str, Any]:
    flags = [part for file in ("compose.yaml", *files) for part in ("--file", str(REPOSITORY / "docker" / file))]
    command = [str(COMPOSE), *flags, "config", "--format", "json"]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "level=warning" not in done.stderr
    return dict(json.loads(done.stdout)["services"])


@pytest.mark.parametrize(
    "file", ["", "compose.dev.yaml", "compose.prod.yaml", "compose.observe.yaml", "compose.limits.yaml"]
)
def test_every_container_of_ours_is_locked_down(file: str) -> None:
    services = _services(*filter(None, [file]))
    more = {"compose.observe.yaml": PAGES, "compose.limits.yaml": LIMITER}

    for name in OURS + more.get(file, []):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
        assert not services[name].get("privileged")


def test_only_the_edge_is_published_and_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in _services().items() if "ports" in service}

    assert list(published) == ["edge"]
    assert {port["host_ip"] for port in published["edge"]} == {"127.0.0.1"}


def test_the_pages_are_published_on_loopback_and_know_no_password() -> None:
    base, services = _services(), _services("compose.observe.yaml")

    assert services.keys() - base.keys() == set(PAGES)
    for name in PAGES:
        assert {port["host_ip"] for port in services[name]["ports"]} == {"127.0.0.1"}
        assert "@sha256:" in services[name]["image"]
        # A container that shared two networks with the edge would find two addresses, and count it twice.
        assert len(services[name]["networks"].keys() & services["edge"]["networks"].keys()) <= 1
        assert not any("PASSWORD" in variable for variable in services[name].get("environment") or {})


def test_traces_go_to_where_they_are_taken_and_nothing_else_changes() -> None:
    base, services = _services(), _services("compose.observe.yaml")
    to = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4317"}

    assert services["edge"]["command"] == base["edge"]["command"]
    assert services["edge"]["environment"] == {"EDGE_TRACES_TO": "jaeger:4317", "EDGE_TRACE_SAMPLING": "100"}
    for name in (*SERVICES, *WORKERS):
        assert services[name]["environment"] == base[name]["environment"] | to
        assert services[name]["networks"].keys() & services["jaeger"]["networks"].keys() == {"services"}


def test_the_edge_and_its_limiter_have_the_same_limits_and_nothing_else_changes() -> None:
    base, services = _services(), _services("compose.limits.yaml")

    assert services.keys() - base.keys() == set(LIMITER)
    given = base["edge"]["command"]
    assert services["edge"]["command"] == given
    assert services["edge"]["environment"] == {"EDGE_RATE_LIMITER": "rate-limiter:8081"}
    assert services["rate-limiter-config"]["image"] == services["edge"]["image"]
    options = {"--environment", "--rate-limit", "--public-write-limit"}
    limits = [each for each in given if each.split("=")[0] in options]
    assert services["rate-limiter-config"]["command"] == [*limits, "--into=/etc/limits/config/limits.yaml"]


def test_files_add_to_one_another_in_any_order() -> None:
    more = ("compose.prod.yaml", "compose.observe.yaml", "compose.limits.yaml")
    alone = [_services(file)["edge"] for file in more]

    for files in itertools.permutations(more):
        edge = _services(*files)["edge"]
        assert edge["command"] == _services()["edge"]["command"]
        assert edge["environment"] == {**alone[1]["environment"], **alone[2]["environment"]}


def test_the_limiters_redis_is_reached_by_the_limiter_alone() -> None:
    services = _services("compose.limits.yaml")

    assert list(services["redis-limits"]["networks"]) == ["limits"]
    assert [name for name, each in services.items() if "limits" in (each.get("networks") or {})] == [
        "rate-limiter",
        "redis-limits",
    ]
    assert not any("ports" in services[name] for name in LIMITER)
    assert "--maxmemory-policy" in services["redis-limits"]["command"]


def test_prometheus_fetches_from_every_process_at_its_port() -> None:
    services = _services("compose.observe.yaml")
    config = yaml.safe_load((REPOSITORY / "docker" / "observe" / "prometheus.yaml").read_text())
    ports = {
        name: int((service.get("environment") or {})["METRICS_PORT"])
        for name, service in services.items()
        if "METRICS_PORT" in (service.get("environment") or {}) and not name.endswith("-migrate")
    }

    fetched = {
        name: (job["job_name"], where["port"])
        for job in config["scrape_configs"]
        for where in job["dns_sd_configs"]
        for name in where["names"]
    }

    # A job is a service, by the name that it has in the rules.
    jobs = {name: ("_".join(name.split("-")[:2]), port) for name, port in ports.items()}
    assert fetched == jobs | {"edge": ("edge", METRICS_PORT)}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_its_configuration_and_the_rules(tmp_path: Path) -> None:
    for mount in _services("compose.observe.yaml")["prometheus"]["volumes"]:
        if mount["type"] == "bind":
            shutil.copy(mount["source"], tmp_path / Path(mount["target"]).name)

    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_no_password_is_in_the_file() -> None:
    for name, service in _services().items():
        for variable, value in (service.get("environment") or {}).items():
            assert "PASSWORD" not in variable or variable.endswith("_FILE"), name
            assert "://" not in str(value).replace("dns:///", ""), (name, variable)


def test_every_secret_of_the_file_is_made(tmp_path: Path) -> None:
    container_secrets.prepare(tmp_path)

    wanted = {secret["source"] for service in _services().values() for secret in service.get("secrets", ())}
    assert wanted <= {path.name for path in tmp_path.iterdir()}


def test_in_production_every_service_has_three_replicas_and_limits() -> None:
    services = _services("compose.prod.yaml")

    for name in SERVICES:
        deploy = services[name]["deploy"]
        assert deploy["replicas"] == 3
        assert deploy["resources"]["limits"] == {"cpus": 0.5, "memory": str(512 * 1024**2)}
        assert deploy["resources"]["reservations"]["memory"] == str(256 * 1024**2)


def test_in_production_workers_have_limits() -> None:
    services = _services("compose.prod.yaml")

    for name in WORKERS:
        deploy = services[name]["deploy"]
        assert deploy["resources"]["limits"] == {"cpus": 1, "memory": str(256 * 1024**2)}


@pytest.mark.parametrize(
    "file", ["", "compose.dev.yaml", "compose.prod.yaml", "compose.observe.yaml", "compose.limits.yaml"]
)
def test_whatever_serves_starts_again_after_every_end_and_every_reboot(file: str) -> None:
    for name, service in _services(*filter(None, [file])).items():
        # The engine takes it from here instead of `restart`, and `on-failure` starts nothing after a reboot.
        assert "restart_policy" not in service.get("deploy", {}), name
        ends_by_itself = name.endswith("-migrate") or name in {"databases", "rate-limiter-config"}
        assert service["restart"] == ("no" if ends_by_itself else "unless-stopped"), name


def test_only_relays_and_consumers_know_redis() -> None:
    knowing = {
        name
        for name, service in _services().items()
        for secret in service.get("secrets", ())
        if secret["source"] == "redis_url"
    }

    assert knowing == set(WORKERS)


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
