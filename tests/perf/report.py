"""The figures as tables, as JSON, and as a chart."""

from __future__ import annotations

import json
import math
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from devstack.settings import REPOSITORY
from tests.perf.chart import Bar, Panel, draw
from tests.perf.cpu import OTHER
from tests.perf.ratios import BOUNDS, GOALS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.perf.measure import Key, Sample

_POSTGRES: Final = "postgres"


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of the rounds of one case. CPU is in microseconds a request, by process."""

    what: str
    whose: str
    concurrency: int
    rps: float
    p50_ms: float | None
    p99_ms: float | None
    cpu_us: Mapping[str, float]

    @property
    def cells(self) -> list[str]:
        """The row as text."""
        postgres = self.cpu_us.get(_POSTGRES, 0)
        others = {name: us for name, us in self.cpu_us.items() if name != _POSTGRES and us >= 1}
        return [
            self.what,
            str(self.concurrency),
            self.whose,
            f"{self.rps:,.0f}",
            *("" if ms is None else f"{ms:.2f}" for ms in (self.p50_ms, self.p99_ms)),
            f"{sum(self.cpu_us.values()):.0f}",
            ", ".join(f"{name} {us:.0f}" for name, us in others.items()),
            f"{postgres:.0f}",
        ]


_COLUMNS: Final = ("", "c", "", "req/s", "p50 ms", "p99 ms", "CPU-µs", "of which", "PostgreSQL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        taken: every sample.
        singles: figures with a goal that are no ratio of samples, by key.
        reasons: why a figure has no value.
        is_quick: whether it was the short one.
    """

    taken: Mapping[Key, Sequence[Sample]]
    singles: Mapping[str, float]
    reasons: Mapping[str, str]
    is_quick: bool

    @property
    def command(self) -> str:
        """The command line."""
        return "make bench QUICK=1" if self.is_quick else "make bench"

    def rows(self) -> list[Row]:
        """Return the table."""
        return [_row(key, samples) for key, samples in self.taken.items()]

    def ratios(self) -> dict[str, float | None]:
        """Return every ratio by its key; None if it was not measured."""
        found = {goal.key: goal.ratio(self.taken) for goal in GOALS}
        return {bound.key: found.get(bound.key, self.singles.get(bound.key)) for bound in BOUNDS}


def write(run: Run, *, text: str, folder: Path) -> None:
    """Write latest.json, latest.md, which is the text, and latest.svg."""
    ratios = run.ratios()
    document = {
        "command": run.command,
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commit": _output("git", "describe", "--always", "--dirty"),
        "machine": _machine(),
        "ratios": ratios,
        "goals": {bound.key: bound.text for bound in BOUNDS},
        "reasons": {key: run.reasons.get(key, "not measured") for key, value in ratios.items() if value is None},
        "rows": [asdict(row) for row in run.rows()],
    }
    (folder / "latest.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (folder / "latest.md").write_text(f"![Requests a second and CPU a call](performance.svg)\n\n{text}")
    (folder / "latest.svg").write_text(draw(_panels(run.rows())))


def as_text(run: Run, *, seconds: float) -> str:
    """Return both tables as Markdown that reads well in a terminal."""
    machine = ", ".join(f"{name} {value}" for name, value in _machine().items())
    rows = [list(_COLUMNS), *(row.cells for row in run.rows())]
    return f"`{run.command}`, {seconds:.0f} s, {machine}\n\n{_table(rows)}\n\n{_table(_verdict(run))}\n"


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
    shown = {_POSTGRES, *((OTHER,) if system == "shop" else ())}  # Redis and relays are the shop's
    labels = sorted({label for sample in samples for label in sample.cpu_us})
    labels = [label for label in labels if label.partition(" ")[0] == system or label in shown]
    return Row(
        *key,
        rps=median(sample.load.rps for sample in samples),
        p50_ms=_known(median(sample.load.p50_ms for sample in samples)),
        p99_ms=_known(median(sample.load.p99_ms for sample in samples)),
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
    """Return what the figures depend on, without the machine's name."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "CPU": f"{len(models)} x {models[0] if models else platform.machine()}",
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "Node.js": _output("node", "--version"),
    }


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout.strip()
