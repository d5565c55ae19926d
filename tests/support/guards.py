"""What guards of the whole tree are told about each service: `tests/services/<service>/guards.toml`.

A guard reads the code of every service that declares itself, so no list of services can be out of date. What it cannot
know by itself is in that file, in the guard's table: exceptions, each with its reason, and facts. A service without
exceptions needs no file.
"""

from __future__ import annotations

import importlib
import tomllib
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from chassis.service import ROOT, services

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import ModuleType

TABLES: Final = {
    "access": "the callers of each rpc: unit/test_access_table.py, integration/test_access.py, e2e/test_access.py",
    "background": "where each endless loop is seen at work: integration/test_sweeps.py",
    "dates": "what date each reading of the clock is: unit/test_wall_clock.py",
    "foreign": "the answer about another user's resource: unit/test_access_table.py, e2e/test_access.py",
    "indexes": "the columns of the indexes of each table: integration/test_migrations.py",
    "migrations": "why a statement does not stop or block the code that runs: integration/test_migrations.py",
    "momentary": "what differs from one answer of an rpc to the next: e2e/test_parity.py",
    "named_by_callers": "why a caller names what a service decides: unit/protos/test_contract.py",
    "orderings": "why each ordering need not be exact: unit/test_orderings.py",
    "outdated": "a row to sweep, by its table: integration/test_sweeps.py",
    "pages": "where a list of the largest entries is walked: unit/test_lists.py",
    "repeatable": "why a write needs no request id: unit/protos/test_contract.py",
    "settings": "variables for stacks of tests: e2e/conftest.py",
    "sql_dates": "what date each reading of PostgreSQL's clock is: unit/test_wall_clock.py",
    "unbounded": "why each statement without a bound needs none: unit/test_bounded_statements.py",
    "waiting_loops": "why each loop that waits is written by hand: unit/chassis/runtime/test_periodic.py",
}
"""The tables, and who reads them."""


def file_of(service: str) -> Path:
    """Return where the service's tests tell the guards about it. The file may be missing."""
    return ROOT / "tests" / "services" / service / "guards.toml"


def facts(table: str, service: str) -> Mapping[str, Any]:
    """Return a table of the service's file; empty if it has none."""
    assert table in TABLES
    told: Mapping[str, Any] = told_by(service).get(table, {})
    return told


def all_facts(table: str) -> dict[str, Any]:
    """Return the table of every service, in one."""
    return {name: value for service in services() for name, value in facts(table, service.name).items()}


@cache
def told_by(service: str) -> Mapping[str, Any]:
    """Return every table of the service's file, by its name."""
    file = file_of(service)
    return tomllib.loads(file.read_text()) if file.exists() else {}


def modules(name: str) -> Iterator[ModuleType]:
    """Yield the modules of this name that services have beside their guards.toml."""
    for service in services():
        if (file_of(service.name).parent / f"{name}.py").exists():
            yield importlib.import_module(f"tests.services.{service.name}.{name}")


def packages() -> tuple[str, ...]:
    """Return the packages that are the product's code: the chassis and every service."""
    return ("chassis", *(service.name for service in services()))


def sources() -> Iterator[tuple[str, Path]]:
    """Yield every Python file of the product, with its path in the tree."""
    for package in packages():
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path


def require_explained(found: Iterable[str], chassis: Collection[str], *, table: str) -> None:
    """Return if what was found is what the chassis and the services explain: each thing as `path what`.

    Raises:
        AssertionError: something has no reason, or a reason is no longer needed. The message names the file.
    """
    explained = {f"{service.name}/{each}" for service in services() for each in facts(table, service.name)}
    complaints = [
        f"{_where(each, table)}: {verb} {each.partition('/')[2]!r}"
        for verb, some in (
            ("explain or avoid", set(found) - explained - {*chassis}),
            ("nothing needs any more", (explained | {*chassis}) - set(found)),
        )
        for each in sorted(some)
    ]
    assert complaints == [], "\n".join(complaints)


def _where(each: str, table: str) -> str:
    service = each.partition("/")[0]
    return "this test" if service == "chassis" else f"{file_of(service).relative_to(ROOT)}, [{table}]"
