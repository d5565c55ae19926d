"""Everything that is measured, side by side on this machine and on one PostgreSQL server."""

from __future__ import annotations

import base64
import os
import shutil
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import SecretStr

from devstack.home import Home
from devstack.settings import Settings
from devstack.stack import Stack
from tests.perf import checks, dataset, peer_processes, tools
from tests.perf.checks import GrpcTarget
from tests.perf.cpu import Meter
from tests.perf.grpc_load import Spec
from tests.perf.load import RUN, Grpc
from tests.perf.peer_processes import Databases, Inside, System, free_port, running
from tests.support.logins import NO_LIMITS, admins_token

if TYPE_CHECKING:
    from types import TracebackType

    from devstack.postgres import PostgresServer

_TOKENS: Final = 8  # of as many sessions, so that no service sees one token only
_TOKENS_RENEWED_AFTER_S: Final = 300.0  # they live 15 minutes
GET_USER: Final = "/shop.user.v1.UserService/GetUser"
CREATE_ORDER: Final = "/shop.order.v1.OrderService/CreateOrder"
LIST_ORDERS: Final = "/shop.order.v1.OrderService/ListOrders"


class Shop:
    """One of our stacks.

    Attributes:
        stack: it.
        system: the same as something to be measured; gRPC goes to the first replica of a service.
    """

    def __init__(self, stack: Stack, name: str, *, server: PostgresServer, database_prefix: str = "") -> None:
        self.stack: Final = stack
        self._server: Final = server
        self._database_prefix: Final = database_prefix
        services = {f"{name} {service}": stack.replicas(service) for service in stack.service_names}
        self.system: Final = System(
            url=stack.edge_url,
            users=stack.replicas("user_svc")[0].address,
            orders=stack.replicas("order_svc")[0].address,
            processes={f"{name} edge": [stack.edge.process], **services},
        )
        self._tokens: list[str] = []
        self._tokens_made_s = 0.0

    def superuser_url(self, database: str) -> str:
        """Return where PostgreSQL's superuser finds `users` or `orders`."""
        return self._server.superuser_url(self._database_prefix + database)

    def target(self, service: str) -> GrpcTarget:
        """Return the first replica of the service for calls past the edge."""
        return GrpcTarget(
            address=self.stack.replicas(service)[0].address,
            token=self.tokens()[0],
            certificates=self.stack.certificates.folder_of("debug").path,
            server_name=service.replace("_", "-"),
        )

    def grpc(self, service: str, *, method: str, bodies: str) -> Grpc:
        """Return load on the first replica of the service, past the edge."""
        target = self.target(service)
        return Grpc(
            Spec(
                address=target.address,
                method=method,
                bodies=str(RUN / bodies),
                tls=str(target.certificates),
                server_name=target.server_name,
                is_once=method == CREATE_ORDER,
            ),
            tokens=self.tokens,
        )

    def tokens(self) -> list[str]:
        """Return access tokens of an admin's sessions, good for a while yet."""
        if not self._tokens or time.monotonic() - self._tokens_made_s > _TOKENS_RENEWED_AFTER_S:
            self._tokens = [admins_token(self.stack) for _ in range(_TOKENS)]
            self._tokens_made_s = time.monotonic()
        return self._tokens


