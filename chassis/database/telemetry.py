"""Telemetry of every SQL statement: its duration, and a span if the call that it serves is traced.

The text has placeholders for what a caller gave, and the parameters are never looked at.
"""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from chassis.telemetry import tracing
from chassis.telemetry.endpoints import Endpoint
from chassis.telemetry.metrics.database import StatementMetrics

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.trace import Span
    from sqlalchemy import Engine

    from chassis.database.url import DatabaseUrl

_POSTGRESQL_PORT: Final = 5432

# The operation and the tables of a statement, exact enough for the name of a span. Functions after FROM are no tables,
# nor are the words after FOR UPDATE and DO UPDATE.
_WRITES: Final = re.compile(r"(?<!FOR )(?<!DO )\b(INSERT|UPDATE|DELETE)(?: INTO| FROM)?\s+(\w+)")
_READS: Final = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)\b(?!\()")


class StatementTelemetry:
    """Observes the statements that are sent to one database."""

    def __init__(self, url: DatabaseUrl) -> None:
        self.database: Final = url.database
        self._server: Final = _server(url.hosts, port=url.ports)
        self._durations: Final = StatementMetrics(self.database, self._server)

    def observe(self, engine: Engine) -> None:
        """Observe every statement of the engine."""
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", _after)
        event.listen(engine, "handle_error", _failed)

    def begin(self, statement: str) -> Observation:
        """Record the start of a statement; use the observation in `with`, or end it."""
        summary = summary_of(statement)
        span = tracing.begin_statement(statement, summary=summary, database=self.database, server=self._server)
        return Observation(self._durations, summary, span)

    def _before(self, _connection: Any, _cursor: Any, statement: str, _given: Any, context: Any, _many: Any) -> None:
        context.observation = self.begin(statement)


class Observation:
    """One statement. A generator as context manager would cost as much as the histogram."""

    __slots__ = ("_durations", "_span", "_started", "_summary")

    def __init__(self, durations: StatementMetrics, summary: str, span: Span | None) -> None:
        self._durations = durations
        self._summary = summary
        self._span = span
        self._started = time.monotonic()

    def __enter__(self) -> None:
        """Do nothing: it has begun."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record the end; that of a cancelled statement is CancelledError."""
        self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """Record the end."""
        # The SQLSTATE, if the database has answered; the message can contain the values of the statement.
        sqlstate = getattr(error, "sqlstate", None) or ""
        error_type = sqlstate or (type(error).__name__ if error else "")
        self._durations.ended(
            self._summary, duration_s=time.monotonic() - self._started, sqlstate=sqlstate, error_type=error_type
        )
        if self._span is not None:
            tracing.end_statement(self._span, sqlstate=sqlstate, error_type=error_type)


# A process runs the same few texts, and searching a long one takes as long as a span.
@functools.lru_cache(maxsize=512)
def summary_of(statement: str) -> str:
    """Return what a statement does: `INSERT orders INSERT outbox`, `SELECT users`; its verb if it names no table."""
    if writes := _WRITES.findall(statement):
        return " ".join(f"{verb} {table}" for verb, table in writes)
    table = _READS.search(statement)
    return f"SELECT {table[1]}" if table else statement.split(None, 1)[0].upper()


def _after(_connection: Any, _cursor: Any, _statement: Any, _given: Any, context: Any, _many: Any) -> None:
    context.observation.end()


def _failed(failure: Any) -> None:
    observation: Observation | None = getattr(failure.execution_context, "observation", None)
    if observation is not None:  # None if there was no connection, and so no statement
        observation.end(failure.original_exception)


def _server(host: str, *, port: str) -> Endpoint:
    """Return the server; of several hosts the list as it stands in the URL, with a port if all have the same."""
    ports = {int(each) for each in port.split(",") if each}
    is_own = len(ports) == 1 and ports != {_POSTGRESQL_PORT}
    return Endpoint(host, ports.pop() if is_own else None)
