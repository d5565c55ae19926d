"""Runs the mutants of a module against their tests and stores each verdict at once: an interrupted run continues."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.mutation.equivalents import Equivalent, stale
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.running import Limits, Outcome, RunFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.mutation.coverage import Covered
    from tests.mutation.running import Fork
    from tests.mutation.workspace import Workspace

# One of the first few tests notices nearly every fault that is noticed at all, and loading files takes most of a run.
_FIRST: Final = 5


@dataclass(slots=True)
class Result:
    """The verdicts on a module's mutants.

    Attributes:
        left: not run, since only survivors were asked for.
        stale: entries of equivalents.toml that match none of them.
    """

    module: str
    killed: list[Mutant] = field(default_factory=list)
    timed_out: list[Mutant] = field(default_factory=list)
    equivalent: list[Mutant] = field(default_factory=list)
    survived: list[Mutant] = field(default_factory=list)
    left: list[Mutant] = field(default_factory=list)
    stale: list[Equivalent] = field(default_factory=list)

    @property
    def made(self) -> int:
        """How many there were."""
        return sum(map(len, (self.killed, self.timed_out, self.equivalent, self.survived, self.left)))

    @property
    def percent(self) -> float:
        """The percentage of mutants that the tests noticed; equivalent ones are not counted."""
        noticed = len(self.killed) + len(self.timed_out)
        return 100.0 * noticed / (noticed + len(self.survived)) if noticed + len(self.survived) else 100.0


class Answers:
    """The answers of one module's mutants, in a file.

    An answer of a mutant holds as long as the module's text does; that it survived, as long as its tests' do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, list[str]] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, mutant: Mutant, *, tests: str) -> Outcome | None:
        """Return what is known; None for nothing that still holds."""
        outcome, of_tests = self._kept.get(mutant.id, ("", ""))
        if not outcome or (outcome == Outcome.SURVIVED and of_tests != tests):
            return None
        return Outcome(outcome)

    def has_survived(self, mutant: Mutant) -> bool:
        """Return whether the mutant survived when it was last run, whatever has become of its tests since."""
        return self._kept.get(mutant.id, [""])[0] == Outcome.SURVIVED

    def keep(self, mutant: Mutant, outcome: Outcome, *, tests: str) -> None:
        """Write down what the tests have said."""
        self._kept[mutant.id] = [outcome, tests]
        unfinished = self._path.with_suffix(".new")
        unfinished.write_text(json.dumps(self._kept))
        unfinished.replace(self._path)


@dataclass(frozen=True, slots=True)
class Session:
    """The resources of every module's run.

    Attributes:
        sources: the text of every module of the services, for finding who uses what.
        equivalents: mutants that are not run.
        home: where answers are kept.
        only_survivors: whether mutants that were never run are left for another time.
        noticed: how many faults each test has noticed.
    """

    workspace: Workspace
    fork: Fork
    covered: Covered
    sources: Mapping[str, str]
    equivalents: Sequence[Equivalent]
    home: Path
    only_survivors: bool = False
    noticed: Counter[str] = field(default_factory=Counter)

    def run(self, module: str) -> Result:
        """Return what becomes of the module's mutants."""
        source = self.sources[module]
        mutants = mutants_of(module, source)
        result = Result(module)
        answers = Answers(self.home / f"{module.removesuffix('.py').replace('/', '.')}.json")
        is_checked = False
        for n, mutant in enumerate(mutants, start=1):
            if any(entry.matches(mutant) for entry in self.equivalents):
                result.equivalent.append(mutant)
                continue
            tests = self.covered.tests_of(mutant, source, sources=self.sources)
            digest = self._digest(tests)
            outcome = answers.of(mutant, tests=digest)
            if outcome is None and self.only_survivors and not answers.has_survived(mutant):
                result.left.append(mutant)
                continue
            if outcome is None:
                if tests and not is_checked:
                    self._check(tests)
                    is_checked = True
                outcome = self._outcome(mutant, tests)
                answers.keep(mutant, outcome, tests=digest)
                print(f"{n}/{len(mutants)} {module}:{mutant.line} {outcome}", flush=True)
            _list_of(result, outcome).append(mutant)
        result.stale = stale(self.equivalents, mutants, module=module)
        return result

    def _outcome(self, mutant: Mutant, tests: Sequence[str]) -> Outcome:
        if not tests:
            return Outcome.SURVIVED
        outcome = Outcome.SURVIVED
        for part in self._parts(tests):
            with self.workspace.planted(mutant.module, mutant.text):
                outcome = self.fork.run(part, limits=self._limits(part))
            if outcome is Outcome.TIMED_OUT:
                self._check(part)  # else a busy machine would notice every fault
            if outcome is not Outcome.SURVIVED:
                self.noticed[self.fork.noticed_by] += 1
                break
        return outcome

    def _parts(self, tests: Sequence[str]) -> Iterator[list[str]]:
        """Yield the tests that are most likely to notice a fault, then all others."""
        likely = sorted(tests, key=lambda test: (-self.noticed[test], tests.index(test)))
        yield likely[:_FIRST]
        if rest := [test for test in tests if test not in likely[:_FIRST]]:
            yield rest

    def _check(self, tests: Sequence[str]) -> None:
        """Fail if the tests do not pass in time without a fault: then they would notice every one."""
        if (outcome := self.fork.run(tests, limits=self._limits(tests))) is not Outcome.SURVIVED:
            raise RunFailed(f"without a fault the tests are {outcome}: see {self.fork.log}")

    def _limits(self, tests: Sequence[str]) -> Limits:
        # Four times what the test has taken, and room: a machine may be busy now that was idle then.
        seconds = self.covered.seconds
        return Limits({test: 6 + 4 * seconds[test] for test in tests}, 60 + 4 * sum(seconds[test] for test in tests))

    def _digest(self, tests: Sequence[str]) -> str:
        whole = hashlib.sha256("\n".join(tests).encode())
        for name in sorted({test.partition("::")[0] for test in tests}):
            whole.update((self.workspace.root / name).read_bytes())
        return whole.hexdigest()[:16]


def _list_of(result: Result, outcome: Outcome) -> list[Mutant]:
    match outcome:
        case Outcome.KILLED:
            return result.killed
        case Outcome.TIMED_OUT:
            return result.timed_out
        case Outcome.SURVIVED:
            return result.survived
