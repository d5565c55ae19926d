"""Every test can fail: it asserts something, itself or by a function of the tests that it calls."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    Function = ast.FunctionDef | ast.AsyncFunctionDef

REPOSITORY: Final = Path(__file__).parents[2]
FILES: Final = [*sorted((REPOSITORY / "tests").rglob("*.py")), *(REPOSITORY / "chassis" / "testing").rglob("*.py")]

# Calls that fail by themselves: of pytest, and what waits for something or ends with a TimeoutError.
ASSERTING: Final = frozenset({"raises", "warns", "fail", "wait", "wait_for", "timeout"})
# Functions of ours that raise where something is not as it should be, or does not become so.
REQUIRING: Final = ("require_", "until_")


def functions_of(text: str) -> Iterator[Function]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls_of(function: Function) -> set[str]:
    """Return the names that the function calls, without what stands before the last dot."""
    called = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    attributes = {each.attr for each in called if isinstance(each, ast.Attribute)}
    return attributes | {each.id for each in called if isinstance(each, ast.Name)}


def asserts_itself(function: Function) -> bool:
    nodes = list(ast.walk(function))
    if any(isinstance(node, ast.Assert) for node in nodes):
        return True
    raised = [node.exc for node in nodes if isinstance(node, ast.Raise) and node.exc is not None]
    if any(isinstance(name, ast.Name) and name.id == "AssertionError" for each in raised for name in ast.walk(each)):
        return True
    return any(name in ASSERTING or name.startswith(REQUIRING) for name in calls_of(function))


def without_assertion(texts: dict[str, str]) -> list[str]:
    """Return the tests in these files that assert nothing, as `file::test`."""
    functions = {name: list(functions_of(text)) for name, text in texts.items()}
    # Only what asserts by itself: by way of others nearly everything does, each fixture that waits for a server too.
    found = {each.name for some in functions.values() for each in some if asserts_itself(each)}
    return [
        f"{name}::{function.name}"
        for name, some in functions.items()
        for function in some
        if function.name.startswith("test_") and not asserts_itself(function) and not calls_of(function) & found
    ]


def test_every_test_asserts_something() -> None:
    texts = {str(path.relative_to(REPOSITORY)): path.read_text() for path in FILES}

    assert without_assertion(texts) == []


@pytest.mark.parametrize(
    ("body", "asserts"),
    [
        ("assert 1", True),
        ("with pytest.raises(ValueError): f()", True),
        ("await until(lambda: is_so())", True),
        ("require_whole(database)", True),
        ("check(answer())", True),
        ("await until_open(breaker)", True),
        ("through(answer())", False),
        ("answer()", False),
        ("assertion = 1", False),
        ("with serving(server): client.open()", False),
        ("'assert'", False),
    ],
)
def test_a_test_without_an_assertion_is_found(body: str, *, asserts: bool) -> None:
    helpers = """
def until(condition): assert condition
def check(value): assert value
def through(value): check(value)
def answer(): return 1
"""
    texts = {"helpers.py": helpers, "t.py": f"async def test_it():\n    {body}"}

    assert (without_assertion(texts) == []) == asserts
