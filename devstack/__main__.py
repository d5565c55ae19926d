"""`python -m devstack up`, `observe`, `clean` and `secrets`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

from devstack import container_secrets
from devstack.errors import StackError
from devstack.home import Home
from devstack.observe import Prometheus, TracePages, find_prometheus
from devstack.screen import ready_screen
from devstack.settings import REPOSITORY, Settings
from devstack.stack import Stack

if TYPE_CHECKING:
    from types import FrameType


_LOOK_AT_CERTIFICATES_S: Final = 60


class _StopRequested(BaseException):
    """SIGINT or SIGTERM came."""


def main() -> int:
    """Run the command of the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    parser.add_argument(
        "command",
        choices=("up", "observe", "clean", "secrets"),
        help="up: start everything and run until Ctrl-C. observe: the same, with pages of traces and metrics. "
        "clean: remove data, passwords and logs. secrets: make the files that docker/compose.yaml mounts, below "
        "docker/secrets.",
    )
    command = parser.parse_args().command
    if command == "secrets":
        container_secrets.prepare(REPOSITORY / "docker" / "secrets")
        return 0
    try:
        settings = Settings.from_environment()
        if command == "up":
            _up(settings)
        elif command == "observe":
            _observe(settings)
        else:
            _clean(settings)
    except StackError as error:
        _say(str(error), is_error=True)
        return 1
    return 0


def _up(settings: Settings, *, pages: TracePages | None = None) -> None:
    started = time.monotonic()
    stack = Stack(settings, report=_say)
    try:
        _stop_on_signals(stack)
        with stack, contextlib.ExitStack() as beside:
            _say(f"  {'Ready after':<32}{time.monotonic() - started:5.1f} s")
            _say(ready_screen(stack))
            if pages:
                _say(_observed_screen(stack, pages, beside))
            while True:
                time.sleep(_LOOK_AT_CERTIFICATES_S)
                stack.certificates.renew()
    except _StopRequested:
        return


def _observe(settings: Settings) -> None:
    with TracePages() as pages:
        _up(settings.model_copy(update={"otlp_endpoint": pages.receiver.endpoint}), pages=pages)


def _observed_screen(stack: Stack, pages: TracePages, beside: contextlib.ExitStack) -> str:
    """Start Prometheus if it is installed, and return the lines with the URLs of traces and metrics."""
    binary = find_prometheus()
    if binary is None:
        prometheus = "not installed; on Debian, apt-get install prometheus"
    else:
        prometheus = beside.enter_context(Prometheus(stack, binary=binary, report=_say)).url
    return f"  Traces       {pages.url}\n  Prometheus   {prometheus}\n"


def _stop_on_signals(stack: Stack) -> None:
    """Make the first SIGINT or SIGTERM stop the stack in order, and the second one kill it."""

    def stop_now(_number: int, _frame: FrameType | None) -> None:
        stack.kill()

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop_now)
        _say("\nStopping. Press Ctrl-C again to kill what still runs.")
        raise _StopRequested

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def _clean(settings: Settings) -> None:
    removed = Home(settings.home).remove()
    _say(f"{settings.home} is removed." if removed else f"There is no {settings.home}.")


def _say(line: str, *, is_error: bool = False) -> None:
    # The terminal may be closed; the stack must be stopped all the same.
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr if is_error else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
