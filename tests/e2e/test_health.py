"""Health checks of monitors and probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from grpc_health.v1 import health_pb2

from chassis.server.contract import service_names
from chassis.service import services

if TYPE_CHECKING:
    from tests.e2e.callers import Edge


@pytest.mark.parametrize(
    ("path", "service"),
    [("/health", services()[0].name), *((service.health_path, service.name) for service in services())],
)
def test_the_service_that_was_asked_answers(edge: Edge, path: str, service: str) -> None:
    health = edge.http.get(path).json()

    assert health["status"] == "HEALTH_STATUS_HEALTHY"
    assert health["service"] == service
    assert health["memory"]["rssKib"] > 0
    assert float(health["uptime"].removesuffix("s")) > 0


def test_the_edges_health_check_succeeds(edge: Edge) -> None:
    assert edge.http.get("/healthz").status_code == 200
    assert edge.http.head("/healthz?at=1").status_code == 200


@pytest.mark.parametrize("service", ["", *service_names()])
def test_every_service_serves_over_grpc_health(edge: Edge, service: str) -> None:
    question = health_pb2.HealthCheckRequest(service=service)

    outcome = edge.grpc_at(
        "/grpc.health.v1.Health/Check", question.SerializeToString(), reply=health_pb2.HealthCheckResponse
    )

    assert outcome.body == {"status": "SERVING"}
