"""Events between the containers: an order takes effect on its user, though who carries it may be away for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devstack import container_secrets
from tests.containers.engine import podman
from tests.containers.system import SERVICES, WORKERS
from tests.services.order_svc.placing import place_order
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.containers.system import ComposedSystem
    from tests.e2e.callers import Edge
    from tests.e2e.world import World

CARRIERS = ["redis", "order-svc-worker", "user-svc-worker"]
pytestmark = pytest.mark.timeout(180)


def _order_count(edge: Edge, user_id: str) -> int:
    answer = edge.http.get(f"/api/v1/users/{user_id}")
    assert answer.status_code == 200, answer.text
    return int(answer.json().get("orderCount", 0))


def test_an_order_raises_the_order_count_of_its_user(edge: Edge, world: World) -> None:
    user = world.user()

    place_order(world, user.id)

    until(lambda: _order_count(edge, user.id) == 1, timeout_s=60)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_orders_placed_while_redis_or_a_worker_was_down_are_delivered_later(
    system: ComposedSystem, edge: Edge, world: World, carrier: str
) -> None:
    user = world.user()
    [container] = system.containers(carrier)

    podman("stop", "--time", "30", container.name)
    assert container.state["ExitCode"] == 0
    place_order(world, user.id)
    assert _order_count(edge, user.id) == 0
    podman("start", container.name)

    until(lambda: _order_count(edge, user.id) == 1, timeout_s=90)
    system.wait_healthy(carrier)


def test_a_new_password_of_redis_loses_no_event(
    system: ComposedSystem, secrets: Path, edge: Edge, world: World
) -> None:
    user = world.user()
    before = (secrets / "redis_url").read_text()

    (secrets / "redis_password").unlink()
    container_secrets.prepare(secrets)
    place_order(world, user.id)
    system.compose("up", "--detach", "--force-recreate", "--wait", "redis", *WORKERS)
    place_order(world, user.id)

    assert (secrets / "redis_url").read_text() != before
    until(lambda: _order_count(edge, user.id) == 2, timeout_s=60)


def test_every_process_shows_its_metrics(system: ComposedSystem) -> None:
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:{}/metrics').read().decode())"

    for service in (*SERVICES, *WORKERS):
        [container, *_] = system.containers(service)
        assert "process_start_time_seconds" in container.run("python", "-c", ask.format(9464)).stdout
    [edge] = system.containers("edge")
    assert "envoy_http_downstream_rq_xx" in edge.run("python", "-c", ask.format(9903)).stdout
