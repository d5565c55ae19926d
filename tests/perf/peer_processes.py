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
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg

from chassis.auth.access_tokens import TokenSettings
from chassis.database.migrations import upgrade
from chassis.database.settings import DatabaseSettings
from chassis.database.url import DatabaseUrl
from devstack.ports import LOOPBACK, ReservedPort
from devstack.process import Command, Hooks, Process
from devstack.settings import REPOSITORY
from envoy.binary import envoy_command
from tests.perf import dataset, tools
from tests.perf.load import RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from devstack.certificates import Certificates
    from devstack.postgres import PostgresServer
    from devstack.services import Replica

TOKEN_MEMORY: Final = int(os.environ.get("TOKEN_MEMORY", "4096"))
"""How many verified tokens each process of the peers that do the same work remembers; with 0 it verifies each time."""

_SAME: Final = tools.PEERS / "same"  # what the peers that do the shop's work share
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
    """URLs of the peers' databases on the shop's server.

    Attributes:
        users: the users of all peers.
        orders: of the peers as tutorials build them.
        same_orders: of the peers that do the shop's work, with the tables and indexes of the order service.
    """

    users: str
    orders: str
    same_orders: str

    @classmethod
    def create(cls, server: PostgresServer) -> Databases:
        """Create them, the users loaded."""
        names = ("peer_users", "peer_orders", "peer_same_orders")
        for name in names:
            server.create_private_database(name, role=name)
        users, orders, same_orders = (server.url(name, role=name) for name in names)
        for url, ddl in ((users, dataset.PEER_USERS_DDL), (orders, dataset.PEER_ORDERS_DDL)):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(ddl.encode())
        upgrade("order_svc", DatabaseSettings(url=DatabaseUrl.parse(same_orders)))
        dataset.fill_users(server.superuser_url("peer_users"), dataset.USERS)
        return cls(users, orders, same_orders)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """The parts of the shop that peers use too, if they do its work.

    Attributes:
        databases: theirs.
        certificates: the shop's: the services and the edge show them to each other.
        keys_url: where the shop publishes the keys of its access tokens.
    """

    databases: Databases
    certificates: Certificates
    keys_url: str

    def environment_of(self, service: str, *, users: str = "") -> dict[str, str]:
        """Return the environment of `user_svc`, or of `order_svc`, which asks for the buyer at the address."""
        is_orders = service == "order_svc"
        tokens = TokenSettings()
        return {
            "SERVICE_NAME": service,
            "SERVICE_VERSION": "1.0.0",
            "DATABASE_URL": self.databases.same_orders if is_orders else self.databases.users,
            "JWKS_URL": self.keys_url,
            "SQL_FOLDER": str(_SAME),
            "TLS_FOLDER": str(self.certificates.folder_of(service).path),
            "TOKEN_AUDIENCE": tokens.audience,
            "TOKEN_ISSUER": tokens.issuer,
            "TOKEN_MEMORY": str(TOKEN_MEMORY),
            **({"USER_SERVICE_URL": users} if is_orders else {}),
        }


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
    config = tools.PEERS / "express" / "nginx.conf.in"
    nginx = _nginx("nginx", config, {"PORT": str(edge), "USERS": _upstream(users), "ORDERS": _upstream(orders)})
    return System(url=f"http://{LOOPBACK}:{edge}", processes={**services, "express nginx": [nginx]})


def express_same(inside: Inside) -> System:
    """Return Express with the shop's work, behind nginx: two processes of each service."""
    node, folder = str(shutil.which("node")), tools.PEERS / "express_same"

    def service(name: str, port: int, env: Mapping[str, str]) -> Process:
        command = (node, {"user_svc": "users.js", "order_svc": "orders.js"}[name])
        env = {**env, "NODE_ENV": "production"}
        return _process(f"express-same-{name}", command, port, cwd=folder, env=env)

    return _behind_nginx("express-same", inside, service)


def fastapi_same(inside: Inside) -> System:
    """Return FastAPI with the shop's work, behind nginx: two processes of each service."""
    folder = tools.PEERS / "fastapi_same"

    def service(name: str, port: int, env: Mapping[str, str]) -> Process:
        tls = Path(env["TLS_FOLDER"])
        # nginx must be the first to close an idle connection. 2: a caller must show a certificate.
        flags = (
            *("--host", LOOPBACK, "--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"),
            *("--ssl-keyfile", str(tls / "tls.key"), "--ssl-certfile", str(tls / "tls.crt")),
            *("--ssl-ca-certs", str(tls / "ca.crt"), "--ssl-cert-reqs", "2", "--timeout-keep-alive", "120"),
        )
        app = {"user_svc": "users:app", "order_svc": "orders:app"}[name]
        command = (str(tools.fastapi_python()), "-m", "uvicorn", app, *flags)
        return _process(f"fastapi-same-{name}", command, port, cwd=folder, env=env)

    return _behind_nginx("fastapi-same", inside, service)


