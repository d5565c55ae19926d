"""One address with one user, within the real limits, costs other callers little.

No replica and no edge takes more memory than its container has, and a bystander at another address is answered all the
while. `make test-cost` sends each request twenty times at once and prints what each kind costs.
"""

from __future__ import annotations

import itertools
import os
import resource
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from shop.user.v1 import user_service_pb2 as users

from devstack.settings import Settings
from devstack.stack import Stack
from envoy.contract import DESCRIPTOR_SET, Contract
from tests.e2e.attacks import ATTACKED, JSON, Attack, attacks_on
from tests.e2e.callers import CLEAR_TEXT
from tests.e2e.contract import BY_NAME, name_of
from tests.e2e.cost import EDGE_MIB, SERVICE_MIB, Cost, Meter, next_attacker, send, send_at_once
from tests.e2e.http2 import Http2Connection
from tests.support.ports import free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.contract import Rpc

    Print = Callable[[str, Cost], None]

IS_LONG: Final = os.environ.get("COST") == "long"
AT_ONCE: Final = 20  # what an address may write without a token
# The promise is 1 s, on a machine that does nothing else; tests share theirs.
BYSTANDER_S: Final = 5.0
PASSWORD: Final = "a boring passphrase of mine"
SCRIPT: Final = "/docs/swagger-ui-bundle.js"
CHECK: Final = "/grpc.health.v1.Health/Check"
GET_USER: Final = "/shop.user.v1.UserService/GetUser"
WATCH: Final = "/grpc.health.v1.Health/Watch"

_CONTRACT: Final = Contract(DESCRIPTOR_SET.read_bytes())

only_in_the_long_form = pytest.mark.skipif(not IS_LONG, reason="takes long: make test-cost")


