"""Mutants that do what the original does, in equivalents.toml, each with the reason why no test can tell them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.mutation.mutants import Mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalent:
    """One entry: the line as it is and as the mutant has it, without blanks around them.

    Attributes:
        module: its path.
        function: the function with its class; `<module>` outside of every one.
        before: the line, or lines.
        after: the same, changed.
        reason: why the two do the same.
    """

    module: str
    function: str
    before: str
    after: str
    reason: str

    def matches(self, mutant: Mutant) -> bool:
        """Return whether the mutant is this one."""
        theirs = (mutant.module, mutant.function, mutant.before, mutant.after)
        return theirs == (self.module, self.function, self.before, self.after)


def read(path: Path) -> list[Equivalent]:
    """Return the entries of a file.

    Raises:
        TypeError: an entry lacks a field, or has one too many.
    """
    return [Equivalent(**entry) for entry in tomllib.loads(path.read_text()).get("equivalent", [])]


def stale(entries: Sequence[Equivalent], mutants: Sequence[Mutant], *, module: str) -> list[Equivalent]:
    """Return the entries of a module that are none of its mutants: the code has changed under them."""
    ours = [entry for entry in entries if entry.module == module]
    return [entry for entry in ours if not any(entry.matches(mutant) for mutant in mutants)]
