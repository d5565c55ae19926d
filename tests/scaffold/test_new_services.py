"""Two services of one's own, in a clone: generated, tested, run with the others, and removed again."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from tests.scaffold.clone import Clone


def test_two_services_are_made_tested_run_and_removed(clone: Clone) -> None:
    before = clone.head()

    shown = clone.run("make", "service", "NAME=stock", "RESOURCE=StockItem", "KEY=text")
    assert "shop.stock.v1.StockService/ListStockItems" in shown
    assert "uncommitted changes" in clone.run("make", "service", "NAME=other", fails=True)
    clone.commit("Add stock")
    assert "nothing was changed" in clone.run("make", "service", "NAME=stock", "RESOURCE=StockItem")
    assert "stock_item is there twice" in clone.run(
        "make", "service", "NAME=gift card", "RESOURCE=GiftCard", "READS=StockItem,stock-item", fails=True
    )
    clone.run("make", "service", "NAME=gift card", "RESOURCE=GiftCard", "READS=StockItem,user,order")
    clone.commit("Add gift cards")
    touched = clone.run("git", "diff", "--name-only", "--diff-filter=M", "HEAD~2").split()
    own = ("stock", "gift_card", "gift-card")
    assert [name for name in touched if not (_is_made(name) or any(word in name for word in own))] == []

    clone.run("make", "lint")
    clone.run("pytest", "-q", "-n", "2", "tests/unit", "tests/integration/stock_svc", "tests/integration/gift_card_svc")
    clone.run(
        "pytest", "-q", "-n", "2", "tests/integration/conformance", "tests/integration/test_client_wheel.py",
        "-k", "StockItem or GiftCard or every_rpc or every_service or with_its_extra",
    )  # fmt: skip
    (clone.root / "tests" / "integration" / "protos" / "testing" / "test_new.py").write_text(_IN_MEMORY)
    clone.run("pytest", "-q", "tests/integration/protos/testing/test_new.py")
    (clone.root / "tests" / "integration" / "protos" / "testing" / "test_new.py").unlink()
    (clone.root / "tests" / "e2e" / "test_across.py").write_text(_ACROSS)
    clone.run("pytest", "-q", "tests/e2e/stock_svc", "tests/e2e/gift_card_svc", "tests/e2e/test_across.py")
    (clone.root / "tests" / "e2e" / "test_across.py").unlink()
    if (clone.root / ".tools" / "helm").exists():
        shown = clone.run(".tools/helm", "template", "shop", "helm/shop", "--set", "image.registry=r.example/shop")
        assert "name: gift-card-svc-headless" in shown

    assert "reads events of stock_item" in clone.run("make", "service-remove", "NAME=stock", fails=True)
    clone.run("make", "service-remove", "NAME=gift card")
    clone.commit("Remove gift cards")
    clone.run("make", "service-remove", "NAME=stock")
    clone.commit("Remove stock")
    assert clone.head() == before
    shutil.rmtree(clone.root)


def test_a_project_gets_a_name_of_its_own(clone: Clone) -> None:
    assert "a package or a folder" in clone.run("make", "rename", "NAME=Envoy", fails=True)

    clone.run("make", "rename", "NAME=Acme")
    clone.commit("Rename")

    left = clone.run("git", "grep", "--ignore-case", "--word-regexp", "--name-only", "shop").split()
    assert sorted(left) == ["CHANGELOG.md", *sorted(name for name in left if name.startswith("tests/perf/peers/"))]
    clone.run("make", "lint")
    clone.run("pytest", "-q", "-n", "2", "tests/unit")
    clone.run("pytest", "-q", "tests/e2e/test_journey.py", "tests/e2e/test_health.py", "tests/e2e/test_access.py")
    shutil.rmtree(clone.root)


def test_a_contract_that_is_refused_leaves_what_was_generated(clone: Clone) -> None:
    contract = clone.root / "protos" / "shop" / "user" / "v1" / "user.proto"
    contract.write_text(
        contract.read_text().replace("message User {\n", "message User {\n  int32 unheard_of = 99;\n", 1)
    )

    told = clone.run("make", "generate", fails=True)

    assert "name an example of shop.user.v1.User.unheard_of in shop/user/v1/examples.toml" in told
    assert "Traceback" not in told
    assert clone.run("git", "status", "--porcelain").split() == ["M", "protos/shop/user/v1/user.proto"]
    shutil.rmtree(clone.root)


def _is_made(name: str) -> bool:
    """Return whether `make generate` writes the file."""
    if (REPOSITORY / f"{name}.j2").exists():
        return True
    return name.startswith("generated/") or name in {
        "docs/events.md",
        "docs/limits.md",
        "docs/settings.md",
        "helm/shop/README.md",
        "helm/shop/files/rules.yaml",
    }


_IN_MEMORY = '''
"""The new services in memory, as tests of their callers use them."""

import pytest
from protos.client import ShopError, pages
from protos.testing import ShopServer
from shop.gift_card.v1 import gift_card_service_pb2 as gifts
from shop.gift_card.v1.gift_card_service_pb2_grpc import GiftCardServiceStub
from shop.stock.v1 import stock_service_pb2 as stock
from shop.stock.v1.stock_service_pb2_grpc import StockServiceStub


@pytest.fixture
def shop():
    with ShopServer() as server:
        yield server


@pytest.fixture
def channel(shop):
    with shop.connect_sync(token=shop.token("ADMIN")) as channel:
        yield channel


def refusal(call, request):
    with pytest.raises(ShopError) as refused:
        call(request)
    return refused.value.domain, refused.value.reason, refused.value.metadata


def test_items_whose_ids_callers_choose(channel):
    stub = StockServiceStub(channel)
    tea = stock.CreateStockItemRequest(id="tea-1", display_name="Tea", request_id=KEY)
    created = stub.CreateStockItem(tea)

    assert (created.id, created.display_name, created.etag) == ("tea-1", "Tea", "v1")
    assert stub.CreateStockItem(tea) == stub.GetStockItem(stock.GetStockItemRequest(id="tea-1")) == created
    tea.display_name = "Other tea"
    assert refusal(stub.CreateStockItem, tea) == ("shop.system.v1", "REQUEST_ID_REUSED", {"requestId": KEY})
    tea.request_id = ""
    assert refusal(stub.CreateStockItem, tea) == ("shop.stock.v1", "STOCK_ITEM_EXISTS", {"stockItemId": "tea-1"})
    missing = stock.GetStockItemRequest(id="tea-2")
    assert refusal(stub.GetStockItem, missing) == ("shop.stock.v1", "STOCK_ITEM_NOT_FOUND", {"stockItemId": "tea-2"})
    for name in ("cup", "ale"):
        stub.CreateStockItem(stock.CreateStockItemRequest(id=name, display_name=name))
    listed = [item.id for page in pages(stub.ListStockItems, stock.ListStockItemsRequest(page_size=2))
              for item in page.stock_items]
    assert listed == ["ale", "cup", "tea-1"]


def test_cards_whose_ids_the_service_makes(channel):
    stub = GiftCardServiceStub(channel)
    first, second, third = [stub.CreateGiftCard(gifts.CreateGiftCardRequest(display_name=name)) for name in "abc"]
    change = gifts.UpdateGiftCardRequest(id=first.id, display_name="Changed", etag="v1")

    assert (stub.UpdateGiftCard(change).display_name, first.display_name) == ("Changed", "a")
    assert refusal(stub.UpdateGiftCard, change) == ("shop.system.v1", "ETAG_MISMATCH", {"etag": "v2"})
    listed = [card.id for page in pages(stub.ListGiftCards, gifts.ListGiftCardsRequest(page_size=2))
              for card in page.gift_cards]
    assert listed == [third.id, second.id, first.id]


def test_access_and_a_refusal_that_a_test_asks_for(shop):
    with shop.connect_sync(token=shop.token("USER")) as channel:
        cards, items = GiftCardServiceStub(channel), StockServiceStub(channel)
        new = gifts.CreateGiftCardRequest(display_name="a")
        assert refusal(cards.CreateGiftCard, new) == ("shop.system.v1", "ROLE_REQUIRED", {"roles": "ADMIN,SERVICE"})
        shop.refuse("STOCK_ITEM_EXISTS", rpc="GetStockItem")
        asked = stock.GetStockItemRequest(id="tea-1")
        assert refusal(items.GetStockItem, asked) == ("shop.stock.v1", "STOCK_ITEM_EXISTS", {"stockItemId": "tea-1"})


KEY = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
'''

_ACROSS = '''
"""A change in one new service takes effect in the other."""

import contextlib

import psycopg
from tests.support.waiting import until


def test_a_stock_item_is_known_to_gift_cards(stack, edge):
    created = edge.http.post("/api/v1/stock-items", json={"id": "tea-1", "displayName": "First"})
    assert created.status_code == 201

    def is_known() -> bool:
        with contextlib.closing(psycopg.connect(stack.database_url("gift_cards"))) as connection:
            known = connection.execute("SELECT id::text, last_event FROM known_stock_items").fetchall()
        return (created.json()["id"], "stock_item.created") in known

    until(is_known)
    assert len(stack.replicas("gift_card_svc")) == 2
    health = {edge.http.get(f"/health/{name}").json()["service"] for name in ("stock-items", "gift-cards")}
    assert health == {"stock_svc", "gift_card_svc"}
    assert "/api/v1/gift-cards/{id}" in edge.http.get("/openapi.json").json()["paths"]
'''
