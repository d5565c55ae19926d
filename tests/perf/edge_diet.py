"""The cost of the edge: CPU of Envoy for a read over REST, complete, and with one part left out at a time.

    PYTHONPATH=generated .venv/bin/python -m tests.perf.edge_diet [PART …]

Each variant is an Envoy of its own with the rendered configuration, less one part. All of them are in front of the same
two servers, which answer each read with one message over mutual TLS, and take turns. `bare` has the same listener,
clusters and TLS, one route, and of all filters only the transcoder and the router. With names of PARTS only these are
measured beside `everything` and `bare`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import grpc
import httpx
import jwt
import uvloop
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc import aio
from shop.user.v1 import session_service_pb2 as sessions
from shop.user.v1.user_pb2 import User

from devstack.certificates import Certificates
from devstack.ports import LOOPBACK
from devstack.process import Command, Hooks, Process
from devstack.settings import REPOSITORY
from envoy.binary import envoy_command
from envoy.edge import SERVED_BY, Address, Cluster, Edge
from envoy.render import render, render_secrets
from tests.perf import dataset, peer_processes, tools
from tests.perf.load import RUN, Requests, Rest
from tests.perf.peer_processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_ROUNDS: Final = 10
_ROUND_S: Final = 1.0
_CALLERS: Final = 128
_TOKENS: Final = 8  # of as many sessions
_UNLIMITED: Final = 1_000_000_000
_FOLDER: Final = tools.BENCH / "edge_diet"

Change: TypeAlias = "Callable[[Any], None]"
"""Leaves something out of the configuration of an HTTP connection manager."""


def without_filters(*names: str) -> Change:
    """Return the change that leaves out the HTTP filters whose names begin with one of these."""
    prefixes = tuple(f"envoy.filters.http.{name}" for name in names)

    def leave_out(manager: Any) -> None:
        manager["http_filters"] = [each for each in manager["http_filters"] if not each["name"].startswith(prefixes)]
        _forget(manager["route_config"], prefixes)

    return leave_out


def without_settings(*names: str) -> Change:
    """Return the change that leaves out settings of the connection manager."""

    def leave_out(manager: Any) -> None:
        for name in names:
            manager.pop(name, None)

    return leave_out


def _forget(node: Any, prefixes: tuple[str, ...]) -> None:
    """Remove what routes say to filters with these names, which Envoy would refuse."""
    if isinstance(node, dict):
        for name in [name for name in node if str(name).startswith(prefixes)]:
            del node[name]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _forget(child, prefixes)


def leave_transcoder_and_router(manager: Any) -> None:
    """Leave out everything else."""
    kept = ("grpc_json_transcoder", "router")
    filters = [each for each in manager["http_filters"] if each["name"].rpartition(".")[2] in kept]
    bare = {name: manager[name] for name in ("@type", "stat_prefix", "codec_type")}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "user_svc"}}
    host = {"name": "edge", "domains": ["*"], "routes": [route]}
    manager.clear()
    manager.update(bare, http_filters=filters, generate_request_id=False)
    manager["route_config"] = {"name": "edge", "virtual_hosts": [host]}


PARTS: Final[Mapping[str, Change]] = {
    "traces": without_settings("tracing", "request_id_extension"),
    "header_mutation": without_filters("header_mutation"),
    "early_header_mutation": without_settings("early_header_mutation_extensions"),
    "compressors": without_filters("compressor"),
    "rate_limit": without_filters("local_ratelimit"),
    "tokens": without_filters("jwt_authn"),
    "buffer": without_filters("buffer"),
    "access_log": without_settings("access_log"),
    "timeouts": without_settings("request_timeout", "request_headers_timeout", "stream_idle_timeout"),
}
"""The parts, and how each is left out."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A running Envoy."""

    process: Process
    load: Rest

    def cpu_us(self) -> float:
        """Return the microseconds of CPU that one read takes now, with `_CALLERS` callers."""
        assert self.process.pid
        clock = (~self.process.pid << 3) | 2  # clock_getcpuclockid(3)
        before_ns = time.clock_gettime_ns(clock)
        answered = self.load.run(concurrency=_CALLERS, seconds=_ROUND_S)
        return (time.clock_gettime_ns(clock) - before_ns) / 1000 / answered.requests


