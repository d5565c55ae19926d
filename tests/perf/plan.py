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
from tests.perf.load import RUN, Grpc, H2load, OpenLoop, Pgbench, Requests, Rest
from tests.perf.measure import FULL, Case, Pace
from tests.perf.world import CREATE_ORDER, GET_USER, LIST_ORDERS

if TYPE_CHECKING:
    from tests.perf.measure import Samples
    from tests.perf.world import World

_MANY, _FEW = 1_000_000, 10
_PAGE, _PAGE_SIZE = 1000, 10
_SOAK_ROUND_S: Final = 120.0
GET, POST, MIX = "GET user", "POST order", "mix"
_WORK: Final = {GET: Requests(0), POST: Requests(1), MIX: Requests(0.2)}
_SAME: Final = ("shop", "express-same", "fastapi-same")  # over REST, doing the same work
_GRPC_PEERS: Final = ("naive", "go", "go-same")
_CLEAR_TEXT: Final = ("naive", "go")
# The open loop: shares of a system's own capacity, and requests a second.
_SHARES: Final = (0.25, 0.5, 0.75)
_RATES: Final = (200, 500, 1000)
_HALF: Final = 0.5
_STEADY: Final = Pace(3, 6)
_STEADY_IF_QUICK: Final = Pace(3, 4)
_STEADY_CONNECTIONS: Final = 128
# Closer to the capacity a queue grows for as long as the load lasts, and its length is what would be measured.
_MAX_SHARE: Final = 0.9


def check(world: World) -> None:
    """Check with real clients that every system does what is measured.

    Raises:
        WrongAnswer: a system does not.
    """
    token = world.shop.tokens()[0]
    for name in ("express", "fastapi", "bare", *_SAME):
        checks.rest_reads(_url(world, name), token=token)
    checks.rest_writes(_url(world, "express"), token=token, is_peer=True)
    for name in _SAME:
        checks.rest_writes(_url(world, name), token=token, is_peer=False)
        checks.rest_does_the_same(_url(world, name), token=token)
    shop = (world.shop.target("user_svc"), world.shop.target("order_svc"))
    clear = [world.peers[name] for name in _CLEAR_TEXT if name in world.peers]
    pairs = [shop, *((GrpcTarget(address=peer.users), GrpcTarget(address=peer.orders)) for peer in clear)]
    if same := world.peers.get("go-same"):
        pairs.append((replace(shop[0], address=same.users), replace(shop[1], address=same.orders)))
        checks.grpc_needs_tokens(*pairs[-1])
        checks.grpc_places_once(pairs[-1][1])
    checks.grpc_places_once(shop[1])
    for users, orders in pairs:
        checks.grpc_reads(users)
        checks.grpc_writes(orders)
    answer = checks.user_over_grpc(replace(shop[0], address=world.peers["empty"].users))
    if answer.id != dataset.user_id(1):
        raise checks.WrongAnswer(str(answer))
    checks.rest_is_empty(_url(world, "empty"))


def rest(world: World, samples: Samples) -> None:
    """Measure capacity over REST: ours through Envoy, the peers through nginx, FastAPI's tutorial alone."""
    peers = ("express-same", "fastapi-same", "bare") if samples.is_quick else tuple(_SERVICE_OF)[1:]
    samples.take([_closed(world, GET, name) for name in ("shop", *peers)], concurrency=128)
    some = ("shop", "express-same") if samples.is_quick else ("shop", "express", "express-same", "empty")
    more = () if samples.is_quick else ("fastapi-same",)
    samples.take([_closed(world, GET, name) for name in (*some, *more)], concurrency=32)
    samples.take([_closed(world, GET, name) for name in some], concurrency=1)
    placing = _SAME if samples.is_quick else ("express", *_SAME, "empty")
    samples.take([_closed(world, POST, name) for name in placing], concurrency=128)
    if not samples.is_quick:
        samples.take([_closed(world, MIX, name) for name in _SAME], concurrency=128)


def steady(world: World, samples: Samples) -> None:
    """Measure latency below capacity: requests are due at fixed times, at shares of it and at fixed rates."""
    if samples.is_quick:
        cases = [_open(world, samples, GET, name, share=_HALF) for name in ("shop", "express-same")]
        samples.take(cases, concurrency=_STEADY_CONNECTIONS, pace=_STEADY_IF_QUICK)
        return
    for what in (GET, POST, MIX):
        names = _SAME if what == MIX else (*_SAME, "empty")
        for share in _SHARES:
            cases = [_open(world, samples, what, name, share=share) for name in names]
            samples.take(cases, concurrency=_STEADY_CONNECTIONS, pace=_STEADY)
        for rate in _RATES:
            able = [name for name in names if rate < _MAX_SHARE * samples.rps(what, name, 128)]
            if able:
                cases = [_open(world, samples, what, name, rate=rate) for name in able]
                samples.take(cases, concurrency=_STEADY_CONNECTIONS, pace=_STEADY)


