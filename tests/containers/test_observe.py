"""docker/compose.observe.yaml, of which Prometheus alone can run here: it finds every process of the system."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from chassis.service import services
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.containers.system import ComposedSystem

PROCESSES = Counter({service.name: 2 + service.has_worker for service in services()} | {"edge": 1})
"""By job: two servers and a worker of each service."""

_URL = "http://127.0.0.1:9090"
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def prometheus(system: ComposedSystem) -> Iterator[str]:
    """Where a Prometheus answers that is ready."""
    observed = replace(system, files=(*system.files, "docker/compose.observe.yaml"))
    observed.compose("up", "--detach", "--no-deps", "prometheus")
    until(_is_ready, timeout_s=60)
    yield _URL
    observed.compose("rm", "--stop", "--force", "--volumes", "prometheus")


def _is_ready() -> bool:
    try:
        return httpx.get(f"{_URL}/-/ready", timeout=10, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _ask(prometheus: str, path: str, **parameters: str) -> Any:
    answer = httpx.get(f"{prometheus}/api/v1/{path}", params=parameters, timeout=10, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def _up(prometheus: str) -> Counter[str]:
    """Return how many processes it has fetched from, by job."""
    series = _ask(prometheus, "query", query="up == 1")["result"]
    return Counter(each["metric"]["job"] for each in series)


def test_it_fetches_from_every_process_once_and_from_nothing_else(prometheus: str) -> None:
    until(lambda: _up(prometheus) == PROCESSES, timeout_s=90)

    targets = _ask(prometheus, "targets")["activeTargets"]
    assert len(targets) == PROCESSES.total()


def test_prometheus_loads_the_alerts_and_no_alert_reports_a_process_as_down(prometheus: str) -> None:
    until(lambda: _up(prometheus) == PROCESSES, timeout_s=90)

    rules = {rule["name"]: rule for group in _ask(prometheus, "rules")["groups"] for rule in group["rules"]}

    assert {rule["health"] for rule in rules.values()} <= {"ok", "unknown"}
    assert rules["ProcessDown"]["alerts"] == []
