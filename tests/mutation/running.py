"""Runs tests in a child of this process, which has the libraries loaded already: half a second instead of three.

The code under test and the tests are loaded anew by each child, out of the copy.
"""

from __future__ import annotations

import enum
import importlib
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Not by chassis.service: nothing of ours may be loaded before the copy is mutated.
_ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("chassis", *sorted(path.parent.name for path in _ROOT.glob("*/service.toml")))
# Every folder: what is not mutated imports what is.
_OURS: Final = frozenset(path.name for path in _ROOT.iterdir() if path.is_dir()) | {"__main__", "conftest"}
_BAD_COLLECTION: Final = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR)


class Outcome(enum.StrEnum):
    """The tests' verdict on a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"


class RunFailed(Exception):
    """The tests could not be run, which says nothing about the mutant."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long tests may take.

    Attributes:
        test_s: one of them; one that takes longer hangs.
        all_s: all together.
    """

    test_s: Mapping[str, float]
    all_s: float


class Fork:
    """A place to run tests in.

    Attributes:
        root: the copy of the repository.
        log: what the last run printed.
        noticed_by: the test that failed in the last run; empty for none.
    """

    def __init__(self, root: Path, *, variables: Mapping[str, str], log: Path) -> None:
        """Load the libraries that a run of tests loads, and nothing of ours."""
        self.root: Final = root
        self.log: Final = log
        self.noticed_by = ""
        self._variables: Final = variables
        sys.path[:0] = [str(root / "generated")]
        for name in self._libraries():
            with suppress(Exception):  # some are loaded in an order of their own, by each child then
                importlib.import_module(name)
        if ours := [name for name in sys.modules if name.startswith(PACKAGES)]:
            raise AssertionError(f"{ours} would be loaded in the version that is not mutated")

    def run(self, tests: Sequence[str], *, limits: Limits) -> Outcome:
        """Run tests in this order until one fails.

        Raises:
            RunFailed: none of them was found.
        """
        failed = self.log.with_suffix(".failed")
        failed.write_text("")
        wanted = _Wanted(tests, limits.test_s, failed=failed)
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        code = self.fork(lambda: pytest.main([*OPTIONS, "-x", *files], plugins=[wanted]), timeout_s=limits.all_s)
        self.noticed_by = failed.read_text()
        if code in {-signal.SIGALRM, -signal.SIGKILL}:
            return Outcome.TIMED_OUT
        if code == pytest.ExitCode.OK:
            return Outcome.SURVIVED
        if code == pytest.ExitCode.TESTS_FAILED or code in _BAD_COLLECTION or code < 0:
            return Outcome.KILLED
        raise RunFailed(f"pytest ended with {code}: see {self.log}")

    def fork(self, work: Callable[[], int], *, timeout_s: float) -> int:
        """Return the exit code of the work, done in a child; of a signal that ended it, its number below zero."""
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            self._be_child(work)
        deadline = time.monotonic() + timeout_s
        ended, status = 0, 0
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.01)  # waitpid has no timeout
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # with what its tests have started
        if not ended:
            _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def _be_child(self, work: Callable[[], int]) -> None:
        code = 99
        try:
            os.setpgid(0, 0)
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(self.root)
            os.environ.update(self._variables)
            sys.dont_write_bytecode = False
            sys.path[:0] = [str(self.root)]
            code = int(work())
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _libraries(self) -> list[str]:
        """Return the modules that the tests load beside ours and their own."""
        target = self.log.with_suffix(".modules")

        def look() -> int:
            code = pytest.main([*OPTIONS, "--collect-only", "-q", *suites_of(self.root)])
            target.write_text(json.dumps([name for name in sys.modules if not _is_ours(name)]))
            return code

        if code := self.fork(look, timeout_s=300):
            raise RunFailed(f"the tests cannot be collected ({code}): see {self.log}")
        loaded: list[str] = json.loads(target.read_text())
        return loaded


# No plugin that ends slow tests in its own way; and failures of one run are of no use to the next.
OPTIONS: tuple[str, ...] = ("-q", "-p", "no:cacheprovider", "-o", "timeout=0", "--tb=short", "--no-header")
# The plugins are loaded before they can be rewritten, and the tests take a warning for a failure.
OPTIONS += ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")


def suites_of(root: Path) -> list[str]:
    """Return the suites that mutants are run against: what runs in the process of its tests."""
    return [suite for suite in ("tests/unit", "tests/integration") if (root / suite).exists()]


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in _OURS or name.startswith("test_")


class _Wanted:
    """Runs these tests only, in their order. One that hangs ends the process: nothing in it could be relied on."""

    def __init__(self, tests: Sequence[str], limits_s: Mapping[str, float], *, failed: Path) -> None:
        self._order = {test: n for n, test in enumerate(tests)}
        self._limits_s = limits_s
        self._failed = failed

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        wanted = [item for item in items if item.nodeid in self._order]
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in self._order])
        items[:] = sorted(wanted, key=lambda item: self._order[item.nodeid])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        # Without a handler, so that the kernel ends what neither returns to Python nor to its loop.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self._limits_s[item.nodeid])
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.write_text(report.nodeid)
