"""Logs: one JSON object a line on stdout, an event name and fields; in colours on a terminal.

A call only leaves what is to be written; a thread makes the lines and writes them, some at a time. Made one by one in
between calls a line costs three times as much, a write for each of them more than that, and a reader of stdout that
hangs must not hold up a call. What somebody should look at is written at once, all else within a fraction of a second
and before the process ends, unless it is killed.
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
from chassis.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from structlog.typing import EventDict

    from chassis.context import Call
    from chassis.telemetry.settings import TelemetrySettings

    Sink = Callable[[bytes], None]

_FLUSH_S: Final = 0.1
# So few are made at a time that a call which wants the interpreter meanwhile waits less than a millisecond.
_AT_A_TIME: Final = 100
# Some 10 MB, and a second of more calls than a replica can serve. Then whoever reads stdout hangs.
_MAX_LINES: Final = 20_000
# A write that hangs must not keep a process from ending.
_LAST_FLUSH_S: Final = 1.0


class LineWriter:
    """Writes lines in their order, from one thread of its own.

    Args:
        sinks: where to.
        most_lines: how many may wait; more are dropped and counted.
    """

    def __init__(self, sinks: Sequence[Sink], *, most_lines: int = _MAX_LINES) -> None:
        self._most_lines: Final = most_lines
        self._sinks: Final = sinks
        self._lines: Final[deque[Callable[[], bytes]]] = deque()
        self._writing: Final = threading.Lock()
        self._has_lines: Final = threading.Event()
        self._is_urgent: Final = threading.Event()
        # A daemon: it must not keep a process alive whose stdout hangs.
        threading.Thread(target=self._write_forever, name="log", daemon=True).start()

    def write(self, line: Callable[[], bytes], *, at_once: bool = False) -> None:
        """Have the line made and written, soon or at once. Never waits."""
        if len(self._lines) >= self._most_lines:
            metrics.log_lines_lost(1)
            return
        self._lines.append(line)
        if at_once:
            self._is_urgent.set()
        if not self._has_lines.is_set():
            self._has_lines.set()

    def flush(self) -> None:
        """Return when every line is written, or after a second in which stdout took none."""
        if self._writing.acquire(timeout=_LAST_FLUSH_S):
            try:
                self._write_all()
            finally:
                self._writing.release()

    def _write_forever(self) -> None:
        while True:
            self._has_lines.wait()
            self._is_urgent.wait(_FLUSH_S)
            # Before the lines are taken: one that comes in between is seen now or wakes us again.
            self._has_lines.clear()
            self._is_urgent.clear()
            with self._writing:
                self._write_all()

    def _write_all(self) -> None:
        while self._lines:
            some = [self._lines.popleft() for _ in range(min(len(self._lines), _AT_A_TIME))]
            lines = b"".join(line() + b"\n" for line in some)
            for sink in self._sinks:
                try:
                    sink(lines)
                except (OSError, ValueError):  # a full disk, a closed stdout: no reason to stop serving
                    metrics.log_lines_lost(len(some))


class _Handler(logging.Handler):
    """The lines of libraries. `logging.shutdown`, which Python runs at its end, flushes every line by it."""

    def __init__(self, writer: LineWriter, lines: _Lines) -> None:
        super().__init__()
        self._writer = writer
        self._lines = lines

    @override
    def emit(self, record: logging.LogRecord) -> None:
        fields: EventDict = {"logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        self._lines.add(record.levelname.lower(), record.getMessage(), fields, at_once=True)

    @override
    def flush(self) -> None:
        self._writer.flush()


class _Lines:
    """Makes a line of an event and has it written: adds when, how bad, of which process and for which call.

    In one step: structlog's own chain of processors costs 20 µs a line, more than all of a call's telemetry may.
    """

    def __init__(self, settings: TelemetrySettings, writer: LineWriter, render: Callable[[EventDict], bytes]) -> None:
        self._service: Final = settings.service_name
        self._version: Final = settings.service_version
        self._writer: Final = writer
        self._render: Final = render
        self._second = (0, "")

    def add(self, level: str, event: str, fields: EventDict, *, at_once: bool) -> None:
        """Have a line written, soon or at once."""
        self._writer.write(partial(self._made, level, event, fields, time.time(), current_call()), at_once=at_once)

    def _made(self, level: str, event: str, fields: EventDict, now: float, call: Call | None) -> bytes:
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
    """What `structlog.get_logger()` gives, with the methods that are used here."""

    _logger: _Lines

    def debug(self, event: str, **fields: object) -> None:
        """Write a line that only helps who looks for a fault."""
        self._logger.add("debug", event, fields, at_once=False)

    def info(self, event: str, **fields: object) -> None:
        """Write a line about what happened."""
        self._logger.add("info", event, fields, at_once=False)

    def warning(self, event: str, **fields: object) -> None:
        """Write a line about what somebody should look at."""
        self._logger.add("warning", event, fields, at_once=True)

    def error(self, event: str, **fields: object) -> None:
        """Write a line about what went wrong."""
        self._logger.add("error", event, fields, at_once=True)


def _bound_logger(level: str) -> type[_BoundLogger]:
    """Return a logger class whose methods below the level do nothing."""
    names = ("debug", "info", "warning", "error")
    muted = names[: names.index(level.lower())]
    return type("_BoundLogger", (_BoundLogger,), dict.fromkeys(muted, _nothing))


def _nothing(_self: _BoundLogger, _event: str, **_fields: object) -> None:
    """Write no line."""


def _as_json(line: EventDict) -> bytes:
    return orjson.dumps(line, default=str)


def _in_colours(line: EventDict) -> bytes:
    return str(_console(None, "", line)).encode()


_console: Final = structlog.dev.ConsoleRenderer(colors=True)


def configure(settings: TelemetrySettings) -> LineWriter:
    """Send every log line, also those of libraries, to stdout, and to files too if there is a folder for them."""
    writer = LineWriter(_sinks(settings.log_dir))
    lines = _Lines(settings, writer, _in_colours if sys.stdout.isatty() else _as_json)
    structlog.configure(
        wrapper_class=_bound_logger(settings.log_level),
        logger_factory=lambda *_names: lines,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(writer, lines)
    level = logging.getLevelNamesMapping()[settings.log_level]
    # Libraries speak up from WARNING: their INFO would put SQL and addresses into our log.
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    return writer


def _sinks(folder: Path | None) -> list[Sink]:
    def to_stdout(lines: bytes) -> None:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()

    if folder is None:
        return [to_stdout]
    folder.mkdir(parents=True, exist_ok=True)

    def to_file(name: str, lines: bytes) -> None:
        # Opened each time, so that who rotates logs needs to tell nobody.
        with (folder / name).open("ab") as file:
            file.write(lines)

    def errors(lines: bytes) -> None:
        found = [line for line in lines.splitlines(keepends=True) if _is_error(line)]
        if found:
            to_file("error.log", b"".join(found))

    return [to_stdout, lambda lines: to_file("combined.log", lines), errors]


def _is_error(line: bytes) -> bool:
    return b'"level":"error"' in line or b'"level":"critical"' in line
