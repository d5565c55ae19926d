"""Telemetry as a test: what a real receiver of traces and a real scrape of metrics see of calls through the edge."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from chassis.testing import new_uuid
from devstack.ports import ReservedPort
from devstack.settings import Settings
from devstack.stack import Stack
from devstack.traces import ReceivedSpan, TraceReceiver
from tests.e2e.waiting import until
from tests.logins import NO_LIMITS, admins_token

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "canary"


class Traced:
    """A stack whose every call is traced, and what it sends to whom.

    Attributes:
        receiver: has the traces.
        stack: the system.
        http: calls the edge as the admin.
    """

    def __init__(self, stack: Stack, receiver: TraceReceiver) -> None:
        self.stack = stack
        self.receiver = receiver
        headers = {"authorization": f"Bearer {admins_token(stack)}"}
        self.http = httpx.Client(base_url=stack.edge_url, headers=headers, timeout=30, trust_env=False)

    def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        return self.http.post(path, json=body, headers=headers)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def new_user(self, **changes: Any) -> str:
        body = {"email": f"ada-{new_uuid()}@example.com", "password": "correct horse battery", "displayName": "Ada"}
        response = self.post("/api/v1/users", {**body, **changes})
        return str(response.json()["id"])

    def place_order(self, user_id: str) -> httpx.Response:
        price = {"currencyCode": "EUR", "units": "4"}
        item = {"productId": "tea", "name": "Tea", "quantity": 1, "unitPrice": price}
        return self.post("/api/v1/orders", {"userId": user_id, "currencyCode": "EUR", "items": [item]})

    def trace_of(self, response: httpx.Response, *, until_service: str) -> list[ReceivedSpan]:
        """Return the trace of the request, once the edge's last span and those of the service have come."""
        log = self.stack.home.logs / "envoy.log"
        request_id = response.headers["x-request-id"]
        until(lambda: request_id in log.read_text())
        entry = next(json.loads(line) for line in log.read_text().splitlines() if request_id in line)
        trace_id = entry["trace_id"]

        def is_complete() -> bool:
            spans = self.receiver.trace(trace_id)
            roots = [span for span in spans if not span.parent_id]
            return bool(roots) and any(span.service == until_service and span.kind == "SERVER" for span in spans)

        until(is_complete)
        return self.receiver.trace(trace_id)

    def metrics(self) -> str:
        """Return what every process shows to Prometheus."""
        urls = [replica.metrics_url for name in self.stack.service_names for replica in self.stack.replicas(name)]
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        texts = [httpx.get(url, headers=accept, trust_env=False).text for url in urls]
        return "\n".join([*texts, httpx.get(self.stack.edge.metrics_url, trust_env=False).text])

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in self.stack.home.logs.glob("*.log") if "postgres" not in path.name)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    home = tmp_path_factory.mktemp("traced")
    port = ReservedPort()
    port.release()
    quick = {"ARGON2_MEMORY_KIB": "64", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with (
        TraceReceiver() as receiver,
        Stack(
            Settings(edge_port=port.number, home=home, drain_s=0.2, otlp_endpoint=receiver.endpoint, **NO_LIMITS),
            extra_env={"user_svc": quick, "order_svc": {"OTEL_BSP_SCHEDULE_DELAY": "100"}},
        ) as stack,
    ):
        traced = Traced(stack, receiver)
        with traced.http:
            yield traced
    shutil.rmtree(home)


def child_of(parent: ReceivedSpan, spans: list[ReceivedSpan], *, service: str, kind: str) -> list[ReceivedSpan]:
    found = [span for span in spans if span.parent_id == parent.span_id]
    return [span for span in found if (span.service, span.kind) == (service, kind)]


def test_one_trace_leads_from_the_edge_to_the_statements_of_both_services(traced: Traced) -> None:
    response = traced.place_order(traced.new_user())

    assert response.status_code == 201
    spans = traced.trace_of(response, until_service="user_svc")
    [root] = [span for span in spans if not span.parent_id]
    [attempt] = child_of(root, spans, service="edge", kind="CLIENT")
    [order] = child_of(attempt, spans, service="order_svc", kind="SERVER")
    [ask] = [span for span in child_of(order, spans, service="order_svc", kind="CLIENT") if "BatchGet" in span.name]
    [users] = child_of(ask, spans, service="user_svc", kind="SERVER")
    assert {"SELECT"} <= {span.name for span in child_of(users, spans, service="user_svc", kind="CLIENT")}
    assert {"INSERT"} <= {span.name for span in spans if span.service == "order_svc"}
    assert order.name == "shop.order.v1.OrderService/CreateOrder"
    assert order.attributes["rpc.response.status_code"] == "OK"
    assert {"service.name", "service.version", "service.instance.id"} <= set(order.resource)
