"""The time of day is read for dates only. It may jump, so that what lasts is measured on the monotonic clock."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES: Final = ("chassis", "user_svc", "order_svc")
# By their last name, so that no alias hides one: a clock's `now`, `datetime.now`, `time.time`, protobuf's.
_READS: Final = {
    *("time", "time_ns", "now", "utcnow", "today", "GetCurrentTime", "gmtime", "localtime", "ctime", "strftime"),
    *("uuid1", "uuid6", "uuid7"),
}

# Each reading, and what date it is. A reading for a duration is no line here but a use of time.monotonic().
DATES: Final = {
    "chassis/client/breaker.py _Counts.opened_at": "for pybreaker, which subtracts the date of now again",
    "chassis/clock.py SystemClock.now": "the clock itself",
    "chassis/clock.py new_id": "the date in an id",
    "chassis/idempotency/store.py sweep_forever.remove_batch": "compared with when keys were made, by any replica",
    "chassis/server/stream_wrapper.py _send_until_expiry": "compared with a token's end, once: then it is a deadline",
    "chassis/telemetry/logs.py _LogLines._timestamp": "of a line",
    "chassis/telemetry/logs.py _LogLines.add": "of a line",
    "chassis/telemetry/metrics/events.py consumer_looked_at": "compared with a publisher's watermark",
    "chassis/server/pagination.py PageTokens._decoded": "compared with when the token was made",
    "chassis/server/pagination.py PageTokens.after": "of a page token",
    "chassis/events/relay.py Relay._publish": "the beginning of a span",
    "chassis/server/system.py _now": "of an answer about health",
    "chassis/auth/access_tokens.py AccessTokens._is_still_valid": "compared with a token's end",
    "order_svc/consumer.py cancel_open_orders": "of a change",
    "order_svc/buyers.py BuyersWithProjection.refusals": "compared with a publisher's watermark",
    "order_svc/rpc.py OrderServicer.ListOrderEvents": "of a page token",
    "order_svc/rpc.py OrderServicer.ListOrders": "of a page token",
    "order_svc/rpc.py OrderServicer._key": "of an idempotency key",
    "order_svc/service.py OrderService._apply": "of a change",
    "order_svc/service.py OrderService.place_order": "of an order",
    "user_svc/attempts.py Attempts._try": "of a reservation and a failure",
    "user_svc/attempts.py Attempts.check": "compared with until when an account waits",
    "user_svc/keys.py SigningKeys._insert": "of a key",
    "user_svc/keys.py SigningKeys._loaded": "compared with when keys begin to sign",
    "user_svc/keys.py SigningKeys._make_first": "of a key",
    "user_svc/keys.py SigningKeys._needed": "compared with when the last tokens of a key end",
    "user_svc/keys.py SigningKeys.current": "compared with when keys begin to sign",
    "user_svc/keys.py SigningKeys.key": "compared with when the last tokens of a key end",
    "user_svc/keys.py SigningKeys.rotate.work": "of a key",
    "user_svc/rpc.py UserServicer.ListUsers": "of a page token",
    "user_svc/rpc.py UserServicer._key": "of an idempotency key",
    "user_svc/service.py UserService.change_password.write": "of a change",
    "user_svc/service.py UserService.create_user": "of a user",
    "user_svc/service.py UserService.delete_user.write": "of a change",
    "user_svc/service.py UserService.make_admin": "of a user",
    "user_svc/service.py UserService.update_user.write": "of a change",
    "user_svc/sessions/service.py SessionService._logged_in": "of a token",
    "user_svc/sessions/service.py SessionService.log_in": "of a session",
    "user_svc/sessions/service.py SessionService.log_out.work": "of a session's end",
    "user_svc/sessions/service.py SessionService.refresh.work": "of a token's use",
    "user_svc/sweeps.py end_all_sessions": "of the sessions' end",
    "user_svc/sweeps.py sweep_forever": "compared with when sessions and failures end",
}

_SQL: Final = re.compile(r"\b(?:now|\w+_timestamp)\(\)|\bcurrent_(?:timestamp|date|time)\b", re.IGNORECASE)
# The same for PostgreSQL's clock, by the line of the statement.
SQL_DATES: Final = {
    "chassis/events/inbox.py VALUES (:stream, now())": "since when events are gone",
    "chassis/events/inbox.py VALUES (:stream, :key, :subject, :sequence, :event, :reason, :attempts, now())": (
        "of a dead letter"
    ),
    "chassis/events/backlog.py coalesce(extract(epoch FROM now() - min(occurred_at)), 0) AS oldest_age_s,": "a metric",
    "chassis/events/relay.py SELECT now()": "of a watermark",
    "chassis/events/relay_state.py published_at = (SELECT clock_timestamp()),": "of a publication",
    "chassis/events/relay_state.py published_at < now() - make_interval(secs => :keep_s)": (
        "compared with when it was published"
    ),
    "order_svc/buyer_projection.py SELECT id, state, updated_at, now()": "when news of a user came",
    "order_svc/deleted_buyers.py WHERE known_users.state = 'DELETED' AND known_users.applied_at > now() - "
    "make_interval(secs => :within_s)": "compared with when the news came",
}


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for package in _PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            if "testing" not in path.parts:
                yield str(path.relative_to(REPOSITORY)), ast.parse(path.read_text())


def _readers(node: ast.AST, within: tuple[str, ...]) -> Iterator[str]:
    """Yield the qualified name of each function that reads the time of day, or hands a reader of it on."""
    for child in ast.iter_child_nodes(node):
        is_named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if isinstance(child, ast.Attribute) and child.attr in _READS and not _is_loops(child):
            yield ".".join(within)
        yield from _readers(child, (*within, child.name) if is_named else within)


def _is_loops(reading: ast.Attribute) -> bool:
    """Return whether it is an event loop's time(), which is monotonic, or the time of an event, which is data."""
    return reading.attr == "time" and ast.unparse(reading.value) != "time"


def test_every_reading_of_the_time_of_day_is_a_date() -> None:
    assert {f"{where} {name}" for where, module in _sources() for name in _readers(module, ())} == set(DATES)


def test_every_reading_of_the_time_of_day_in_sql_is_a_date() -> None:
    found = {
        f"{where} {line.strip()}"
        for where, module in _sources()
        for node in ast.walk(module)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for line in node.value.splitlines()
        if _SQL.search(line)
    }

    assert found == set(SQL_DATES)
