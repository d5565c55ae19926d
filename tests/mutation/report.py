"""The report of a run, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.mutation.session import Result


def table(results: Sequence[Result]) -> str:
    """Return a line a module: how many mutants were made, and what became of them."""
    lines = [
        "| module | made | killed | timed out | equivalent | survived | left | noticed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in results:
        numbers = (each.made, *map(len, (each.killed, each.timed_out, each.equivalent, each.survived, each.left)))
        lines.append(f"| {each.module} | {' | '.join(map(str, numbers))} | {each.percent:.1f} % |")
    return "\n".join(lines)


def survivors(results: Sequence[Result], *, sources: Mapping[str, str]) -> str:
    """Return where each mutant is that no test has noticed, and its change."""
    parts = [
        f"{mutant.module}:{mutant.line} in {mutant.function} ({mutant.operator})\n{mutant.diff(sources[mutant.module])}"
        for each in results
        for mutant in each.survived
    ]
    parts += [
        f"equivalents.toml: {entry.module}, {entry.function}: no mutant makes\n  {entry.after}\nof\n  {entry.before}\n"
        "Correct the entry or remove it."
        for each in results
        for entry in each.stale
    ]
    return "\n\n".join(parts)
