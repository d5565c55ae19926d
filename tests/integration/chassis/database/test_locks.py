"""Advisory locks: each number means one lock, and what waits for one does not wait for another."""

from __future__ import annotations

import ast
import re

from chassis.database import locks
from tests.support.guards import sources


def test_no_two_locks_share_a_number() -> None:
    numbers = {name: value for name, value in vars(locks).items() if name.isupper()}

    assert len(numbers) >= 3
    assert len(set(numbers.values())) == len(numbers)


def test_every_advisory_lock_has_its_number_from_the_table() -> None:
    for _, path in sources():
        tree = ast.parse(path.read_text())
        numbers = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        if path.name != "locks.py":
            assert numbers.isdisjoint(value for name, value in vars(locks).items() if name.isupper()), path
        for call in re.findall(r"advisory\w*\(([^)]*)\)", path.read_text()):
            assert call in {":key", ""}, f"{path}: {call}"
