"""Runs commands of the services in forks of a process that has imported them.

`python -m user_svc keys list` takes more than a second of CPU, of which the imports are nine tenths. Forks share them.
Everything that begins after the imports is the command's own: settings, connections, threads, signals, exit code.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
from typing import Any

from chassis.service import services
from tests.integration.inprocess import NOTES_PACKAGE


def main(listening: int) -> None:
    """Serve on the socket with this file descriptor until standard input ends, which is when the tests end."""
    for package in (*(service.name for service in services()), NOTES_PACKAGE):
        for module in runpy.run_module(package, run_name="imported", alter_sys=True)["MODULES"].values():
            importlib.import_module(module)
    listener = socket.socket(fileno=listening)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while all(key.fileobj is listener for key, _ in selector.select()):
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection)
                os._exit(0)
            connection.close()
            _reap()


def _reap() -> None:
    """Wait for the forks that have ended."""
    with contextlib.suppress(ChildProcessError):  # none is left
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _answer(connection: socket.socket) -> None:
    """Read a request, run its command in a fork, write what came of it; both are one line of JSON."""
    with connection, connection.makefile("rw") as stream, tempfile.TemporaryFile() as typed:
        request = json.loads(stream.readline())
        typed.write(request["typed"].encode())
        typed.seek(0)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            pid = os.fork()
            if pid == 0:
                for number, file in enumerate((typed, output, errors)):
                    os.dup2(file.fileno(), number)
                _run(request)
            _, status = os.waitpid(pid, 0)
            texts = [file.seek(0) or file.read().decode() for file in (output, errors)]
        json.dump([os.waitstatus_to_exitcode(status), *texts], stream)


def _run(request: dict[str, Any]) -> None:
    """Become the command, and end as it ends."""
    signal.alarm(request["timeout_s"])  # ends a command that hangs
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  standard input, which ends with the process
    code = 0
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)  # noqa: T201  as Python itself does
    except BaseException:  # noqa: BLE001  as Python itself does with an error that nothing has caught
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]))
