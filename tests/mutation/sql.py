"""Subtle faults of a statement in SQL: what a condition, an order, a lock or a limit is there for.

Each change leaves SQL that PostgreSQL takes, so that only what the statement does can tell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_IS_SQL: Final = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WHERE|ORDER BY|FOR UPDATE|SKIP LOCKED)\b")
# A table's definition is the business of its migration: those faults are in configuration.toml.
_IS_DDL: Final = re.compile(r"\b(CREATE|ALTER|DROP) (TABLE|INDEX|UNIQUE)|\bCONCURRENTLY\b")

_CONDITION: Final = re.compile(r"\b(?:WHERE|ON|AND|OR)\s+(?!CONFLICT\b|CONSTRAINT\b)(?=\S)")
_CLAUSE_ENDS: Final = re.compile(
    r"\b(?:AND|OR|ORDER|LIMIT|GROUP|RETURNING|FOR|JOIN|LEFT|SET|UNION|FROM|WHERE|ON|DO|AS)\b|\)"
)
_SET: Final = re.compile(r"\b(?:DO UPDATE\s+SET|SET)\s+(?!LOCAL\b)")
_SET_ENDS: Final = re.compile(r"\b(?:FROM|WHERE|RETURNING)\b|\)")
_ORDER_BY: Final = re.compile(r"\bORDER BY\s+")
_ORDER_ENDS: Final = re.compile(r"\b(?:LIMIT|FOR|ON|ROWS)\b|\)|\n\s*\n")

# Patterns, each with its replacement.
_SWAPS: Final[tuple[tuple[str, str], ...]] = (
    (r"\s*\bFOR (?:NO KEY )?UPDATE\b(?: OF \w+)?(?: SKIP LOCKED| NOWAIT)?", ""),
    (r"\s*\bSKIP LOCKED\b", ""),
    (r"(?<=[\w\s)])<=", "<"),
    (r"(?<=[\w\s)])>=", ">"),
    (r"(?<=[\w\s)])<(?![=>])", "<="),
    (r"(?<=[\w\s)])(?<![<-])>(?![=>])", ">="),
    (r"<>", "="),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bNOT (?=EXISTS\b|IN\b)", ""),
    (r"\bnow\(\)", "clock_timestamp()"),
    (r"\bclock_timestamp\(\)", "now()"),
    (r"\bgreatest\(", "least("),
    (r"\bleast\(", "greatest("),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bDESC\b", "ASC"),
    (r"\bDISTINCT\b", ""),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r" - (?=[\w'])", " + "),
    (r" \+ (?=[\w'])", " - "),
    (r"\bDO NOTHING\b", "DO UPDATE SET id = excluded.id"),
    (r"\bUNION ALL\b", "UNION"),
    (r"(?<![\w.:'\"$%-])(?P<number>\d+)\b(?![\w'\"])", "+1"),
)


class Change(NamedTuple):
    """A part of the text, and what takes its place."""

    start: int
    end: int
    text: str


def is_sql(text: str) -> bool:
    """Return whether the text is a statement, or part of one, that reads or writes rows."""
    return bool(_IS_SQL.search(text)) and not _IS_DDL.search(text)


def changes(sql: str, *, goes_on: bool) -> list[Change]:
    """Return every fault to plant into a part of a statement, in the order of the text.

    Args:
        sql: the text.
        goes_on: whether a value is put in behind it, so that its last clause may be cut off.
    """
    found = [*_dropped_conditions(sql, goes_on=goes_on), *_wider_equals(sql, goes_on=goes_on)]
    found += [*_dropped_assignments(sql, goes_on=goes_on), *_orders(sql, goes_on=goes_on)]
    for pattern, instead in _SWAPS:
        for match in re.finditer(pattern, sql):
            text = str(int(match["number"]) + 1) if instead == "+1" else instead
            found.append(Change(match.start(), match.end(), text))
    return sorted(set(found))


def _end(sql: str, start: int, stops: re.Pattern[str]) -> int:
    """Return where the clause ends: at a word that begins the next one, or with the parenthesis that it stands in."""
    depth, at = 0, start
    while at < len(sql):
        if sql[at] == "(":
            depth += 1
        elif depth == 0 and stops.match(sql, at) and not (sql[at].isalpha() and sql[at - 1].isalnum()):
            break
        elif sql[at] == ")":
            depth -= 1
        at += 1
    return start + len(sql[start:at].rstrip())


def _clauses(sql: str, begins: re.Pattern[str], ends: re.Pattern[str], *, goes_on: bool) -> Iterator[tuple[int, int]]:
    for match in begins.finditer(sql):
        end = _end(sql, match.end(), ends)
        is_cut = goes_on and not sql[end:].strip()
        if end > match.end() and not is_cut:
            yield match.end(), end


def _dropped_conditions(sql: str, *, goes_on: bool) -> Iterator[Change]:
    for start, end in _clauses(sql, _CONDITION, _CLAUSE_ENDS, goes_on=goes_on):
        instead = "false" if re.search(r"\bOR\s+$", sql[:start]) else "true"
        if sql[start:end] != instead:
            yield Change(start, end, instead)


def _wider_equals(sql: str, *, goes_on: bool) -> Iterator[Change]:
    for start, end in _clauses(sql, _CONDITION, _CLAUSE_ENDS, goes_on=goes_on):
        for match in re.finditer(r" = (?!ANY\b)", sql[start:end]):
            yield Change(start + match.start(), start + match.end(), " >= ")


def _dropped_assignments(sql: str, *, goes_on: bool) -> Iterator[Change]:
    for start, end in _clauses(sql, _SET, _SET_ENDS, goes_on=goes_on):
        parts = list(_split(sql, start, end))
        if len(parts) < 2:
            continue
        for n, (first, last) in enumerate(parts):
            yield Change(first, parts[1][0], "") if n == 0 else Change(parts[n - 1][1], last, "")


def _orders(sql: str, *, goes_on: bool) -> Iterator[Change]:
    for start, end in _clauses(sql, _ORDER_BY, _ORDER_ENDS, goes_on=goes_on):
        yield Change(sql.rindex("ORDER BY", 0, start), end, "")
        first, last = next(_split(sql, start, end))
        if not re.search(r"\b(DESC|ASC)$", sql[first:last]):
            yield Change(last, last, " DESC")


def _split(sql: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts between the commas that stand in no parentheses, without the blanks around them."""
    depth, first = 0, start
    for at in range(start, end + 1):
        if at == end or (sql[at] == "," and depth == 0):
            part = sql[first:at]
            yield first + len(part) - len(part.lstrip()), first + len(part.rstrip())
            first = at + 1
        else:
            depth += {"(": 1, ")": -1}.get(sql[at], 0)
