"""The orderings of the product: by exact sequences, and little else.

Times and UUIDs of version 7 are of the machine that made them. Two machines' clocks differ, so they are no order of
what happened: a history, a cursor or "the newest" goes by a sequence, where there is one.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.guards import require_explained, sources

if TYPE_CHECKING:
    from collections.abc import Iterator


# Given by the database, one after the other, or counted per resource under its lock.
EXACT: Final = {"transaction", "position", "number", "version", "sequence"}
# Redis gives an entry its id in the order of the stream; an event without one has its place in the outbox.
ENTRY: Final = "the id that Redis gave the entry, in two columns"

LOCKS: Final = "not a reader's order: two transactions that lock the same rows take them in one order"
# Orderings of the chassis. A service lists its own in guards.toml, [orderings].
ALLOWED: Final = {
    "chassis/events/inbox.py subject": LOCKS,
    "chassis/events/copies.py {key}": LOCKS,
    "chassis/database/keyed.py {key}": LOCKS,
    "chassis/server/pagination.py key.desc()": "newest first, of many writers: there is no sequence over all of them",
    "chassis/server/pagination.py key": "a list in the order of its keys, which are texts that callers choose",
    "chassis/idempotency/store.py key_caller, key_method, key_request_id": LOCKS,
    "chassis/idempotency/store.py created_at": "what is swept first, and by its age",
    "chassis/idempotency/store.py max(created_at)": "where the next batch of the sweep begins",
    "chassis/events/inbox.py died_at, sequence, key": "dead letters as a person reads them, of one subject by sequence",
    "chassis/events/relay_state.py coalesce(entry_ms, 0), coalesce(entry_number, position)": ENTRY,
    "chassis/events/relay_state.py coalesce(entry_ms, 0) DESC, coalesce(entry_number, position) DESC": ENTRY,
    "chassis/events/replay.py coalesce(entry_ms, 0), coalesce(entry_number, position)": ENTRY,
    "chassis/events/backlog.py min(occurred_at)": "the age of the oldest event, for a metric",
}


# Two transactions that lock the same rows take them in one order: it is no reader's.
LOCKS_ROWS: Final = re.compile(r"^(?:\w+\.)?id\s+FOR UPDATE\b")


def orderings_of(source: str) -> Iterator[str]:
    """Return what the SQL and the SQLAlchemy expressions in Python source order by, or take the first or last by."""
    tree = ast.parse(source)
    # An expression in an f-string stands for itself, so that ordering by it is seen too.
    in_fstrings = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "order_by":
            yield ", ".join(ast.unparse(argument) for argument in node.args)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"func.max", "func.min", "func.greatest"}:
            yield ast.unparse(node).removeprefix("func.")
        elif isinstance(node, ast.JoinedStr):
            yield from orderings_in("".join(_text_of(part) for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in in_fstrings:
            yield from orderings_in(node.value)


def _text_of(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else ast.unparse(part).removeprefix("f").strip("'")


def orderings_in(statement: str) -> Iterator[str]:
    for found in re.finditer(r"\bORDER BY\s+((?:[^\n)(]|\([^)]*\))+)", statement):
        if not LOCKS_ROWS.search(found[1]):
            yield re.split(r"\s+(?:LIMIT|FOR UPDATE|ON CONFLICT)\b", found[1])[0].strip()
    for found in re.finditer(r"\bDISTINCT ON \(([^)]*)\)|\b(?:max|min|greatest|least)\([^()]*\)", statement):
        yield found[1] or found[0]


def is_exact(ordering: str) -> bool:
    inside = re.sub(r"^(?:max|min|greatest|least)\((.*)\)$", r"\1", ordering)
    columns = [re.sub(r"\s+(ASC|DESC)( NULLS LAST)?$", "", column.strip()) for column in inside.split(",")]
    return all(column.rpartition(".")[2] in EXACT for column in columns)


def found() -> set[tuple[str, str]]:
    return {(where, ordering) for where, path in sources() for ordering in orderings_of(path.read_text())}


def test_every_order_by_uses_an_exact_sequence_or_has_its_reason() -> None:
    inexact = {f"{where} {ordering}" for where, ordering in found() if not is_exact(ordering)}

    require_explained(inexact, ALLOWED, table="orderings")


def test_the_search_finds_the_known_ones() -> None:
    assert {
        ("chassis/watch/changefeed.py", "transaction, position"),
        ("chassis/watch/changefeed.py", "transaction DESC, position DESC"),
        ("chassis/watch/changefeed.py", "max(position)"),
    } <= found()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'SELECT 1 FROM a ORDER BY occurred_at LIMIT 1'", "occurred_at"),
        ("f'SELECT {x} FROM a ORDER BY a.id DESC FOR UPDATE'", "a.id DESC"),
        ("f'SELECT 1 FROM a ORDER BY {column}'", "{column}"),
        ("select(a).order_by(a.c.created_at.desc(), a.c.id)", "a.c.created_at.desc(), a.c.id"),
        ("'SELECT max(created_at) FROM a'", "max(created_at)"),
        ("'row_number() OVER (ORDER BY updated_at)'", "updated_at"),
        ("select(func.max(a.c.updated_at))", "max(a.c.updated_at)"),
    ],
)
def test_an_order_by_a_clock_is_found(source: str, expected: str) -> None:
    assert list(orderings_of(source)) == [expected]
    assert not is_exact(expected)


@pytest.mark.parametrize(
    ("statement", "is_found"),
    [
        ("SELECT 1 FROM a ORDER BY a.id FOR UPDATE OF a SKIP LOCKED", False),
        ("SELECT 1 FROM a ORDER BY id LIMIT 1 FOR UPDATE", True),
        ("SELECT 1 FROM a ORDER BY created_at FOR UPDATE", True),
    ],
)
def test_the_order_in_which_rows_are_locked_is_no_readers(statement: str, *, is_found: bool) -> None:
    assert bool(list(orderings_of(repr(statement)))) == is_found
