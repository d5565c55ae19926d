"""podman, and Docker's own compose in front of it, as a person would use them on a command line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from devstack.settings import REPOSITORY
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMPOSE: Final = REPOSITORY / ".tools" / "docker-compose"
_HEALTH_EVERY_S: Final = 1
_STAYS_HEALTHY_S: Final = 10  # asking costs a process in the container
_COMMAND_TIMEOUT_S: Final = 180


@dataclass(frozen=True, slots=True)
class Container:
    """A container, by its name."""

    name: str

    def facts(self) -> dict[str, Any]:
        """Return what the engine knows of it."""
        return dict(json.loads(podman("inspect", self.name))[0])

    @property
    def state(self) -> dict[str, Any]:
        """Whether it runs, its exit code and its health."""
        return dict(self.facts()["State"])

    @property
    def is_healthy(self) -> bool:
        """Whether it runs and its HEALTHCHECK says that it serves."""
        state = self.state
        return (
            bool(state["Running"]) and (state.get("Health") or state.get("Healthcheck", {})).get("Status") == "healthy"
        )

    @property
    def pid(self) -> int:
        """The process id of its process 1, outside of it."""
        return int(self.state["Pid"])

    def address(self, network: str) -> str:
        """Return its IP address in the network."""
        return str(self.facts()["NetworkSettings"]["Networks"][network]["IPAddress"])

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, whatever its exit code."""
        return _run("podman", "exec", self.name, *command)


def podman(*arguments: str) -> str:
    """Return what podman prints.

    Raises:
        AssertionError: it fails. The message is its own.
    """
    done = _run("podman", *arguments)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def engine(socket: Path) -> Iterator[str]:
    """Serve Docker's API at the socket, and ask containers for their health, while the block runs.

    podman leaves the asking to systemd's timers, and a container that tests run in has no systemd.
    """
    if not COMPOSE.exists() or "CONTAINERS_CONF" not in os.environ:
        pytest.skip("make test-containers builds the images and runs this")
    address = f"unix://{socket}"
    environment = {**os.environ, "DISABLE_HC_SYSTEMD": "true"}
    stop = threading.Event()
    watch = threading.Thread(target=_ask_for_health, args=(stop,))
    with subprocess.Popen(["podman", "system", "service", "--time=900", address], env=environment) as service:
        try:
            until(socket.exists)
            watch.start()
            yield address
        finally:
            stop.set()
            watch.join()
            service.terminate()


def _ask_for_health(stop: threading.Event) -> None:
    known: dict[str, float] = {}
    while not stop.wait(_HEALTH_EVERY_S):
        for line in _run("podman", "ps", "--format", "{{.ID}} {{.Status}}").stdout.splitlines():
            container, _, status = line.partition(" ")
            is_due = time.monotonic() > known.get(container, 0) + _STAYS_HEALTHY_S
            if is_due or not status.endswith("(healthy)"):
                known[container] = time.monotonic()
                _run("podman", "healthcheck", "run", container)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False)
