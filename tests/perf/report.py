"""The figures as tables, as JSON, and as a chart."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from devstack.settings import REPOSITORY
from tests.perf.chart import Bar, Panel, draw
from tests.perf.cpu import OTHER
from tests.perf.peer_processes import TOKEN_MEMORY
from tests.perf.ratios import BOUNDS, GOALS, RSS_ALL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.perf.measure import Key, Sample
    from tests.perf.progress import Progress

_POSTGRES: Final = "postgres"
PROPORTIONAL: Final = "pss_mb_all"
"""The key of the memory by kind of process, where what processes share is divided among them."""


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of the rounds of one case. CPU is in microseconds a request, by process."""

    what: str
    whose: str
    concurrency: int
    rps: float
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    cpu_us: Mapping[str, float]

    @property
    def is_open_loop(self) -> bool:
        """Whether requests were due at fixed times."""
        return "," in self.what

    @property
    def cells(self) -> list[str]:
        """The row as text."""
        postgres = self.cpu_us.get(_POSTGRES, 0)
        others = {name: us for name, us in self.cpu_us.items() if name != _POSTGRES and us >= 1}
        return [
            self.what,
            *([] if self.is_open_loop else [str(self.concurrency)]),
            self.whose,
            f"{self.rps:,.0f}",
            *("" if ms is None else f"{ms:.2f}" for ms in (self.p50_ms, self.p99_ms, self.p999_ms)),
            f"{sum(self.cpu_us.values()):.0f}",
            ", ".join(f"{name} {us:.0f}" for name, us in others.items()),
            f"{postgres:.0f}",
        ]


