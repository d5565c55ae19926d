"""The system of docker/compose.yaml, looking to tests as a stack of devstack's does."""

from __future__ import annotations

import os
import secrets
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chassis.service import services
from devstack.settings import REPOSITORY
from tests.containers.engine import COMPOSE, Container, podman
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SERVICES: Final = [service.host for service in services()]
WORKERS: Final = [f"{service.host}-worker" for service in services() if service.has_worker]

_EDGE_PORT: Final = 8080
_UP_TIMEOUT_S: Final = 300
_OWNERS: Final = {service.database: service.name for service in services()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedSystem:
    """Containers that compose has made, and the secrets they were given.

    Attributes:
        project: the first part of every container's name.
        engine: where Docker's API is served.
        secrets: the folder that `python -m devstack secrets` has made.
        files: the compose files.
    """

    project: str
    engine: str
    secrets: Path
    files: Sequence[Path]
    admin_email: str = "admin@shop.local"
    admin_password: str = field(default_factory=lambda: secrets.token_urlsafe(18))

    @property
    def edge_url(self) -> str:
        """Where callers reach the system."""
        return f"http://127.0.0.1:{_EDGE_PORT}"

    @property
    def postgres(self) -> ComposedSystem:
        """The part of a server that has the superuser's URL."""
        return self

    def superuser_url(self, database: str) -> str:
        """Return the superuser's URL of the database, which only the containers' networks can reach."""
        return self._url(database, role="postgres")

    def database_url(self, database: str) -> str:
        """Return where the owner finds the database."""
        return self._url(database, role=_OWNERS[database])

    def containers(self, service: str) -> list[Container]:
        """Return the containers of a service of the compose file, running or not."""
        names = podman("ps", "--all", "--format", "{{.Names}}", "--filter", f"name=^{self.project}-{service}-[0-9]+$")
        return [Container(name) for name in sorted(names.split())]

    def up(self) -> None:
        """Start everything and return when all of it is healthy, and the admin exists."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(_UP_TIMEOUT_S))
        command = ("exec", "-T", "user-svc", "service", "admin", "create", self.admin_email)
        self.compose(*command, stdin=self.admin_password)

    def down(self) -> None:
        """Remove the containers and their data."""
        for container in podman("ps", "--all", "--quiet", "--filter", f"name=^{self.project}-").split():
            podman("rm", "--force", "--time", "0", container)  # there are no more calls: no need to drain
        self.compose("down", "--volumes")

    def compose(self, *arguments: str, stdin: str = "") -> str:
        """Return what `docker compose` prints.

        Raises:
            AssertionError: it fails. The message is its own.
        """
        done = subprocess.run(
            [str(COMPOSE), "--project-name", self.project, *self._file_flags(), *arguments],
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_UP_TIMEOUT_S + 30,
            check=False,
        )
        assert done.returncode == 0, f"compose {' '.join(arguments)}: {done.stdout}{done.stderr}{self._logs()}"
        return done.stdout

    def environment(self) -> Mapping[str, str]:
        """Return the variables that compose needs here."""
        return {
            **os.environ,
            "DOCKER_HOST": self.engine,
            "SHOP_VERSION": "test",
            "SHOP_SECRETS": str(self.secrets),
            "POSTGRES_IMAGE": "localhost/shop-postgres:18",
            "REDIS_IMAGE": "localhost/shop-redis:latest",
            "PROMETHEUS_IMAGE": "localhost/shop-prometheus:latest",
            # One address calls as often as tests do.
            "SHOP_RATE_LIMIT": "1000000000",
            "SHOP_PUBLIC_WRITE_LIMIT": "1000000000",
        }

    def all_healthy(self, service: str) -> bool:
        """Return whether each container of the service is."""
        return all(container.is_healthy for container in self.containers(service))

    def wait_healthy(self, service: str) -> None:
        """Return when each container of the service is."""
        until(lambda: self.all_healthy(service), timeout_s=90)

    def _file_flags(self) -> list[str]:
        return [part for file in self.files for part in ("--file", str(REPOSITORY / file))]

    def errors(self) -> str:
        """Return what the services have logged of defects, for who must find out why a call failed."""
        containers = (container for service in SERVICES for container in self.containers(service))
        lines = (line for container in containers for line in podman("logs", container.name).splitlines())
        return "\n".join(line for line in lines if '"level":"error"' in line)

    def _logs(self) -> str:
        """Return the last words of every container, for who must find out why the system did not come up."""
        names = podman("ps", "--all", "--format", "{{.Names}}", "--filter", f"name=^{self.project}-").split()
        return "".join(f"\n== {name}\n{podman('logs', '--tail', '15', name)}" for name in names)

    def _url(self, database: str, *, role: str) -> str:
        name = "postgres_password" if role == "postgres" else f"{role}_password"
        address = self.containers("postgres")[0].address(f"{self.project}_data")
        return f"postgresql://{role}:{(self.secrets / name).read_text()}@{address}:5432/{database}"
