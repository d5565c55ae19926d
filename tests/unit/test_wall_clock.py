"""The time of day is read for dates only. It may jump, so that what lasts is measured on the monotonic clock."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

from tests.support.guards import require_explained, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

# By their last name, so that no alias hides one: a clock's `now`, `datetime.now`, `time.time`, protobuf's.
_READS: Final = {
    *("time", "time_ns", "now", "utcnow", "today", "GetCurrentTime", "gmtime", "localtime", "ctime", "strftime"),
    *("uuid1", "uuid6", "uuid7"),
}

# These take the time as a date: of an idempotency key, of a page token.
_TAKE_A_DATE: Final = {"key_of", "ListRequest"}

# Each reading of the wall clock in the chassis, and the date that it is for. time.monotonic() measures durations.
# A service lists its own readings in guards.toml, [dates] and [sql_dates].
DATES: Final = {
    "chassis/client/breaker.py _Counts.opened_at": "for pybreaker, which subtracts the date of now again",
    "chassis/clock.py SystemClock.now": "the clock itself",
    "chassis/clock.py new_id": "the date in an id",
    "chassis/database/database.py earlier_now": "compared with when rows to sweep were made, by any replica",
    "chassis/server/stream_wrapper.py _send_until_expiry": "compared with a token's end, once: then it is a deadline",
    "chassis/telemetry/logs.py _LogLines._timestamp": "of a line",
    "chassis/telemetry/logs.py _LogLines.add": "of a line",
    "chassis/telemetry/metrics/events.py consumer_looked_at": "compared with a publisher's watermark",
    "chassis/server/pagination.py PageTokens._decoded": "compared with when the token was made",
    "chassis/server/pagination.py PageTokens.after": "of a page token",
    "chassis/events/relay.py Relay._publish": "the beginning of a span",
    "chassis/server/system.py SystemServicer.GetHealth": "of an answer about health",
    "chassis/auth/access_tokens.py AccessTokens._is_still_valid": "compared with a token's end",
    "chassis/auth/certificates.py CertificateFiles._doubts": "compared with a certificate's beginning and end",
}

_SQL: Final = re.compile(r"\b(?:now|\w+_timestamp)\(\)|\bcurrent_(?:timestamp|date|time)\b", re.IGNORECASE)
# The same for PostgreSQL's clock, by the line of the statement.
SQL_DATES: Final = {
    "chassis/database/database.py SELECT now()": "a second clock beside a replica's, for sweeps",
    "chassis/events/inbox.py VALUES (:stream, now())": "since when events are gone",
    "chassis/events/inbox.py VALUES (:stream, :key, :subject, :sequence, :event, :reason, :attempts, now())": (
        "of a dead letter"
    ),
    "chassis/events/backlog.py coalesce(extract(epoch FROM now() - min(occurred_at)), 0) AS oldest_age_s,": "a metric",
    "chassis/events/copies.py now()": "when news of a resource came",
    "chassis/events/relay.py SELECT now()": "of a watermark",
    "chassis/events/relay_state.py published_at = (SELECT clock_timestamp()),": "of a publication",
    "chassis/events/relay_state.py CASE WHEN published_at > now() + interval '1 hour' THEN occurred_at "
    "ELSE published_at END AS since": "whether the clock was wrong when it was published",
}


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for where, path in sources():
        if "testing" not in path.parts:
            yield where, ast.parse(path.read_text())


def _readers(node: ast.AST, within: tuple[str, ...]) -> Iterator[str]:
    """Yield the qualified name of each function that reads the time of day, or hands a reader of it on."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and ast.unparse(child.func) in _TAKE_A_DATE:
            continue
        is_named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if isinstance(child, ast.Attribute) and child.attr in _READS and not _is_loops(child):
            yield ".".join(within)
        yield from _readers(child, (*within, child.name) if is_named else within)


def _is_loops(reading: ast.Attribute) -> bool:
    """Return whether it is an event loop's time(), which is monotonic, or the time of an event, which is data."""
    return reading.attr == "time" and ast.unparse(reading.value) != "time"


def test_every_reading_of_the_time_of_day_is_a_date() -> None:
    found = {f"{where} {name}" for where, module in _modules() for name in _readers(module, ())}

    require_explained(found, DATES, table="dates")


def test_every_reading_of_the_time_of_day_in_sql_is_a_date() -> None:
    found = {
        f"{where} {line.strip()}"
        for where, module in _modules()
        for node in ast.walk(module)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for line in node.value.splitlines()
        if _SQL.search(line)
    }

    require_explained(found, SQL_DATES, table="sql_dates")
