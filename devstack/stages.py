"""Groups of processes that are started one after the other and stopped in reverse order."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from devstack.process import stop_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from devstack.process import Process

_TASK_TIMEOUT_S: Final = 60


class Stages:
    """The stages of a stack: each is a name and the processes that start and stop together.

    Args:
        report: called with a line for each step, with the seconds that it took.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report: Final = report
        self._started: Final[list[tuple[str, list[Process]]]] = []

    def add(self, name: str, processes: Sequence[Process]) -> None:
        """Add a stage; its processes are stopped with it, whether they run or not."""
        self._started.append((name, list(processes)))

    def launch(self, name: str, processes: Sequence[Process]) -> None:
        """Add a stage and start its processes."""
        # Added before they are started: an interrupt in between must not leave one running.
        self.add(name, processes)
        for process in processes:
            process.start()

    def run(self, name: str, tasks: Sequence[Process]) -> None:
        """Start processes that end by themselves and return when all have succeeded.

        Raises:
            ProcessFailed: a process failed, or did not end within 60 s.
        """
        self.launch(name, tasks)
        for process in tasks:
            process.wait_end(_TASK_TIMEOUT_S)
        self._started.pop()

    def keep_running(self) -> None:
        """From now on start each process again when it dies."""
        for _name, processes in self._started:
            for process in processes:
                process.restarts = True

    def stop(self) -> None:
        """Stop the stages in reverse order; the processes of one stage at the same time."""
        while self._started:
            name, processes = self._started[-1]
            started = time.monotonic()
            was_running = any(process.pid for process in processes)
            stop_together(processes)
            if was_running:
                self._tell(f"{name} stopped", since=started)
            self._started.pop()

    def kill(self) -> None:
        """Kill every process at once."""
        for _name, processes in self._started:
            for process in processes:
                process.kill_group()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Report the name and duration of the block."""
        started = time.monotonic()
        yield
        self._tell(name, since=started)

    def _tell(self, what: str, *, since: float) -> None:
        self._report(f"  {what:<32}{time.monotonic() - since:5.1f} s")
