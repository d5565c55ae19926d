"""CPU time of processes, with all that they started, as the kernel counts it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devstack.process import Process

_TICK_US: Final = 1e6 / os.sysconf("SC_CLK_TCK")
_PAGE_MB: Final = os.sysconf("SC_PAGE_SIZE") / 2**20

OTHER: Final = "other"
"""Whatever else runs below this process, such as what a stack starts beside replicas and edge."""


@dataclass(frozen=True, slots=True)
class _Entry:
    parent: int
    ticks: int
    pages: int


class Meter:
    """Adds up CPU time by label."""

    def __init__(self) -> None:
        self._labels: Final[dict[str, Sequence[Process]]] = {}

    def add(self, labels: Mapping[str, Sequence[Process]]) -> None:
        """Watch these processes, too."""
        self._labels.update(labels)

    def forget(self, labels: Mapping[str, Sequence[Process]]) -> None:
        """Watch these no more."""
        for label in labels:
            del self._labels[label]

    def cpu_us(self) -> Counter[str]:
        """Return the microseconds of CPU so far, by label."""
        entries = _entries()
        roots = {process.pid: label for label, processes in self._labels.items() for process in processes}
        ticks: Counter[str] = Counter()
        for pid, entry in entries.items():
            label = _label_of(pid, entries, roots)
            if label:
                ticks[label] += entry.ticks
        return Counter({label: round(count * _TICK_US) for label, count in ticks.items()})

    def memory_mb(self, label: str) -> float:
        """Return the resident memory of the largest process with this label."""
        entries = _entries()
        return max(entries[process.pid].pages for process in self._labels[label] if process.pid) * _PAGE_MB


def _label_of(pid: int, entries: Mapping[int, _Entry], roots: Mapping[int | None, str]) -> str:
    """Return the label of the nearest ancestor that has one; OTHER below this process, nothing elsewhere."""
    at = pid
    while at in entries:
        if at in roots:
            return roots[at]
        at = entries[at].parent
        if at == os.getpid():
            return OTHER
    return ""


def _entries() -> dict[int, _Entry]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # After the name, which is in parentheses and may hold anything: proc(5), fields from the third on.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        # With the time of children that have ended: a connection's backend, a worker that was replaced.
        ticks = sum(int(field) for field in fields[11:15])
        found[int(folder.name)] = _Entry(parent=int(fields[1]), ticks=ticks, pages=int(fields[21]))
    return found
