"""Removing an example: its declaration fits the tree, and nothing that stays needs or names what goes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Final

import pytest

from chassis.service import ROOT, Service, services
from devstack.scaffold.__main__ import Refused, _require_unused
from devstack.scaffold.files import of_service
from devstack.scaffold.removal import FILE, Drifted, Edit, removal_of
from devstack.scaffold.rename import FORMATTING, replaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# The history, and what `make generate` writes.
LEFT: Final = re.compile(
    r"CHANGELOG\.md$|docs/adr/|generated/|docs/(?:events|limits|settings)\.md$|helm/shop/README\.md$"
    r"|helm/shop/files/|\w+_svc/migrations/"
)
EXAMPLES: Final = [service for service in services() if (ROOT / service.name / FILE).exists()]
of_each_example = pytest.mark.parametrize("service", EXAMPLES, ids=lambda service: service.name)


@cache
def staying(service: Service) -> dict[str, str]:
    """Return the text of each file that stays, as it is after the removal.

    Services that need this one do not stay: the removal is refused until they are removed.
    """
    removal = removal_of(service)
    needing = [each for each in services() if is_needed(service, by=each)]
    paths = [*removal.paths(service), *(path for each in needing for path in of_service(each))]
    gone = [str(path.relative_to(ROOT)) for path in paths]
    edited = {str(path.relative_to(ROOT)): text for path, text in removal.edited().items()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {}
    for name in listed.splitlines():
        path = ROOT / name
        if path.is_file() and not any(name == each or name.startswith(f"{each}/") for each in gone):
            texts[name] = edited[name] if name in edited else path.read_text(encoding="utf-8", errors="replace")
    return texts


def is_needed(service: Service, *, by: Service) -> bool:
    """Return whether the other service calls it or reads its events, also after the edits of the removal."""
    try:
        _require_unused(service, [by], removal_of(service).edited())
    except Refused:
        return True
    return False


def is_made(name: str) -> bool:
    return bool(LEFT.match(name)) or (ROOT / f"{name}.j2").exists()


@of_each_example
def test_the_declaration_of_a_removal_fits_the_tree(service: Service) -> None:
    assert removal_of(service).edited()


@pytest.mark.parametrize("name", ["Xy", "Watchmakers1"])
@of_each_example
def test_the_declaration_fits_the_tree_of_a_project_with_another_name(
    service: Service, name: str, tmp_path: Path
) -> None:
    removal = removal_of(service)
    declared = f"{service.name}/{FILE}"
    for path in {declared, *(edit.file for edit in removal.edits), *removal.words}:
        renamed = tmp_path / replaced(path, name)
        renamed.parent.mkdir(parents=True, exist_ok=True)
        renamed.write_text(replaced((ROOT / path).read_text(), name))
    for path in removal.gone:
        (tmp_path / replaced(path, name)).mkdir(parents=True, exist_ok=True)
    for command in (each for each in FORMATTING if each[0] == "ruff"):
        subprocess.run([sys.executable, "-m", *command, "--config", ROOT / "pyproject.toml", tmp_path], check=True)

    assert removal_of(service, root=tmp_path).edited(root=tmp_path)


@of_each_example
def test_every_loss_has_a_reason(service: Service) -> None:
    assert [path for path, reason in removal_of(service).gone.items() if len(reason) < 10] == []


@of_each_example
def test_who_reads_its_events_is_told_what_to_change_first(service: Service) -> None:
    for reader in (each for each in services() if service.publishes in each.reads):
        told = f"{reader.name} reads events of {service.publishes}: .+ from `reads` in {reader.name}/service.toml"

        with pytest.raises(Refused, match=told):
            _require_unused(service, [reader], {})


@of_each_example
def test_no_file_that_stays_names_what_is_removed(service: Service) -> None:
    words = words_of(service)
    others = {word for other in services() if other != service for word in words_of(other)}
    # The name of another service can end with this one's: of an order and a purchase order the longer one counts.
    longest_first = sorted(words | others, key=len, reverse=True)
    named = re.compile("|".join(rf"(?<![a-z]){re.escape(word)}(?![a-z])" for word in longest_first))

    found = {
        name: sorted(of_this)
        for name, text in staying(service).items()
        if not is_made(name) and (of_this := words & {*named.findall(text)})
    }

    where = f"move it into a folder named {service.name}, or say in {service.name}/{FILE} what becomes of it"
    assert found == {}, where


def words_of(service: Service) -> set[str]:
    """Return the names by which code and texts know the service."""
    packages = {served.rpartition(".")[0] for served in service.serves}
    words = {service.name, service.host, service.url_variable, *service.serves, *packages}
    words |= {served.rpartition(".")[2] for served in service.serves} | {f"{service.publishes}_events_pb2"}
    return words | {package.rpartition(".")[0].replace(".", "/") for package in packages}


@of_each_example
def test_no_code_that_stays_imports_what_is_removed(service: Service) -> None:
    texts = staying(service)
    python = [name for name in texts if name.endswith(".py") and not name.startswith("generated/")]
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in python}
    folders = {module.rpartition(".")[0] for module in modules}
    ours = {module.partition(".")[0] for module in modules} | {service.name}

    missing = {
        (name, module)
        for name in python
        for module in imported(texts[name])
        if module.partition(".")[0] in ours and module not in modules | folders
    }

    assert missing == set()


@of_each_example
def test_no_test_that_stays_needs_a_fixture_that_is_removed(service: Service) -> None:
    fixtures = ROOT / "tests" / "services" / service.name / "fixtures.py"
    gone = {node.name for node in functions(fixtures.read_text())} if fixtures.exists() else set()

    needing = {
        (name, node.name)
        for name, text in staying(service).items()
        if name.startswith("tests/integration/") and name.endswith(".py")
        for node in functions(text)
        if gone & {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
        if node.name.startswith("test") or node.decorator_list
    }

    assert needing == set()


def imported(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def functions(text: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


# How a declaration is read.


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def example() -> Service:
    return Service(name="example_svc", collection="examples", serves=("shop.example.v1.A",), modules={})


def test_a_passage_is_replaced_and_a_range_ends_before_its_end() -> None:
    content = "# A\none\n# B\ntwo\n"

    assert Edit(file="f", text="one\n", becomes="1\n").applied_to(content) == "# A\n1\n# B\ntwo\n"
    assert Edit(file="f", text="# A\n", until="# B").applied_to(content) == "# B\ntwo\n"


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (Edit(file="f", text="gone"), "f has 'gone' 0 times, not once"),
        (Edit(file="f", text="o"), "f has 'o' 2 times, not once"),
        (Edit(file="f", text="one", until="three"), "f has no 'three' after 'one'"),
    ],
)
def test_a_passage_that_is_not_there_exactly_once_is_told(edit: Edit, complaint: str) -> None:
    with pytest.raises(Drifted, match=complaint):
        edit.applied_to("one\ntwo\n")


def test_edits_are_made_in_their_order_and_words_last(tmp_path: Path) -> None:
    declaration = """
        [gone]
        "tests/extra" = "is about examples"
        [edits]
        "page.md" = [{text = "a line about example_svc\\n"}, {text = "first", becomes = "second"}]
        [words]
        "page.md" = {example_svc = "other_svc"}
        "notes.md" = {example_svc = "other_svc"}
    """
    page = "first\na line about example_svc\ncall example_svc\n"
    files = {"page.md": page, "notes.md": "example_svc\n", "tests/extra/test_a.py": "", "example_svc/removal.toml": ""}
    root = tree(tmp_path, files | {"example_svc/removal.toml": declaration})

    edited = removal_of(example(), root=root).edited(root=root)

    assert edited == {root / "page.md": "second\ncall other_svc\n", root / "notes.md": "other_svc\n"}


def test_everything_that_has_drifted_is_told_at_once(tmp_path: Path) -> None:
    declaration = """
        [gone]
        "tests/extra" = "is about examples"
        [edits]
        "page.md" = [{text = "not there"}]
        "absent.md" = [{text = "anything"}]
        [words]
        "page.md" = {example_svc = "other_svc"}
    """
    root = tree(tmp_path, {"page.md": "text\n", "example_svc/removal.toml": declaration})

    with pytest.raises(Drifted) as drifted:
        removal_of(example(), root=root).edited(root=root)

    assert str(drifted.value).splitlines() == [
        "tests/extra is not there",
        "page.md has 'not there' 0 times, not once",
        "absent.md is not there",
        "page.md does not have the word 'example_svc'",
    ]


def test_a_service_without_a_declaration_changes_nothing_else(tmp_path: Path) -> None:
    removal = removal_of(example(), root=tmp_path)

    assert (removal.gone, removal.edits, removal.edited(root=tmp_path)) == ({}, (), {})
