"""Envoy in front of the replicas, as a supervised process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from devstack.errors import StackError
from devstack.ports import LOOPBACK, ReservedPort
from devstack.process import Command, Hooks, Process
from devstack.settings import REPOSITORY
from envoy.binary import EnvoyMissing, envoy_command
from envoy.edge import Address, Cluster, Edge
from envoy.in_flight import ask, drain
from envoy.render import render, render_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from devstack.certificates import Certificates
    from devstack.home import Home
    from devstack.services import Replica
    from devstack.settings import Settings

_DRAIN_S: Final = 1  # enough, because callers on the same machine see GOAWAY at once


@dataclass(frozen=True, slots=True)
class EdgePorts:
    """The ports that callers use, without and with TLS."""

    plain: ReservedPort
    tls: ReservedPort


class EdgeServer:
    """The edge as a supervised process.

    Attributes:
        url: the URL for callers, for REST and gRPC.
        tls_url: the same with TLS.
        admin_url: the URL of Envoy's admin interface.
        keys_port: the port on which Envoy asks itself for the keys of access tokens.
        metrics_url: the URL that Prometheus scrapes.
        process: Envoy.
    """

    def __init__(self, ports: EdgePorts, *, settings: Settings, home: Home, report: Callable[[str], None]) -> None:
        """Prepare an Envoy at the ports. Nothing is started.

        Raises:
            StackError: Envoy is not installed.
        """
        self._settings: Final = settings
        self._admin: Final = ReservedPort()
        self._ports: Final = ports
        self._keys: Final = ReservedPort()
        self.keys_port: Final = self._keys.number
        self._metrics: Final = ReservedPort()
        self.metrics_url: Final = f"http://{LOOPBACK}:{self._metrics.number}/metrics"
        self._config: Final = home.edge_config
        self._secrets: Final = home.edge_secrets
        self.url: Final = f"http://{LOOPBACK}:{ports.plain.number}"
        self.tls_url: Final = f"https://localhost:{ports.tls.number}"
        self.admin_url: Final = f"http://{LOOPBACK}:{self._admin.number}"
        self.process: Final = Process(
            self._command(home.logs / "envoy.log"),
            hooks=Hooks(
                is_ready=self._is_healthy, before_stop=partial(drain, self._admin.number, drain_s=0, finish_s=_DRAIN_S)
            ),
            report=report,
        )

    def configure(self, replicas: Mapping[str, Sequence[Replica]], *, certificates: Certificates) -> None:
        """Write the configuration that routes calls to the replicas of each service."""
        clusters = tuple(
            Cluster(
                name=service,
                replicas=tuple(Address(host=LOOPBACK, port=replica.port) for replica in group),
            )
            for service, group in replicas.items()
        )
        edge = Edge(
            address=LOOPBACK,
            port=self._ports.plain.number,
            tls_port=self._ports.tls.number,
            inside=certificates.folder_of("edge"),
            outside=certificates.folder_of("localhost"),
            secrets_folder=self._secrets,
            admin_port=self._admin.number,
            keys_port=self.keys_port,
            descriptor_path=REPOSITORY / "generated" / "shop.binpb",
            files_root=REPOSITORY,
            clusters=clusters,
            drain_s=_DRAIN_S,
            has_reflection=True,
            rate_limit=self._settings.rate_limit,
            public_write_limit=self._settings.public_write_limit,
            cors_origins=self._settings.cors_origins,
            metrics_port=self._metrics.number,
            traces_to=self._settings.traces_to,
            trace_sampling=self._settings.trace_sampling,
        )
        self._secrets.mkdir(exist_ok=True)
        for name, secret in render_secrets(edge).items():
            (self._secrets / name).write_text(secret)
        self._config.write_text(render(edge))

    def release_ports(self) -> None:
        """Release the ports that no caller knows; call it when Envoy is not needed any more."""
        self._admin.release()
        self._keys.release()
        self._metrics.release()

    def _command(self, log: Path) -> Command:
        try:
            argv = envoy_command(self._config, drain_s=_DRAIN_S, concurrency=2)
        except EnvoyMissing as error:
            raise StackError(str(error)) from None
        return Command(
            name="Envoy",
            argv=argv,
            env={"PATH": os.defpath},
            cwd=REPOSITORY,
            log=log,
        )

    def _is_healthy(self) -> bool:
        if ask("GET", "/healthz", port=self._ports.plain.number)[0] != HTTPStatus.OK:
            return False
        # The edge is ready once it can verify tokens. It fetches the keys in the background and keeps them.
        path = "/stats?filter=^http\\.edge\\.jwt_authn\\.jwks_fetch_success$"
        _status, stat = ask("GET", path, port=self._admin.number)
        return bool(stat.strip()) and not stat.strip().endswith(" 0")
