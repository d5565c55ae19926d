"""A primary and a synchronous standby under Patroni, with an etcd of one member: what operators run, made small."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import httpx
import psycopg
import yaml
from psycopg import sql

from chassis.testing import LOOPBACK, until
from devstack.passwords import PasswordFile
from devstack.postgres_cluster import SUPERUSER, find_binaries
from devstack.privileges import chown_to_unprivileged
from devstack.process import Command, Hooks, Process
from devstack.services import SERVICES
from tests.chaos.record import now_s
from tests.failover.network import Link
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MISSING: Final = "etcd is missing: apt-get install etcd-server"
_REPLICATOR: Final = "replicator"
# The shortest that Patroni accepts: a leader that is silent for that long is replaced.
_TTL_S: Final = 20


def find_etcd() -> Path | None:
    """Return etcd's program; None if this machine has none."""
    found = shutil.which("etcd")
    return Path(found) if found else None


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


class Node:
    """One PostgreSQL and the Patroni that looks after it.

    Attributes:
        name: in the cluster.
        port: where services and the other node find PostgreSQL.
        links: all that leads to this node and from it to etcd.
        process: Patroni; it starts PostgreSQL.
    """

    def __init__(self, name: str, home: Path, *, etcd_port: int, passwords: PasswordFile) -> None:
        self.name: Final = name
        own_port, api_port = free_port(), free_port()
        to_postgres, to_api, to_etcd = self.links = [Link(port) for port in (own_port, api_port, etcd_port)]
        self.port: Final = to_postgres.port
        self._listens: Final = {"postgresql": f"{LOOPBACK}:{own_port}", "restapi": f"{LOOPBACK}:{api_port}"}
        self._is_found: Final = {"postgresql": f"{LOOPBACK}:{to_postgres.port}", "restapi": f"{LOOPBACK}:{to_api.port}"}
        self._api: Final = f"http://{self._listens['restapi']}"
        self._home: Final = home
        home.mkdir()
        chown_to_unprivileged(home)
        configuration = home / "patroni.yaml"
        configuration.write_text(yaml.safe_dump(self._configuration(to_etcd.port, passwords)))
        command = Command(
            name=name,
            argv=(sys.executable, "-m", "patroni", str(configuration)),
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": str(home)},
            cwd=home,
            log=home / "patroni.log",
            stop_timeout_s=30,
            refuses_root=True,
        )
        self.process: Final = Process(command, hooks=Hooks(is_ready=lambda: _answers(f"{self._api}/health")))

    def _configuration(self, etcd_port: int, passwords: PasswordFile) -> Mapping[str, Any]:
        roles = {"superuser": SUPERUSER, "replication": _REPLICATOR, "rewind": "rewinder"}
        authentication = {
            use: {"username": role, "password": passwords.password_of(role)} for use, role in roles.items()
        }
        return {
            "scope": "shop",
            "name": self.name,
            "restapi": {"listen": self._listens["restapi"], "connect_address": self._is_found["restapi"]},
            # As proxies: otherwise it asks etcd for the members' own addresses, and no link leads there.
            "etcd3": {"hosts": [f"{LOOPBACK}:{etcd_port}"], "use_proxies": True},
            "bootstrap": {
                "dcs": {
                    "ttl": _TTL_S,
                    "loop_wait": 1,
                    "retry_timeout": 3,
                    "synchronous_mode": True,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "parameters": {"max_connections": 200, "deadlock_timeout": "200ms", "shared_buffers": "64MB"},
                    },
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}],
            },
            "postgresql": {
                "listen": self._listens["postgresql"],
                "connect_address": self._is_found["postgresql"],
                "data_dir": str(self._home / "data"),
                "bin_dir": str(find_binaries()),
                "pgpass": str(self._home / "pgpass"),
                "authentication": authentication,
                "parameters": {"unix_socket_directories": ""},
                "pg_hba": [
                    f"host all all {LOOPBACK}/32 scram-sha-256",
                    f"host replication {_REPLICATOR} {LOOPBACK}/32 scram-sha-256",
                ],
            },
        }

    def is_primary(self) -> bool:
        """Return whether it says that it is the primary."""
        return _answers(f"{self._api}/primary")

    def members(self) -> list[dict[str, Any]]:
        """Return the cluster's members, as this one sees them."""
        try:
            answer = httpx.get(f"{self._api}/cluster", timeout=2, trust_env=False)
        except httpx.HTTPError:
            return []
        return list(answer.json().get("members", []))

    def switch_to(self, candidate: str) -> None:
        """Have another member become the primary, in an orderly way."""
        wanted = {"leader": self.name, "candidate": candidate}
        httpx.post(f"{self._api}/switchover", json=wanted, timeout=60, trust_env=False).raise_for_status()

    def pids(self) -> list[int]:
        """Return the processes of Patroni and of PostgreSQL."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # of another user, or ended meanwhile
                if (entry / "cwd").readlink() in {self._home.resolve(), (self._home / "data").resolve()}:
                    found.append(int(entry.name))
        return found

    def signal_all(self, number: signal.Signals) -> None:
        """Send Patroni and every process of PostgreSQL a signal, Patroni first."""
        for pid in sorted(self.pids()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


class Cluster:
    """Two nodes, which are each other's standby, with a database and a role for each service."""

    def __init__(self, home: Path, etcd: Path) -> None:
        self.passwords: Final = PasswordFile(home / "pgpass")
        client, peer = free_port(), free_port()
        urls = {"client": f"http://{LOOPBACK}:{client}", "peer": f"http://{LOOPBACK}:{peer}"}
        flags = {
            "data-dir": str(home / "etcd"),
            "listen-client-urls": urls["client"],
            "advertise-client-urls": urls["client"],
            "listen-peer-urls": urls["peer"],
            "initial-advertise-peer-urls": urls["peer"],
            "initial-cluster": f"default={urls['peer']}",
        }
        command = Command(
            name="etcd",
            argv=(str(etcd), *(f"--{name}={value}" for name, value in flags.items())),
            env={"PATH": os.defpath},
            cwd=home,
            log=home / "etcd.log",
        )
        self.etcd: Final = Process(command, hooks=Hooks(is_ready=lambda: _answers(f"{urls['client']}/health")))
        self.nodes: Final = [
            Node(name, home / name, etcd_port=client, passwords=self.passwords) for name in ("node1", "node2")
        ]

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.etcd.start()
            self.etcd.wait_ready()
            for node in self.nodes:
                node.process.start()
            for node in self.nodes:
                node.process.wait_ready(60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        for node in self.nodes:
            node.process.stop()
            node.signal_all(signal.SIGKILL)
            for link in node.links:
                link.close()
        self.etcd.stop()

    def url(self, database: str, *, role: str = SUPERUSER) -> str:
        """Return the URL of the database for this role, with both hosts: libpq takes the primary."""
        hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in self.nodes)
        password = self.passwords.password_of(role)
        return f"postgresql://{role}:{password}@{hosts}/{database}?target_session_attrs=read-write"

    async def settled(self) -> tuple[Node, Node]:
        """Return the primary and its standby, once this is synchronous."""
        found: list[tuple[Node, Node]] = []

        async def is_settled() -> bool:
            for primary, standby in (self.nodes, self.nodes[::-1]):
                roles = {member["name"]: (member["role"], member["state"]) for member in primary.members()}
                if (
                    roles.get(primary.name) == ("leader", "running")
                    and roles.get(standby.name) == ("sync_standby", "streaming")
                    and primary.is_primary()
                ):
                    found.append((primary, standby))
            return bool(found)

        await until(is_settled, timeout_s=120)
        return found[0]

    def create_databases(self) -> None:
        """Make what the services need."""
        with contextlib.closing(psycopg.connect(self.url("postgres"), autocommit=True)) as connection:
            for service in SERVICES:
                role, password = sql.Identifier(service.name), sql.Literal(self.passwords.password_of(service.name))
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
                database = sql.Identifier(service.database)
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))


async def new_primary(standby: Node, *, timeout_s: float = 90) -> float:
    """Return when the standby became the primary."""

    async def has_become_primary() -> bool:
        return standby.is_primary()

    await until(has_become_primary, timeout_s=timeout_s)
    return now_s()


@contextlib.contextmanager
def running_cluster(etcd: Path) -> Iterator[Cluster]:
    """Run a cluster while the block runs."""
    home = Path(tempfile.mkdtemp(prefix="failover"))
    home.chmod(0o755)
    try:
        with Cluster(home, etcd) as cluster:
            yield cluster
    finally:
        if "KEEP" not in os.environ:
            shutil.rmtree(home, ignore_errors=True)