class World:
    """The shop and its peers: `with World() as world: ...`.

    Attributes:
        shop: ours, with two replicas of each service and 100,000 users.
        peers: by name.
        databases: the peers'.
        meter: of the CPU of them all.
    """

    shop: Shop
    databases: Databases

    def __init__(self) -> None:
        self.meter: Final = Meter()
        self.peers: Final[dict[str, System]] = {}
        self._open: Final = ExitStack()
        self._peers_open: Final = ExitStack()

    def __enter__(self) -> Self:
        """Start everything, with new data."""
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        self._close()

    @property
    def postgres(self) -> PostgresServer:
        """The server of all databases."""
        server = self.shop.stack.postgres
        assert server
        return server

    def start_shop(self, name: str, *, replicas: int) -> Shop:
        """Start another stack, in databases `<name>_users` and `<name>_orders` of the same server."""
        urls = {}
        for database in ("users", "orders"):
            own = f"{name}_{database}"
            self.postgres.create_private_database(own, role=own)
            urls[database] = SecretStr(self.postgres.url(own, role=own))
        secret = SecretStr(base64.urlsafe_b64encode(os.urandom(32)).decode())
        stack = self._start_stack(name, replicas=replicas, keys_secret=secret, database_urls=urls)
        return self._watched(Shop(stack, name, server=self.postgres, database_prefix=f"{name}_"))

    def stop_peers(self) -> None:
        """Stop the peers, whose connections more stacks need."""
        self._peers_open.close()
        for system in self.peers.values():
            self.meter.forget(system.processes)
        self.peers.clear()

    def _close(self) -> None:
        with self._open:
            self._peers_open.close()

    def _start(self) -> None:
        shutil.rmtree(RUN, ignore_errors=True)
        RUN.mkdir(parents=True)
        dataset.write_requests(RUN)
        sink = peer_processes.trace_sink()
        self._open.enter_context(running(sink.processes))
        self.meter.add(sink.processes)
        self._traces_url = sink.url
        none = {"database_urls": {"users": None, "orders": None}, "keys_secret": None}
        stack = self._start_stack("shop", replicas=2, **none)
        assert stack.postgres
        self.shop = self._watched(Shop(stack, "shop", server=stack.postgres))
        self.meter.add({"postgres": [self.postgres.process]})
        dataset.fill_users(self.shop.superuser_url("users"), dataset.USERS)
        self.databases = Databases.create(self.postgres)
        user = checks.user_over_grpc(self.shop.target("user_svc"))
        order = checks.order_over_grpc(self.shop.target("order_svc"))
        self._add("express", peer_processes.express(self.databases))
        self._add("fastapi", peer_processes.fastapi(self.databases))
        self._add("naive", peer_processes.naive(self.databases))
        if server := tools.go_server("tutorial"):
            self._add("go", peer_processes.go(server, self.databases))
        self._add_those_that_do_the_same()
        answers, certificates = (user.SerializeToString(), order.SerializeToString()), self.shop.stack.certificates
        self._add("empty", peer_processes.empty(*answers, certificates=certificates))

    def _add_those_that_do_the_same(self) -> None:
        certificates = self.shop.stack.certificates
        keys_url = f"{self.shop.stack.edge_url}/.well-known/jwks.json"
        inside = Inside(databases=self.databases, certificates=certificates, keys_url=keys_url)
        self._add("express-same", peer_processes.express_same(inside))
        self._add("fastapi-same", peer_processes.fastapi_same(inside))
        if server := tools.go_server("same"):
            self._add("go-same", peer_processes.go_same(server, inside))
        users = self.shop.stack.replicas("user_svc")
        self._add("bare", peer_processes.bare_edge(users, certificates=certificates))

    def _start_stack(self, name: str, *, replicas: int, **databases: Any) -> Stack:
        home = tools.BENCH / name
        Home(home).remove()
        ports: dict[str, Any] = {"edge_port": free_port(), "edge_tls_port": 0}
        traces: dict[str, Any] = {"otlp_endpoint": self._traces_url, "trace_sampling": 1.0}  # in a hundred
        settings = Settings(home=home, replicas=replicas, drain_s=0, **ports, **traces, **databases, **NO_LIMITS)
        stack = self._open.enter_context(Stack(settings))
        self._open.callback(stack.kill)  # there are no more calls: no need to drain
        return stack

    def _watched(self, shop: Shop) -> Shop:
        self.meter.add(shop.system.processes)
        return shop

    def _add(self, name: str, system: System) -> None:
        self._peers_open.enter_context(running(system.processes))
        self.meter.add(system.processes)
        self.peers[name] = system
