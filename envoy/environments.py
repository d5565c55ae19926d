"""The edge of each environment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from envoy.contract import DESCRIPTOR_SET
from envoy.edge import SERVICES, Address, CertificateFolder, Cluster, Edge
from envoy.files import REPOSITORY

PORT: Final = 8080
ADMIN_PORT: Final = 9901
KEYS_PORT: Final = 9902
METRICS_PORT: Final = 9903
SERVICE_PORT: Final = 50051

INSIDE: Final = Path("/etc/shop/tls")
"""The folder in the edge's container with its certificate for the services."""

OUTSIDE: Final = Path("/etc/shop/public-tls")
"""The folder in the edge's container with the certificate that callers see."""

IMAGE_DESCRIPTOR_SET: Final = Path("/etc/envoy/shop.binpb")
"""The path of the descriptor set in the edge's image."""

IMAGE_FILES_ROOT: Final = Path("/etc/envoy/files")
"""The folder in the edge's image with the files of `envoy.files.FILES`, each at its path in the repository."""


def laptop(*, port: int, admin_port: int, keys_port: int, service_ports: Mapping[str, Sequence[int]]) -> Edge:
    """Return an edge on loopback, with reflection and without TLS; `service_ports` has the replicas of each cluster."""
    return Edge(
        address="127.0.0.1",
        port=port,
        admin_port=admin_port,
        keys_port=keys_port,
        descriptor_path=DESCRIPTOR_SET,
        files_root=REPOSITORY,
        has_reflection=True,
        clusters=tuple(
            Cluster(name=name, replicas=tuple(Address("127.0.0.1", each) for each in ports))
            for name, ports in service_ports.items()
        ),
    )


def compose() -> Edge:
    """Return the edge of docker compose, in which a service's name resolves to all its containers."""
    return _container({service.name: service.host for service in SERVICES})


def kubernetes(*, prefix: str = "") -> Edge:
    """Return the edge of Kubernetes; headless services, whose names begin with `prefix`, resolve to all ready pods."""
    return _container({service.name: f"{prefix}{service.host}-headless" for service in SERVICES})


def _container(names: Mapping[str, str]) -> Edge:
    return Edge(
        address="0.0.0.0",  # noqa: S104  callers of a container are outside of it
        port=PORT,
        admin_port=ADMIN_PORT,
        keys_port=KEYS_PORT,
        descriptor_path=IMAGE_DESCRIPTOR_SET,
        files_root=IMAGE_FILES_ROOT,
        clusters=tuple(Cluster(name=name, dns=Address(host, SERVICE_PORT)) for name, host in names.items()),
        inside=CertificateFolder(INSIDE, watched=INSIDE),
        outside=CertificateFolder(OUTSIDE, watched=OUTSIDE),
        metrics_port=METRICS_PORT,
    )
