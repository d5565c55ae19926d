"""No shared file has a list of services: a new service needs no change of one.

A service declares itself in its service.toml, and everything else asks `chassis.service.services()`. A file that names
one service for its own sake, as an example or because it is the one that issues tokens, is all right in the tests and
in prose; in the product's code it is an entry below. A file that names several is a list, until its entry says why not.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

import pytest

from chassis.service import ROOT, services
from tests.support.guards import TABLES, facts, file_of, told_by
from tests.support.service_settings import variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES: Final = tuple(service.name for service in services())
_NAMED: Final = re.compile(rf"\b({'|'.join(name.replace('_', '[_-]') for name in NAMES)})(?![a-z0-9])")
_NOT_OURS: Final = {"generated", "node_modules", "third_party", "build"}
_TEMPLATE: Final = ("devstack", "scaffold")  # names the service that it is a template of
_CONFIGURATION: Final = {".yaml", ".yml", ".toml", ".j2", ".tpl", ".sh", ".json", ".cfg", ".lua", ""}

# Product code that is about one service.
ABOUT_ONE: Final = {
    "devstack/stack.py": "makes the admin by the command of the service that keeps users",
    "protos/client/money.py": "the amounts that an order takes",
    "protos/codegen/examples.py": "an example of a value",
}
# Code that names several services and is no list of them: a new service does not belong there.
_BREAK_BOTH: Final = "breaks the two that call each other, while clients use them"
_EXAMPLES: Final = "two examples are enough"
_MEASURED: Final = "compares the two examples with peers that do the same"
NO_LIST: Final = {
    "tests/chaos/event_world.py": "events flow from one database to another",
    "tests/chaos/test_clocks.py": _BREAK_BOTH,
    "tests/chaos/test_endurance.py": _BREAK_BOTH,
    "tests/chaos/test_hanging.py": _BREAK_BOTH,
    "tests/chaos/test_replicas.py": _BREAK_BOTH,
    "tests/containers/test_events.py": "the way of an order's event",
    "tests/e2e/test_traces.py": "the way of an order through both",
    "tests/failover/conftest.py": "settings of those that its clients use",
    "tests/helm/test_values.py": _EXAMPLES,
    "tests/perf/peer_processes.py": _MEASURED,
    "tests/perf/plan.py": _MEASURED,
    "tests/perf/progress.py": _MEASURED,
    "docs/observability/rules_days_test.yaml": _EXAMPLES,
    "docs/observability/rules_test.yaml": _EXAMPLES,
    "helm/shop/ci/production-values.yaml": _EXAMPLES,
    "tests/mutation/configuration.toml": "faults of one file each",
    "tests/mutation/equivalents.toml": "faults of one line each",
}


def shared_files() -> Iterator[tuple[str, Path]]:
    """Yield the files that do not belong to one service, with their paths in the tree."""
    tops = [path for path in ROOT.iterdir() if path.name == ".github" or path.name[0] != "."]
    for top in sorted(tops):
        if top.name in _NOT_OURS:
            continue
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            where = path.relative_to(ROOT)
            is_of_a_service = where.parts[:2] in {("protos", "shop"), _TEMPLATE} or set(where.parts) & set(NAMES)
            if path.is_file() and not (is_of_a_service or "__pycache__" in where.parts or _is_made(path)):
                yield str(where), path


def _is_made(path: Path) -> bool:
    """Return whether `make generate` has made the file, of a template that is looked at itself, or devstack secrets."""
    with path.open("rb") as file:
        return path.parent.name == "secrets" or file.read(12) == b"# Made from "


def named_in(text: str) -> set[str]:
    """Return the services that the text names, in either spelling."""
    return {found.replace("-", "_") for found in _NAMED.findall(text)}


def named_in_code(tree: ast.AST) -> set[str]:
    """Return the services that Python code names: in strings that are no docstrings, in imports and as variables."""
    return {name for node in ast.walk(tree) for name in _named_at(node)}


def lists_in(tree: ast.AST) -> Iterator[set[str]]:
    """Yield the services of each list, tuple, set and dictionary that names more than one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            named = named_in_code(node)
            if len(named) > 1:
                yield named


def _named_at(node: ast.AST) -> set[str]:
    match node:
        case ast.Constant(value=str(text)):
            return named_in(text)
        case ast.Name(id=name):
            return named_in(name)
        case ast.Import(names=names):
            return {found for each in names for found in named_in(each.name)}
        case ast.ImportFrom(module=str(module)):
            return named_in(module)
    return set()


def without_docstrings(source: str) -> ast.Module:
    """Return the code without its docstrings; comments are not in it anyway."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]
    return tree


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def without_comments(text: str) -> str:
    return re.sub(r"(?m)(^|\s)#.*$|\{\{/\*.*?\*/\}\}", "", text)


PYTHON: Final = [(where, path) for where, path in shared_files() if path.suffix == ".py"]


def test_no_shared_code_has_a_list_of_services() -> None:
    found = {where for where, path in PYTHON if any(lists_in(without_docstrings(path.read_text())))}

    known = {where for where in NO_LIST if where.endswith(".py")}
    assert found - known == set(), "derive it from services()"
    assert known - found == set(), "no list any more"


def test_no_product_code_names_a_service() -> None:
    found = {
        where
        for where, path in PYTHON
        if not where.startswith("tests/") and named_in_code(without_docstrings(path.read_text()))
    }

    assert found - ABOUT_ONE.keys() == set(), "derive it from services(), or say why it is about this one"
    assert ABOUT_ONE.keys() - found == set(), "it names none any more"


def test_no_configuration_names_several_services() -> None:
    found = {
        where
        for where, path in shared_files()
        if path.suffix in _CONFIGURATION and len(named_in(without_comments(path.read_text(errors="replace")))) > 1
    }

    known = {where for where in NO_LIST if not where.endswith(".py")}
    assert found - known == set(), "generate it from services()"
    assert known - found == set(), "no list any more"


@pytest.mark.parametrize("name", NAMES)
def test_what_guards_are_told_is_in_tables_that_they_read(name: str) -> None:
    assert told_by(name).keys() <= TABLES.keys(), f"{file_of(name)}: a table that no guard reads"
    assert facts("settings", name).keys() <= variables().keys(), f"{file_of(name)}: a variable that no service reads"


@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "tests" / "services").iterdir()))
def test_guards_are_told_of_services_that_exist(folder: str) -> None:
    assert folder in NAMES


@pytest.mark.parametrize(
    ("source", "is_a_list"),
    [
        ("SERVICES = ('{0}', '{1}')", True),
        ("PORTS = {{'{0}': [1], '{1}': [2]}}", True),
        ("for package in ({0}, chassis, {1}): look(package)", True),
        ("CASES = [('{0}', 1), ('{1}', 2)]", True),
        ("run('{0}'); run('{1}')", False),
        ("'''Between {0} and {1}.'''", False),
    ],
)
def test_a_list_is_found(source: str, *, is_a_list: bool) -> None:
    code = source.format(NAMES[0], NAMES[-1])

    assert any(lists_in(without_docstrings(code))) is (is_a_list and len(NAMES) > 1)
