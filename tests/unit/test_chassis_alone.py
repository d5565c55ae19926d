"""The chassis is tested without the services of the product: one can be deleted, and the tests of the chassis stay.

They run on the notes service of tests/support/notes_svc. Neither they nor the files that they import name a service of
the product: no package, no stub, no gRPC service, no fixture.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import TYPE_CHECKING, Final

import pytest

from chassis.service import ROOT, services

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDERS: Final = ("tests/unit/chassis", "tests/integration/chassis", "tests/support/notes_svc")
# pytest loads it for every test below it.
CONFTEST: Final = "tests/integration/conftest.py"

# The signs of code that is about a service: its package, the package of its contract, the fixtures of its tests. The
# product may have a service with the name of the one that the chassis is tested on.
_WORDS: Final = {
    word
    for service in services()
    if service.name != "notes_svc"
    for word in (service.name, service.host, *(served.rpartition(".")[0] for served in service.serves))
} | {f"event.v1.{service.publishes}_events" for service in services() if service.publishes}
_NAMED: Final = re.compile("|".join(rf"\b{'[./]'.join(word.split('.'))}(?![a-z0-9])" for word in sorted(_WORDS)))


def modules_in(path: Path) -> set[str]:
    """Return the modules that the file imports, with what it imports from them."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Import(names=names):
                found |= {each.name for each in names}
            case ast.ImportFrom(module=str(module), names=names):
                found |= {module, *(f"{module}.{each.name}" for each in names)}
    return found


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


def files_of_the_chassis() -> Iterator[Path]:
    """Yield the tests, and every file below tests/ that they import, directly or not."""
    waiting = [ROOT / CONFTEST, *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in seen and not path.name.endswith(("_pb2.py", "_pb2_grpc.py")):
            seen.add(path)
            yield path
            imported = (file_of(module) for module in modules_in(path) if module.startswith("tests."))
            waiting += [each for each in imported if each]


@cache
def fixtures() -> set[str]:
    """Return the names of the fixtures that the services bring; not those that the tests of the chassis have, too."""
    brought = {name for file in ROOT.glob("tests/services/*/fixtures.py") for name in _fixtures_in(file)}
    return brought - _fixtures_in(ROOT / "tests" / "integration" / "chassis" / "conftest.py")


def _fixtures_in(file: Path) -> set[str]:
    return {
        node.name
        for node in parsed(file).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.decorator_list
    }


def services_named_in(path: Path) -> set[str]:
    """Return what the code of the file names: in imports, as fixtures, in strings that are no docstrings."""
    texts = {module for module in modules_in(path) if not module.startswith("tests.")}
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(node.body[:1] and node.body[0], ast.Expr)
    }
    texts |= {
        node.value
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    }
    arguments = {node.arg for node in ast.walk(parsed(path)) if isinstance(node, ast.arg)}
    return {found for text in texts for found in _NAMED.findall(text)} | (arguments & fixtures())


def test_no_test_of_the_chassis_names_a_service() -> None:
    found = {
        str(path.relative_to(ROOT)): named for path in files_of_the_chassis() if (named := services_named_in(path))
    }

    assert found == {}, "test the chassis on tests/support/notes_svc, or move the test to those of the service"


@pytest.mark.parametrize(
    ("code", "is_named"),
    [
        ("import {name}", True),
        ("from {name}.model import Thing", True),
        ("from {package} import thing_pb2", True),
        ("from shop.event.v1.{event}_events_pb2 import ThingCreated", True),
        ("run('{name}', 'serve')", True),
        ("METHOD = '/{package}.ThingService/Get'", True),
        ("def test_it({fixture}): pass", True),
        ("import shop.system.v1", False),
        ("'''As {name} does it.'''", False),
    ],
)
def test_a_service_is_found(code: str, tmp_path: Path, *, is_named: bool) -> None:
    service = services()[0]
    path = tmp_path / "test_thing.py"
    package = service.serves[0].rpartition(".")[0]
    path.write_text(code.format(name=service.name, package=package, event=service.publishes, fixture=min(fixtures())))

    assert bool(services_named_in(path)) is is_named
