"""A new service's names and files, whatever it is called."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.service import KEYS, ROOT, Service
from devstack.scaffold import __main__ as scaffold
from devstack.scaffold import files
from devstack.scaffold.names import (
    BadName,
    Names,
    Read,
    camel,
    names_of,
    plural_of,
    require_free,
    snake,
    with_publishers,
)
from devstack.scaffold.rename import replaced

WORDS = ("stock", "gift", "card", "item", "person", "box", "city", "day", "entry", "order", "news", "hero", "a1")
NAMES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map("_".join)
# Words and marks of the template; none may be left in a service.
TOKENS = re.compile(r"depot|parcel|cargo|[«»]|\[reads|\[each read|\[text key|\[uuid key|\[end\]", re.IGNORECASE)
EXAMPLES = Service(
    name="example_svc",
    collection="examples",
    serves=("shop.example.v1.ExampleService",),
    publishes="example",
    modules={},
)
GEESE = Service(
    name="zoo_svc", collection="geese", serves=("shop.zoo.v1.ZooService",), publishes="goose", key="text", modules={}
)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("stock", "stock"),
        ("StockItem", "stock_item"),
        ("gift card", "gift_card"),
        ("gift-card", "gift_card"),
        ("GiftCard", "gift_card"),
        ("XMLFile", "xml_file"),
        ("STOCK", "stock"),
        ("S3", "s3"),
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
        ("stock", "Item", "postgres", "PLURAL=postgres: this name has another meaning"),
        ("stock", "Item", "template1", "another meaning"),
        ("stock", "import", "", "RESOURCE=import: this is a keyword"),
        ("1stock", "", "", "use words of letters"),
        ("stöck", "", "", "use words of letters"),
        ("../etc", "", "", "use words of letters"),
        ("stock;rm", "", "", "use words of letters"),
        ("x" * 21, "", "", "use at most 20 characters"),
        ("stock", "sheep", "sheep", "the plural must differ from the resource"),
        ("tickets", "Ticket", "", "NAME=tickets: this is the plural of the resource; use NAME=ticket"),
        ("people", "Person", "", "NAME=people: this is the plural of the resource; use NAME=person"),
        ("a", "", "", "PLURAL=as: this is a keyword of Python"),
        ("reference", "", "", "PLURAL=references: PostgreSQL does not take this name for a table"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_what_to_do(
    name: str, resource: str, plural: str, complaint: str
) -> None:
    with pytest.raises(BadName, match=re.escape(complaint)):
        names_of(name, resource=resource, plural=plural)


@pytest.mark.parametrize(
    ("resource", "plural"),
    [
        *(("List", ""), ("Object", ""), ("Any", "")),  # Python's own
        *(("Key", ""), ("Page", ""), ("DepotService", ""), ("ErrorReason", "")),  # of the code and of the contract
        *(("DeadLetter", ""), ("Melon", "fresh")),  # a table of the chassis, and a part of one of its statements
    ],
)
def test_a_resource_whose_name_means_something_else_in_its_service_is_refused(resource: str, plural: str) -> None:
    with pytest.raises(BadName, match=r"the code of a service has this name .* choose another one, such as \w+Record"):
        files.require_distinct(names_of("depot", resource=resource, plural=plural))


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        *((name, "Foo") for name in ("type", "print", "list", "filter")),  # Python's own
        *((name, "Foo") for name in ("errors", "testing", "settings", "server", "model", "base", "protos", "v1")),
        *((name, "Foo") for name in ("key", "keys", "token", "reason", "value", "name", "page", "request", "change")),
        ("key", ""),
    ],
)
def test_a_service_whose_name_means_something_else_in_its_code_is_refused_with_one_that_does_not(
    name: str, resource: str
) -> None:
    advice = rf"NAME={name}: the code of a service has this name .* choose another one, such as (\w+)"

    with pytest.raises(BadName, match=advice) as refused:
        files.require_distinct(names_of(name, resource=resource))

    found = re.search(advice, str(refused.value))
    assert found
    files.require_distinct(names_of(found[1], resource=resource))


def test_the_advice_for_a_resource_helps() -> None:
    for resource in ("List", "Key", "DeadLetter"):
        with pytest.raises(BadName, match=f"RESOURCE={snake(resource)}: .* such as {resource}Record"):
            files.require_distinct(names_of("stock", resource=resource))
        files.require_distinct(names_of("stock", resource=f"{resource}Record"))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["Timestamp", "Empty", "Status", "s3", "b", "Struct", "Function", "interface"])
def test_a_resource_may_have_the_name_of_something_that_its_service_does_not_use(name: str, key: str) -> None:
    files.require_distinct(names_of(name, key=key))


@pytest.mark.parametrize(("resource", "taken"), [("Session", "Session, createSession"), ("Jwk", "Jwk")])
def test_a_resource_that_the_contract_has_in_another_service_is_refused(resource: str, taken: str) -> None:
    # In the OpenAPI document the names of rpcs and messages are without their package.
    with pytest.raises(BadName, match=f"RESOURCE={snake(resource)}: the contract has .*{taken}"):
        require_free(names_of("login", resource=resource), (EXAMPLES,))


def test_a_plural_whose_path_the_contract_has_is_refused() -> None:
    # Two services would have the same binding, and the edge would send its calls to the later one.
    paths = json.loads((ROOT / "generated" / "openapi.json").read_text())["paths"]
    taken = {found[1] for path in paths if (found := re.match(r"/api/v1/([\w-]+)", path))}

    assert "sessions" in taken
    for plural in taken:
        with pytest.raises(BadName, match=r"the contract has .* already"):
            require_free(names_of("zzz", plural=plural), (EXAMPLES,))
    with pytest.raises(BadName, match="PLURAL=sessions: the contract has the path /api/v1/sessions already"):
        require_free(names_of("login", resource="entry", plural="sessions"), (EXAMPLES,))


def test_a_plural_may_begin_as_a_path_of_the_contract_does() -> None:
    require_free(names_of("login", resource="entry", plural="sessions_list"), (EXAMPLES,))


def test_a_key_is_a_uuid_unless_it_is_said_to_be_a_text() -> None:
    assert (names_of("stock").key, names_of("stock", key="text").key) == ("uuid", "text")
    with pytest.raises(BadName, match="KEY=int: use uuid or text"):
        names_of("stock", key="int")


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (Names("user", "thing", "things"), "user_svc exists already"),
        (Names("zzz", "example", "examples"), "example_svc keeps examples already"),
        (Names("zzz", "example", "exampling"), "example_svc publishes events of example already"),
        (
            names_of("zzz", reads="example,ghost,elf"),
            "READS=ghost, elf: no service publishes such events; there are example",
        ),
    ],
)
def test_a_name_that_is_taken_is_refused(names: Names, complaint: str) -> None:
    with pytest.raises(BadName, match=re.escape(complaint)):
        require_free(names, (EXAMPLES,))


@pytest.mark.parametrize(
    ("reads", "complaint"),
    [
        ("order,", "READS=order,: write the resources with one comma between them"),
        ("order,,user", "one comma between them"),
        ("order, Order", "READS=order, Order: order is there twice; name each resource once"),
        ("StockItem,user,stock-item", "stock_item is there twice"),
        ("order,GiftCard", "gift_card is what the new service keeps; it reads events of other services only"),
    ],
)
def test_resources_to_read_that_cannot_be_are_refused(reads: str, complaint: str) -> None:
    with pytest.raises(BadName, match=re.escape(complaint)):
        names_of("gift card", reads=reads)


def test_resources_to_read_are_as_their_services_declare_them() -> None:
    names = with_publishers(names_of("nest", reads="Goose, example"), (EXAMPLES, GEESE))

    examples = Read("example", "examples", "uuid", "example_svc")
    assert names.reads == (Read("goose", "geese", "text", "zoo_svc"), examples)


READS = st.lists(
    st.builds(Read, st.just("example"), st.just("examples"), st.sampled_from(KEYS), st.just("example_svc"))
    | st.builds(Read, st.just("goose"), st.just("geese"), st.sampled_from(KEYS), st.just("zoo_svc")),
    max_size=2,
    unique_by=lambda read: read.resource,
).map(tuple)


@given(NAMES, NAMES, READS, st.sampled_from(KEYS))
def test_every_file_is_about_the_new_service_only(name: str, resource: str, reads: tuple[Read, ...], key: str) -> None:
    names = Names(name, resource, plural_of(resource), reads, key)

    made = {str(path): text for path, text in files.of_new(names)}

    assert {path: found for path, text in made.items() if (found := TOKENS.findall(path + text))} == {}
    for path, text in made.items():
        if path.endswith(".py"):
            ast.parse(text)
    declared = tomllib.loads(made[f"{names.package}/service.toml"])
    assert declared["collection"] == names.resources
    assert declared["serves"] == [f"shop.{name}.v1.{camel(name)}Service"]
    assert declared.get("reads", []) == [read.resource for read in reads]
    assert declared.get("key", "uuid") == key
    assert (f"{names.package}/consumer.py" in made) == bool(reads)
    for read in reads:
        assert f'"{read.resource}": consumer.apply_{read.resources},' in made[f"{names.package}/worker.py"]
        assert (
            f"CREATE TABLE known_{read.resources} ("
            in made[f"{names.package}/migrations/versions/0001_{names.resources}.py"]
        )


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("create", "NAME is missing: make service NAME="),
        ("remove", "NAME is missing: make service-remove NAME=stock; there are "),
        ("rename", "NAME is missing: make rename NAME=Acme"),
    ],
)
@pytest.mark.parametrize("name", ["", " "])
def test_a_command_without_a_name_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, command: str, complaint: str, name: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["scaffold", command, name])

    with pytest.raises(SystemExit, match=complaint):
        scaffold.main()


@pytest.mark.parametrize("name", ["a1", "stock", "ticket", "warehouse"])
def test_a_contract_has_its_imports_in_order(name: str) -> None:
    contracts = [text for path, text in files.of_new(names_of(name)) if path.suffix == ".proto"]

    for text in contracts:
        imports = re.findall(r'^import "([^"]+)";$', text, re.MULTILINE)
        assert imports == sorted(imports)


def test_a_name_can_be_a_word_of_the_template() -> None:
    names = Names("cargo", "depot", "depots", (Read("parcel", "parcels", "uuid", "depot_svc"),))

    made = {str(path): text for path, text in files.of_new(names)}

    declared = tomllib.loads(made["cargo_svc/service.toml"])
    assert (declared["collection"], declared["publishes"], declared["reads"]) == ("depots", "depot", ["parcel"])
    assert '"parcel": consumer.apply_parcels,' in made["cargo_svc/worker.py"]
    assert "CREATE TABLE known_parcels (" in made["cargo_svc/migrations/versions/0001_depots.py"]
    assert "class DepotsInMemory:" in made["protos/testing/cargo_svc/__init__.py"]


@pytest.mark.parametrize("project", ["Shop", "Watchmakers1"])
def test_lines_stay_within_the_limit_for_long_names(project: str) -> None:
    names = Names("x" * 20, "loyalty_card_holders", "loyalty_card_holder_x")

    # Code is formatted afterwards; comments and docstrings are not.
    long = [
        (path, line)
        for path, text in files.of_new(names)
        for line in replaced(text, project).splitlines()
        if path.suffix == ".py" and len(line) > 120 and re.match(r'\s*(#|"""|[A-Z][\w ]+[.,])', line)
    ]

    assert long == []


@pytest.mark.parametrize("command", ["create lamp", "rename Acme"])
def test_a_folder_that_git_does_not_know_is_refused(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["scaffold", *command.split()])

    with pytest.raises(SystemExit, match="git does not know this folder"):
        scaffold.main()
