"""The measurements, in their order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from shop.order.v1.order_service_pb2 import ListOrdersRequest
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1.user_service_pb2 import GetUserRequest

from tests.perf import checks, dataset
from tests.perf.checks import GrpcTarget
from tests.perf.grpc_load import Spec
from tests.perf.load import RUN, Grpc, H2load, OpenLoop, Pgbench, Rest
from tests.perf.measure import Case
from tests.perf.world import CREATE_ORDER, GET_USER, LIST_ORDERS

if TYPE_CHECKING:
    from tests.perf.measure import Samples
    from tests.perf.world import World

_MANY, _MANY_IF_QUICK, _FEW = 1_000_000, 100_000, 10
_PAGE, _PAGE_SIZE = 1000, 10
_SOAK_ROUND_S: Final = 120.0
_RATE: Final = 1000.0  # a second in the open loop; every system of these can do that on two cores
GET, POST = "GET user", "POST order"
_GRPC_PEERS: Final = ("naive", "go")


def check(world: World) -> None:
    """Check with real clients that every system does what is measured.

    Raises:
        WrongAnswer: a system does not.
    """
    token = world.shop.tokens()[0]
    for system in (world.shop.system, world.peers["express"], world.peers["fastapi"]):
        checks.rest_reads(system.url, token=token)
    checks.rest_writes(world.shop.system.url, token=token, is_peer=False)
    checks.rest_writes(world.peers["express"].url, token=token, is_peer=True)
    peers = [world.peers[name] for name in _GRPC_PEERS if name in world.peers]
    for users in (world.shop.target("user_svc"), *(GrpcTarget(address=peer.users) for peer in peers)):
        checks.grpc_reads(users)
    for orders in (world.shop.target("order_svc"), *(GrpcTarget(address=peer.orders) for peer in peers)):
        checks.grpc_writes(orders)
    answer = checks.user_over_grpc(replace(world.shop.target("user_svc"), address=world.peers["empty"].users))
    if answer.id != dataset.user_id(1):
        raise checks.WrongAnswer(str(answer))


def rest(world: World, samples: Samples) -> None:
    """Measure REST: ours through Envoy, Express through nginx, FastAPI."""
    tokens, paths = world.shop.tokens, RUN / "get_user.paths"
    urls = {name: world.peers[name].url for name in ("express", "fastapi")}
    urls = {"shop": world.shop.system.url, **urls}
    users = {"shop": "shop user_svc", "express": "express users", "fastapi": "fastapi"}
    reads = [Case(GET, name, Rest(url, "GET", paths, tokens), users[name]) for name, url in urls.items()]
    writes = [
        Case(POST, "shop", Rest(urls["shop"], "POST", RUN / "orders.json", tokens), "shop order_svc"),
        Case(POST, "express", Rest(urls["express"], "POST", RUN / "peer_orders.json", tokens), "express orders"),
    ]
    samples.take(reads, concurrency=128)
    samples.take(reads[:2] if samples.is_quick else reads, concurrency=32)
    samples.take(reads[:2], concurrency=1)
    samples.take(writes, concurrency=128)
    what = f"{GET}, {_RATE:.0f}/s"
    steady = [Case(what, name, OpenLoop(url, paths, tokens, _RATE), users[name]) for name, url in urls.items()]
    samples.take(steady, concurrency=64, rounds=1)


def grpc(world: World, samples: Samples) -> None:
    """Measure single processes over gRPC: ours, the tutorial's, the empty handler; and PostgreSQL alone."""
    get = world.shop.grpc("user_svc", method=GET_USER, bodies="get_user.b64")
    empty = replace(get, spec=replace(get.spec, address=world.peers["empty"].users))
    create = world.shop.grpc("order_svc", method=CREATE_ORDER, bodies="create_order.b64")
    cases = [Case("GetUser", "empty", empty, "empty"), Case("GetUser", "shop", get, "shop user_svc")]
    cases += [_clear_text(world, name, "GetUser") for name in _GRPC_PEERS if name in world.peers]
    cases += [Case("CreateOrder", "shop", create, "shop order_svc")]
    cases += [_clear_text(world, name, "CreateOrder") for name in _GRPC_PEERS if name in world.peers]
    samples.take(cases, concurrency=32)
    samples.take([case for case in cases if not (samples.is_quick and case.whose in _GRPC_PEERS)], concurrency=128)
    message = GetUserRequest(id=dataset.user_id(1)).SerializeToString()
    reply_bytes = checks.user_over_grpc(world.shop.target("user_svc")).ByteSize()
    edge = H2load(world.shop.system.url + GET_USER, message, reply_bytes, world.shop.tokens)
    samples.take([Case("GetUser at edge", "shop", edge, "shop user_svc")], concurrency=128)
    floor = Case("SELECT", "pgbench", Pgbench(world.postgres.superuser_url("users")), "postgres")
    samples.take([floor], concurrency=8, rounds=1)


