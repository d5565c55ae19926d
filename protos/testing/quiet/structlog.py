"""The wheel's replacement of structlog: defects go to Python's logging, all other events are dropped."""

from __future__ import annotations

import logging
from typing import Final

_LOG: Final = logging.getLogger("shop.testing")


class Logger:
    """Writes the events that say that something is wrong with the server itself."""

    def debug(self, event: str, **fields: object) -> None:
        """Write nothing."""

    def info(self, event: str, **fields: object) -> None:
        """Write nothing."""

    def warning(self, event: str, **fields: object) -> None:
        """Write the event."""
        _LOG.warning("%s %s", event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Write the event with its exception."""
        _LOG.error("%s %s", event, fields, exc_info=exc_info)


def get_logger(_name: str) -> Logger:
    """Return a logger."""
    return Logger()