class Bench:
    """The two servers, the receiver of traces, and an Envoy for each variant: `with Bench() as bench: …`."""

    def __init__(self) -> None:
        self._open: Final = contextlib.ExitStack()
        self._key: Final = Ed25519PrivateKey.generate()
        self._certificates: Final = Certificates(_FOLDER / "tls")
        self._ports: Final[list[int]] = []

    def __enter__(self) -> Self:
        """Start the servers."""
        shutil.rmtree(_FOLDER, ignore_errors=True)
        RUN.mkdir(parents=True, exist_ok=True)
        self._certificates.prepare()
        dataset.write_requests(RUN)
        sink = peer_processes.trace_sink()
        servers = {"users": [self._server() for _ in range(2)]}
        self._open.enter_context(peer_processes.running({**sink.processes, **servers}))
        self._traces = Address.parse(sink.url)
        return self

    def __exit__(self, *error: object) -> None:
        """Stop everything."""
        self._open.close()

    def start(self, name: str, change: Change) -> Variant:
        """Start the edge with a change."""
        edge = self._edge(_FOLDER / name)
        config = _FOLDER / name / "edge.json"
        config.write_text(json.dumps(self._changed(edge, change)))
        for file, secret in render_secrets(edge).items():
            (edge.secrets_folder / file).write_text(secret)
        url = f"http://{LOOPBACK}:{edge.port}"
        process = Process(
            Command(
                name=name,
                argv=envoy_command(config, drain_s=1, concurrency=2),
                env={"PATH": os.defpath},
                cwd=REPOSITORY,
                log=_FOLDER / name / "envoy.log",
            ),
            hooks=Hooks(is_ready=lambda: self._reads(url)),
        )
        self._open.enter_context(peer_processes.running({name: [process]}))
        return Variant(process, Rest(url, Requests(0), self._tokens))

    def _server(self) -> Process:
        point = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw()).decode().rstrip("=")
        key = sessions.Jwk(kty="OKP", crv="Ed25519", kid="1", use="sig", alg="EdDSA", x=point)
        user = User(id=dataset.user_id(1), email="user1@example.com", display_name="User number 1")
        answers = [base64.b64encode(each.SerializeToString()).decode() for each in (user, sessions.Jwks(keys=[key]))]
        port = free_port()
        command = Command(
            name="users",
            argv=(sys.executable, "-m", "tests.perf.edge_diet", "--serve", *answers),
            env={
                "PATH": os.defpath,
                "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'generated'}",
                "PORT": str(port),
                "TLS_FOLDER": str(self._certificates.folder_of("user_svc").path),
            },
            cwd=REPOSITORY,
            log=_FOLDER / f"users-{port}.log",
        )
        self._ports.append(port)
        return Process(command, hooks=Hooks(is_ready=lambda: _listens(port)))

    def _edge(self, folder: Path) -> Edge:
        folder.mkdir()
        replicas = tuple(Address(LOOPBACK, port) for port in self._ports)
        return Edge(
            address=LOOPBACK,
            port=free_port(),
            tls_port=free_port(),
            admin_port=free_port(),
            keys_port=free_port(),
            metrics_port=free_port(),
            descriptor_path=REPOSITORY / "generated" / "shop.binpb",
            files_root=REPOSITORY,
            clusters=tuple(Cluster(name=name, replicas=replicas) for name in SERVED_BY),
            inside=self._certificates.folder_of("edge"),
            outside=self._certificates.folder_of("localhost"),
            secrets_folder=folder,
            access_log_path=str(folder / "access.log"),
            rate_limit=_UNLIMITED,
            public_write_limit=_UNLIMITED // 2,
            traces_to=self._traces,
        )

    def _changed(self, edge: Edge, change: Change) -> Any:
        config = yaml.load(render(edge), Loader=yaml.CSafeLoader)
        for listener in config["static_resources"]["listeners"]:
            if listener["name"].startswith("edge"):
                change(listener["filter_chains"][0]["filters"][0]["typed_config"])
        return config

    def _tokens(self) -> list[str]:
        claims = {"iss": "https://shop.local", "aud": "shop", "exp": int(time.time()) + 3600}
        own = [claims | {"sub": dataset.user_id(number)} for number in range(_TOKENS)]
        return [jwt.encode(each, self._key, algorithm="EdDSA", headers={"kid": "1"}) for each in own]

    def _reads(self, url: str) -> bool:
        path = f"/api/v1/users/{dataset.user_id(1)}"
        with contextlib.suppress(httpx.TransportError):
            headers = {"authorization": f"Bearer {self._tokens()[0]}"}
            return httpx.get(url + path, headers=headers, trust_env=False).is_success
        return False


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((LOOPBACK, port), timeout=1).close()
        return True
    return False


def _credentials(folder: Path) -> grpc.ServerCredentials:
    authority, key, certificate = ((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=authority, require_client_auth=True)


async def serve(user: bytes, keys: bytes) -> None:
    """Answer GetUser, GetJwks and health checks at PORT, each with one message, until the end."""

    def answers(message: bytes) -> Any:
        async def answer(_request: bytes, _context: object) -> bytes:
            return message

        return grpc.unary_unary_rpc_method_handler(answer)

    server = aio.server()
    for name, method, message in (
        ("shop.user.v1.UserService", "GetUser", user),
        ("shop.user.v1.SessionService", "GetJwks", keys),
        ("grpc.health.v1.Health", "Check", b"\x08\x01"),  # SERVING
    ):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {method: answers(message)})])
    server.add_secure_port(f"{LOOPBACK}:{os.environ['PORT']}", _credentials(Path(os.environ["TLS_FOLDER"])))
    await server.start()
    await server.wait_for_termination()


def measure(parts: Sequence[str] = ()) -> dict[str, float]:
    """Return CPU-µs a read by variant, the median of the rounds, and the median of the ratios to `bare`."""
    with Bench() as bench:
        variants = {"everything": bench.start("everything", lambda _: None)}
        variants["bare"] = bench.start("bare", leave_transcoder_and_router)
        variants |= {f"without_{name}": bench.start(f"without_{name}", PARTS[name]) for name in parts}
        rounds = [{name: each.cpu_us() for name, each in variants.items()} for _ in range(_ROUNDS + 1)]
    del rounds[0]  # it warmed them up
    result = {f"{name}_cpu_us": statistics.median(each[name] for each in rounds) for name in variants}
    ratio = statistics.median(each["everything"] / each["bare"] for each in rounds)
    return {name: round(value, 3) for name, value in (result | {"edge_cpu_vs_transcoder_alone": ratio}).items()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(serve(*map(base64.b64decode, sys.argv[2:])))
    else:
        sys.stdout.write(json.dumps(measure(sys.argv[1:] or tuple(PARTS)), indent=2) + "\n")
