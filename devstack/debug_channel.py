"""Channels to one replica, past the edge, with the certificate `debug`: for readiness checks and for debugging."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from devstack.certificates import DEBUG

if TYPE_CHECKING:
    from devstack.certificates import Certificates


def debug_credentials(certificates: Certificates) -> grpc.ChannelCredentials:
    """Return the credentials that every service accepts."""
    folder = certificates.folder_of(DEBUG).path
    authorities, key, certificate = ((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    return grpc.ssl_channel_credentials(authorities, key, certificate)


def debug_options(service: str) -> list[tuple[str, str | int]]:
    """Return the options of a channel to a replica of the service: no retries, no proxy, its name for TLS.

    The name must be given, because another process may listen at a replica's address.
    """
    name = service.replace("_", "-")
    return [("grpc.ssl_target_name_override", name), ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
