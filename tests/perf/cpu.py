"""CPU time of processes, with all that they started, as the kernel counts it."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devstack.process import Process

_TICK_NS: Final = 1e9 / os.sysconf("SC_CLK_TCK")
_PAGE_MB: Final = os.sysconf("SC_PAGE_SIZE") / 2**20

OTHER: Final = "other"
"""All other processes below this one, such as PostgreSQL and Redis of a stack."""


@dataclass(frozen=True, slots=True)
class _Entry:
    parent: int
    cpu_ns: float
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
        spent_ns: Counter[str] = Counter()
        for pid, entry in entries.items():
            label = _label_of(pid, entries, roots)
            if label:
                spent_ns[label] += round(entry.cpu_ns)
        return Counter({label: ns // 1000 for label, ns in spent_ns.items()})

    def memory_mb(self, label: str) -> float:
        """Return the resident memory of the largest process with this label."""
        entries = _entries()
        return max(entries[process.pid].pages for process in self._labels[label] if process.pid) * _PAGE_MB


def processes_below(root: int) -> list[int]:
    """Return the ids of a process and of all that it started."""
    entries = _entries()
    return [pid for pid in entries if _label_of(pid, entries, {root: "in"}) == "in"]


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
            own_ns = time.clock_gettime_ns(_cpu_clock_of(int(folder.name)))
        except OSError:  # it ended meanwhile
            continue
        # With the time of children that have ended: a connection's backend, a worker that was replaced.
        ended_ns = (int(fields[13]) + int(fields[14])) * _TICK_NS
        found[int(folder.name)] = _Entry(parent=int(fields[1]), cpu_ns=own_ns + ended_ns, pages=int(fields[21]))
    return found


def _cpu_clock_of(pid: int) -> int:
    """Return the clock of all threads of a process, as clock_getcpuclockid(3) does; /proc counts in steps of 10 ms."""
    return (~pid << 3) | 2
