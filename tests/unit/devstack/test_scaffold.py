"""A new service's names and files, whatever it is called."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.service import KEYS, Service
from devstack.scaffold import files
from devstack.scaffold.names import BadName, Names, camel, names_of, plural_of, require_free, snake

WORDS = ("stock", "gift", "card", "item", "person", "box", "city", "day", "entry", "order", "news", "hero", "a1")
NAMES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map("_".join)
# Words and marks of the template; none may be left in a service.
TOKENS = re.compile(r"depot|parcel|cargo|[«»]|\[reads|\[text key|\[uuid key|\[end\]", re.IGNORECASE)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("stock", "stock"),
        ("StockItem", "stock_item"),
        ("gift card", "gift_card"),
        ("gift-card", "gift_card"),
        ("GiftCard", "gift_card"),
    ],
)
def test_a_name_is_understood_in_any_spelling(typed: str, name: str) -> None:
    assert snake(typed) == name


@pytest.mark.parametrize(
    ("one", "several"),
    [
        ("stock", "stocks"),
        ("gift_card", "gift_cards"),
        ("box", "boxes"),
        ("city", "cities"),
        ("day", "days"),
        ("person", "people"),
        ("contact_person", "contact_people"),
        ("branch", "branches"),
    ],
)
def test_the_plural_follows_the_rules_of_english(one: str, several: str) -> None:
    assert plural_of(one) == several


def test_an_exception_of_english_can_be_given() -> None:
    names = names_of("zoo", resource="Goose", plural="geese")

    assert (names.resource, names.resources) == ("goose", "geese")


@pytest.mark.parametrize(
    ("name", "resource", "plural", "complaint"),
    [
        ("class", "", "", "NAME=class: this is a keyword of Python"),
        ("match", "", "", "keyword of Python"),
        ("shop", "", "", "NAME=shop: this name has another meaning"),
        ("event", "", "", "another meaning"),
        ("stock", "import", "", "RESOURCE=import: this is a keyword"),
        ("1stock", "", "", "use words of letters"),
        ("stöck", "", "", "use words of letters"),
        ("../etc", "", "", "use words of letters"),
        ("stock;rm", "", "", "use words of letters"),
        ("x" * 21, "", "", "use at most 20 characters"),
        ("stock", "sheep", "sheep", "the plural must differ from the resource"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_what_to_do(
    name: str, resource: str, plural: str, complaint: str
) -> None:
    with pytest.raises(BadName, match=re.escape(complaint)):
        names_of(name, resource=resource, plural=plural)


def test_a_key_is_a_uuid_unless_it_is_said_to_be_a_text() -> None:
    assert (names_of("stock").key, names_of("stock", key="text").key) == ("uuid", "text")
    with pytest.raises(BadName, match="KEY=int: use uuid or text"):
        names_of("stock", key="int")


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (Names("order", "thing", "things"), "order_svc exists already"),
        (Names("zzz", "order", "orders"), "order_svc keeps orders already"),
        (Names("zzz", "order", "ordering"), "order_svc publishes events of order already"),
        (Names("zzz", "zzz_item", "zzz_items", reads="ghost"), "READS=ghost: no service publishes such events"),
    ],
)
def test_a_name_that_is_taken_is_refused(names: Names, complaint: str) -> None:
    taken = Service(
        name="order_svc", collection="orders", serves=("shop.order.v1.OrderService",), publishes="order", modules={}
    )

    with pytest.raises(BadName, match=re.escape(complaint)):
        require_free(names, (taken,))


@given(NAMES, NAMES, st.sampled_from(["", "order", "gift_card"]), st.sampled_from(KEYS), st.sampled_from(KEYS))
def test_every_file_is_about_the_new_service_only(
    name: str, resource: str, reads: str, key: str, reads_key: str
) -> None:
    names = Names(name, resource, plural_of(resource), reads, key, reads_key)

    made = {str(path): text for path, text in files.of_new(names)}

    assert {path: found for path, text in made.items() if (found := TOKENS.findall(path + text))} == {}
    for path, text in made.items():
        if path.endswith(".py"):
            ast.parse(text)
    declared = tomllib.loads(made[f"{names.package}/service.toml"])
    assert declared["collection"] == names.resources
    assert declared["serves"] == [f"shop.{name}.v1.{camel(name)}Service"]
    assert declared.get("reads", []) == ([reads] if reads else [])
    assert declared.get("key", "uuid") == key
    assert (f"{names.package}/consumer.py" in made) == bool(reads)


def test_lines_stay_within_the_limit_for_long_names() -> None:
    names = Names("x" * 20, "loyalty_card_holders", "loyalty_card_holder_x")

    # Code is formatted afterwards; comments and docstrings are not.
    long = [
        (path, line)
        for path, text in files.of_new(names)
        for line in text.splitlines()
        if path.suffix == ".py" and len(line) > 120 and re.match(r'\s*(#|"""|[A-Z][\w ]+[.,])', line)
    ]

    assert long == []