class System:
    """A system with the limits of production, a user, and an attacker."""

    def __init__(self, stack: Stack) -> None:
        self.stack: Final = stack
        self.port: Final = urlsplit(stack.edge_url).port or 0
        self._user_id, self._token = self._registered()
        _, self.attackers_token = self._registered()

    def meter(self) -> Meter:
        """Return what measures while its block runs."""
        return Meter(self.stack, path=f"/api/v1/users/{self._user_id}", token=self._token)

    def caller(self, address: str) -> httpx.Client:
        """Return a client with the address."""
        transport = httpx.HTTPTransport(local_address=address, verify=CLEAR_TEXT)
        return httpx.Client(base_url=self.stack.edge_url, transport=transport, timeout=60)

    def is_served(self) -> bool:
        """Return whether the edge answers a call from another address."""
        try:
            with self.caller(next_attacker()) as client:
                return client.get("/healthz").is_success
        except httpx.TransportError:
            return False

    def connect(self, address: str) -> socket.socket:
        """Return a connection from the address."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30, source_address=(address, 0))

    def _registered(self) -> tuple[str, str]:
        email = f"{uuid4()}@shop.example"
        with self.caller(next_attacker()) as client:
            new = {"email": email, "password": PASSWORD, "displayName": "Ada"}
            client.post("/api/v1/users", json=new).raise_for_status()
            session = client.post("/api/v1/sessions", json={"email": email, "password": PASSWORD}).json()
        return session["userId"], session["accessToken"]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    settings = Settings(edge_port=free_port(), home=tmp_path_factory.mktemp("cost"), drain_s=0.2)
    with Stack(settings) as stack:
        yield System(stack)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Print:
    def tell(name: str, cost: Cost) -> None:
        with capsys.disabled():
            print(f"\n{name:72.72} {cost}", end="")  # noqa: T201  the figures are the point

    return tell


def require_little(cost: Cost) -> None:
    """Return if other callers were served as before.

    Raises:
        AssertionError: something cost more than it may.
    """
    assert cost.failures == Counter(), cost
    assert cost.edge_mib < EDGE_MIB / 2, cost  # several attack at once
    assert cost.replica_mib < SERVICE_MIB, cost
    assert max(cost.bystander_s, cost.loop_s) < BYSTANDER_S, cost


def limit_of(path: str) -> int:
    _, service, method = path.split("/")
    return _CONTRACT.body_limit(service, method)


# Requests


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rpc", ATTACKED, ids=name_of)
def test_no_request_costs_other_callers_much(system: System, rpc: Rpc, tell: Print) -> None:
    attacks = list(attacks_on(rpc, limit=limit_of))
    if IS_LONG:
        waves = [(attack.name, [attack] * AT_ONCE) for attack in attacks]
    else:
        waves = [("each once", attacks[start : start + AT_ONCE]) for start in range(0, len(attacks), AT_ONCE)]

    for name, wave in waves:
        with system.meter() as meter:
            meter.cost.answers = send_at_once(system.stack, wave, token=system.attackers_token)
        tell(f"{rpc.name}, {name}", meter.cost)

        require_little(meter.cost)
        assert not any(answer.startswith("5") for answer in meter.cost.answers), meter.cost


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(system: System) -> None:
    attack = Attack(rpc=BY_NAME["CreateUser"], name="", verb="POST", path="/api/v1/users", headers=JSON, body=b"")
    head = attack.head(token="", length=10 * 1024 * 1024)

    with system.connect(next_attacker()) as connection:
        connection.sendall(head + b"{" + b" " * limit_of("/shop.user.v1.UserService/CreateUser"))
        answer = connection.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 413 ")


# Connections


def test_unread_answers_are_bounded(system: System, tell: Print) -> None:
    address = next_attacker()

    with system.meter() as meter, ExitStack() as open_ones:
        for _ in range(14):
            connection = open_ones.enter_context(Http2Connection(system.port, address=address, window=0))
            for _ in range(100):
                connection.get(SCRIPT)
            meter.cost.answers["begun"] += connection.begun(100)

    tell("the script of the page 1,400 times, never read", meter.cost)
    require_little(meter.cost)
    assert meter.cost.answers["begun"] == 1_400


@only_in_the_long_form
def test_an_unread_answer_is_abandoned(system: System) -> None:
    with Http2Connection(system.port, address=next_attacker(), window=0) as connection:
        stream = connection.get(SCRIPT)

        until(lambda: stream in connection.resets(timeout_s=0.2), timeout_s=40)


def test_one_address_over_its_limit_does_not_block_the_page_for_others(system: System) -> None:
    with system.caller(next_attacker()) as greedy, system.caller(next_attacker()) as neighbour:
        started = time.monotonic()
        answers = [greedy.get(SCRIPT) for _ in range(45)]
        etag = answers[0].headers["etag"]
        came_back_kib = 71 * (time.monotonic() - started)

        statuses = Counter(answer.status_code for answer in answers)
        assert statuses.keys() == {200, 429}
        assert sum(len(answer.content) for answer in answers if answer.is_success) >> 10 <= 64_000 + came_back_kib
        assert answers[-1].json()["details"][0]["reason"] == "RATE_LIMITED"
        assert greedy.get(SCRIPT, headers={"if-none-match": etag}).status_code == 304
        assert greedy.get("/api/v1/users").status_code == 401
        assert neighbour.get(SCRIPT).status_code == 200


def test_health_is_answered_300_times_a_minute(system: System) -> None:
    with system.caller(next_attacker()) as monitor:
        statuses = Counter(monitor.get("/health").status_code for _ in range(400))

        assert statuses[429] > 0
        assert statuses[200] >= 300
        assert monitor.get("/healthz").status_code == 200
        assert monitor.get("/api/v1/users").status_code == 401


def test_a_thousand_health_watches_are_refused(system: System, tell: Print) -> None:
    address = next_attacker()

    with system.meter() as meter, ExitStack() as open_ones:
        for _ in range(11):
            connection = open_ones.enter_context(Http2Connection(system.port, address=address))
            for _ in range(100):
                connection.call(WATCH, b"")
            meter.cost.answers["ended"] += connection.begun(100)
        answered = send(system.stack, _check(), token="", address=next_attacker())

    tell("1,100 streams of Health/Watch", meter.cost)
    require_little(meter.cost)
    assert (meter.cost.answers["ended"], answered) == (1_100, "200")


def _check() -> Attack:
    headers = (("content-type", "application/grpc"), ("te", "trailers"))
    return Attack(rpc=BY_NAME["GetHealth"], name="", verb="POST", path=CHECK, headers=headers, body=bytes(5))


def test_calls_that_are_begun_and_abandoned_cost_little(system: System, tell: Print) -> None:
    address = next_attacker()
    message = users.GetUserRequest(id=str(uuid4())).SerializeToString()

    with system.meter() as meter, ExitStack() as open_ones:
        connections = [open_ones.enter_context(Http2Connection(system.port, address=address)) for _ in range(20)]
        for connection in connections:
            for _ in range(100):
                connection.call(GET_USER, message, token=system.attackers_token, ends=False)
        for connection in connections:
            meter.cost.answers["answered"] += connection.begun(100, timeout_s=5)

    tell("2,000 calls that never end", meter.cost)
    require_little(meter.cost)
    # A hundred are within the limit, and wait for their end; so does one more every nine seconds.
    assert 1_850 <= meter.cost.answers["answered"] <= 1_900


def test_a_hundred_slow_senders_cost_little(system: System, tell: Print) -> None:
    address = next_attacker()
    attack = Attack(rpc=BY_NAME["CreateUser"], name="", verb="POST", path="/api/v1/users", headers=JSON, body=b"")
    seconds = 40 if IS_LONG else 3

    with system.meter() as meter, ExitStack() as open_ones:
        senders = [open_ones.enter_context(system.connect(address)) for _ in range(100)]
        for sender in senders:
            sender.sendall(attack.head(token="", length=60_000))
        for _ in range(seconds):
            meter.cost.answers.update(_a_byte_from_each(senders))
            time.sleep(1)  # a slow sender is one

    tell(f"100 bodies, a byte a second for {seconds} s", meter.cost)
    require_little(meter.cost)


def _a_byte_from_each(senders: list[socket.socket]) -> Iterator[str]:
    for sender in senders:
        try:
            sender.sendall(b" ")
        except ConnectionError:
            yield "cut off"
        else:
            yield "let go on"


@only_in_the_long_form
def test_an_address_that_holds_every_connection_blocks_others_for_seconds_at_most(system: System, tell: Print) -> None:
    wanted = 10_050  # 10,000 is what the edge has
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted + 1_000:
        pytest.skip(f"this process may open {hard} files, and {wanted} connections are wanted")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 1_000), hard))
    address = next_attacker()

    with ExitStack() as open_ones:
        for _ in range(wanted):
            open_ones.enter_context(system.connect(address))
        # Until the edge closes idle ones, the last may have been all that there were.
        until(system.is_served, timeout_s=5)
        with system.meter() as meter:
            time.sleep(5)  # while nothing is said

    tell("10,050 connections that say nothing", meter.cost)
    require_little(meter.cost)


# Answers


@only_in_the_long_form
@pytest.mark.timeout(900)
def test_unread_pages_of_the_largest_size_are_bounded(system: System, tell: Print) -> None:
    _place_the_largest_orders(system)
    address = next_attacker()
    page = {
        ":method": "GET",
        ":scheme": "http",
        ":path": "/api/v1/orders?pageSize=200",
        ":authority": "shop.example",
        "authorization": f"Bearer {system.attackers_token}",
    }

    with system.meter() as meter, Http2Connection(system.port, address=address, window=0) as connection:
        for _ in range(90):
            connection.open(page)
        meter.cost.answers["begun"] = connection.begun(90)

    tell("the largest page of orders 90 times, never read", meter.cost)
    require_little(meter.cost)


def _place_the_largest_orders(system: System) -> None:
    """Place 200 orders of 100 items with the names that are longest as JSON: `<` is six characters there."""
    item = f'{{"productId": "{"p" * 64}", "name": "{"<" * 255}", "quantity": 1, "unitPrice": {{"units": "1"}}}}'
    body = f'{{"currencyCode": "EUR", "items": [{",".join([item] * 100)}]}}'.encode()
    attack = Attack(rpc=BY_NAME["CreateOrder"], name="", verb="POST", path="/api/v1/orders", headers=JSON, body=body)
    addresses = [next_attacker() for _ in range(4)]  # within the limits of each

    def place(number: int) -> str:
        return send(system.stack, attack, token=system.attackers_token, address=addresses[number % 4])

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(place, range(200))) == {"201"}


# The generated attacks


def test_the_attacks_are_on_every_method_with_one_answer() -> None:
    names = {rpc.name for rpc in ATTACKED}

    assert names == {method for service in _CONTRACT.services for method in _CONTRACT.methods(service)}
    assert all(len(list(itertools.islice(attacks_on(rpc, limit=limit_of), 6))) == 6 for rpc in ATTACKED)


# The last, because the edge keeps much of its heap for a while.


@only_in_the_long_form
def test_forty_addresses_that_read_nothing_do_not_take_the_edge_down(system: System, tell: Print) -> None:
    with system.meter() as meter, ExitStack() as open_ones:
        for _ in range(40):
            connection = open_ones.enter_context(Http2Connection(system.port, address=next_attacker(), window=0))
            for _ in range(36):  # all that each may have
                connection.get(SCRIPT)
            meter.cost.answers["begun"] += connection.begun(36)

    tell("the script of the page, by 40 addresses, never read", meter.cost)
    # Twice as much as the heap may have was asked for. More than one address attacks, so others may notice.
    assert meter.cost.edge_mib < EDGE_MIB, meter.cost