_FIGURES: Final = ("requests/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs", "of which", "PostgreSQL")
_CLOSED_COLUMNS: Final = ("work", "callers", "system", *_FIGURES)
_OPEN_COLUMNS: Final = ("work, load", "system", *_FIGURES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        progress: everything that was measured.
        reasons: why a figure has no value, by key.
        is_quick: whether it was the short one.
        ended_at: when it was complete, in UTC.
    """

    progress: Progress
    reasons: Mapping[str, str]
    is_quick: bool
    ended_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def command(self) -> str:
        """The command line."""
        return "make bench QUICK=1" if self.is_quick else "make bench"

    def rows(self) -> list[Row]:
        """Return the table."""
        return [_row(key, samples) for key, samples in self.progress.taken.items() if samples]

    def ratios(self) -> dict[str, float | None]:
        """Return every ratio by its key; None if it was not measured."""
        found = {goal.key: goal.ratio(self.progress.taken) for goal in GOALS}
        return {bound.key: found.get(bound.key, self.progress.singles.get(bound.key)) for bound in BOUNDS}


def write(run: Run, *, text: str, folder: Path) -> None:
    """Write latest.json, latest.md, which is the text, and latest.svg."""
    ratios = run.ratios()
    document = {
        "command": run.command,
        "at": f"{run.ended_at:%Y-%m-%dT%H:%M:%SZ}",
        "seconds": round(run.progress.spent_s),
        "commit": _output("git", "describe", "--always", "--dirty"),
        "machine": _machine(),
        "token_memory": TOKEN_MEMORY,
        "ratios": ratios,
        "goals": {bound.key: bound.text for bound in BOUNDS},
        "reasons": {key: run.reasons.get(key, "not measured") for key, value in ratios.items() if value is None},
        "details": run.progress.details,
        "rows": [asdict(row) for row in run.rows()],
    }
    (folder / "latest.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (folder / "latest.md").write_text(f"![Requests a second and CPU a call](performance.svg)\n\n{text}")
    (folder / "latest.svg").write_text(draw(_panels(run.rows())))


def as_text(run: Run) -> str:
    """Return what was measured where and when, and the tables, as Markdown that reads well in a terminal."""
    machine = _machine()
    name = machine.pop("name")
    facts = ", ".join(f"{what} {value}" for what, value in machine.items())
    rows, minutes = run.rows(), run.progress.spent_s / 60
    closed = [list(_CLOSED_COLUMNS), *(row.cells for row in rows if not row.is_open_loop)]
    opened = [list(_OPEN_COLUMNS), *(row.cells for row in rows if row.is_open_loop)]
    resident, proportional = (run.progress.details.get(key, {}) for key in (RSS_ALL.key, PROPORTIONAL))
    parts = [
        f"`{run.command}` on {name}, {run.ended_at:%d %B %Y, %H:%M} UTC, in {minutes:.0f} minutes. {facts}.",
        "The peers that do the same work "
        + (f"remember {TOKEN_MEMORY:,} verified tokens." if TOKEN_MEMORY else "verify the token of each request."),
        "Ratios of this run. A goal that is missed has its reason further below.",
        _table(_verdict(run)),
        "Capacity: each caller sends its next request when it has the answer to the last one.",
        _table(closed),
        "Latency below capacity: requests are due at fixed times, and a latency counts from that time.",
        _table(opened),
        f"Memory of all processes of `make run`, in MB: {', '.join(_by_size(resident))}.",
        f"With shared memory divided: {', '.join(_by_size(proportional))}; in all {sum(proportional.values()):.0f}.",
    ]
    return "\n\n".join(parts) + "\n"


def _by_size(memory: Mapping[str, float]) -> list[str]:
    return [f"{kind} {megabytes:.0f}" for kind, megabytes in sorted(memory.items(), key=lambda each: -each[1])]


def _verdict(run: Run) -> list[list[str]]:
    lines, ratios = [["ratio", "value", "goal", ""]], run.ratios()
    for bound in BOUNDS:
        value = ratios[bound.key]
        if value is None:
            lines.append([bound.key, "", bound.text, run.reasons.get(bound.key, "not measured")])
        else:
            lines.append([bound.key, f"{value:.2f}", bound.text, "met" if bound.is_met_by(value) else "missed"])
    return lines


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _row(key: Key, samples: Sequence[Sample]) -> Row:
    """Return the medians; of the processes that belong to the case, without what idles beside it."""
    system = samples[0].service.partition(" ")[0]
    # Redis, relays and consumers are the shop's. The bare Envoy stands before the shop's services.
    shown = {_POSTGRES, *{"shop": (OTHER,), "bare": ("shop user_svc",)}.get(system, ())}
    labels = sorted({label for sample in samples for label in sample.cpu_us})
    labels = [label for label in labels if label.partition(" ")[0] == system or label in shown]
    return Row(
        *key,
        rps=median(sample.load.rps for sample in samples),
        p50_ms=_known(median(sample.load.p50_ms for sample in samples)),
        p99_ms=_known(median(sample.load.p99_ms for sample in samples)),
        p999_ms=_known(median(sample.load.p999_ms for sample in samples)),
        cpu_us={label: median(sample.cpu_us.get(label, 0.0) for sample in samples) for label in labels},
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _panels(rows: Sequence[Row]) -> list[Panel]:
    """Return what the chart shows: throughput over REST, and the CPU of single processes over gRPC."""
    rest = [row for row in rows if row.what in {"GET user", "POST order"} and row.concurrency > 1]
    cpu = [row for row in rows if row.concurrency == 32 and row.what in {"GetUser", "CreateOrder"}]
    return [
        Panel("Requests a second, the whole system on this machine", [_bar(row, row.rps) for row in rest]),
        Panel("CPU-µs a gRPC call, PostgreSQL included", [_bar(row, sum(row.cpu_us.values())) for row in cpu]),
    ]


def _bar(row: Row, value: float) -> Bar:
    return Bar(f"{row.what}, c={row.concurrency}: {row.whose}", value, is_ours=row.whose == "shop")


def _machine() -> dict[str, str]:
    """Return the machine's name and what the figures depend on."""
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "name": os.environ.get("MACHINE") or platform.node(),
        "CPU": f"{len(models) or os.cpu_count()} x {models[0] if models else platform.machine()}",
        "memory": f"{int(facts['MemTotal'].split()[0]) / 2**20:.0f} GiB",
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "Node.js": _output("node", "--version"),
        **({"Go": version.split()[2]} if (version := _output("go", "version")) else {}),
    }


def _output(*command: str) -> str:
    try:
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git, or no Go
        return ""
    return ended.stdout.strip()
