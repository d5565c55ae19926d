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
    clone.run("make", "service", "NAME=gift card", "RESOURCE=GiftCard", "READS=StockItem")
    clone.commit("Add gift cards")
    touched = clone.run("git", "diff", "--name-only", "--diff-filter=M", "HEAD~2").split()
    own = ("stock", "gift_card", "gift-card")
    assert [name for name in touched if not (_is_made(name) or any(word in name for word in own))] == []

    clone.run("make", "lint")
    clone.run("pytest", "-q", "-n", "2", "tests/unit", "tests/integration/stock_svc", "tests/integration/gift_card_svc")
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
    assert "a Python package or a folder" in clone.run("make", "rename", "NAME=Envoy", fails=True)

    clone.run("make", "rename", "NAME=Acme")
    clone.commit("Rename")

    left = clone.run("git", "grep", "--ignore-case", "--word-regexp", "--name-only", "shop").split()
    assert sorted(left) == ["CHANGELOG.md", *sorted(name for name in left if name.startswith("tests/perf/peers/"))]
    clone.run("make", "lint")
    clone.run("pytest", "-q", "-n", "2", "tests/unit")
    clone.run("pytest", "-q", "tests/e2e/test_journey.py", "tests/e2e/test_health.py", "tests/e2e/test_access.py")
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
