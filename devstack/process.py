"""A supervised child process: it is started, restarted when it dies, and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from devstack.errors import ProcessFailed, StackError
from devstack.privileges import as_unprivileged_user, with_parent_death_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FIRST_BACKOFF_S: Final = 1.0
_MAX_BACKOFF_S: Final = 10.0
_HEALTHY_AFTER_S: Final = 30.0  # a process that ran this long did not fail at its start: reset the backoff
_POLL_S: Final = 0.02
_READY_TIMEOUT_S: Final = 60.0  # usually 2 s; longer with a cold file cache on a busy machine


def no_report(_line: str) -> None:
    """Ignore a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command, and how to stop it.

    Attributes:
        name: its name on the screen.
        argv: the program and its arguments.
        env: its whole environment.
        cwd: its working directory.
        log: the file for its output. The log of the previous run is kept beside it as `.1`.
        stop_signal: the signal that asks it to stop.
        stop_timeout_s: seconds after which it is killed.
        orphan_signal: the signal that it gets when our process ends.
        refuses_root: if we are root, run it as an unprivileged user.
        stdin: the file that it reads as standard input; /dev/null by default.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 5
    orphan_signal: signal.Signals = signal.SIGKILL
    refuses_root: bool = False
    stdin: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Functions that are called before a start, to test for readiness, and before a stop."""

    before_start: Callable[[], None] = lambda: None
    is_ready: Callable[[], bool] = lambda: True
    before_stop: Callable[[], None] = lambda: None


class Process:
    """A child process in a session of its own, so that Ctrl-C in the terminal does not reach it.

    One thread per process starts the child, waits for it and starts it again. The thread must live as long as the
    child, because the child gets its signal when the thread ends (see `with_parent_death_signal`).

    Attributes:
        restarts: whether a child that ends by itself is started again, with backoff.
    """

    def __init__(
        self,
        command: Command,
        *,
        hooks: Hooks | None = None,
        report: Callable[[str], None] = no_report,
    ) -> None:
        self.command: Final = command
        self.restarts = False
        self._hooks: Final = hooks or Hooks()
        self._report: Final = report
        self._lock: Final = threading.RLock()
        self._stopping: Final = threading.Event()
        # Not Thread.join: if an exception from a signal handler interrupts it, it takes a running thread for ended.
        self._ended: Final = threading.Event()
        self._ended.set()
        self._child: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        if command.log.exists():
            command.log.replace(command.log.with_suffix(".log.1"))

    @property
    def name(self) -> str:
        """The process's name."""
        return self.command.name

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is no child."""
        child = self._child
        return child.pid if child else None

    def start(self) -> None:
        """Start the child unless it runs. Does not wait until it is ready."""
        if self.pid is not None:
            return
        self.stop()  # the thread may be waiting to restart the child
        self._stopping.clear()
        tried = threading.Event()
        threading.Thread(target=self._supervise, args=(tried,), name=self.name, daemon=True).start()
        tried.wait()

    def wait_ready(self, timeout_s: float = _READY_TIMEOUT_S) -> None:
        """Return once the process is ready.

        Raises:
            ProcessFailed: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while not (self.pid is not None and self._hooks.is_ready()):
            if self.pid is None and not self.restarts:
                raise self._failed(self._how_it_ended())
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready after {timeout_s:g} s")
            time.sleep(_POLL_S)

    def wait_end(self, timeout_s: float) -> None:
        """Return once the child has ended with exit code 0.

        Raises:
            ProcessFailed: it ended otherwise, or did not end in time.
        """
        if not self._ended.wait(timeout_s):
            raise self._failed(f"was not done after {timeout_s:g} s")
        if self._exit_code != 0:
            raise self._failed(self._how_it_ended())

    def begin_stop(self) -> None:
        """Ask the child to stop, and do not start it again."""
        if self.pid is not None and not self._stopping.is_set():
            self._hooks.before_stop()
        with self._lock:
            self._stopping.set()
            self._send(self.command.stop_signal)

    def stop(self) -> None:
        """Stop the child and return when it has ended; kill it if that takes longer than `stop_timeout_s`."""
        self.begin_stop()
        if not self._ended.wait(self.command.stop_timeout_s):
            self._report(f"{self.name} did not stop in {self.command.stop_timeout_s:g} s: killed")
            self.kill_group()
            self._ended.wait()

    def restart(self) -> None:
        """Stop the child, start it again and return when it is ready."""
        self.stop()
        self.start()
        self.wait_ready()

    def terminate(self) -> None:
        """Send SIGTERM and return at once. If `restarts` is set, the child is started again after it ended."""
        with self._lock:
            self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL and return when the child has ended. If `restarts` is set, it is started again."""
        child = self._child
        if child is None:
            return
        child.kill()
        while self._child is child:
            time.sleep(_POLL_S)

    def kill_group(self) -> None:
        """Kill the child and all processes that it has started, and do not start it again."""
        with self._lock:
            self._stopping.set()
            if self._child:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._child:
            self._child.send_signal(number)

    def _supervise(self, tried: threading.Event) -> None:
        self._ended.clear()
        backoff_s = _FIRST_BACKOFF_S
        while True:
            started = time.monotonic()
            self._run_once(tried)
            if self._stopping.is_set() or not self.restarts:
                break
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                backoff_s = _FIRST_BACKOFF_S
            self._report(f"{self.name} {self._how_it_ended()}; it starts again in {backoff_s:g} s")
            self._stopping.wait(backoff_s)
            backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
        self._ended.set()

    def _run_once(self, tried: threading.Event) -> None:
        child = self._spawn()
        tried.set()
        code = None
        if child:
            code = child.wait()
            # Processes that the child has started must end with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        with self._lock:
            self._exit_code, self._child = code, None

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """Start the child unless it was stopped meanwhile. If it cannot be started, write the reason to its log."""
        with self.command.log.open("ab") as log:
            try:
                self._hooks.before_start()
                with self._lock:
                    if not self._stopping.is_set():
                        self._child = self._popen(log)
            except (OSError, StackError) as error:
                log.write(f"{error}\n".encode())
            return self._child

    def _popen(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        argv = with_parent_death_signal(self.command.argv, signal=self.command.orphan_signal)
        with (self.command.stdin or Path(os.devnull)).open("rb") as stdin:
            return subprocess.Popen(
                # The death signal is set last, in the inner command: the kernel clears it when a process changes user.
                as_unprivileged_user(argv) if self.command.refuses_root else argv,
                cwd=self.command.cwd,
                env=self.command.env,
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _how_it_ended(self) -> str:
        code = self._exit_code
        if code is None:
            return "did not start"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def _failed(self, what: str) -> ProcessFailed:
        with self.command.log.open(errors="replace") as log:
            tail = [line.rstrip() for line in deque(log, maxlen=12)]
        return ProcessFailed(self.name, what, log=str(self.command.log), tail=tail)


def stop_together(processes: list[Process]) -> None:
    """Stop independent processes, all at the same time."""
    for process in processes:
        process.begin_stop()
    for process in processes:
        process.stop()
