"""The page at /docs in a real browser: it loads nothing foreign, and calls can be made from it."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from chassis.testing import new_uuid
from envoy.operations import address_of
from tests.support.browser import chromium
from tests.support.requests import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Locator, Page

    from tests.e2e.callers import Edge
    from tests.e2e.world import World

Scheme: TypeAlias = Literal["light", "dark"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Loaded:
    """The page as it was loaded in one colour scheme.

    Attributes:
        page: the page, loaded by way of the root.
        complaints: what the browser has logged since then.
        hosts: whom the page has called.
    """

    def __init__(self, browser: Browser, edge: Edge, scheme: Scheme) -> None:
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        context = browser.new_context(
            color_scheme=scheme, reduced_motion="reduce", viewport={"width": 1280, "height": 1000}
        )
        self.page: Page = context.new_page()
        self.page.set_default_timeout(15_000)
        expect.set_options(timeout=15_000)
        self.page.on("console", lambda message: self.complaints.append(message.text))  # violations of the policy too
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda sent: self.hosts.add(urlsplit(sent.url).netloc))
        self.page.goto(edge.url)
        expect(operation(self.page, "Users-listUsers")).to_be_visible()


@pytest.fixture(scope="module")
def load(browser: Browser, edge: Edge) -> Callable[[Scheme], Loaded]:
    """Load the page once for each scheme: a load takes the browser four seconds of CPU."""
    return functools.cache(lambda scheme: Loaded(browser, edge, scheme))


# Calls from the page, which have no colours, are made in one scheme.
IN_BOTH_SCHEMES: Final = pytest.mark.parametrize("page", ["light", "dark"], indirect=True)


@pytest.fixture
def page(request: pytest.FixtureRequest, load: Callable[[Scheme], Loaded], edge: Edge) -> Iterator[Page]:
    """The loaded page; its teardown fails if the browser logged an error or the page called another host."""
    loaded = load(getattr(request, "param", "light"))
    yield loaded.page
    assert loaded.complaints == []
    assert loaded.hosts == {edge.authority}


def operation(page: Page, name: str) -> Locator:
    return page.locator(f"#operations-{name}")


def opened(page: Page, name: str) -> Locator:
    block = operation(page, name)
    block.locator(".opblock-summary-control").click()
    expect(block.locator(".execute")).to_be_visible()
    return block


def executed(block: Locator, *, status: int) -> str:
    """Press the button and return the body of the answer, which must have the status."""
    block.locator(".execute").click()
    expect(block.locator(".live-responses-table .response .response-col_status")).to_contain_text(str(status))
    return block.locator(".live-responses-table .response .highlight-code code").first.inner_text()


@IN_BOTH_SCHEMES
def test_every_operation_is_on_the_page(page: Page, edge: Edge) -> None:
    paths = edge.http.get("/openapi.json").json()["paths"]

    expect(page.locator(".opblock")).to_have_count(sum(len(item) for item in paths.values()))


def authorize(page: Page, token: str) -> None:
    """Enter the token as a reader would, for all calls from the page; it replaces one that was entered before."""
    page.locator("button.authorize").first.click()
    dialog = page.locator(".dialog-ux")
    expect(dialog.locator("button.btn-done")).to_be_visible()
    log_out = dialog.get_by_role("button", name="Remove authorization")
    if log_out.is_visible():
        log_out.click()
    dialog.locator("input").fill(token)
    dialog.locator("button.authorize").click()
    dialog.locator("button.btn-done").click()


def test_users_can_be_listed_from_the_page(page: Page, world: World) -> None:
    authorize(page, world.edge.token)
    user = world.user()
    block = opened(page, "Users-listUsers")

    block.locator("tr[data-param-name=email] input").fill(user.email)
    body = executed(block, status=200)

    assert [each["id"] for each in json.loads(body)["users"]] == [user.id]


def test_a_user_can_be_created_from_the_page(page: Page, edge: Edge) -> None:
    block = opened(page, "Users-createUser")
    body = block.locator("textarea")
    # The page fills in an example that can be sent as it is; another run may have done so.
    example = json.loads(body.input_value())
    example["email"] = f"ada-{new_uuid()}@example.com"

    body.fill(json.dumps(example))
    created = json.loads(executed(block, status=201))

    assert created["displayName"] == example["displayName"]
    assert edge.http.get(f"/api/v1/users/{created['id']}").json()["email"] == example["email"]


def test_a_reader_can_log_in_and_order_from_the_page(page: Page, world: World) -> None:
    user = world.user()
    log_in = opened(page, "Sessions-createSession")
    log_in.locator("textarea").fill(json.dumps({"email": user.email, "password": PASSWORD}))
    session = json.loads(executed(log_in, status=201))
    authorize(page, session["accessToken"])

    # The page fills in an example that can be sent unchanged by any user.
    order = json.loads(executed(opened(page, "Orders-createOrder"), status=201))

    assert order["userId"] == user.id
    assert order["status"] == "ORDER_STATUS_PENDING"


def test_the_address_of_an_operation_opens_it(browser: Browser, edge: Edge) -> None:
    with browser.new_page() as page:
        page.goto(edge.url + address_of("/shop.user.v1.SessionService/CreateSession"))

        expect(operation(page, "Sessions-createSession").locator(".execute")).to_be_visible()
        assert page.locator(".execute").count() == 1


@IN_BOTH_SCHEMES
def test_the_page_is_as_dark_as_the_system(page: Page) -> None:
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")

    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert background == ("rgb(13, 19, 28)" if is_dark else "rgb(246, 248, 250)")


def test_the_root_leads_to_the_page(page: Page, edge: Edge) -> None:
    assert page.url.partition("#")[0] == f"{edge.url}/docs"  # the fragment names the operation that was opened last
    expect(operation(page, "Orders-createOrder")).to_be_visible()
