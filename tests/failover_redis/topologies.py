"""Redis as one server, behind Sentinels, and as a Cluster.

Servers want passwords, and TLS if they get a folder with a certificate.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import redis
from redis.crc import key_slot
from typing_extensions import override

from devstack.ports import LOOPBACK
from devstack.process import stop_together
from tests.failover_redis.servers import PASSWORD, RIGHTS, SENTINEL_PASSWORD, SERVER_PASSWORD, USER, Server
from tests.support.ports import free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Servers that are away this long are given up, by Sentinels and by the nodes of a Cluster.
DOWN_AFTER_MS: Final = 1500
_PATIENCE_S: Final = 90
_STORED: Final = {
    "requirepass": SERVER_PASSWORD,
    "masterauth": SERVER_PASSWORD,
    f"user {USER}": f"on >{PASSWORD} {RIGHTS}",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',
    "maxmemory": "256mb",
    "maxmemory-policy": "noeviction",
    "repl-diskless-sync-delay": "0",
}


class Topology:
    """Servers that take over from each other.

    Attributes:
        name: for the report.
        servers: the ones that hold events.
    """

    name: str
    servers: Sequence[Server]
    others: Sequence[Server] = ()

    def __init__(self, home: Path, *, tls: Path | None = None) -> None:
        self._tls: Final = tls
        self._make(home)

    def _make(self, home: Path) -> None:
        """Make the servers; none is started."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Where clients find it."""
        raise NotImplementedError

    def _url(self, kind: str, hosts: Sequence[Server], path: str = "", **options: str) -> str:
        scheme = f"rediss{kind}" if self._tls else f"redis{kind}"
        if self._tls:
            options["ssl_ca_certs"] = str(self._tls / "ca.crt")
        behind = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
        addresses = ",".join(f"{LOOPBACK}:{server.port}" for server in hosts)
        return f"{scheme}://{USER}:{quote(PASSWORD, safe='')}@{addresses}{path}?{behind}"

    def start(self) -> None:
        """Start it and return when it is whole."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop every server."""
        self.wake()
        stop_together([server.process for server in (*self.others, *self.servers)])

    def freeze(self) -> None:
        """Let no server answer; each still takes connections."""
        for server in (*self.servers, *self.others):
            server.freeze()

    def wake(self) -> None:
        """Continue their processes."""
        for server in (*self.servers, *self.others):
            if server.process.pid:
                server.wake()

    def primary(self, key: str) -> Server:
        """Return the server that takes writes of the key, as the ones that decide see it."""
        raise NotImplementedError

    def replicas(self, primary: Server) -> Sequence[Server]:
        """Return the servers that may take over."""
        raise NotImplementedError

    def hand_over(self, key: str) -> None:
        """Have the primary of the key replaced in peace."""
        raise NotImplementedError

    def is_whole(self) -> bool:
        """Return whether every primary has its replicas, up to date, and another fault may come."""
        raise NotImplementedError

    def until_replaced(self, key: str, *, primary: Server) -> None:
        """Return when another server has taken over from the primary."""

        def is_replaced() -> bool:
            with contextlib.suppress(redis.RedisError):
                now = self.primary(key)
                return now is not primary and now.is_primary()
            return False

        until(is_replaced, timeout_s=_PATIENCE_S)

    def until_whole(self) -> None:
        until(self.is_whole, timeout_s=_PATIENCE_S)

    def _start(self, servers: Sequence[Server]) -> None:
        for server in servers:
            server.process.start()
        for server in servers:
            server.process.wait_ready()

    def _of_port(self, port: int) -> Server:
        return next(server for server in self.servers if server.port == port)


class Alone(Topology):
    """One server."""

    name = "server"

    @override
    def _make(self, home: Path) -> None:
        self.servers = [Server(home / "redis", _STORED, tls=self._tls)]

    @property
    @override
    def url(self) -> str:
        return self._url("", self.servers, "/0")

    @override
    def start(self) -> None:
        self._start(self.servers)

    @override
    def is_whole(self) -> bool:
        return self.servers[0].is_primary()


