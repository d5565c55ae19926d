"""Which tests run which lines, kept between runs.

A file's tests are measured again when they have changed, what tests share, or a module whose functions they run.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from coverage import Coverage

from tests.mutation.running import OPTIONS, PACKAGES, suites_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from tests.mutation.mutants import Mutant
    from tests.mutation.running import Fork

# They run none of the services' code, or run it in processes of their own, in which nothing is measured.
_FOLDERS_OF_OTHERS: Final = frozenset({"devstack", "docker", "docs", "envoy", "mutation", "perf", "runtime"})
_OF_OTHERS: Final = (
    "test_edge_",
    "test_event_docs",
    "test_lifecycle",
    "test_migration_role",
    "test_migrations",
    "test_openapi",
    "test_workflows",
)
# A test file that hangs is an error to look at; the slowest takes one minute.
_FILE_TIMEOUT_S: Final = 480.0
# A survivor costs all of these: tests beyond it run the line on their way to something else.
_BUDGET_S: Final = 25.0
_AT_MOST: Final = 400
# The most parameters of one test function that precede other functions: hundreds of them would leave no room.
_PARAMETERS: Final = 8


@dataclass(frozen=True, slots=True)
class Covered:
    """The statements that each test runs.

    Attributes:
        tests: of each module and line.
        seconds: how long each test takes, measuring included.
        lines: how many lines each test runs: few for one that is about them.
    """

    tests: Mapping[str, Mapping[int, Collection[str]]]
    seconds: Mapping[str, float]
    lines: Mapping[str, int] = field(default_factory=dict)

    def tests_of(self, mutant: Mutant, source: str, *, sources: Mapping[str, str]) -> list[str]:
        """Return the tests that run the mutant's statement; the most telling first, as many as the budget has room for.

        Statements that run at the module's import have the tests of the functions that use them.
        """
        tree = ast.parse(source)
        found = self._running(mutant.module, _statement(tree, mutant.line))
        if not found:
            found = self._of_names(_bound_names(tree, mutant.line), sources)
        if not found and mutant.function != "<module>":
            found = self._running(mutant.module, _definition(tree, mutant.line))
        return self._within_budget(found, module=mutant.module)

    def _running(self, module: str, lines: Iterable[int]) -> set[str]:
        by_line = self.tests.get(module, {})
        return {test for line in lines for test in by_line.get(line, ())}

    def _of_names(self, names: set[str], sources: Mapping[str, str]) -> set[str]:
        """Return the tests that run functions in which one of the names stands, or a constant that is made of it."""
        if not names:
            return set()
        found: set[str] = set()
        for module, source in sources.items():
            tree = ast.parse(source)
            here = _with_dependents(names, tree)
            for first, last, code in _functions(tree, source):
                if _mentions(here, code):
                    found |= self._running(module, range(first + 1, last + 1))
        return found

    def _within_budget(self, tests: set[str], *, module: str) -> list[str]:
        stem = Path(module).stem
        ordered = sorted(
            tests,
            key=lambda test: (stem not in test.partition("::")[0], self.seconds[test] > 0.5, self.lines[test], test),
        )
        seen: Counter[str] = Counter()
        rounds: dict[str, int] = {}
        for test in ordered:
            function = test.partition("[")[0]
            rounds[test] = seen[function] // _PARAMETERS
            seen[function] += 1
        ordered.sort(key=rounds.__getitem__)
        chosen: list[str] = []
        left_s = _BUDGET_S
        for test in ordered[:_AT_MOST]:
            left_s -= self.seconds[test]
            if left_s < 0 and chosen:
                break
            chosen.append(test)
        return chosen


def covered(fork: Fork, cache: Path) -> Covered:
    """Return what the tests of the suites run, from the cache where nothing has changed."""
    cache.mkdir(parents=True, exist_ok=True)
    shared = _digest(_shared_files(fork.root))
    tests: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    seconds: dict[str, float] = {}
    lines: dict[str, int] = defaultdict(int)
    files = [path for suite in suites_of(fork.root) for path in (fork.root / suite).rglob("test_*.py")]
    random.shuffle(files)  # so that two runs side by side measure different files
    for path in files:
        name = str(path.relative_to(fork.root))
        if path.name.startswith(_OF_OTHERS) or path.parent.name in _FOLDERS_OF_OTHERS:
            continue
        kept = cache / f"{name.replace('/', '-')}.json"
        found = json.loads(kept.read_text()) if kept.exists() else {"lines": {}}
        if found.get("digest") != shared + _digest([path, *(fork.root / module for module in found["lines"])]):
            print(f"measuring {name}", flush=True)
            target = kept.with_suffix(f".{fork.root.name}")
            found = _measure(fork, name, target)
            if found["seconds"]:
                digest = _digest([path, *(fork.root / module for module in found["lines"])])
                target.write_text(json.dumps(found | {"digest": shared + digest}))
                target.replace(kept)
        seconds |= found["seconds"]
        for module, by_line in found["lines"].items():
            for line, nodes in by_line.items():
                passed = found["seconds"].keys() & set(nodes)
                tests[module][int(line)] |= passed
                for test in passed:
                    lines[test] += 1
    return Covered(tests, seconds, lines)


def _measure(fork: Fork, name: str, target: Path) -> dict[str, Any]:
    target.unlink(missing_ok=True)

    def run() -> int:
        os.environ["COVERAGE_CORE"] = "ctrace"  # the default of Python 3.14 cannot tell tests apart
        measure = Coverage(
            data_file=None, source=[str(fork.root / package) for package in PACKAGES if (fork.root / package).exists()]
        )
        recorder = _Recorder(measure)
        measure.start()
        code = pytest.main([*OPTIONS, name], plugins=[recorder])
        measure.stop()
        target.write_text(json.dumps({"seconds": recorder.seconds, "lines": _lines(measure, fork.root)}))
        return 0 if code in {0, 1, 5} else code

    if fork.fork(run, timeout_s=_FILE_TIMEOUT_S) or not target.exists():
        print(f"  {name} could not be measured: its tests are left out; see {fork.log}", flush=True)
        return {"seconds": {}, "lines": {}}
    measured: dict[str, Any] = json.loads(target.read_text())
    return measured


def _lines(measure: Coverage, root: Path) -> dict[str, dict[int, list[str]]]:
    data = measure.get_data()
    lines = {
        str(Path(path).relative_to(root)): {
            line: tests
            for line, contexts in data.contexts_by_lineno(path).items()
            if (tests := [context for context in contexts if context])
        }
        for path in data.measured_files()
    }
    return {module: by_line for module, by_line in lines.items() if by_line}


class _Recorder:
    """Has each line noted with the test that runs it, and each test that passes with its time."""

    def __init__(self, measure: Coverage) -> None:
        self._measure = measure
        self._failed: set[str] = set()
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._measure.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self._measure.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:  # skipped tests tell nothing either
            self._failed.add(report.nodeid)
            self.seconds.pop(report.nodeid, None)
        elif report.nodeid not in self._failed:
            # A session's fixtures are set up once, in the first test.
            taken_s = report.duration if report.when == "call" else min(report.duration, 1.0)
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + taken_s


def _shared_files(root: Path) -> list[Path]:
    """Return the files of the tests that any of them may depend on."""
    shared = [path for path in (root / "tests").rglob("*.py") if not path.name.startswith("test_")]
    return [path for path in shared if path.parent.name in {"tests", "support", "unit", "integration"}]


def _digest(files: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(path.read_bytes() if path.exists() else b"gone")
    return whole.hexdigest()[:16]


def _statement(tree: ast.Module, line: int) -> range:
    """Return the lines of the innermost statement of a function that holds the line; of `if`, `for` …, its head.

    Empty outside of functions, and in the head of one.
    """
    found: ast.stmt | ast.ExceptHandler | None = None
    inside = False
    for node in _enclosing(tree, line):
        inside = inside or isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef)
        found = node
    if found is None or not inside or isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return range(0)
    body = getattr(found, "body", None)
    last = body[0].lineno - 1 if body else (found.end_lineno or found.lineno)
    return range(found.lineno, max(found.lineno, last) + 1)


def _enclosing(tree: ast.AST, line: int) -> Iterable[ast.stmt | ast.ExceptHandler]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            first, last = _span(node)
            if first <= line <= last:
                if not isinstance(node, ast.match_case):
                    yield node
                yield from _enclosing(node, line)


def _span(node: ast.stmt | ast.ExceptHandler | ast.match_case) -> tuple[int, int]:
    if isinstance(node, ast.match_case):
        return node.pattern.lineno, node.body[-1].end_lineno or node.body[-1].lineno
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
    return first, node.end_lineno or first


def _definition(tree: ast.Module, line: int) -> range:
    """Return the lines of the innermost function or class around the line, without its head."""
    found = [node for node in _enclosing(tree, line) if hasattr(node, "body") and hasattr(node, "name")]
    return range(found[-1].lineno + 1, (found[-1].end_lineno or 0) + 1) if found else range(0)


def _bound_names(tree: ast.Module, line: int) -> set[str]:
    """Return what the statement at the line gives a name to, if it is run when the module is loaded."""
    nodes = list(_enclosing(tree, line))
    if not nodes or any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes[:-1]):
        return set()
    last = nodes[-1]
    if isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {last.name}
    targets = last.targets if isinstance(last, ast.Assign) else [last.target] if isinstance(last, ast.AnnAssign) else []
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _with_dependents(names: set[str], tree: ast.Module) -> set[str]:
    """Return the names, and those of the module's constants that are made of them."""
    known = set(names)
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if _mentions(known, ast.unparse(node.value)):
                known |= {target.id for target in targets if isinstance(target, ast.Name)}
    return known


def _functions(tree: ast.Module, source: str) -> Iterable[tuple[int, int, str]]:
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first, last = _span(node)
            yield node.lineno, last, "\n".join(lines[first - 1 : last])


def _mentions(names: set[str], code: str) -> bool:
    return bool(names) and re.search(rf"\b(?:{'|'.join(map(re.escape, names))})\b", code) is not None
