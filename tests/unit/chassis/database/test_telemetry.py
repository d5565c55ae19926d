"""Telemetry of statements, and the addresses of databases and targets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis.database.telemetry import StatementTelemetry, summary_of
from chassis.database.url import DatabaseUrl
from chassis.telemetry import tracing
from chassis.telemetry.endpoints import Endpoint
from chassis.telemetry.metrics import REGISTRY
from chassis.telemetry.metrics.calls import CallMetrics
from chassis.telemetry.metrics.database import watch_connections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

SELECT = "SELECT id FROM users WHERE id = %s"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of statements, below the span of a call."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("tests")
    monkeypatch.setattr(tracing, "_tracer", tracer)
    with trace.use_span(tracer.start_span("call")):
        yield exporter
    provider.shutdown()


def telemetry(database: str) -> StatementTelemetry:
    return StatementTelemetry(DatabaseUrl.parse(f"postgresql://shop:secret@db.example:6432/{database}"))


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    [span] = spans.get_finished_spans()
    return span


def counted(database: str, *, error_type: str = "", sqlstate: str = "") -> float | None:
    labels = {"db_system_name": "postgresql", "db_namespace": database, "db_query_summary": "SELECT users"}
    labels |= {"error_type": error_type, "db_response_status_code": sqlstate}
    labels |= {"server_address": "db.example", "server_port": "6432"}
    return REGISTRY.get_sample_value("db_client_operation_duration_seconds_count", labels)


def test_a_statement_has_a_span_and_is_timed(spans: InMemorySpanExporter) -> None:
    with telemetry("good").begin(SELECT):
        pass

    assert only(spans).name == "SELECT users"
    assert dict(only(spans).attributes or {}) == {
        "db.system.name": "postgresql",
        "db.namespace": "good",
        "db.query.summary": "SELECT users",
        "db.query.text": SELECT,
        "server.address": "db.example",
        "server.port": 6432,
    }
    assert only(spans).status.status_code is trace.StatusCode.UNSET
    assert counted("good") == 1


def test_a_statement_that_the_database_refuses_has_its_sqlstate(spans: InMemorySpanExporter) -> None:
    with pytest.raises(psycopg.errors.LockNotAvailable), telemetry("refused").begin(SELECT):
        raise psycopg.errors.LockNotAvailable("the parameters were: canary")

    attributes = only(spans).attributes or {}
    assert (attributes["error.type"], attributes["db.response.status_code"]) == ("55P03", "55P03")
    assert only(spans).status.status_code is trace.StatusCode.ERROR
    assert "canary" not in f"{dict(attributes)} {only(spans).status.description} {only(spans).events}"
    assert counted("refused", error_type="55P03", sqlstate="55P03") == 1


def test_an_unanswered_statement_has_the_name_of_its_error_and_no_code(spans: InMemorySpanExporter) -> None:
    with pytest.raises(psycopg.OperationalError), telemetry("lost").begin(SELECT):
        raise psycopg.OperationalError("the connection is lost")

    attributes = only(spans).attributes or {}
    assert attributes["error.type"] == "OperationalError"
    assert "db.response.status_code" not in attributes
    assert counted("lost", error_type="OperationalError") == 1


def test_a_statement_that_is_given_up_ends_its_span_too(spans: InMemorySpanExporter) -> None:
    with pytest.raises(asyncio.CancelledError), telemetry("given_up").begin(SELECT):
        raise asyncio.CancelledError

    assert (only(spans).attributes or {})["error.type"] == "CancelledError"
    assert counted("given_up", error_type="CancelledError") == 1


def test_a_statement_of_a_call_that_is_not_traced_is_timed_all_the_same() -> None:
    with telemetry("untraced").begin(SELECT):
        pass

    assert counted("untraced") == 1


@pytest.mark.parametrize(
    ("statement", "summary"),
    [
        ("SELECT id FROM users JOIN sessions USING (id)", "SELECT users"),
        ("SELECT 1", "SELECT"),
        ("begin", "BEGIN"),
        ("SELECT id FROM orders FOR UPDATE OF orders", "SELECT orders"),
        ("INSERT INTO orders SELECT * FROM given ON CONFLICT DO UPDATE SET id = 1", "INSERT orders"),
        ("WITH gone AS (DELETE FROM keys RETURNING id) UPDATE orders SET id = 1", "DELETE keys UPDATE orders"),
    ],
)
def test_a_statement_is_summarised_by_its_operation_and_tables(statement: str, summary: str) -> None:
    assert summary_of(statement) == summary


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("postgresql://u:p@h/users", Endpoint("h")),
        ("postgresql://u:p@h:5432/users", Endpoint("h")),
        ("postgresql://u:p@h:5433/users", Endpoint("h", 5433)),
        ("postgresql://u:p@h1:5433,h2:5433/users", Endpoint("h1,h2", 5433)),
        ("postgresql://u:p@h1:5432,h2:5433/users", Endpoint("h1,h2")),
        ("postgresql://u:p@[::1]:5433/users", Endpoint("::1", 5433)),
        ("postgresql:///users?host=/run/postgresql", Endpoint("/run/postgresql")),
    ],
)
def test_a_database_is_named_as_the_url_does_without_its_password(
    url: str, endpoint: Endpoint, spans: InMemorySpanExporter
) -> None:
    with StatementTelemetry(DatabaseUrl.parse(url)).begin(SELECT):
        pass

    attributes = only(spans).attributes or {}
    assert {name: attributes[name] for name in attributes if name.startswith("server.")} == endpoint.attributes()
    assert attributes["db.namespace"] == "users"


@pytest.mark.parametrize(
    ("target", "endpoint"),
    [
        ("notes-svc:50051", Endpoint("notes-svc", 50051)),
        ("notes-svc", Endpoint("notes-svc")),
        ("dns:///notes-svc:50051", Endpoint("notes-svc", 50051)),
        ("dns://8.8.8.8/notes-svc:50051", Endpoint("notes-svc", 50051)),
        ("ipv4:10.0.0.1:50051", Endpoint("10.0.0.1", 50051)),
        ("ipv4:10.0.0.1:50051,10.0.0.2:50051", Endpoint("10.0.0.1:50051,10.0.0.2:50051")),
        ("[::1]:50051", Endpoint("::1", 50051)),
        ("unix:///run/users.sock", Endpoint("/run/users.sock")),
        ("unix:/run/users.sock", Endpoint("/run/users.sock")),
    ],
)
def test_a_target_of_grpc_is_an_address_and_a_port(target: str, endpoint: Endpoint) -> None:
    assert Endpoint.of_target(target) == endpoint
    assert endpoint.labels() == (endpoint.address, str(endpoint.port or ""))


def test_connections_are_shown_by_pool_and_state() -> None:
    watch_connections("shown", count=lambda: (3, 4), size=9, waiting=lambda: 2)

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"db_client_connection_pool_name": "shown", **labels})

    assert value("db_client_connection_count", db_client_connection_state="used") == 3
    assert value("db_client_connection_count", db_client_connection_state="idle") == 4
    assert (value("db_client_connection_max"), value("db_client_connection_pending_requests")) == (9, 2)


@pytest.mark.parametrize(
    ("code", "is_fault"), [("OK", False), ("NOT_FOUND", False), ("INTERNAL", True), ("UNAVAILABLE", True)]
)
def test_to_a_server_only_its_own_faults_are_errors_and_to_a_client_all(code: str, *, is_fault: bool) -> None:
    method = f"tests.Counted/{code}"
    CallMetrics(f"/{method}").ended(code, duration_s=0.001)
    CallMetrics(f"/{method}", server=Endpoint("peer", 1)).ended(code, duration_s=0.001)

    labels = {"rpc_system_name": "grpc", "rpc_method": method, "rpc_response_status_code": code}
    served = {**labels, "error_type": code if is_fault else ""}
    made = {**labels, "error_type": "" if code == "OK" else code, "server_address": "peer", "server_port": "1"}
    assert REGISTRY.get_sample_value("rpc_server_call_duration_seconds_count", served) == 1
    assert REGISTRY.get_sample_value("rpc_client_call_duration_seconds_count", made) == 1
