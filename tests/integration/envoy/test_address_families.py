"""With `::` every process takes callers of IPv4 and of IPv6; they keep their own addresses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest

from chassis.testing import LOOPBACK
from devstack.ports import ReservedPort
from envoy.environments import laptop
from tests.integration.chassis.server.test_health import check
from tests.integration.envoy.test_edge_config import running, with_a_key
from tests.integration.replica import SERVING, serving_process
from tests.support.ports import closed_ports, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.edge import Edge
    from tests.integration.databases import TestDatabase

FAMILIES = {"127.0.0.1": "127.0.0.1", "::1": "[::1]"}


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


pytestmark = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def dual_edge(tmp_path: Path) -> Iterator[Edge]:
    """An edge on `::` that lets an address make two calls, with no service behind it."""
    edge = laptop(port=free_port(), admin_port=free_port(), keys_port=free_port(), service_ports=closed_ports())
    edge = replace(edge, address="::", metrics_port=free_port(), rate_limit=2)
    with running(with_a_key(edge), tmp_path, port=edge.port):
        yield edge


@pytest.mark.parametrize("host", FAMILIES.values())
def test_the_edge_and_its_metrics_are_there_for_both_families(dual_edge: Edge, host: str) -> None:
    page = httpx.get(f"http://{host}:{dual_edge.port}/openapi.json", trust_env=False)
    metrics = httpx.get(f"http://{host}:{dual_edge.metrics_port}/metrics", trust_env=False)

    assert (page.status_code, metrics.status_code) == (200, 200)


def test_each_address_of_either_family_has_its_own_rate_limit(dual_edge: Edge) -> None:
    # As mapped addresses, ::ffff:127.0.0.1, all callers of IPv4 would be in one network of IPv6.
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        assert _statuses(dual_edge, address, calls=3) == [404, 404, 429], address


def _statuses(edge: Edge, address: str, *, calls: int) -> list[int]:
    host = "[::1]" if ":" in address else "127.0.0.1"
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(base_url=f"http://{host}:{edge.port}", transport=transport) as client:
        return [client.get("/nowhere").status_code for _ in range(calls)]


@pytest.mark.parametrize("host", FAMILIES.values())
async def test_a_service_its_health_and_its_metrics_are_there_for_both_families(
    host: str, users_database: TestDatabase, tmp_path: Path
) -> None:
    health, metrics = ReservedPort(host="::"), ReservedPort(host="::")
    ports = {"HEALTH_PORT": str(health.number), "METRICS_PORT": str(metrics.number)}
    async with serving_process("user_svc", tmp_path, DATABASE_URL=users_database.url, HOST="::", **ports) as replica:
        port = replica.address.removeprefix(f"{LOOPBACK}:")
        answers = [await check(f"{host}:{each}", "") for each in (port, health.number)]
        scraped = await asyncio.to_thread(httpx.get, f"http://{host}:{metrics.number}/metrics", trust_env=False)
    health.release()
    metrics.release()

    assert answers == [SERVING, SERVING]
    assert scraped.status_code == 200
