"""The peers as processes: what others build, with what they recommend for production."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psycopg

from devstack.ports import LOOPBACK, ReservedPort
from devstack.process import Command, Hooks, Process
from devstack.settings import REPOSITORY
from tests.perf import dataset, tools
from tests.perf.load import RUN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from devstack.postgres import PostgresServer

_REPLICAS: Final = 2  # as many as the shop has


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Something to be measured.

    Attributes:
        url: where callers reach it over REST; empty if they do not.
        users: host:port of its user service for gRPC; empty if it has none.
        orders: the same of its order service.
        processes: by label.
    """

    url: str = ""
    users: str = ""
    orders: str = ""
    processes: Mapping[str, Sequence[Process]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Databases:
    """URLs of the peers' two databases on the shop's server."""

    users: str
    orders: str

    @classmethod
    def create(cls, server: PostgresServer) -> Databases:
        """Create them, the users loaded."""
        urls = []
        for name, ddl in (("peer_users", dataset.PEER_USERS_DDL), ("peer_orders", dataset.PEER_ORDERS_DDL)):
            server.create_private_database(name, role=name)
            urls.append(server.url(name, role=name))
            with psycopg.connect(urls[-1], autocommit=True) as connection:
                connection.execute(ddl.encode())
        dataset.fill_users(server.superuser_url("peer_users"), dataset.USERS)
        return cls(*urls)


@contextlib.contextmanager
def running(processes: Mapping[str, Sequence[Process]]) -> Iterator[None]:
    """Run processes while the block does, from when each listens. A later label may need an earlier one."""
    with contextlib.ExitStack() as stack:
        for group in processes.values():
            for process in group:
                stack.callback(process.stop)
                process.start()
            for process in group:
                process.wait_ready()
        yield


def express(databases: Databases) -> System:
    """Return nginx with two processes of each service."""
    node = str(shutil.which("node"))
    folder = tools.PEERS / "express"
    env = {"NODE_ENV": "production", "SERVICE_VERSION": "1.0.0"}
    edge, users, orders = free_port(), _free_ports(), _free_ports()
    services: dict[str, list[Process]] = {"express users": [], "express orders": []}
    for user_port, order_port in zip(users, orders, strict=True):
        own = {"DATABASE_URL": databases.users}
        process = _process("express-users", (node, "users.js"), user_port, cwd=folder, env=env | own)
        services["express users"].append(process)
        own = {"DATABASE_URL": databases.orders, "USER_SERVICE_URL": f"http://{LOOPBACK}:{user_port}"}
        process = _process("express-orders", (node, "orders.js"), order_port, cwd=folder, env=env | own)
        services["express orders"].append(process)
    nginx = _process("nginx", (tools.program("nginx"), *_nginx_flags(edge, users, orders)), edge, cwd=RUN)
    return System(url=f"http://{LOOPBACK}:{edge}", processes={**services, "express nginx": [nginx]})


def fastapi(databases: Databases) -> System:
    """Return uvicorn with two workers."""
    port = free_port()
    env = {"DATABASE_URL": databases.users.replace("postgresql:", "postgresql+asyncpg:")}
    flags = ("--host", LOOPBACK, "--port", str(port), "--workers", str(_REPLICAS), "--loop", "uvloop")
    command = (str(tools.fastapi_python()), "-m", "uvicorn", "app:app", "--http", "httptools", *flags)
    uvicorn = _process("fastapi", command, port, cwd=tools.PEERS / "fastapi", env=env)
    return System(url=f"http://{LOOPBACK}:{port}", processes={"fastapi": [uvicorn]})


def naive(databases: Databases) -> System:
    """Return the tutorial's two services, a process each."""
    ports = {"users": free_port(), "orders": free_port()}
    urls = {"users": databases.users, "orders": databases.orders}
    processes = {}
    for service, port in ports.items():
        env = {
            "DATABASE_URL": urls[service].replace("postgresql:", "postgresql+psycopg:"),
            "USER_SERVICE_URL": f"{LOOPBACK}:{ports['users']}",
            "PYTHONPATH": str(REPOSITORY / "generated"),
        }
        command = (sys.executable, "naive.py", service)
        process = _process(f"naive-{service}", command, port, cwd=tools.PEERS / "grpc_python", env=env)
        processes[f"naive {service}"] = [process]
    return System(users=f"{LOOPBACK}:{ports['users']}", orders=f"{LOOPBACK}:{ports['orders']}", processes=processes)


def go(server: Path, databases: Databases) -> System:
    """Return the two services in Go, a process each."""
    ports = {"users": free_port(), "orders": free_port()}
    urls = {"users": databases.users, "orders": databases.orders}
    processes = {}
    for service, port in ports.items():
        env = {"DATABASE_URL": urls[service], "USER_SERVICE_URL": f"{LOOPBACK}:{ports['users']}"}
        processes[f"go {service}"] = [_process(f"go-{service}", (str(server), service), port, cwd=RUN, env=env)]
    return System(users=f"{LOOPBACK}:{ports['users']}", orders=f"{LOOPBACK}:{ports['orders']}", processes=processes)


def empty(user: bytes, *, certificates: Path) -> System:
    """Return the empty handler, which answers this message, with the user service's certificate."""
    port = free_port()
    env = {"TLS_FOLDER": str(certificates), "PYTHONPATH": str(REPOSITORY / "generated")}
    command = (sys.executable, "empty.py", base64.b64encode(user).decode())
    process = _process("empty", command, port, cwd=tools.PEERS / "grpc_python", env=env)
    return System(users=f"{LOOPBACK}:{port}", processes={"empty": [process]})


def trace_sink() -> System:
    """Return the receiver of the shop's traces, whose CPU is not counted."""
    port = free_port()
    env = {"PYTHONPATH": str(REPOSITORY)}
    command = (sys.executable, "-m", "tests.perf.trace_sink")
    process = _process("traces", command, port, cwd=REPOSITORY, env=env)
    return System(url=f"http://{LOOPBACK}:{port}", processes={"traces": [process]})


def _nginx_flags(edge: int, users: Sequence[int], orders: Sequence[int]) -> tuple[str, ...]:
    config = (tools.PEERS / "express" / "nginx.conf.in").read_text()
    for mark, ports in (("@USERS@", users), ("@ORDERS@", orders)):
        config = config.replace(mark, " ".join(f"server {LOOPBACK}:{port};" for port in ports))

    (RUN / "nginx.conf").write_text(config.replace("@PORT@", str(edge)))
    return ("-p", str(RUN), "-c", "nginx.conf", "-e", "stderr")


def _process(
    name: str, argv: tuple[str, ...], port: int, *, cwd: Path, env: Mapping[str, str] | None = None
) -> Process:
    common = {"PORT": str(port), "LOG_FILE": str(RUN / f"{name}-{port}.jsonl"), "HOME": os.environ.get("HOME", "/")}
    command = Command(
        name=name,
        argv=argv,
        env={**tools.environment(), **common, **(env or {})},
        cwd=cwd,
        log=RUN / f"{name}-{port}.log",
        # Not SIGKILL, which nginx and uvicorn cannot pass on to their workers.
        orphan_signal=signal.SIGTERM,
    )
    return Process(command, hooks=Hooks(is_ready=lambda: _listens(port)))


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_ports() -> list[int]:
    return [free_port() for _ in range(_REPLICAS)]


def free_port() -> int:
    """Return a free port."""
    reserved = ReservedPort()
    reserved.release()
    return reserved.number
