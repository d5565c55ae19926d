"""The end of a process: a signal asks for it, and 29 s later it is forced."""

import asyncio
import logging
import os
import signal
import threading
from typing import Final

import structlog

log = structlog.get_logger(__name__)

# Kubernetes and the supervisors that we know kill a process 30 s after SIGTERM; this leaves a second for the log.
_FORCED_AFTER_S: Final = 29


def stop_on_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; the first of them also starts the grace period of 29 s.

    After the grace period the process ends with exit code 1, whatever it is doing.
    """
    stopping = asyncio.Event()

    def stop() -> None:
        if not stopping.is_set():
            stopping.set()
            _force_exit_after_grace()

    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop)
    return stopping


def _force_exit_after_grace() -> None:
    def end() -> None:
        log.error("server.forced", after_s=_FORCED_AFTER_S)
        logging.shutdown()  # writes the waiting log lines, which _exit() does not
        os._exit(1)

    # A thread, because the event loop may be what hangs.
    timer = threading.Timer(_FORCED_AFTER_S, end)
    timer.daemon = True
    timer.start()
