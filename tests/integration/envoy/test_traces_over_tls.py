"""The edge's traces go over TLS to a receiver whose certificate a private CA has signed, and to no other."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest

from chassis.testing import LOOPBACK
from envoy.edge import Address
from envoy.environments import laptop
from tests.integration.envoy.test_edge_config import running, with_a_key
from tests.integration.tls_receiver import certificate_in, receiver_with
from tests.support.ports import closed_ports, free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devstack.traces import TraceReceiver
    from envoy.edge import CertificateFolder, Edge


@pytest.fixture
def certificate(tmp_path: Path) -> CertificateFolder:
    return certificate_in(tmp_path / "tls")


@contextlib.contextmanager
def calling_edge(receiver: TraceReceiver, folder: Path, *, authority: Path, host: str = LOOPBACK) -> Iterator[Edge]:
    """An edge without services that has answered a traced call."""
    edge = laptop(port=free_port(), admin_port=free_port(), keys_port=free_port(), service_ports=closed_ports())
    to = Address.parse(receiver.endpoint.replace(LOOPBACK, host))
    edge = replace(edge, traces_to=to, traces_authority=authority, trace_sampling=100)
    with running(with_a_key(edge), folder, port=edge.port) as client:
        client.get("/nowhere")
        yield edge


def refused_certificates(edge: Edge) -> int:
    """Return how many receivers the edge has not sent spans to for want of a CA that it knows."""
    name = "cluster.traces.ssl.fail_verify_error"
    stats = httpx.get(f"http://{LOOPBACK}:{edge.admin_port}/stats?filter={name}", trust_env=False).text
    return int(stats.partition(": ")[2])


@pytest.mark.parametrize("host", ["localhost", LOOPBACK])
def test_the_edge_sends_its_spans_over_tls(host: str, certificate: CertificateFolder, tmp_path: Path) -> None:
    with (
        receiver_with(certificate) as receiver,
        calling_edge(receiver, tmp_path, host=host, authority=certificate.path / "ca.crt"),
    ):
        until(lambda: bool(receiver.traces()), timeout_s=20)


def test_the_edge_sends_no_span_to_a_receiver_of_another_ca(certificate: CertificateFolder, tmp_path: Path) -> None:
    other = certificate_in(tmp_path / "other")
    with (
        receiver_with(certificate) as receiver,
        calling_edge(receiver, tmp_path, authority=other.path / "ca.crt") as edge,
    ):
        until(lambda: refused_certificates(edge) > 0, timeout_s=20)

        assert not receiver.traces()
