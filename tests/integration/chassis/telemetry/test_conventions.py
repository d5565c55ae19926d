"""Telemetry in OpenTelemetry's words: what running services emit, compared with the conventions that are pinned.

The names come from the package opentelemetry-semantic-conventions, of the SDK's own version; which attributes a span or
a metric must have is a table here, from docs/rpc/grpc.md and docs/db of the conventions 1.44.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import opentelemetry.semconv
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from chassis.telemetry import tracing
from chassis.telemetry.metrics import REGISTRY
from chassis.testing import bearer, new_uuid, plain_channel, refusal_of, token_of
from tests.integration.chassis.notes import notes_service
from tests.integration.inprocess import database_settings
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import create_note_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.databases import TestDatabase

OURS: Final = "shop."
CANARY: Final = "canary"

# Of docs/rpc/grpc.md: the codes that are errors to a server.
SERVER_ERRORS: Final = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

RPC: Final = {"rpc.system.name", "rpc.method", "rpc.response.status_code"}
DATABASE: Final = {"db.system.name", "db.namespace", "db.query.summary", "db.query.text"}
SERVER: Final = {"server.address", "server.port"}
# By the family of a metric: what each of its series must have, whatever happened.
REQUIRED_LABELS: Final = {
    "rpc_server_call_duration_seconds": {"rpc_system_name", "rpc_method", "rpc_response_status_code"},
    "rpc_client_call_duration_seconds": {"rpc_system_name", "rpc_method", "rpc_response_status_code", "server_address"},
    "db_client_operation_duration_seconds": {"db_system_name", "db_namespace", "db_query_summary", "server_address"},
    "db_client_connection_count": {"db_client_connection_pool_name", "db_client_connection_state"},
    "db_client_connection_max": {"db_client_connection_pool_name"},
    "db_client_connection_pending_requests": {"db_client_connection_pool_name"},
}
UNITS: Final = {"s": "_seconds"}


def constants(package: str) -> Iterator[tuple[str, str]]:
    """Yield the names of a part of the conventions that are not deprecated, each with what is said of it."""
    module = importlib.import_module(f"opentelemetry.semconv.{package}")
    for found in pkgutil.iter_modules(module.__path__):
        text = Path(str(module.__path__[0]), f"{found.name}.py").read_text()
        body = ast.parse(text).body
        for assigned, said in itertools.pairwise(body):
            if (
                isinstance(assigned, ast.AnnAssign)
                and isinstance(assigned.value, ast.Constant)
                and isinstance(said, ast.Expr)
                and isinstance(said.value, ast.Constant)
                and not re.match(r"\s*Deprecated(?! in favor of stable)", str(said.value.value))
            ):
                yield str(assigned.value.value), str(said.value.value)


ATTRIBUTES: Final = {name for part in ("attributes", "_incubating.attributes") for name, _ in constants(part)}
METRICS: Final = dict(constants("_incubating.metrics")) | dict(constants("metrics"))


def as_prometheus(name: str) -> str:
    """Return the name of a metric of the conventions as Prometheus has it."""
    unit = re.search(r"^Unit: (.+)$", METRICS[name], re.MULTILINE)
    return name.replace(".", "_") + UNITS.get(unit[1] if unit else "", "")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of every traced call."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("tests"))
    yield exporter
    provider.shutdown()


def traced() -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{new_uuid().replace('-', '')}-00f067aa0ba902b7-01"),)


@pytest.fixture(scope="module")
def emitted_before() -> list[ReadableSpan]:
    """The telemetry of the calls; some of them wait half a second for a lock."""
    return []


@pytest.fixture
async def emitted(
    emitted_before: list[ReadableSpan],
    spans: InMemorySpanExporter,
    notes_database: TestDatabase,
    authors_database: TestDatabase,
    author: str,
) -> list[ReadableSpan]:
    """Have calls of every kind made: good ones, refused ones, some that the database fails."""
    if emitted_before:
        return emitted_before
    async with (
        notes_service(database_settings(authors_database.url, lock_timeout_s=0.5)) as library,
        notes_service(database_settings(notes_database.url), library=library) as address,
        plain_channel(library) as to_library,
        plain_channel(address) as channel,
    ):
        notes = NoteServiceStub(channel)
        quoted = await NoteServiceStub(to_library).CreateNote(create_note_request())
        quoting = create_note_request(author, quoted_note_id=quoted.id)
        note = await notes.CreateNote(quoting, metadata=traced())
        get = pb.GetNoteRequest(id=note.id)
        await notes.GetNote(get, metadata=(*traced(), *bearer(token_of(author))))
        await notes.ListNotes(pb.ListNotesRequest(author_id=author), metadata=traced())
        archive = pb.ArchiveNoteRequest(id=note.id)
        await notes.ArchiveNote(archive, metadata=traced())
        await refusal_of(notes.ArchiveNote(archive, metadata=traced()))
        await refusal_of(notes.GetNote(pb.GetNoteRequest(id=new_uuid()), metadata=traced()))
        await refusal_of(notes.GetNote(pb.GetNoteRequest(id=CANARY), metadata=traced()))
        with authors_database.connect() as connection, connection.transaction():
            connection.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
            await refusal_of(NoteServiceStub(to_library).GetNote(get, metadata=traced()))
            # A call of another service meets the same lock.
            await refusal_of(notes.CreateNote(quoting, metadata=traced()))
        notes_database.query("ALTER TABLE notes RENAME TO notes_away")
        try:
            await refusal_of(notes.ListNotes(pb.ListNotesRequest(), metadata=traced()))
        finally:
            notes_database.query("ALTER TABLE notes_away RENAME TO notes")
    emitted_before.extend(spans.get_finished_spans())
    return emitted_before


def test_the_conventions_are_those_of_the_sdk() -> None:
    assert opentelemetry.semconv.__path__
    assert {"rpc.method", "db.query.summary", "error.type", "enduser.id"} <= ATTRIBUTES
    assert not {"rpc.service", "rpc.system", "rpc.grpc.status_code", "db.statement", "net.peer.name"} & ATTRIBUTES
    assert "rpc.server.call.duration" in METRICS
    assert "rpc.server.duration" not in METRICS


def test_attributes_of_spans_are_those_of_the_conventions_or_ours(emitted: list[ReadableSpan]) -> None:
    names = {name for span in emitted for name in span.attributes or {}}

    assert {name for name in names if not name.startswith(OURS)} - ATTRIBUTES == set()
    assert {*RPC, *DATABASE, *SERVER, "error.type", "db.response.status_code"} <= names


def family(span: ReadableSpan) -> str:
    attributes = span.attributes or {}
    kinds = [kind for kind in ("rpc", "db") if f"{kind}.system.name" in attributes]
    return f"{kinds[0]} {span.kind.name}" if kinds else span.kind.name


def test_each_span_has_what_the_conventions_require(emitted: list[ReadableSpan]) -> None:
    required = {"rpc SERVER": RPC, "rpc CLIENT": RPC | SERVER, "db CLIENT": DATABASE | SERVER, "INTERNAL": set()}

    assert {family(span) for span in emitted} == set(required)
    for span in emitted:
        assert required[family(span)] <= set(span.attributes or {}), span.name
        assert None not in (span.attributes or {}).values()


def test_a_span_has_the_name_that_the_conventions_give_it(emitted: list[ReadableSpan]) -> None:
    for span in emitted:
        attributes = span.attributes or {}
        if span.kind is not SpanKind.INTERNAL:
            assert span.name == attributes.get("rpc.method", attributes.get("db.query.summary"))


def test_only_the_codes_that_the_conventions_call_errors_are_errors(emitted: list[ReadableSpan]) -> None:
    codes: dict[str, set[str]] = {"rpc SERVER": set(), "rpc CLIENT": set()}
    for span in emitted:
        attributes: Any = span.attributes or {}
        code = attributes.get("rpc.response.status_code", "")
        if family(span) in codes:
            codes[family(span)].add(code)
        is_error = {
            "rpc SERVER": code in SERVER_ERRORS,
            "rpc CLIENT": code != "OK",
            "db CLIENT": "error.type" in attributes,
            "INTERNAL": span.status.status_code is StatusCode.ERROR,
        }[family(span)]

        assert (span.status.status_code is StatusCode.ERROR) == is_error, span.name
        assert ("error.type" in attributes) == (is_error and family(span) != "INTERNAL"), span.name
        assert "db.response.status_code" not in attributes or re.fullmatch(
            r"[0-9A-Z]{5}", attributes["db.response.status_code"]
        )

    assert {"OK", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNAVAILABLE", "INTERNAL"} <= codes[
        "rpc SERVER"
    ]
    assert {"OK", "UNAVAILABLE"} <= codes["rpc CLIENT"]


def test_a_type_of_error_is_a_code_a_state_or_a_name_and_nothing_that_a_caller_chose(
    emitted: list[ReadableSpan],
) -> None:
    types = {
        str(span.attributes["error.type"]) for span in emitted if span.attributes and "error.type" in span.attributes
    }

    # A lock that was not to be had, a table that is not there.
    assert {"UNAVAILABLE", "INTERNAL", "55P03", "42P01"} <= types
    assert {each for each in types if not re.fullmatch(r"[A-Z_]+|[0-9A-Z]{5}|[A-Z]\w+", each)} == set()
    assert CANARY not in " ".join(types).lower()


def test_metrics_are_those_of_the_conventions_or_ours(emitted: list[ReadableSpan]) -> None:
    assert emitted
    shown = {metric.name: metric for metric in REGISTRY.collect()}
    # Prometheus has its own words for processes.
    foreign = {name for name in shown if not name.startswith(("shop_", "process_", "target"))}

    assert foreign == REQUIRED_LABELS.keys()
    assert foreign <= {as_prometheus(name) for name in METRICS}


def test_labels_are_attributes_of_the_conventions(emitted: list[ReadableSpan]) -> None:
    assert emitted
    known = {name.replace(".", "_") for name in ATTRIBUTES}
    for metric in REGISTRY.collect():
        for sample in metric.samples if metric.name in REQUIRED_LABELS else ():
            labels = {label: value for label, value in sample.labels.items() if label != "le"}
            said = {label for label, value in labels.items() if value}
            assert set(labels) <= known, metric.name
            assert REQUIRED_LABELS[metric.name] <= said, sample
            if metric.name.startswith("rpc_server"):
                assert ("error_type" in said) == (labels["rpc_response_status_code"] in SERVER_ERRORS), sample


def test_no_label_has_a_value_that_a_caller_chose(emitted: list[ReadableSpan]) -> None:
    assert emitted
    values = {value for metric in REGISTRY.collect() for sample in metric.samples for value in sample.labels.values()}

    assert [value for value in values if CANARY in value.lower() or re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", value)] == []


def test_a_statement_is_timed_by_operation_and_outcome(emitted: list[ReadableSpan]) -> None:
    assert emitted
    samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
    counted = {
        (sample.labels["db_query_summary"], sample.labels["error_type"])
        for sample in samples
        if sample.name == "db_client_operation_duration_seconds_count"
    }

    assert {
        ("INSERT idempotency_keys INSERT notes INSERT outbox", ""),
        ("SELECT notes", ""),
        ("SELECT notes", "42P01"),
        ("SELECT notes", "55P03"),
    } <= counted