def _clear_text(world: World, name: str, what: str) -> Case[Grpc]:
    """Return a peer's case: with neither TLS nor tokens."""
    peer = world.peers[name]
    if what == "GetUser":
        load = Grpc(Spec(address=peer.users, method=GET_USER, bodies=str(RUN / "get_user.b64")))
        return Case(what, name, load, f"{name} users")
    bodies = str(RUN / "create_order.b64")
    load = Grpc(Spec(address=peer.orders, method=CREATE_ORDER, bodies=bodies, is_once=True))
    return Case(what, name, load, f"{name} orders")


def growth(world: World, samples: Samples) -> None:
    """Measure what a million rows and what four replicas cost, in two more stacks on the same server."""
    rows = _MANY_IF_QUICK if samples.is_quick else _MANY
    few = _Filled(world, "few", replicas=1, rows=_FEW, page=1)
    many = _Filled(world, "many", replicas=4, rows=rows, page=_PAGE)
    samples.take([few.reads(), many.reads()], concurrency=1)
    samples.take([few.lists(), many.lists()], concurrency=1)
    samples.take([few.writes(), many.writes()], concurrency=1)
    one, four = many.reads(), many.reads()
    replicas = many.shop.stack.replicas("user_svc")
    spec = replace(one.load.spec, address=",".join(replica.address for replica in replicas))
    four = replace(four, whose="4 replicas", load=replace(four.load, spec=spec))
    samples.take([replace(one, whose="1 replica"), four], concurrency=128)


class _Filled:
    """A stack with these numbers of users and orders; a list has `page` orders."""

    def __init__(self, world: World, name: str, *, replicas: int, rows: int, page: int) -> None:
        self.shop: Final = world.start_shop(name, replicas=replicas)
        self._name: Final = name
        self._rows: Final = rows
        self._whose: Final = f"{name} rows"
        dataset.fill_users(self.shop.superuser_url("users"), rows)
        self._fill_orders()
        dataset.write_messages(RUN, prefix=f"{name}_", users=rows)
        (RUN / f"{name}_list.b64").write_text(dataset.as_line(self._request_of(page)))

    def reads(self) -> Case[Grpc]:
        """Return GetUser of random users."""
        load = self.shop.grpc("user_svc", method=GET_USER, bodies=f"{self._name}_get_user.b64")
        return Case("GetUser", self._whose, load, f"{self._name} user_svc")

    def lists(self) -> Case[Grpc]:
        """Return ListOrders of one page."""
        load = self.shop.grpc("order_svc", method=LIST_ORDERS, bodies=f"{self._name}_list.b64")
        return Case("ListOrders", self._whose, load, f"{self._name} order_svc")

    def writes(self) -> Case[Grpc]:
        """Return CreateOrder, each time beginning with this number of rows."""
        load = self.shop.grpc("order_svc", method=CREATE_ORDER, bodies=f"{self._name}_create_order.b64")
        prepare = self._fill_orders if self._rows == _FEW else lambda: None
        return Case("CreateOrder", self._whose, load, f"{self._name} order_svc", prepare)

    def _fill_orders(self) -> None:
        dataset.fill_orders(self.shop.superuser_url("orders"), self._rows)

    def _request_of(self, page: int) -> ListOrdersRequest:
        """Return the request of a page; every one before it has to be turned."""
        target = self.shop.target("order_svc")
        request = ListOrdersRequest(page_size=_PAGE_SIZE)
        with target.channel() as channel:
            turn = OrderServiceStub(channel).ListOrders
            for _ in range(page - 1):
                request.page_token = turn(request, metadata=target.metadata, timeout=10).next_page_token
        return request


def soak(world: World, *, seconds: float) -> float:
    """Return the memory of our largest service process in MB after this time of reads and writes at full speed."""
    url, tokens = world.shop.system.url, world.shop.tokens
    rounds = max(1, round(seconds / _SOAK_ROUND_S))
    with ThreadPoolExecutor(2) as both:
        for _ in range(rounds):  # tokens expire
            get = Rest(url, "GET", RUN / "get_user.paths", tokens)
            post = Rest(url, "POST", RUN / "orders.json", tokens)
            runs = [
                both.submit(get.run, concurrency=96, seconds=seconds / rounds),
                both.submit(post.run, concurrency=32, seconds=seconds / rounds),
            ]
            for run in runs:
                run.result()
    return max(world.meter.memory_mb(f"shop {service}") for service in world.shop.stack.service_names)


def check_rows(world: World, samples: Samples) -> None:
    """Check that every order that was acknowledged is there, once, with its event.

    Raises:
        WrongAnswer: one is not.
    """
    url = world.shop.superuser_url("orders")
    tables = ("orders", "outbox WHERE type = 'order.created'", "idempotency_keys")
    orders, events, keys = (dataset.count_of(url, rows) for rows in tables)
    acknowledged = sum(samples.answered[what, "shop"] for what in (POST, "CreateOrder"))
    if not acknowledged <= orders == events == keys:
        raise checks.WrongAnswer(f"{acknowledged} orders acknowledged, {orders} rows, {events} events, {keys} keys")
    placed = dataset.count_of(world.databases.orders, "orders")
    theirs = samples.answered[POST, "express"] + sum(samples.answered["CreateOrder", name] for name in _GRPC_PEERS)
    if placed < theirs:
        raise checks.WrongAnswer(f"the peers acknowledged {theirs} orders and have {placed}")
