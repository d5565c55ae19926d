"""The edge as a container's process 1: writes its configuration, runs Envoy, and drains it before it stops."""

import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from subprocess import Popen
from types import FrameType
from typing import Final, NoReturn

from envoy.binary import envoy_command
from envoy.edge import Edge
from envoy.in_flight import drain
from envoy.render import render, render_secrets

_FINISH_S: Final = 16
"""How long calls in flight may take after the drain: the longest REST call, 15 s, and 1 s of margin. Streams do not
count."""


class _StopRequested(BaseException):
    """SIGTERM or SIGINT came."""


def run(edge: Edge, *, concurrency: int) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return Envoy's exit code.

    Args:
        edge: the edge to run. Its `secrets_folder` is replaced by a temporary folder.
        concurrency: the number of Envoy's worker threads.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _stop)
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        sys.exit(
            "The edge writes its configuration below /tmp: mount a folder there that it can write (tmpfs, emptyDir)."
        )
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        envoy = None
        try:
            envoy = Popen(_command(edge, Path(folder), concurrency=concurrency))  # noqa: S603  the arguments are ours
            return envoy.wait()
        except _StopRequested:
            if envoy is None:
                return 0
            sys.stderr.write("Draining.\n")
            drain(edge.admin_port, drain_s=edge.drain_s, finish_s=_FINISH_S)
            envoy.terminate()
            return envoy.wait()


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    # Ignore further signals: a second one must not end the drain early. SIGKILL does.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise _StopRequested


def _command(edge: Edge, folder: Path, *, concurrency: int) -> tuple[str, ...]:
    edge = replace(edge, secrets_folder=folder)
    config = folder / "edge.yaml"
    config.write_text(render(edge))
    for name, secret in render_secrets(edge).items():
        (folder / name).write_text(secret)
    return envoy_command(config, drain_s=edge.drain_s, concurrency=concurrency)
