"""`python -m tests.perf [--quick]`: installs the peers, measures everything in turn, prints and keeps the figures."""

from __future__ import annotations

import argparse
import sys
import time

from devstack.errors import StackError
from tests.perf import plan, report, tools
from tests.perf.checks import WrongAnswer
from tests.perf.load import LoadFailed
from tests.perf.measure import Samples
from tests.perf.world import World

_SOAK_S = 600


def main() -> None:
    """Run the benchmark; exit 1 with one line if it cannot be run or somebody answers wrongly."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf", description="Measure the shop beside its peers.")
    parser.add_argument("--quick", action="store_true", help="in five minutes, without ten minutes of load for memory")
    is_quick: bool = parser.parse_args().quick
    started = time.monotonic()
    try:
        tools.install(print)
        samples, rss_mb = measure(is_quick=is_quick)
    except (tools.ToolMissing, StackError, WrongAnswer, LoadFailed) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    reasons = {"rss_mb_after_load": "takes ten minutes: only without QUICK=1"}
    seconds = time.monotonic() - started
    run = report.Run(taken=samples.taken, rss_mb=rss_mb, is_quick=is_quick, seconds=seconds, reasons=reasons)
    report.write(run, folder=tools.BENCH)
    print(f"\n{report.as_text(run)}\nKept as latest.json, latest.md and latest.svg in {tools.BENCH}")


def measure(*, is_quick: bool) -> tuple[Samples, float | None]:
    """Return all samples, and the memory of a service in MB after ten minutes of load, if there is time for that."""
    with World() as world:
        samples = Samples(world.meter, seconds=2 if is_quick else 5, rounds=3 if is_quick else 5, report=print)
        plan.check(world)
        plan.rest(world, samples)
        plan.grpc(world, samples)
        plan.check(world)
        plan.check_rows(world, samples)
        plan.growth(world, samples)
        return samples, None if is_quick else plan.soak(world, seconds=_SOAK_S)


if __name__ == "__main__":
    main()
