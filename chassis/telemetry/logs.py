"""Logs: one JSON object per line on stdout, an event name and fields; coloured text on a terminal.

A call only appends its fields to a queue; a thread makes the lines and writes them in groups. Making each line during
its call would cost three times as much, and a write per line even more. Also, a call must not wait for a reader of
stdout that hangs. Warnings and errors are written at once, other lines within 0.1 s. All lines are written before the
process ends, unless it is killed.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson
import structlog
from typing_extensions import override

from chassis.context import current_call
from chassis.errors import StartupError
from chassis.telemetry.metrics.process import log_lines_lost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from structlog.typing import EventDict

    from chassis.context import Call
    from chassis.telemetry.settings import TelemetrySettings

    Sink = Callable[[bytes], None]

_FLUSH_S: Final = 0.1
# Lines made in one group: few enough that a call which needs the interpreter meanwhile waits less than a millisecond.
_GROUP_SIZE: Final = 100
# Some 10 MB, and more calls than a replica serves in a second. If as many lines wait, the reader of stdout hangs.
_MAX_WAITING_LINES: Final = 20_000
# A write that hangs must not keep a process from ending.
_LAST_FLUSH_S: Final = 1.0


class LineWriter:
    """Writes lines in order, from a thread of its own.

    Args:
        sinks: each is called with every group of lines.
        max_waiting: how many lines may wait; further ones are dropped and counted.
    """

    def __init__(self, sinks: Sequence[Sink], *, max_waiting: int = _MAX_WAITING_LINES) -> None:
        self._max_waiting: Final = max_waiting
        self._sinks: Final = sinks
        self._lines: Final[deque[Callable[[], bytes]]] = deque()
        self._writing: Final = threading.Lock()
        self._has_lines: Final = threading.Event()
        self._is_urgent: Final = threading.Event()
        # A daemon thread: if stdout hangs, it must not keep the process alive.
        threading.Thread(target=self._write_forever, name="log", daemon=True).start()

    def write(self, line: Callable[[], bytes], *, at_once: bool = False) -> None:
        """Queue a line to be made and written within 0.1 s, or `at_once`. Never waits."""
        if len(self._lines) >= self._max_waiting:
            log_lines_lost(1)
            return
        self._lines.append(line)
        if at_once:
            self._is_urgent.set()
        if not self._has_lines.is_set():
            self._has_lines.set()

    def flush(self) -> None:
        """Return when every line is written; give up after 1 s if stdout hangs."""
        if self._writing.acquire(timeout=_LAST_FLUSH_S):
            try:
                self._write_all()
            finally:
                self._writing.release()

    def _write_forever(self) -> None:
        while True:
            self._has_lines.wait()
            self._is_urgent.wait(_FLUSH_S)
            # Clear before reading the queue: a line that comes in between is written now or wakes the thread again.
            self._has_lines.clear()
            self._is_urgent.clear()
            with self._writing:
                self._write_all()

    def _write_all(self) -> None:
        while self._lines:
            group = [self._lines.popleft() for _ in range(min(len(self._lines), _GROUP_SIZE))]
            lines = b"".join(line() + b"\n" for line in group)
            for sink in self._sinks:
                try:
                    sink(lines)
                except (OSError, ValueError):  # a full disk or a closed stdout: keep serving
                    log_lines_lost(len(group))


class _LibraryHandler(logging.Handler):
    """Writes the log records of libraries. `logging.shutdown`, which Python runs at exit, flushes all lines by it."""

    def __init__(self, writer: LineWriter, log_lines: _LogLines) -> None:
        super().__init__()
        self._writer = writer
        self._log_lines = log_lines

    @override
    def emit(self, record: logging.LogRecord) -> None:
        fields: EventDict = {"logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        self._log_lines.add(record.levelname.lower(), record.getMessage(), fields, at_once=True)

    @override
    def flush(self) -> None:
        self._writer.flush()


class _LogLines:
    """Makes log lines: adds the time, the level, the service, and the request and trace of the current call.

    All in one step: structlog's own chain of processors costs 20 µs a line, more than all telemetry of a call may.
    """

    def __init__(self, settings: TelemetrySettings, writer: LineWriter, render: Callable[[EventDict], bytes]) -> None:
        self._service: Final = settings.service_name
        self._version: Final = settings.service_version
        self._writer: Final = writer
        self._render: Final = render
        self._second = (0, "")

    def add(self, level: str, event: str, fields: EventDict, *, at_once: bool) -> None:
        """Queue a line, to be written within 0.1 s or `at_once`."""
        self._writer.write(partial(self._line, level, event, fields, time.time(), current_call()), at_once=at_once)

    def _line(self, level: str, event: str, fields: EventDict, now: float, call: Call | None) -> bytes:
        line: EventDict = {
            "timestamp": self._timestamp(now),
            "level": level,
            "service": self._service,
            "version": self._version,
            "event": event,
            **fields,
        }
        if call is not None:
            if call.request_id:
                line.setdefault("request_id", call.request_id)
            if call.traceparent:
                line["trace_id"], line["span_id"] = call.traceparent[3:35], call.traceparent[36:52]
        if "exc_info" in line:
            line = structlog.processors.format_exc_info(None, level, line)
        return self._render(line)

    def _timestamp(self, now: float) -> str:
        second, text = self._second
        if int(now) != second:
            second = int(now)
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, text)
        return f"{text}.{int((now - second) * 1_000_000):06d}Z"


class _BoundLogger(structlog.BoundLoggerBase):
    """The logger that `structlog.get_logger()` returns, with the methods that the services use."""

    _logger: _LogLines

    def debug(self, event: str, **fields: object) -> None:
        """Write a line that is useful only when debugging."""
        self._logger.add("debug", event, fields, at_once=False)

    def info(self, event: str, **fields: object) -> None:
        """Write a line about a normal event."""
        self._logger.add("info", event, fields, at_once=False)

    def warning(self, event: str, **fields: object) -> None:
        """Write a line about a problem that an operator should look at."""
        self._logger.add("warning", event, fields, at_once=True)

    def error(self, event: str, **fields: object) -> None:
        """Write a line about a failure."""
        self._logger.add("error", event, fields, at_once=True)


def _bound_logger(level: str) -> type[_BoundLogger]:
    """Return a logger class whose methods below the level do nothing."""
    names = ("debug", "info", "warning", "error")
    muted = names[: names.index(level.lower())]
    return type("_BoundLogger", (_BoundLogger,), dict.fromkeys(muted, _ignore))


def _ignore(_self: _BoundLogger, _event: str, **_fields: object) -> None:
    """Write no line."""


def _as_json(line: EventDict) -> bytes:
    return orjson.dumps(line, default=str)


def _in_colours(line: EventDict) -> bytes:
    return str(_console(None, "", line)).encode()


_console: Final = structlog.dev.ConsoleRenderer(colors=True)


def configure(settings: TelemetrySettings) -> LineWriter:
    """Send all log lines, those of libraries included, to stdout, and also to files if `log_dir` is set.

    Raises:
        StartupError: `log_dir` cannot be written to.
    """
    writer = LineWriter(_sinks(settings.log_dir))
    log_lines = _LogLines(settings, writer, _in_colours if sys.stdout.isatty() else _as_json)
    structlog.configure(
        wrapper_class=_bound_logger(settings.log_level),
        logger_factory=lambda *_names: log_lines,
        cache_logger_on_first_use=True,
    )
    handler = _LibraryHandler(writer, log_lines)
    level = logging.getLevelNamesMapping()[settings.log_level]
    # Libraries log from WARNING on: their INFO lines would put SQL and addresses into the log.
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    return writer


def _sinks(folder: Path | None) -> list[Sink]:
    def to_stdout(lines: bytes) -> None:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()

    if folder is None:
        return [to_stdout]
    _require_writable(folder)

    def to_file(name: str, lines: bytes) -> None:
        # Opened for each write, so that log rotation needs no signal to the process.
        with (folder / name).open("ab") as file:
            file.write(lines)

    def errors_to_file(lines: bytes) -> None:
        errors = [line for line in lines.splitlines(keepends=True) if _is_error(line)]
        if errors:
            to_file("error.log", b"".join(errors))

    return [to_stdout, lambda lines: to_file("combined.log", lines), errors_to_file]


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "combined.log").open("ab").close()
    except OSError as error:
        raise StartupError(f"LOG_DIR: {error.filename} cannot be written: {error.strerror}") from error


def _is_error(line: bytes) -> bool:
    return b'"level":"error"' in line or b'"level":"critical"' in line
