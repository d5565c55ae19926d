"""The last resort: a process that does not end by itself."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final

import structlog

log = structlog.get_logger(__name__)

# Kubernetes gives a pod 30 s, and so does every other supervisor we know; what is not done by then is killed anyway.
_FORCED_AFTER_S: Final = 29


def force_exit_after_grace() -> None:
    """End the process with exit code 1 if it still runs in 29 s."""

    def end() -> None:
        log.error("server.forced", after_s=_FORCED_AFTER_S)
        logging.shutdown()  # writes the lines that wait: _exit does nothing of the kind
        os._exit(1)

    # A thread, because what hangs may be the event loop.
    timer = threading.Timer(_FORCED_AFTER_S, end)
    timer.daemon = True
    timer.start()
