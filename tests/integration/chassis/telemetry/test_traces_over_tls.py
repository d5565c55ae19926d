"""Traces go over TLS to a receiver whose certificate a private CA has signed; the edge's are in envoy/."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.chassis.telemetry.test_tracing import call_traced
from tests.integration.inprocess import NOTES_PACKAGE
from tests.integration.replica import serving_process
from tests.integration.tls_receiver import certificate_in, receiver_with
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.databases import TestDatabase


async def test_a_service_sends_its_spans_over_tls(notes_database: TestDatabase, tmp_path: Path) -> None:
    certificate = certificate_in(tmp_path / "tls")
    with receiver_with(certificate) as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        env["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(certificate.path / "ca.crt")
        async with serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url, **env) as replica:
            await call_traced(replica, 1)

            until(lambda: bool(receiver.traces()), timeout_s=20)
