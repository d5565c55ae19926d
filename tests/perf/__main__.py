"""`python -m tests.perf [--quick]`: installs the peers, measures everything in turn, prints and keeps the figures."""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import subprocess
import sys
import time

from devstack.errors import StackError
from devstack.settings import REPOSITORY
from tests.perf import plan, ratios, report, tools
from tests.perf.checks import WrongAnswer
from tests.perf.load import LoadFailed
from tests.perf.measure import Samples
from tests.perf.world import World

_SOAK_S = 600
_TELEMETRY = "tests.perf.telemetry_cost"


def main() -> None:
    """Run the benchmark; exit 1 with one line if it cannot be run or a system answers wrongly."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf", description="Measure the shop beside its peers.")
    parser.add_argument("--quick", action="store_true", help="in five minutes, without ten minutes of load for memory")
    is_quick: bool = parser.parse_args().quick
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is stopped
    started = time.monotonic()
    try:
        tools.install(print)
        run = measure(is_quick=is_quick)
    except (tools.ToolMissing, StackError, WrongAnswer, LoadFailed) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    text = report.as_text(run, seconds=time.monotonic() - started)
    report.write(run, text=text, folder=tools.BENCH)
    print(f"\n{text}\nKept as latest.json, latest.md and latest.svg in {tools.BENCH}")


def measure(*, is_quick: bool) -> report.Run:
    """Return all figures."""
    singles, reasons = telemetry()
    with World() as world:
        samples = Samples(world.meter, is_quick=is_quick, report=_with_time)
        plan.check(world)
        plan.rest(world, samples)
        plan.grpc(world, samples)
        plan.check(world)
        plan.check_rows(world, samples)
        world.stop_peers()
        plan.growth(world, samples)
        if is_quick:
            reasons[ratios.RSS.key] = "takes ten minutes: only without QUICK=1"
        else:
            singles[ratios.RSS.key] = plan.soak(world, seconds=_SOAK_S)
    return report.Run(taken=samples.taken, singles=singles, reasons=reasons, is_quick=is_quick)


def _with_time(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}{line}", flush=True)


def telemetry() -> tuple[dict[str, float], dict[str, str]]:
    """Return what telemetry_cost.py says, which measures servers of its own; or why it says nothing."""
    key = ratios.TELEMETRY.key
    if importlib.util.find_spec(_TELEMETRY) is None:
        return {}, {key: "there is no telemetry to measure yet"}
    command = (sys.executable, "-m", _TELEMETRY)
    told = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    if told.returncode:
        return {}, {key: "telemetry_cost.py failed"}
    return {key: json.loads(told.stdout)[key]}, {}


if __name__ == "__main__":
    main()
