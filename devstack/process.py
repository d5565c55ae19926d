"""One child process: started, watched, started again when it dies, stopped."""

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
from devstack.privileges import bound_to_us, not_as_root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 10.0
_HEALTHY_AFTER_S: Final = 30.0  # who lived as long as this did not die of being started
_POLL_S: Final = 0.02
_READY_TIMEOUT_S: Final = 60.0  # a cold file cache and a busy machine; usually it is 2 s


def silent(_line: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run, and how it wants to be stopped.

    Attributes:
        name: as the screen and the log file call it.
        argv: the program and its arguments.
        env: its whole environment.
        cwd: its working directory.
        log: where its output goes. The log of the run before is kept beside it as `.1`.
        stop_signal: asks it to stop.
        stop_timeout_s: after that it is killed.
        orphan_signal: what it gets when we are gone.
        refuses_root: whether it must run as somebody else when we are root.
        stdin: a file that it reads; nothing without one.
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
    """What a kind of process needs at the turns of its life."""

    before_start: Callable[[], None] = lambda: None
    is_ready: Callable[[], bool] = lambda: True
    before_stop: Callable[[], None] = lambda: None


class Process:
    """A child in a session of its own, so that Ctrl-C in the terminal reaches us and not it.

    One thread per process starts the child, waits for it and starts it again: the kernel ties a child to the thread
    that made it (see `bound_to_us`), so that thread must live as long as the child.

    Attributes:
        restarts: whether a child that ends by itself is started again, after a pause that grows.
    """

    def __init__(
        self,
        command: Command,
        *,
        hooks: Hooks | None = None,
        report: Callable[[str], None] = silent,
    ) -> None:
        self.command: Final = command
        self.restarts = False
        self._hooks: Final = hooks or Hooks()
        self._report: Final = report
        self._lock: Final = threading.RLock()
        self._stopping: Final = threading.Event()
        # Not Thread.join: interrupted by a signal's exception, it takes a running thread for ended.
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
        """Start the child unless it runs. It need not be ready on return."""
        if self.pid is not None:
            return
        self.stop()  # it may be pausing before it is started again
        self._stopping.clear()
        tried = threading.Event()
        threading.Thread(target=self._supervise, args=(tried,), name=self.name, daemon=True).start()
        tried.wait()

    def wait_ready(self, timeout_s: float = _READY_TIMEOUT_S) -> None:
        """Return once the process does what it is there for.

        Raises:
            ProcessFailed: it ended, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while not (self.pid is not None and self._hooks.is_ready()):
            if self.pid is None and not self.restarts:
                raise self._failed(self._how_it_ended())
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready after {timeout_s:g} s")
            time.sleep(_POLL_S)

    def wait_end(self, timeout_s: float) -> None:
        """Return once the child has ended with success.

        Raises:
            ProcessFailed: it ended otherwise, or the time is over.
        """
        if not self._ended.wait(timeout_s):
            raise self._failed(f"was not done after {timeout_s:g} s")
        if self._exit_code != 0:
            raise self._failed(self._how_it_ended())

    def begin_stop(self) -> None:
        """Ask the child to stop and start it no more."""
        if self.pid is not None and not self._stopping.is_set():
            self._hooks.before_stop()
        with self._lock:
            self._stopping.set()
            self._send(self.command.stop_signal)

    def stop(self) -> None:
        """Stop the child and return when it is gone; killed if it takes too long."""
        self.begin_stop()
        if not self._ended.wait(self.command.stop_timeout_s):
            self._report(f"{self.name} did not stop in {self.command.stop_timeout_s:g} s: killed")
            self.kill_group()
            self._ended.wait()

    def restart(self) -> None:
        """Stop the child, start it and return when it is ready."""
        self.stop()
        self.start()
        self.wait_ready()

    def terminate(self) -> None:
        """Send SIGTERM and return at once. Like any other end it is followed by a new start, if `restarts`."""
        with self._lock:
            self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL and return when the child is gone. It is started again, if `restarts`."""
        child = self._child
        if child is None:
            return
        child.kill()
        while self._child is child:
            time.sleep(_POLL_S)

    def kill_group(self) -> None:
        """Kill the child with all it has started, for good."""
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
        pause_s = _FIRST_PAUSE_S
        while True:
            started = time.monotonic()
            self._run_once(tried)
            if self._stopping.is_set() or not self.restarts:
                break
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            self._report(f"{self.name} {self._how_it_ended()}; it starts again in {pause_s:g} s")
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._ended.set()

    def _run_once(self, tried: threading.Event) -> None:
        child = self._spawn()
        tried.set()
        code = None
        if child:
            code = child.wait()
            # What the child has started must not survive it either.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        with self._lock:
            self._exit_code, self._child = code, None

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """Start the child, unless it was to be stopped meanwhile. Why it could not be started is in the log."""
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
        argv = bound_to_us(self.command.argv, signal=self.command.orphan_signal)
        with (self.command.stdin or Path(os.devnull)).open("rb") as stdin:
            return subprocess.Popen(
                # The bond is the inner one: the kernel cuts it when a process changes its user.
                not_as_root(argv) if self.command.refuses_root else argv,
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
    """Stop processes that do not need each other, all at the same time."""
    for process in processes:
        process.begin_stop()
    for process in processes:
        process.stop()