def _behind_nginx(name: str, inside: Inside, service: Callable[[str, int, Mapping[str, str]], Process]) -> System:
    """Return two processes of each service behind nginx, with mutual TLS between them all."""
    edge, users, orders = free_port(), _free_ports(), _free_ports()
    services: dict[str, list[Process]] = {f"{name} users": [], f"{name} orders": []}
    for user_port, order_port in zip(users, orders, strict=True):
        services[f"{name} users"].append(service("user_svc", user_port, inside.environment_of("user_svc")))
        env = inside.environment_of("order_svc", users=f"https://{LOOPBACK}:{user_port}")
        services[f"{name} orders"].append(service("order_svc", order_port, env))
    # Some late answers are no reason to leave a server out: the default is one.
    servers = [_upstream(ports, options="max_fails=10 fail_timeout=2s") for ports in (users, orders)]
    marks = {"PORT": str(edge), "USERS": servers[0], "ORDERS": servers[1]}
    marks["TLS"] = str(inside.certificates.folder_of("edge").path)
    nginx = _nginx(f"{name}-nginx", _SAME / "nginx.conf.in", marks)
    return System(url=f"http://{LOOPBACK}:{edge}", processes={**services, f"{name} nginx": [nginx]})


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


def go_same(server: Path, inside: Inside) -> System:
    """Return the two services in Go with the shop's work, a process each."""
    ports = {"users": free_port(), "orders": free_port()}
    users = f"{LOOPBACK}:{ports['users']}"
    processes = {}
    for service, port in ports.items():
        env = inside.environment_of({"users": "user_svc", "orders": "order_svc"}[service], users=users)
        process = _process(f"go-same-{service}", (str(server), service), port, cwd=RUN, env=env)
        processes[f"go-same {service}"] = [process]
    return System(users=users, orders=f"{LOOPBACK}:{ports['orders']}", processes=processes)


def bare_edge(users: Sequence[Replica], *, certificates: Certificates) -> System:
    """Return an Envoy with nothing but transcoder and router before the replicas of the user service."""
    edge, port = _bare_envoy("bare-edge", [replica.port for replica in users], certificates=certificates)
    return System(url=f"http://{LOOPBACK}:{port}", processes={"bare edge": [edge]})


def _bare_envoy(name: str, users: Sequence[int], *, certificates: Certificates) -> tuple[Process, int]:
    """Return the process and its port; `users` are the ports behind it."""
    port, config = free_port(), RUN / f"{name}.yaml"
    endpoints = [f"{{endpoint: {{address: {{socket_address: {_address(each)}}}}}}}" for each in users]
    marks = {"PORT": str(port), "USERS": ", ".join(endpoints), "TLS": str(certificates.folder_of("edge").path)}
    marks["DESCRIPTOR"] = str(REPOSITORY / "generated" / "shop.binpb")
    _fill_in(_SAME / "bare_edge.yaml.in", marks, config)
    return _process(name, envoy_command(config, drain_s=1, concurrency=2), port, cwd=RUN), port


def _address(port: int) -> str:
    return f"{{address: {LOOPBACK}, port_value: {port}}}"


def empty(user: bytes, order: bytes, *, certificates: Certificates) -> System:
    """Return two processes whose handlers answer these messages, behind an Envoy as bare as bare_edge()."""
    env = {
        "TLS_FOLDER": str(certificates.folder_of("user_svc").path),
        "PYTHONPATH": str(REPOSITORY / "generated"),
    }
    command = (sys.executable, "empty.py", *(base64.b64encode(answer).decode() for answer in (user, order)))
    ports = _free_ports()
    handlers = [_process("empty", command, port, cwd=tools.PEERS / "grpc_python", env=env) for port in ports]
    edge, port = _bare_envoy("empty-edge", ports, certificates=certificates)
    processes = {"empty": handlers, "empty edge": [edge]}
    return System(url=f"http://{LOOPBACK}:{port}", users=f"{LOOPBACK}:{ports[0]}", processes=processes)


def trace_sink() -> System:
    """Return the receiver of the shop's traces, whose CPU is not counted."""
    port = free_port()
    env = {"PYTHONPATH": str(REPOSITORY)}
    command = (sys.executable, "-m", "tests.perf.trace_sink")
    process = _process("traces", command, port, cwd=REPOSITORY, env=env)
    return System(url=f"http://{LOOPBACK}:{port}", processes={"traces": [process]})


def _nginx(name: str, config: Path, marks: Mapping[str, str]) -> Process:
    """Return nginx with this configuration, in which the marks are replaced."""
    _fill_in(config, {**marks, "NAME": name}, RUN / f"{name}.conf")
    command = (tools.program("nginx"), "-p", str(RUN), "-c", f"{name}.conf", "-e", "stderr")
    return _process(name, command, int(marks["PORT"]), cwd=RUN)


def _upstream(ports: Sequence[int], *, options: str = "") -> str:
    return " ".join(f"server {LOOPBACK}:{port} {options};" for port in ports)


def _fill_in(template: Path, marks: Mapping[str, str], to: Path) -> None:
    text = template.read_text()
    for mark, value in marks.items():
        text = text.replace(f"@{mark}@", value)
    to.write_text(text)


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
