"""The cost of one caller's requests: memory of the edge and the replicas, and latency of other callers."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

import grpc
import httpx
from shop.system.v1 import system_service_pb2 as system
from shop.system.v1.system_service_pb2_grpc import SystemServiceStub

from devstack.debug_channel import debug_credentials, debug_options
from tests.e2e.callers import CLEAR_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from devstack.process import Process
    from devstack.services import Replica
    from devstack.stack import Stack
    from tests.e2e.attacks import Attack

SERVICE_MIB: Final = 512
"""The memory limit of a service's container (helm/shop, docker/compose.prod.yaml)."""

EDGE_MIB: Final = 1_536
"""The memory limit of the edge's container, which includes rendering the configuration."""

_BYSTANDERS: Final = (f"127.1.{high}.{low}" for high, low in itertools.product(range(256), range(1, 255)))
_ATTACKERS: Final = (f"127.2.{high}.{low}" for high, low in itertools.product(range(256), range(1, 255)))
_ANSWER_S: Final = 60


def next_attacker() -> str:
    """Return an unused address."""
    return next(_ATTACKERS)


@dataclass(slots=True)
class Cost:
    """The measurements of one attack.

    Attributes:
        edge_mib: the most memory that the edge had.
        replica_mib: the most that a replica had.
        bystander_s: the longest that a caller from another address waited for GetUser or /healthz.
        loop_s: the longest that a call to a replica itself took, which asks its loop and nothing else.
        failures: what bystanders were refused with, each kind with its number.
        answers: what the attacker was answered: HTTP statuses, over gRPC with the status of the call.
    """

    edge_mib: int = 0
    replica_mib: int = 0
    bystander_s: float = 0
    loop_s: float = 0
    failures: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Return it as a line of a table."""
        answers = ", ".join(f"{count} x {answer}" for answer, count in self.answers.most_common(3))
        failures = ", ".join(f"{count} x {answer}" for answer, count in self.failures.most_common(2))
        return (
            f"edge {self.edge_mib:5} MiB  replica {self.replica_mib:4} MiB  bystander {self.bystander_s * 1e3:6.0f} ms"
            f"  loop {self.loop_s * 1e3:6.0f} ms  {answers}{'  BYSTANDER: ' + failures if failures else ''}"
        )


class Meter:
    """Measures how other callers are served while the block runs; `cost` has the result afterwards.

    Args:
        stack: the system.
        path: of a user.
        token: that user's.
    """

    def __init__(self, stack: Stack, *, path: str, token: str) -> None:
        self._stack, self._path, self._token = stack, path, token
        self._replicas: list[Replica] = [each for name in stack.service_names for each in stack.replicas(name)]
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.cost = Cost()

    def __enter__(self) -> Self:
        """Begin to look."""
        for process in (self._stack.edge.process, *self._replicas):
            _forget_peak(process)
        watchers: list[Callable[[], None]] = [self._be_a_bystander]
        watchers += [lambda each=each: self._call_alone(each) for each in self._replicas]
        self._threads = [threading.Thread(target=watcher, daemon=True) for watcher in watchers]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop looking."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.cost.edge_mib = _peak_mib(self._stack.edge.process)
        self.cost.replica_mib = max(map(_peak_mib, self._replicas))

    def _be_a_bystander(self) -> None:
        bearer = {"authorization": f"Bearer {self._token}"}
        while True:
            for path in (self._path, "/healthz"):
                # A new connection and a new address each time: each of the edge's threads is asked, and no limit met.
                transport = httpx.HTTPTransport(local_address=next(_BYSTANDERS), verify=CLEAR_TEXT)
                started = time.monotonic()
                with httpx.Client(base_url=self._stack.edge_url, transport=transport, timeout=_ANSWER_S) as client:
                    try:
                        answer = str(client.get(path, headers=bearer).status_code)
                    except httpx.TransportError as error:
                        answer = type(error).__name__
                self.cost.bystander_s = max(self.cost.bystander_s, time.monotonic() - started)
                if answer != "200":
                    self.cost.failures[f"{answer} {path if path == '/healthz' else 'GetUser'}"] += 1
            if self._ended.wait(0.05):
                return

    def _call_alone(self, replica: Replica) -> None:
        credentials, options = debug_credentials(self._stack.certificates), debug_options(replica.service.name)
        with grpc.secure_channel(replica.address, credentials, options) as channel:
            ask = SystemServiceStub(channel).GetHealth
            with contextlib.suppress(grpc.RpcError):
                ask(system.GetHealthRequest(), timeout=5)  # connects
            while not self._ended.wait(0.02):
                started = time.monotonic()
                try:
                    ask(system.GetHealthRequest(), timeout=_ANSWER_S)
                except grpc.RpcError:
                    self.cost.failures[f"{replica.service.name} itself"] += 1
                self.cost.loop_s = max(self.cost.loop_s, time.monotonic() - started)


def _forget_peak(process: Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")


def _peak_mib(process: Process) -> int:
    """Return the most memory that the process has had since `_forget_peak`; all there is if it died of it."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    except FileNotFoundError:
        return 1 << 20
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) >> 10 if found else 1 << 20


def send_at_once(stack: Stack, attacks: Sequence[Attack], *, token: str) -> Counter[str]:
    """Send the requests all at once from one address, each on its own connection; return the answers."""
    address = next_attacker()
    with ThreadPoolExecutor(len(attacks)) as pool:
        return Counter(pool.map(lambda attack: send(stack, attack, token=token, address=address), attacks))


def send(stack: Stack, attack: Attack, *, token: str, address: str) -> str:
    """Return how the request was answered: the HTTP status and, if there is one, gRPC's."""
    port = urlsplit(stack.edge_url).port or 0
    with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S, source_address=(address, 0)) as connection:
        try:
            connection.sendall(attack.head(token=token))
            # Refused before it is all there: the answer is then waiting.
            connection.sendall(attack.body)
        except ConnectionError:
            pass
        try:
            answer = b""
            while b"\r\n\r\n" not in answer and (chunk := connection.recv(65_536)):
                answer += chunk
        except (TimeoutError, ConnectionError) as error:
            return type(error).__name__
    status = re.match(rb"HTTP/1.1 (\d+)", answer)
    grpc_status = re.search(rb"\r\ngrpc-status: (\d+)", answer)
    return (status[1].decode() if status else "nothing") + (f"/{grpc_status[1].decode()}" if grpc_status else "")
