from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devstack.settings import REPOSITORY
from tests.mutation import configuration, equivalents, report, sql
from tests.mutation.configuration import Fault, FaultUnknown
from tests.mutation.coverage import Covered
from tests.mutation.equivalents import Equivalent
from tests.mutation.modules import MODULES
from tests.mutation.mutants import Mutant, function_at, mutants_of
from tests.mutation.session import Session

EQUIVALENTS = Path(equivalents.__file__).with_suffix(".toml")
MODULE = "chassis/till.py"
TILL = '''\
"""The till."""

from __future__ import annotations

LARGEST = 3


class Till:
    """Takes orders."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def take(self, quantity: int | None, *, paid: bool) -> bool:
        """Return whether the order was taken."""
        if quantity is not None and quantity <= LARGEST:
            self.taken.append(quantity)
            return paid
        return False
'''


def faults_of(statement: str, *, goes_on: bool = False) -> set[str]:
    """Return the statement with each of its faults, with single blanks."""
    changes = sql.changes(statement, goes_on=goes_on)
    return {" ".join(f"{statement[: each.start]}{each.text}{statement[each.end :]}".split()) for each in changes}


def entry(mutant: Mutant, **changes: str) -> Equivalent:
    fields = {name: getattr(mutant, name) for name in ("module", "function", "before", "after")}
    return Equivalent(**{**fields, "reason": "for a test", **changes})


def test_each_place_is_changed_once_and_in_code_that_runs() -> None:
    made = {(mutant.function, mutant.after) for mutant in mutants_of(MODULE, TILL)}

    assert made == {
        ("<module>", "LARGEST = 4"),
        ("Till.take", "if quantity is None and quantity <= LARGEST:"),
        ("Till.take", "if quantity is not None or quantity <= LARGEST:"),
        ("Till.take", "if quantity is not None and quantity < LARGEST:"),
        ("Till.take", "if not quantity is not None and quantity <= LARGEST:"),
        ("Till.take", "pass"),
        ("Till.take", "return True"),
    } - {("Till.take", "if not quantity is not None and quantity <= LARGEST:")}


def test_a_change_that_compiles_to_the_same_code_is_not_a_mutant() -> None:
    source = '''\
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

T_co = TypeVar("T_co", covariant=True)


@functools.cache
def found(wanted: UUID | None, *, n: int | None) -> UUID | None:
    """Return 1 of 2: SELECT id FROM orders WHERE id = 3."""
    # A line for people.
    log.info("found")
    return wanted
'''

    assert mutants_of(MODULE, source) == []


def test_statements_in_strings_have_faults_of_their_own() -> None:
    source = '_FIND = f"""\n    SELECT id\n    FROM {TABLE}\n    WHERE owner = %s\n    ORDER BY id\n"""\n'

    made = {(mutant.line, mutant.after) for mutant in mutants_of(MODULE, source)}

    assert made == {(4, "WHERE true"), (4, "WHERE owner >= %s"), (5, ""), (5, "ORDER BY id DESC")}


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("SELECT a FROM t WHERE b = 1 AND c = :c", "SELECT a FROM t WHERE true AND c = :c"),
        ("SELECT a FROM t WHERE b = 1 AND c = :c", "SELECT a FROM t WHERE b = 1 AND true"),
        ("SELECT a FROM t WHERE b = 1 OR c = :c", "SELECT a FROM t WHERE b = 1 OR false"),
        ("SELECT a FROM t WHERE (b, c) > (1, f(:c))", "SELECT a FROM t WHERE true"),
        ("SELECT a FROM t WHERE (b, c) > (1, f(:c))", "SELECT a FROM t WHERE (b, c) >= (1, f(:c))"),
        ("SELECT a FROM t WHERE b < now()", "SELECT a FROM t WHERE b <= now()"),
        ("SELECT a FROM t WHERE b < now()", "SELECT a FROM t WHERE b < clock_timestamp()"),
        ("SELECT a FROM t ORDER BY b, c LIMIT 5", "SELECT a FROM t LIMIT 5"),
        ("SELECT a FROM t ORDER BY b, c LIMIT 5", "SELECT a FROM t ORDER BY b DESC, c LIMIT 5"),
        ("SELECT a FROM t ORDER BY b, c LIMIT 5", "SELECT a FROM t ORDER BY b, c LIMIT 6"),
        ("SELECT a FROM t ORDER BY b DESC LIMIT 5", "SELECT a FROM t ORDER BY b ASC LIMIT 5"),
        ("SELECT a FROM t FOR UPDATE OF t SKIP LOCKED", "SELECT a FROM t"),
        ("SELECT a FROM t FOR UPDATE OF t SKIP LOCKED", "SELECT a FROM t FOR UPDATE OF t"),
        ("UPDATE t SET a = 1, b = f(2, 3) WHERE c = 4", "UPDATE t SET b = f(2, 3) WHERE c = 4"),
        ("UPDATE t SET a = 1, b = f(2, 3) WHERE c = 4", "UPDATE t SET a = 1 WHERE c = 4"),
        ("SELECT greatest(a, b) FROM t", "SELECT least(a, b) FROM t"),
        ("SELECT a FROM t LEFT JOIN u ON t.a = u.a", "SELECT a FROM t JOIN u ON t.a = u.a"),
        ("SELECT a FROM t WHERE b IS NOT NULL", "SELECT a FROM t WHERE b IS NULL"),
    ],
)
def test_a_statement_loses_a_condition_an_order_a_lock_or_an_assignment(statement: str, fault: str) -> None:
    assert fault in faults_of(statement)


