"""Statements that change rows: each changes a bounded number of them, however many there are.

A statement is bounded by a LIMIT, by keys that its caller counts, or by one key. A sweep or a repair without a bound
works until a table has grown, then runs into the statement's timeout, and never again comes to an end.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from chassis.service import services
from tests.support.guards import facts, require_explained, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = [(where, path) for where, path in sources() if "migrations" not in path.parts]

CHANGES = re.compile(r"(?<!FOR )(?<!DO )\b(?:UPDATE (?!SET)|DELETE FROM )(?P<table>\w+)")
BOUNDS = re.compile(
    r"""
      \bLIMIT\b                                      # a batch
    | \bunnest\(                                     # keys that come with the statement
    | \bjson_to_recordset\(
    | =\ ANY\ \((?:CAST\()?:
    | \b(?:FROM|USING)\ (?:told|given|changed)\b               # a name for such keys in a part of a larger statement
    """,
    re.VERBOSE,
)
ONE_KEY = re.compile(r"\bWHERE (?:\w+\.)?(?:id|position|account|token_hash|stream|kid) = :")
SUBQUERY = re.compile(r"\(SELECT [^()]*\)")
KEYS = re.compile(r"\.c\.(?:id|token_hash|account|kid)(?: ==|\.in_\()")

# Statements of the chassis, by the file and the beginning of the statement. A service lists its own in guards.toml,
# [unbounded].
UNBOUNDED: dict[str, str] = {}


class Change(NamedTuple):
    """A statement that changes rows, with single spaces."""

    path: str
    line: int
    text: str
    is_bounded: bool


def changes_in(path: str, source: str) -> Iterator[Change]:
    """Yield the statements in the source: in texts, and put together by SQLAlchemy."""
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, (ast.JoinedStr, ast.Constant)) and id(node) not in parts:
            text = " ".join(_text(node).split())
            if CHANGES.search(text) and ("SET " in text or "DELETE FROM" in text):
                begin = CHANGES.search(text)
                yield Change(path, node.lineno, text[begin.start() if begin else 0 :], _is_bounded(text))
    for statement in ast.walk(tree):
        if isinstance(statement, (ast.Expr, ast.Assign, ast.Return, ast.AnnAssign)):
            text = ast.unparse(statement)
            for found in re.finditer(r"(?<![\w.])(?:update|delete)\(\w+\)", text):
                yield Change(path, statement.lineno, text[found.start() :], bool(KEYS.search(text[found.start() :])))


def _is_bounded(statement: str) -> bool:
    # The key of a subquery bounds what it finds, and not what the statement changes.
    return bool(BOUNDS.search(statement) or ONE_KEY.search(SUBQUERY.sub("", statement)))


def _text(node: ast.JoinedStr | ast.Constant) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part)}}}" for part in node.values)


CHANGES_OF_THE_PRODUCT = [change for where, path in SOURCES for change in changes_in(where, path.read_text())]


def name_of(change: Change) -> str:
    """Return how the statement is named in a table: as its reason names it, if it has one, else by its beginning."""
    whole = f"{change.path} {change.text}"
    known = [f"{service.name}/{each}" for service in services() for each in facts("unbounded", service.name)]
    return next((each for each in (*UNBOUNDED, *known) if whole.startswith(each)), whole[:100])


def test_every_statement_that_changes_rows_is_bounded_or_says_why_not() -> None:
    unbounded = {name_of(each) for each in CHANGES_OF_THE_PRODUCT if not each.is_bounded}

    assert len(CHANGES_OF_THE_PRODUCT) >= 20
    require_explained(unbounded, UNBOUNDED, table="unbounded")


@pytest.mark.parametrize(
    ("source", "bounded"),
    [
        ('text("DELETE FROM things")', False),
        ('text("DELETE FROM things WHERE made_at < :oldest")', False),
        ('text("UPDATE outbox SET published_at = NULL WHERE occurred_at >= :since")', False),
        ('text("UPDATE things SET a = 1 WHERE id = :id")', True),
        ('text("UPDATE things SET a = 1 WHERE at >= (SELECT at FROM things WHERE id = :survivor)")', False),
        ('text("UPDATE things SET a = 1 WHERE id = ANY (:ids)")', True),
        ('text("DELETE FROM things WHERE id IN (SELECT id FROM things WHERE old LIMIT 10)")', True),
        ("connection.execute(delete(things).where(things.c.made_at < oldest))", False),
        ("connection.execute(delete(things).where(things.c.id == id))", True),
        ("query = update(things).where(things.c.owner == owner).values(a=1)", False),
    ],
)
def test_a_statement_without_a_bound_is_found(source: str, *, bounded: bool) -> None:
    [change] = changes_in("here", source)

    assert change.is_bounded is bounded


def test_locks_and_conflicts_change_nothing_by_themselves() -> None:
    source = (
        'text("SELECT id FROM things FOR UPDATE"), text("INSERT INTO a VALUES (1) ON CONFLICT DO UPDATE SET a = 1")'
    )

    assert list(changes_in("here", source)) == []
