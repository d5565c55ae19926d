from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chassis.service import InvalidDeclaration, callers_of, read, services

if TYPE_CHECKING:
    from pathlib import Path

_STOCK = 'collection = "stocks"\nserves = ["shop.stock.v1.StockService"]\n'


def declare(root: Path, name: str, text: str) -> Path:
    (root / name).mkdir()
    file = root / name / "service.toml"
    file.write_text(text)
    return file


def test_a_service_is_what_its_file_says(tmp_path: Path) -> None:
    service = read(declare(tmp_path, "gift_card_svc", 'collection = "gift_cards"\nserves = ["shop.gift_card.v1.A"]'))

    assert (service.name, service.host, service.database) == ("gift_card_svc", "gift-card-svc", "gift_cards")
    assert (service.url_variable, service.health_path) == ("GIFT_CARD_SERVICE_URL", "/health/gift-cards")
    assert not service.has_worker
    assert {service: 1}[service] == 1


def test_services_start_after_those_that_they_call(tmp_path: Path) -> None:
    for name, calls in {"a": ["c_svc"], "b": [], "c": ["d_svc"], "d": []}.items():
        declare(tmp_path, f"{name}_svc", f'collection = "{name}s"\nserves = ["shop.{name}.v1.S"]\ncalls = {calls}')

    found = services(tmp_path)

    assert [service.name for service in found] == ["b_svc", "d_svc", "c_svc", "a_svc"]
    assert callers_of(found[1], found) == ("edge", "c_svc")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("stock", _STOCK, "must be in lower case, end with _svc"),
        ("Stock_svc", _STOCK, "must be in lower case, end with _svc"),
        (f"{'s' * 40}_svc", _STOCK, "at most 40 characters"),
        ("stock_svc", "collection = ", "Invalid value"),
        ("stock_svc", f"{_STOCK}port = 3", "there is no key port; the keys are calls, collection,"),
        ("stock_svc", 'serves = ["shop.stock.v1.StockService"]', "collection must be a word"),
        ("stock_svc", 'collection = "Stocks"\nserves = ["a"]', "collection must be a word"),
        ("stock_svc", 'collection = "stocks"', "serves must name a gRPC service"),
        ("stock_svc", 'collection = "stocks"\nserves = "a"', "serves must be a list of names"),
        (
            "stock_svc",
            'collection = "stocks"\nserves = ["a", "a"]',
            "serves must be a list of names, each of them once",
        ),
        ("stock_svc", f"{_STOCK}calls = [1]", "calls must be a list of names"),
        ("stock_svc", f'{_STOCK}publishes = "Stock"', "publishes must be a word"),
        ("stock_svc", f'{_STOCK}key = "int"', "key must be uuid or text"),
        ("stock_svc", f'{_STOCK}[modules]\nrpc = "a"', "modules must be a table of lists"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_file_and_what_is_wrong(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    file = declare(tmp_path, name, text)

    with pytest.raises(InvalidDeclaration) as refused:
        read(file)

    assert str(refused.value).startswith(f"{file}: ")
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ('collection = "stocks"\nserves = ["shop.b.v1.B"]', "collection: stocks is a_svc's already"),
        ('collection = "bs"\nserves = ["shop.stock.v1.StockService"]', "serves: shop.stock.v1.StockService is a_svc's"),
        ('collection = "bs"\nserves = ["s"]\npublishes = "stock"', "publishes: stock is a_svc's already"),
        ('collection = "bs"\nserves = ["s"]\ncalls = ["c_svc"]', "calls: there is no service c_svc"),
        ('collection = "bs"\nserves = ["s"]\nreads = ["cat"]', "reads: no service publishes cat"),
        ('collection = "bs"\nserves = ["s"]\npublishes = "b"\nreads = ["b"]', "reads: its own events are b"),
        ('collection = "bs"\nserves = ["s"]\ncalls = ["b_svc"]', "b_svc calls b_svc"),
    ],
)
def test_declarations_that_do_not_fit_each_other_are_refused(tmp_path: Path, other: str, complaint: str) -> None:
    declare(tmp_path, "a_svc", f'{_STOCK}publishes = "stock"')
    declare(tmp_path, "b_svc", other)

    with pytest.raises(InvalidDeclaration, match=complaint):
        services(tmp_path)


def test_a_folder_without_services_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDeclaration, match=r"has a service\.toml"):
        services(tmp_path)


def test_a_missing_declaration_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDeclaration, match=r"stock_svc/service\.toml is missing"):
        read(tmp_path / "stock_svc" / "service.toml")