def test_a_clause_that_a_value_is_put_into_is_not_cut_in_two() -> None:
    assert faults_of("SELECT a FROM t WHERE b = ", goes_on=True) == set()


def test_an_equivalent_mutant_is_recognised_by_its_change_and_not_by_its_line() -> None:
    [mutant] = [each for each in mutants_of(MODULE, TILL) if each.after == "LARGEST = 4"]
    [moved] = [each for each in mutants_of(MODULE, "\n\n" + TILL) if each.after == "LARGEST = 4"]

    assert entry(mutant).matches(moved)
    assert mutant.line != moved.line
    assert mutant.id != moved.id


@pytest.mark.parametrize("changes", [{"function": "Till.give"}, {"before": "LARGEST = 5"}, {"after": "LARGEST = 6"}])
def test_an_equivalent_without_its_mutant_is_stale(changes: dict[str, str]) -> None:
    mutants = mutants_of(MODULE, TILL)
    known, gone = entry(mutants[0]), entry(mutants[0], **changes)

    assert equivalents.stale([known, gone], mutants, module=MODULE) == [gone]
    assert equivalents.stale([gone], mutants, module="chassis/other.py") == []


def test_a_mutant_is_run_against_the_tests_that_cover_it_the_closest_first() -> None:
    tests = ("tests/unit/test_shop.py::test_much", "tests/unit/test_till.py::test_till", "tests/unit/test_x.py::test_x")
    covered = Covered(
        tests={MODULE: {16: set(tests), 17: set(tests[:2]), 5: set()}},
        seconds=dict.fromkeys(tests, 0.1),
        lines=dict.fromkeys(tests, 9),
    )
    by_text = {mutant.after: mutant for mutant in mutants_of(MODULE, TILL)}

    chosen = {after: covered.tests_of(by_text[after], TILL, sources={MODULE: TILL}) for after in by_text}

    assert chosen["pass"] == [tests[1], tests[0]]
    # A constant of the module has the tests of the functions that use it.
    assert chosen["LARGEST = 4"] == [tests[1], tests[0], tests[2]]


def test_tests_beyond_the_budget_are_left_out() -> None:
    tests = [f"tests/unit/test_x.py::test_{n}" for n in range(9)]
    covered = Covered({MODULE: {17: tests}}, dict.fromkeys(tests, 10.0), dict.fromkeys(tests, 1))
    [mutant] = [each for each in mutants_of(MODULE, TILL) if each.after == "pass"]

    assert covered.tests_of(mutant, TILL, sources={MODULE: TILL}) == tests[:2]


def test_a_test_with_hundreds_of_parameters_does_not_crowd_out_others() -> None:
    parametrized = [f"tests/unit/test_x.py::test_x[{n:03}]" for n in range(500)]
    tests = [*parametrized, "tests/unit/test_y.py::test_y"]
    covered = Covered({MODULE: {17: tests}}, dict.fromkeys(tests, 0.001), dict.fromkeys(tests, 1))
    [mutant] = [each for each in mutants_of(MODULE, TILL) if each.after == "pass"]

    assert covered.tests_of(mutant, TILL, sources={MODULE: TILL})[:9] == [*parametrized[:8], tests[-1]]


@pytest.mark.parametrize("text", ["", "old and old"])
def test_a_fault_whose_old_text_does_not_occur_exactly_once_is_an_error(text: str) -> None:
    fault = Fault(what="something", file="edge.yaml", old="old", new="new", test="tests")

    with pytest.raises(FaultUnknown, match="something"):
        fault.planted_in(text)
    assert fault.planted_in("the old one") == "the new one"


def test_every_configured_fault_changes_its_file_and_has_a_unique_name() -> None:
    faults = configuration.read()

    for fault in faults:
        text = (REPOSITORY / fault.file).read_text()
        assert fault.planted_in(text) != text
    assert len({fault.what for fault in faults}) == len(faults)


def test_every_module_with_mutants_exists() -> None:
    assert [module for module in MODULES if not (REPOSITORY / module).is_file()] == []


@pytest.mark.parametrize("known", equivalents.read(EQUIVALENTS), ids=lambda known: known.module)
def test_the_line_of_an_equivalent_mutant_is_still_in_its_function(known: Equivalent) -> None:
    source = (REPOSITORY / known.module).read_text()
    lines = [line.strip() for line in source.splitlines()]
    before = known.before.splitlines()

    # Whether one of its mutants is this one takes a second a module to say: the run says it.
    places = [n for n in range(len(lines)) if lines[n : n + len(before)] == before]
    assert known.module in MODULES
    assert known.function in {function_at(source, n + 1) for n in places}


def test_a_run_of_survivors_skips_and_reports_mutants_that_were_never_run(tmp_path: Path) -> None:
    nothing_runs: Any = None
    session = Session(
        workspace=nothing_runs,
        fork=nothing_runs,
        covered=Covered({}, {}),
        sources={MODULE: TILL},
        equivalents=[],
        home=tmp_path,
        only_survivors=True,
    )

    result = session.run(MODULE)

    assert result.left == mutants_of(MODULE, TILL)
    assert report.table([result]).endswith(f"| {MODULE} | {result.made} | 0 | 0 | 0 | 0 | {result.made} | 100.0 % |")
