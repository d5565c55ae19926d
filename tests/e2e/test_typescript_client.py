"""The npm package of the client, against the running system: in Node, and in a browser from a page of another origin.

typescript/scenarios.ts has what the client does. Its facts are compared here, some with those of the Python client.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from playwright.sync_api import Error
from shop.order.v1 import order_service_pb2 as orders_pb2
from shop.order.v1.order_pb2 import ORDER_STATUS_CANCELLED, ORDER_STATUS_CONFIRMED, OrderStatus
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub
from typing_extensions import override

from chassis.testing import new_uuid
from devstack.settings import REPOSITORY
from protos import package
from protos.client import Login, ShopError, connect_sync, decimal_of, money, pages, watch
from tests.support import npm
from tests.support.browser import chromium
from tests.support.ports import free_port
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from playwright.sync_api import Browser

    from tests.e2e.callers import Edge
    from tests.e2e.world import World

    Facts = Mapping[str, Any]
    Run = Callable[[str], Facts]

SOURCES: Final = Path(__file__).with_name("typescript")
NOT_THERE: Final = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with the package and the scenarios."""
    dist = tmp_path_factory.mktemp("dist")
    package.write_npm_package(tmp_path_factory.mktemp("npm") / "sources", dist)
    [made] = dist.iterdir()
    folder = npm.project(tmp_path_factory.mktemp("project"), made)
    for source in SOURCES.glob("*.ts"):
        shutil.copy(source, folder)
    (folder / "page.html").write_text("<!doctype html><link rel=icon href=data:,>")
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return npm.bundle("scenarios", folder=folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def arguments(world: World, edge: Edge) -> dict[str, str]:
    """What a scenario gets: where the shop is, where nothing is, and a user."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    return {"url": edge.url, "nowhere": nowhere, "email": world.user().email, "password": PASSWORD}


def in_node(bundle: Path, name: str, arguments: Mapping[str, str]) -> Facts:
    command = ("node", str(SOURCES / "node.mjs"), str(bundle), name, json.dumps(arguments))
    facts: Facts = json.loads(npm.run(*command, folder=bundle.parent))
    return facts


@contextlib.contextmanager
def pages_at(port: int, folder: Path) -> Iterator[None]:
    """Serve the files of a folder at http://localhost with this port."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def in_page(browser: Browser, bundle: Path, name: str, arguments: Mapping[str, str], *, port: int) -> Facts:
    """Run a scenario in a page of http://localhost with this port."""
    with pages_at(port, bundle.parent), browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://localhost:{port}/page.html")
        script = f"async ([name, world]) => (await import('/{bundle.name}'))[name](world)"
        facts: Facts = page.evaluate(script, [name, dict(arguments)])
        return facts


@pytest.fixture(params=["node", "chromium"])
def run(request: pytest.FixtureRequest, bundle: Path, arguments: dict[str, str], page_port: int) -> Run:
    """Runs a scenario and returns its facts."""
    if request.param == "node":
        return lambda name: in_node(bundle, name, arguments)
    browser = request.getfixturevalue("browser")
    return lambda name: in_page(browser, bundle, name, arguments, port=page_port)


def test_a_user_signs_up_orders_lists_and_watches_as_from_python(run: Run, edge: Edge) -> None:
    facts = run("journey")

    assert facts == journey_in_python(edge)
    assert facts["seen"] == ["UNSPECIFIED PENDING", "PENDING CANCELLED"]
    assert facts["sizes"] == [2, 2, 1]


def test_refused_calls_throw_errors_with_the_facts_that_python_has(
    run: Run, edge: Edge, arguments: dict[str, str]
) -> None:
    facts = run("refusals")

    assert facts == refusals_in_python(edge, arguments)
    assert [each["field"] for each in facts["fields"]["fields"]] == ["items[0].productId", "items[0].quantity"]
    assert {name: each["reason"] for name, each in facts.items()} == {
        "fields": "INVALID_FIELDS",
        "currency": "CURRENCY_MISMATCH",
        "absent": "ORDER_NOT_FOUND",
        "role": "ROLE_REQUIRED",
        "anonymous": "TOKEN_INVALID",
        "password": "INVALID_CREDENTIALS",
        "resumeToken": "RESUME_TOKEN_EXPIRED",
    }


def test_a_call_that_reaches_no_shop_is_unavailable_and_any_other_error_has_its_request_id(run: Run) -> None:
    facts = run("unreachable")

    nothing = {"reason": "", "domain": "", "metadata": {}, "fields": []}
    assert facts == {"refusal": {"code": "Unavailable", "mayPass": True, **nothing}, "hasRequestId": True}


def test_a_request_id_makes_a_write_one_write(run: Run) -> None:
    assert run("repetitions") == {"apart": 2, "same": 1, "isUntouched": True, "reused": "REQUEST_ID_REUSED"}


def test_a_lost_answer_is_asked_for_again_as_the_same_write(run: Run) -> None:
    facts = run("retries")

    assert facts == {"tries": 3, "bodies": 1, "orders": 1, "triesInAll": 6, "code": "Unavailable"}


def test_while_many_calls_fail_none_is_tried_again(run: Run) -> None:
    facts = run("throttled")

    assert facts == {"failing": [3, 2, 1], "recovered": 2}


def test_a_call_ends_at_its_deadline_or_with_its_signal(run: Run) -> None:
    facts = run("deadlines")

    assert facts == {"timeoutS": 10, "late": "DeadlineExceeded", "aborted": "Canceled", "before": "Canceled"}


def test_a_timeout_may_be_as_long_as_a_caller_likes(bundle: Path) -> None:
    facts = in_node(bundle, "longTimeouts", {})

    assert facts == {"codes": ["Unavailable"] * 9, "timeouts": ["99999999m"] * 9}


def test_a_login_begins_renews_and_replaces_its_session_once_for_all_calls(run: Run) -> None:
    """The counts are of CreateSession, RefreshSession and ListOrders."""
    facts = run("sessions")

    assert facts == {"loggedIn": "1 0 5", "renewed": "1 1 10", "refused": "1 2 12", "ended": "2 3 13"}


def test_a_token_of_the_callers_own_is_not_repeated(run: Run) -> None:
    assert run("tokens") == {"reason": "TOKEN_INVALID", "sent": 1}


def test_a_watch_misses_nothing_when_its_connection_is_cut_or_silent(run: Run) -> None:
    assert run("brokenWatch") == {"streams": 3, "isAll": True, "isClosed": True}


def test_a_watch_ends_with_its_signal_and_with_its_patience(run: Run) -> None:
    assert run("endedWatch") == {"aborted": "Canceled", "impatient": "Unavailable", "isInTime": True}


def test_rest_has_types_and_errors_of_the_same_contract(run: Run) -> None:
    facts = run("rest")

    assert (facts["status"], facts["total"], facts["wrong"]) == ("ORDER_STATUS_PENDING", "4", ["items"])
    assert facts["absent"]["reason"] == "ORDER_NOT_FOUND"
    assert facts["absent"]["metadata"] == {"orderId": NOT_THERE}
    assert facts["strange"] == "Unavailable"


def test_the_answer_of_another_party_is_not_taken_for_the_shops(bundle: Path) -> None:
    assert in_node(bundle, "foreignErrors", {}) == {
        "foreign": [
            "Unavailable true: An answer that is not the shop's, with status 503.",
            "Unknown true: An answer that is not the shop's, with status 404.",
        ],
        "own": "Unauthenticated",
    }


def test_amounts_are_exact(bundle: Path) -> None:
    assert in_node(bundle, "amounts", {}) == {
        "round": ["4.5", "0", "-0.000000001", "9223372036854775807.999999999", "12", "-3.25"],
        "parts": "-3 -250000000 EUR",
        "refused": True,
    }


def test_a_page_of_another_origin_may_not_call(browser: Browser, bundle: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(Error, match="ShopError: Failed to fetch"):
        in_page(browser, bundle, "journey", arguments, port=free_port())


def test_a_caller_is_typed_under_strict(folder: Path) -> None:
    right = npm.type_check(folder)
    mistake = folder / "mistake.ts"
    mistake.write_text('import { money } from "@shop/client";\nmoney(4.5).units.toFixed();\n')
    wrong = npm.type_check(folder)
    mistake.unlink()

    assert right == ""
    assert wrong.count("error TS") == 2  # otherwise everything would be any


def test_the_code_of_the_documentation_runs(folder: Path, arguments: dict[str, str], edge: Edge) -> None:
    documented = folder / "documented"
    documented.mkdir()
    text = (REPOSITORY / "docs" / "clients.md").read_text()
    blocks = re.findall(r"```ts\n// Module (\w+)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == text.count("```ts") > 0
    for name, code in (*blocks, ("main", MAIN)):
        (documented / f"{name}.ts").write_text(code)

    assert npm.type_check(documented) == ""
    facts = in_node(npm.bundle("documented/main", folder=folder), "main", arguments)

    assert facts == {
        "bought": "It costs 4.5 EUR.",
        "refused": "items[0].productId must not be blank",
        "orders": ["tea-1"],
        "isResumable": True,
        "overRest": "ORDER_STATUS_CANCELLED",
        "absent": "ORDER_NOT_FOUND",
    }


MAIN: Final = """
import { connect, createClient, ShopError, watch } from "@shop/client";
import { SessionService } from "@shop/client/user/v1";
import { orderOverRest } from "./rest.js";
import { allOrders, ordersOf, tryToBuy, untilCancelled } from "./shopping.js";

export async function main({ url, email, password }: { url: string; email: string; password: string }) {
  const orders = ordersOf(url, email, password);
  const bought = await tryToBuy(orders, "tea-1", "4.50");
  const refused = await tryToBuy(orders, " ", "4.50");
  const [order] = await allOrders(orders);
  const id = order?.id ?? "";
  const stream = watch(orders.watchOrders, {});
  const { value: heartbeat } = await stream.next();
  await stream.return();
  await orders.cancelOrder({ id });
  const cancelled = await untilCancelled(orders, id, heartbeat?.resumeToken);
  const { accessToken } = await createClient(SessionService, connect(url)).createSession({ email, password });
  const overRest = await orderOverRest(url, accessToken, id);
  const absent = await orderOverRest(url, accessToken, crypto.randomUUID()).catch(ShopError.of);
  return {
    bought,
    refused,
    orders: (await allOrders(orders)).map((each) => each.items[0]?.productId),
    isResumable: cancelled.length === 36,
    overRest: overRest.status,
    absent: absent instanceof ShopError && absent.reason,
  };
}
"""


def journey_in_python(edge: Edge) -> Facts:
    email = f"ada-{new_uuid()}@example.com"
    with connect_sync(edge.authority) as channel:
        user = UserServiceStub(channel).CreateUser(create_user_request(email=email, display_name="Ada"))
    with connect_sync(edge.authority, token=Login(email, PASSWORD)) as channel:
        stub = OrderServiceStub(channel)
        seen: list[str] = []
        first = ""
        for message in watch(stub.WatchOrders, orders_pb2.WatchOrdersRequest()):
            if not message.HasField("change"):
                first = first or stub.CreateOrder(tea()).id
            elif message.change.order_id == first:
                names = (OrderStatus.Name(each) for each in (message.change.from_status, message.change.to_status))
                seen.append(" ".join(name.removeprefix("ORDER_STATUS_") for name in names))
                if message.change.to_status == ORDER_STATUS_CANCELLED:
                    break
                stub.CancelOrder(orders_pb2.CancelOrderRequest(id=first))
        for _ in range(4):
            stub.CreateOrder(tea())
        sizes = [len(page.orders) for page in pages(stub.ListOrders, orders_pb2.ListOrdersRequest(page_size=2))]
        order = stub.GetOrder(orders_pb2.GetOrderRequest(id=first))
    total = str(decimal_of(order.total_amount))
    return {"name": user.display_name, "isOwn": order.user_id == user.id, "total": total, "seen": seen, "sizes": sizes}


def tea(*, product_id: str = "tea-1", quantity: int = 2, price: Any = None) -> orders_pb2.CreateOrderRequest:
    item = orders_pb2.CreateOrderItem(product_id=product_id, quantity=quantity, unit_price=price or money("4.50"))
    return orders_pb2.CreateOrderRequest(currency_code="EUR", items=[item])


def refusals_in_python(edge: Edge, arguments: Mapping[str, str]) -> Facts:
    login = Login(arguments["email"], arguments["password"])
    wrong = Login(login.email, "wrong horse battery")
    any_list = orders_pb2.ListOrdersRequest()
    with (
        connect_sync(edge.authority, token=login) as own,
        connect_sync(edge.authority) as nobodys,
        connect_sync(edge.authority, token=wrong) as strangers,
    ):
        stub = OrderServiceStub(own)
        confirm = orders_pb2.UpdateOrderStatusRequest(id=NOT_THERE, status=ORDER_STATUS_CONFIRMED)
        resume = orders_pb2.WatchOrdersRequest(resume_token=new_uuid())
        calls: Mapping[str, Callable[[], object]] = {
            "fields": lambda: stub.CreateOrder(tea(product_id=" ", quantity=0, price=money("1"))),
            "currency": lambda: stub.CreateOrder(tea(quantity=1, price=money("1", "USD"))),
            "absent": lambda: stub.GetOrder(orders_pb2.GetOrderRequest(id=NOT_THERE)),
            "role": lambda: stub.UpdateOrderStatus(confirm),
            "anonymous": lambda: OrderServiceStub(nobodys).ListOrders(any_list),
            "password": lambda: OrderServiceStub(strangers).ListOrders(any_list),
            "resumeToken": lambda: next(watch(stub.WatchOrders, resume)),
        }
        return {name: refusal(call) for name, call in calls.items()}


def refusal(call: Callable[[], object]) -> Facts:
    with pytest.raises(ShopError) as refused:
        call()
    error = refused.value
    return {
        "code": error.code.name.title().replace("_", ""),
        "reason": error.reason,
        "domain": error.domain,
        "metadata": error.metadata,
        "fields": [{"field": each.field, "message": each.message, "rule": each.rule} for each in error.fields],
        "message": error.message,
        "mayPass": error.may_pass,
    }
