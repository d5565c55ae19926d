"""Logs: one JSON object a line on stdout, an event name and fields."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import orjson
import structlog

from chassis.context import current_call

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

    from chassis.settings import TelemetrySettings


def _add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    call = current_call()
    if call is not None and call.request_id:
        event.setdefault("request_id", call.request_id)
    return event


def configure_logging(settings: TelemetrySettings) -> None:
    """Send every log line, also those of libraries, to stdout as JSON with the service's name and version."""

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = settings.service_name
        event["version"] = settings.service_version
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        add_service,
        _add_request_id,
        structlog.processors.format_exc_info,
    ]
    level = logging.getLevelNamesMapping()[settings.log_level]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=orjson.dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    # Libraries speak up from WARNING: their INFO would put SQL and addresses into our log.
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
