"""Telemetry as a test: what a real receiver of traces and a real scrape of metrics see of calls through the edge."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from chassis.service import services
from chassis.testing import new_uuid
from devstack.observe import Prometheus, find_prometheus
from devstack.settings import REPOSITORY, Settings
from devstack.traces import ReceivedSpan, TraceReceiver
from devstack.waterfall import WaterfallPage
from tests.e2e.conftest import stack_of
from tests.support.logins import NO_LIMITS, admins_token
from tests.support.ports import free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from devstack.stack import Stack

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

    @contextlib.contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Lock a table of the user service while the block runs."""
        with psycopg.connect(self.stack.database_url("users")) as connection:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            yield

    @contextlib.contextmanager
    def missing(self, table: str) -> Iterator[None]:
        """Take a table of the user service away while the block runs."""
        with psycopg.connect(self.stack.database_url("users"), autocommit=True) as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO {table}_away".encode())
            try:
                yield
            finally:
                connection.execute(f"ALTER TABLE {table}_away RENAME TO {table}".encode())

    def service_metrics(self) -> list[str]:
        """Return what each replica shows to Prometheus."""
        urls = [replica.metrics_url for name in self.stack.service_names for replica in self.stack.replicas(name)]
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        return [httpx.get(url, headers=accept, trust_env=False).text for url in urls]

    def metrics(self) -> str:
        """Return what every process shows to Prometheus."""
        return "\n".join([*self.service_metrics(), httpx.get(self.stack.edge.metrics_url, trust_env=False).text])

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in self.stack.home.logs.glob("*.log") if "postgres" not in path.name)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    home = tmp_path_factory.mktemp("traced")
    quick = {"ARGON2_MEMORY_KIB": "64", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with (
        TraceReceiver() as receiver,
        stack_of(
            Settings(edge_port=free_port(), home=home, drain_s=0.2, otlp_endpoint=receiver.endpoint, **NO_LIMITS),
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
    assert (root.service, root.kind) == ("edge", "SERVER")
    [order] = child_of(root, spans, service="order_svc", kind="SERVER")
    [batch] = child_of(order, spans, service="order_svc", kind="INTERNAL")
    [ask, write] = child_of(batch, spans, service="order_svc", kind="CLIENT")
    [users] = child_of(ask, spans, service="user_svc", kind="SERVER")
    [lookup] = child_of(users, spans, service="user_svc", kind="INTERNAL")
    [read] = child_of(lookup, spans, service="user_svc", kind="CLIENT")
    assert (batch.name, ask.name) == ("orders.place", "shop.user.v1.UserService/BatchGetUsers")
    assert write.name == "INSERT idempotency_keys INSERT orders INSERT order_events INSERT outbox"
    assert (lookup.name, read.name) == ("users.find_states", "SELECT users")
    assert order.name == "shop.order.v1.OrderService/CreateOrder"
    assert order.attributes["rpc.response.status_code"] == "OK"
    assert {"service.name", "service.version", "service.instance.id"} <= set(order.resource)


def test_an_example_of_a_slow_call_leads_to_its_trace(traced: Traced) -> None:
    response = traced.place_order(traced.new_user())
    expected = traced.trace_of(response, until_service="order_svc")[0].trace_id

    [bucket] = [
        line for line in traced.metrics().splitlines() if expected in line and "rpc_server" in line and "Create" in line
    ]

    assert bucket.startswith("rpc_server_call_duration_seconds_bucket{")
    assert 'rpc_method="shop.order.v1.OrderService/CreateOrder"' in bucket
    found = re.search(r'# \{trace_id="([0-9a-f]{32})"\}', bucket)
    assert found
    assert traced.receiver.trace(found[1])


def test_the_log_lines_of_a_call_name_its_trace_and_its_span(traced: Traced) -> None:
    response = traced.get(f"/api/v1/users/{traced.new_user()}")
    spans = traced.trace_of(response, until_service="user_svc")
    request_id = response.headers["x-request-id"]

    until(lambda: f'"request_id":"{request_id}"' in traced.logs() and "rpc.handled" in traced.logs())
    lines = [json.loads(line) for line in traced.logs().splitlines() if request_id in line]

    [served] = [line for line in lines if line["event"] == "rpc.handled"]
    [at_the_edge] = [line for line in lines if line["event"] == "edge.request"]
    [server] = [span for span in spans if (span.service, span.kind) == ("user_svc", "SERVER")]
    assert (served["trace_id"], served["span_id"]) == (server.trace_id, server.span_id)
    assert at_the_edge["trace_id"] == server.trace_id
    assert server.attributes["shop.request_id"] == request_id


def test_a_refused_call_has_its_code_and_reason_and_is_not_an_error_of_the_service(traced: Traced) -> None:
    response = traced.get(f"/api/v1/orders/{new_uuid()}")

    assert response.status_code == 404
    spans = traced.trace_of(response, until_service="order_svc")
    [server] = [span for span in spans if (span.service, span.kind) == ("order_svc", "SERVER")]
    assert server.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert server.attributes["shop.reason"] == "ORDER_NOT_FOUND"
    assert not server.is_error


def test_a_call_that_the_database_failed_is_marked_down_to_the_statement(traced: Traced) -> None:
    user_id = traced.new_user()
    with traced.locked("users"):
        response = traced.get(f"/api/v1/users/{user_id}")

    assert response.status_code == 503
    spans = traced.trace_of(response, until_service="user_svc")
    [server] = [span for span in spans if (span.service, span.kind) == ("user_svc", "SERVER")]
    [statement, *_] = [span for span in spans if span.name == "SELECT users"]
    assert server.is_error
    assert server.attributes["shop.reason"] == "DATABASE_UNAVAILABLE"
    assert statement.is_error
    assert statement.attributes["db.response.status_code"] == "55P03"


def test_a_caller_cannot_have_its_calls_join_another_trace(traced: Traced) -> None:
    theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
    response = traced.get(f"/api/v1/users/{new_uuid()}", traceparent=f"00-{theirs}-00f067aa0ba902b7-01")

    spans = traced.trace_of(response, until_service="user_svc")

    assert spans[0].trace_id != theirs
    assert not traced.receiver.trace(theirs)


def test_no_secret_and_nothing_personal_is_in_spans_metrics_and_logs(traced: Traced) -> None:
    email, password = f"{CANARY}-{new_uuid()}@example.com", f"{CANARY} password"
    profile = {CANARY: CANARY}
    traced.new_user(email=email, password=password, displayName=CANARY, profile=profile)
    traced.post("/api/v1/sessions", {"email": email, "password": f"{CANARY} wrong"})
    login = traced.post("/api/v1/sessions", {"email": email, "password": password})
    tokens = login.json()
    listed = traced.get(f"/api/v1/users?email={email}")
    with traced.missing("outbox"):
        defect = traced.post(
            "/api/v1/users", {"email": f"{CANARY}@example.org", "password": password, "displayName": "A"}
        )
    traced.trace_of(defect, until_service="user_svc")

    assert (login.status_code, listed.status_code, defect.status_code) == (201, 200, 500)
    assert listed.json()["users"]
    everything = "\n".join([repr_of(traced.receiver), traced.metrics(), traced.logs()])
    for secret in (CANARY, tokens["accessToken"], tokens["refreshToken"], "argon2id", traced.stack.admin_password):
        assert secret not in everything
    assert defect.headers["x-request-id"] in everything


def test_the_pages_of_make_observe_list_a_trace_and_show_its_spans(traced: Traced) -> None:
    response = traced.place_order(traced.new_user())
    trace_id = traced.trace_of(response, until_service="user_svc")[0].trace_id

    with WaterfallPage(traced.receiver) as page:
        listed = httpx.get(page.url, trust_env=False).text
        shown = httpx.get(f"{page.url}/trace/{trace_id}", trust_env=False).text
        absent = httpx.get(f"{page.url}/trace/<script>", trust_env=False).text

    assert f'<a href="/trace/{trace_id}">POST /api/v1/orders</a>' in listed
    assert all(name in shown for name in ("OrderService/CreateOrder", "INSERT orders", "BatchGetUsers", "orders.place"))
    assert "<script>" not in absent


def test_the_documented_metrics_are_those_that_a_running_system_shows(traced: Traced) -> None:
    traced.place_order(traced.new_user())

    shown = [metric for text in traced.service_metrics() for metric in text_string_to_metric_families(text)]

    documented = documented_metrics()
    assert {name_of(metric) for metric in shown} == set(documented)
    for metric in shown:
        labels = {label for sample in metric.samples for label in sample.labels if label != "le"}
        assert labels <= documented[name_of(metric)], metric.name


@pytest.mark.parametrize(
    ("verb", "path"),
    [("POST", "/metrics"), ("GET", "/"), ("GET", "/stats"), ("GET", "/config_dump"), ("POST", "/quitquitquit")],
)
def test_of_the_edge_s_admin_interface_only_the_metrics_are_reachable(traced: Traced, verb: str, path: str) -> None:
    base = traced.stack.edge.metrics_url.removesuffix("/metrics")

    assert httpx.request(verb, base + path, trust_env=False).status_code == 404


def name_of(metric: Metric) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
    return f"{metric.name}{suffix}"


def documented_metrics() -> dict[str, set[str]]:
    """Return the names in the documentation's list, with their labels."""
    text = (REPOSITORY / "docs" / "observability.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| [^|]+ \| ([^|]+) \| [^|]+ \| [^|]*\|$", text, re.MULTILINE)
    return {name: set(re.findall(r"\w+", labels)) for name, labels in rows}


def test_prometheus_fetches_from_every_process_and_keeps_the_examples(traced: Traced) -> None:
    binary = find_prometheus()
    if binary is None:
        pytest.skip("Prometheus is not installed: on Debian, apt-get install prometheus")
    response = traced.place_order(traced.new_user())
    trace_id = traced.trace_of(response, until_service="order_svc")[0].trace_id
    with Prometheus(traced.stack, binary=binary) as prometheus:

        def ask(path: str, **parameters: str) -> Any:
            try:
                answer = httpx.get(f"{prometheus.url}/api/v1/{path}", params=parameters, trust_env=False)
            except httpx.TransportError:
                return None
            return answer.json().get("data") if answer.is_success else None

        def healths() -> list[str]:
            return [each["health"] for each in (ask("targets") or {}).get("activeTargets", [])]

        processes = 1 + sum(len(traced.stack.replicas(each.name)) + each.has_worker for each in services())
        until(lambda: healths() == ["up"] * processes, timeout_s=60)
        query = 'rpc_server_call_duration_seconds_bucket{rpc_method="shop.order.v1.OrderService/CreateOrder"}'
        start, end = str(time.time() - 600), str(time.time() + 600)
        until(lambda: trace_id in str(ask("query_exemplars", query=query, start=start, end=end)), timeout_s=30)
        rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        # The alerts look for the metrics of the running system: otherwise they would report a complete one as missing.
        missing = {
            rule["name"]: ask("query", query=rule["query"])["result"] for rule in rules if "absent(" in rule["query"]
        }
        [days_left] = ask("query", query="envoy_server_days_until_first_cert_expiring")["result"]

    assert missing == {"EdgeMissing": [], "ServiceMissing": [], "WorkerMissing": []}
    assert 4 <= int(days_left["value"][1]) <= 7  # of the edge's own certificates, and not its CA's 90
    assert len(rules) > 20
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}  # unknown: not evaluated yet


def repr_of(receiver: TraceReceiver) -> str:
    spans = [span for trace in receiver.traces() for span in trace]
    return "\n".join(f"{span} {dict(span.attributes)} {dict(span.resource)}" for span in spans)
