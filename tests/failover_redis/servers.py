"""A Redis or a Sentinel on the loopback interface, as a process: to be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.certificates import Certificates, Subject
from devstack.ports import LOOPBACK
from devstack.process import Command, Hooks, Process
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

USER: Final = "shop"
# Three different passwords: of our user, of the servers' own user, and of the Sentinels.
PASSWORD: Final = "canary/of?a:user#@%41&+é"
SERVER_PASSWORD: Final = "canary-of-a-server"
SENTINEL_PASSWORD: Final = "canary/of?a:sentinel#@%41&+é"
# As docs/operations.md has it; and for tests, which empty it.
RIGHTS: Final = (
    "~shop:events:* ~{shop:events:* +@read +@write +@scripting +@connection +time +cluster|slots -@dangerous +flushall"
)


def missing_program() -> str:
    """Return the line that says what to install; empty if nothing is missing."""
    lacking = [name for name in ("redis-server", "redis-sentinel") if shutil.which(name) is None]
    return f"no {' and no '.join(lacking)}: on Debian, apt-get install redis-server redis-sentinel" if lacking else ""


def made_certificates(home: Path) -> Path:
    """Return a folder with `tls.crt`, `tls.key` and `ca.crt` for servers on the loopback interface."""
    certificates = Certificates(home)
    certificates.prepare()
    # Nodes of a Cluster are also clients of each other.
    certificates.issue(Subject("redis", hosts=(LOOPBACK,)), into=home / "redis")
    return home / "redis"


class Server:
    """A Redis or a Sentinel as a process.

    Attributes:
        port: where it listens.
        process: to be killed, frozen and started again.
    """

    def __init__(
        self, home: Path, settings: dict[str, str], *, program: str = "redis-server", tls: Path | None = None
    ) -> None:
        home.mkdir()
        self.port: Final = free_port()
        self._password: Final = settings["requirepass"]
        self._tls: Final = tls
        written = {"bind": LOOPBACK, "dir": str(home), **self._ports(), **settings}
        # Sentinels and nodes of a Cluster write into their files what they learn.
        file = home / "server.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in written.items()))
        command = Command(
            name=home.name,
            argv=(shutil.which(program) or program, str(file)),
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            cwd=home,
            log=home / "log",
        )
        self.process: Final = Process(command, hooks=Hooks(is_ready=self.answers))

    def _ports(self) -> dict[str, str]:
        if self._tls is None:
            return {"port": str(self.port)}
        return {
            "port": "0",
            "tls-port": str(self.port),
            "tls-cert-file": str(self._tls / "tls.crt"),
            "tls-key-file": str(self._tls / "tls.key"),
            "tls-ca-cert-file": str(self._tls / "ca.crt"),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
            "tls-cluster": "yes",
        }

    def ask(self, *words: object) -> Any:
        """Return the answer to a command, as the server gives it.

        Raises:
            RedisError: there is none.
        """
        with self._client() as client:
            return client.execute_command(*words)

    def read(self, *words: object) -> Any:
        """Return the answer to a command that reads, also of a replica in a Cluster."""
        with self._client() as client, client.pipeline(transaction=False) as together:
            together.execute_command("READONLY")
            together.execute_command(*words)
            return together.execute(raise_on_error=False)[1]

    def _client(self) -> redis.Redis:
        options: dict[str, Any] = {"socket_timeout": 5, "decode_responses": True, "retry": Retry(NoBackoff(), 0)}
        if self._tls:
            options |= {"ssl": True, "ssl_ca_certs": str(self._tls / "ca.crt")}
        client = redis.Redis(host=LOOPBACK, port=self.port, password=self._password, protocol=2, **options)
        client.response_callbacks.clear()
        return client

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.ask("PING"))
        return False

    def is_primary(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.ask("ROLE")[0] == "master")
        return False

    def online_replicas(self) -> int:
        """Return how many replicas are up to date, as this server sees it."""
        with contextlib.suppress(redis.RedisError):
            return str(self.ask("INFO", "replication")).count("state=online")
        return 0

    def freeze(self) -> None:
        assert self.process.pid
        os.kill(self.process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        assert self.process.pid
        os.kill(self.process.pid, signal.SIGCONT)
