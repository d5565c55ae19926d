"""`python -m tests.perf [--quick]`: installs the peers, measures everything in turn, prints and keeps the figures."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from devstack.errors import StackError
from devstack.settings import REPOSITORY
from tests.perf import memory, plan, ratios, report, tools
from tests.perf.checks import WrongAnswer
from tests.perf.load import LoadFailed
from tests.perf.measure import Samples
from tests.perf.progress import Kept
from tests.perf.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.perf.progress import Progress

_SOAK_S = 600
_TELEMETRY = "tests.perf.telemetry_cost"
_ONLY_FULL = "only in the full run"


class _Stopped(BaseException):
    """SIGINT or SIGTERM came."""


def main() -> None:
    """Run the benchmark; exit 1 with one line if it cannot be run or a system answers wrongly."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf", description="Measure the shop beside its peers.")
    parser.add_argument("--quick", action="store_true", help="in five minutes, fewer cases")
    parser.add_argument("--new", action="store_true", help="do not go on with a run that was interrupted")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)  # so that everything is stopped
    try:
        tools.install(print)
        file = tools.BENCH / "progress.json"
        if arguments.new:
            file.unlink(missing_ok=True)
        kept = Kept(file, is_quick=arguments.quick, report=_with_time)
        run = measure(kept, is_quick=arguments.quick)
    except _Stopped:
        sys.exit("Stopped. The same command goes on from here; with NEW=1 it begins anew.")
    except (tools.ToolMissing, StackError, WrongAnswer, LoadFailed) as error:
        sys.exit(f"{type(error).__name__}: {error}\nThe same command goes on from here; with NEW=1 it begins anew.")
    text = report.as_text(run)
    report.write(run, text=text, folder=tools.BENCH)
    kept.forget()
    print(f"\n{text}\nKept as latest.json, latest.md and latest.svg in {tools.BENCH}")


def _stop(*_: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
    raise _Stopped


def measure(kept: Kept, *, is_quick: bool) -> report.Run:
    """Return all figures."""
    progress = kept.progress
    _once(kept, ratios.RSS_ALL.key, lambda: _memory(progress))
    if not is_quick:
        _once(kept, ratios.TELEMETRY.key, _telemetry)
    with World() as world:
        samples = Samples(world.meter, is_quick=is_quick, report=_with_time, keep=kept.save, taken=progress.taken)
        plan.check(world)
        plan.rest(world, samples)
        plan.grpc(world, samples)
        plan.steady(world, samples)
        plan.check(world)
        plan.check_rows(world, samples)
        if not is_quick:
            world.stop_peers()
            plan.growth(world, samples)
            _once(kept, ratios.RSS.key, lambda: plan.soak(world, seconds=_SOAK_S))
    kept.save()
    reasons = {bound.key: _ONLY_FULL for bound in ratios.BOUNDS} if is_quick else {}
    return report.Run(progress=progress, reasons=reasons, is_quick=is_quick)


def _once(kept: Kept, key: str, figure: Callable[[], float]) -> None:
    """Measure a figure that is no sample, unless it was measured before an interruption."""
    if key in kept.progress.singles:
        return
    kept.progress.singles[key] = figure()
    kept.save()
    _with_time(f"  {key:<46} {kept.progress.singles[key]:8.2f}")


def _with_time(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _memory(progress: Progress) -> float:
    """Return the memory of all processes of `make run` in MB."""
    resident, proportional = memory.of_make_run()
    progress.details |= {ratios.RSS_ALL.key: resident, report.PROPORTIONAL: proportional}
    return sum(resident.values())


def _telemetry() -> float:
    """Return what telemetry_cost.py says, which measures servers of its own."""
    command = (sys.executable, "-m", _TELEMETRY)
    told = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    if told.returncode:
        raise LoadFailed(f"{_TELEMETRY} ended with {told.returncode}")
    return float(json.loads(told.stdout)[ratios.TELEMETRY.key])


if __name__ == "__main__":
    main()