# The process whose CPU is the service's, by system and by what is asked. The shop is the first.
_SERVICE_OF: Final = {
    "shop": {GET: "shop user_svc", POST: "shop order_svc", MIX: "shop order_svc"},
    "express": {GET: "express users", POST: "express orders"},
    "fastapi": {GET: "fastapi"},
    "express-same": {GET: "express-same users", POST: "express-same orders", MIX: "express-same orders"},
    "fastapi-same": {GET: "fastapi-same users", POST: "fastapi-same orders", MIX: "fastapi-same orders"},
    "bare": {GET: "bare edge"},
    "empty": {GET: "empty", POST: "empty"},
}


def _url(world: World, name: str) -> str:
    return (world.shop.system if name == "shop" else world.peers[name]).url


def _requests(what: str, name: str) -> Requests:
    """Return what is asked: Express as in its tutorial takes prices as numbers."""
    return replace(_WORK[what], bodies=RUN / "peer_orders.json") if name == "express" else _WORK[what]


def _closed(world: World, what: str, name: str) -> Case[Rest]:
    load = Rest(_url(world, name), _requests(what, name), world.shop.tokens)
    return Case(what, name, load, _SERVICE_OF[name][what])


def _open(world: World, samples: Samples, what: str, name: str, *, share: float = 0, rate: float = 0) -> Case[OpenLoop]:
    """Return load at this share of the capacity, or at this rate."""
    load = OpenLoop(
        _url(world, name), _WORK[what], world.shop.tokens, lambda: rate or share * samples.rps(what, name, 128)
    )
    return Case(f"{what}, {f'{rate:.0f}/s' if rate else f'{share:.0%}'}", name, load, _SERVICE_OF[name][what])


def grpc(world: World, samples: Samples) -> None:
    """Measure single processes over gRPC: ours, the tutorial's, the empty handler; and PostgreSQL alone."""
    get = world.shop.grpc("user_svc", method=GET_USER, bodies="get_user.b64")
    empty = replace(get, spec=replace(get.spec, address=world.peers["empty"].users))
    create = world.shop.grpc("order_svc", method=CREATE_ORDER, bodies="create_order.b64")
    cases = [Case("GetUser", "empty", empty, "empty"), Case("GetUser", "shop", get, "shop user_svc")]
    peers = [name for name in _GRPC_PEERS if name in world.peers and not (samples.is_quick and name in _CLEAR_TEXT)]
    cases += [_of_peer(world, name, get) for name in peers]
    cases += [Case("CreateOrder", "shop", create, "shop order_svc")]
    cases += [_of_peer(world, name, create) for name in peers]
    samples.take(cases, concurrency=32)
    if samples.is_quick:
        return
    samples.take(cases, concurrency=128)
    message = GetUserRequest(id=dataset.user_id(1)).SerializeToString()
    reply_bytes = checks.user_over_grpc(world.shop.target("user_svc")).ByteSize()
    edge = H2load(world.shop.system.url + GET_USER, message, reply_bytes, world.shop.tokens)
    samples.take([Case("GetUser at edge", "shop", edge, "shop user_svc")], concurrency=128)
    floor = Case("SELECT", "pgbench", Pgbench(world.postgres.superuser_url("users")), "postgres")
    samples.take([floor], concurrency=8, pace=Pace(1, 5))


def _of_peer(world: World, name: str, ours: Grpc) -> Case[Grpc]:
    """Return the same load on a peer; without TLS and tokens if it has neither."""
    peer, is_create = world.peers[name], ours.spec.method == CREATE_ORDER
    address, service = (peer.orders, "orders") if is_create else (peer.users, "users")
    load = replace(ours, spec=replace(ours.spec, address=address))
    if name in _CLEAR_TEXT:
        load = replace(load, spec=replace(load.spec, tls="", server_name=""), tokens=list)
    return Case("CreateOrder" if is_create else "GetUser", name, load, f"{name} {service}")


def growth(world: World, samples: Samples) -> None:
    """Measure what a million rows and what four replicas cost, in two more stacks on the same server."""
    last = ("GetUser", "4 replicas", 128)
    if len(samples.taken.get(last, ())) >= FULL.rounds:  # two stacks and a million rows need a minute to start
        return
    few = _Filled(world, "few", replicas=1, rows=_FEW, page=1)
    many = _Filled(world, "many", replicas=4, rows=_MANY, page=_PAGE)
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
            get, post = Rest(url, _WORK[GET], tokens), Rest(url, _WORK[POST], tokens)
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
    theirs = samples.answered[POST, "express"] + sum(samples.answered["CreateOrder", name] for name in _CLEAR_TEXT)
    if placed < theirs:
        raise checks.WrongAnswer(f"the peers acknowledged {theirs} orders and have {placed}")
    written = ("orders", "order_events", "outbox", "idempotency_keys")
    counts = [dataset.count_of(world.databases.same_orders, table) for table in written]
    theirs = sum(samples.answered[POST, name] for name in _SAME[1:]) + samples.answered["CreateOrder", "go-same"]
    if not theirs <= min(counts) == max(counts):
        raise checks.WrongAnswer(f"the peers that do the same acknowledged {theirs} orders and have {counts} rows")