class Sentinels(Topology):
    """A primary, two replicas and three Sentinels."""

    name = "Sentinel"
    SERVICE: Final = "shop"

    @override
    def _make(self, home: Path) -> None:
        self.servers = [Server(home / f"redis-{number}", _STORED, tls=self._tls) for number in range(3)]
        watched = {
            "requirepass": SENTINEL_PASSWORD,
            "sentinel sentinel-pass": SENTINEL_PASSWORD,
            f"sentinel monitor {self.SERVICE} {LOOPBACK}": f"{self.servers[0].port} 2",
            f"sentinel auth-pass {self.SERVICE}": SERVER_PASSWORD,
            f"sentinel down-after-milliseconds {self.SERVICE}": str(DOWN_AFTER_MS),
            f"sentinel failover-timeout {self.SERVICE}": "3000",
            f"sentinel parallel-syncs {self.SERVICE}": "2",
        }
        self.others = [
            Server(home / f"sentinel-{number}", watched, program="redis-sentinel", tls=self._tls) for number in range(3)
        ]

    @property
    @override
    def url(self) -> str:
        return self._url("+sentinel", self.others, f"/{self.SERVICE}/0", sentinel_password=SENTINEL_PASSWORD)

    @override
    def start(self) -> None:
        self._start(self.servers)
        for replica in self.servers[1:]:
            replica.ask("REPLICAOF", LOOPBACK, self.servers[0].port)
        until(lambda: self.servers[0].online_replicas() == 2, timeout_s=_PATIENCE_S)
        self._start(self.others)
        self.until_whole()

    @override
    def primary(self, key: str) -> Server:
        _, port = self.others[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.SERVICE)
        return self._of_port(int(port))

    @override
    def replicas(self, primary: Server) -> Sequence[Server]:
        return [server for server in self.servers if server is not primary]

    @override
    def hand_over(self, key: str) -> None:
        self.others[0].ask("SENTINEL", "FAILOVER", self.SERVICE)

    @override
    def is_whole(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            told = [self._state(sentinel) for sentinel in self.others]
            primary = self._of_port(int(told[0]["port"]))
            agreed = {(state["port"], state["flags"], state["num-slaves"]) for state in told}
            return (
                len(agreed) == 1
                and told[0]["flags"] == "master"
                and all(state["num-other-sentinels"] == "2" for state in told)
                and all(self._sees_replicas(sentinel) for sentinel in self.others)
                and primary.online_replicas() == 2
            )
        return False

    def _state(self, sentinel: Server) -> dict[str, str]:
        return _mapping(sentinel.ask("SENTINEL", "MASTER", self.SERVICE))

    def _sees_replicas(self, sentinel: Server) -> bool:
        """Return whether the Sentinel counts on both replicas."""
        replicas = [_mapping(each) for each in sentinel.ask("SENTINEL", "REPLICAS", self.SERVICE)]
        return [replica["flags"] for replica in replicas] == ["slave", "slave"]


class Cluster(Topology):
    """Three primaries with a replica each."""

    name = "Cluster"

    @override
    def _make(self, home: Path) -> None:
        settings = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(DOWN_AFTER_MS),
            # A replica takes over however long it has been cut off: a lost second is what is wanted.
            "cluster-replica-validity-factor": "0",
            **_STORED,
        }
        self._buses = [free_port() for _ in range(6)]
        self.servers = [
            Server(home / f"node-{number}", {**settings, "cluster-port": str(bus)}, tls=self._tls)
            for number, bus in enumerate(self._buses)
        ]

    @property
    @override
    def url(self) -> str:
        return self._url("+cluster", self.servers[:3])

    @override
    def start(self) -> None:
        self._start(self.servers)
        for number, server in enumerate(self.servers):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                server.ask("CLUSTER", "ADDSLOTSRANGE", 5462 * number, min(5462 * (number + 1), 16384) - 1)
            self.servers[0].ask("CLUSTER", "MEET", LOOPBACK, server.port, self._buses[number])
        until(lambda: all(len(_nodes(server)) == 6 for server in self.servers), timeout_s=_PATIENCE_S)
        for primary, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            replica.ask("CLUSTER", "REPLICATE", primary.ask("CLUSTER", "MYID"))
        self.until_whole()

    @override
    def primary(self, key: str) -> Server:
        slot = key_slot(key.encode())
        for server in self.servers:
            with contextlib.suppress(redis.RedisError, StopIteration):
                ranges = server.ask("CLUSTER", "SLOTS")
                return self._of_port(next(_port(each) for each in ranges if int(each[0]) <= slot <= int(each[1])))
        raise redis.ConnectionError("no node answers")

    @override
    def replicas(self, primary: Server) -> Sequence[Server]:
        mine = str(primary.ask("CLUSTER", "MYID"))
        return [self._of_port(int(node[1].split("@")[0].split(":")[1])) for node in _nodes(primary) if node[3] == mine]

    @override
    def hand_over(self, key: str) -> None:
        [replica] = self.replicas(self.primary(key))
        replica.ask("CLUSTER", "FAILOVER")

    @override
    def is_whole(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            primaries = [server for server in self.servers if server.is_primary()]
            return (
                len(primaries) == 3
                and all(server.online_replicas() == 1 for server in primaries)
                and all(self._is_well(server) for server in self.servers)
                and len({self._owners(server) for server in self.servers}) == 1
            )
        return False

    @staticmethod
    def _is_well(server: Server) -> bool:
        is_ok = "cluster_state:ok" in server.ask("CLUSTER", "INFO")
        return is_ok and not any("fail" in node[2] for node in _nodes(server))

    @staticmethod
    def _owners(server: Server) -> tuple[tuple[int, int], ...]:
        return tuple(sorted((int(each[0]), _port(each)) for each in server.ask("CLUSTER", "SLOTS")))


def _mapping(answer: Sequence[str]) -> dict[str, str]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _nodes(server: Server) -> list[list[str]]:
    """Return the nodes as a node knows them: id, address, flags, primary and more of each."""
    return [line.split() for line in server.ask("CLUSTER", "NODES").splitlines()]


def _port(slots: Any) -> int:
    """Return the port of the primary in a line of CLUSTER SLOTS."""
    return int(slots[2][1])
