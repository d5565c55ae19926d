"""A receiver of traces whose certificate a private CA has signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from devstack.certificates import Certificates
from devstack.traces import TraceReceiver

if TYPE_CHECKING:
    from pathlib import Path

    from envoy.edge import CertificateFolder


def certificate_in(folder: Path) -> CertificateFolder:
    """Make an authority in the folder; return its certificate for this machine."""
    certificates = Certificates(folder)
    certificates.prepare()
    return certificates.folder_of("localhost")


def receiver_with(certificate: CertificateFolder) -> TraceReceiver:
    pair = [((certificate.path / "tls.key").read_bytes(), (certificate.path / "tls.crt").read_bytes())]
    return TraceReceiver(credentials=grpc.ssl_server_credentials(pair))
