"""The edge of each environment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from envoy.contract import DESCRIPTOR_SET
from envoy.files import REPOSITORY
from envoy.render import Address, CertificateFolder, Cluster, Edge

PORT: Final = 8080
ADMIN_PORT: Final = 9901
KEYS_PORT: Final = 9902
METRICS_PORT: Final = 9903
SERVICE_PORT: Final = 50051

INSIDE: Final = Path("/etc/shop/tls")
"""Where the edge's container has the certificate by which the services know it."""

OUTSIDE: Final = Path("/etc/shop/public-tls")
"""Where it has the one that callers see."""

IMAGE_DESCRIPTOR_SET: Final = Path("/etc/envoy/shop.binpb")
"""Where the edge's image holds the descriptor set."""

IMAGE_FILES_ROOT: Final = Path("/etc/envoy/files")
"""Where the edge's image holds the files of `envoy.files.FILES`, each as deep as in the repository."""


def laptop(*, port: int, admin_port: int, keys_port: int, service_ports: Mapping[str, Sequence[int]]) -> Edge:
    """Return an edge on loopback, with reflection and without TLS, for replicas on loopback's ports, by cluster."""
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
    """Return the edge of docker compose, where the name of a service resolves to all its containers."""
    return _container({"user_svc": "user-svc", "order_svc": "order-svc"})


def kubernetes(*, prefix: str = "") -> Edge:
    """Return the edge of Kubernetes, where headless services, whose names begin so, resolve to all ready pods."""
    return _container({"user_svc": f"{prefix}user-svc-headless", "order_svc": f"{prefix}order-svc-headless"})


def _container(names: Mapping[str, str]) -> Edge:
    return Edge(
        address="0.0.0.0",  # noqa: S104 - a container is reached from outside or not at all
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
