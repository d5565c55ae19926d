"""`python -m tests.mutation [MODULE …]`: plants faults and says which ones no test notices.

A run that was interrupted continues. Exits with 1 if a mutant survived or an entry of equivalents.toml is stale.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.mutation import configuration, equivalents, report
from tests.mutation.coverage import covered
from tests.mutation.modules import MODULES
from tests.mutation.running import PACKAGES, Fork, RunFailed
from tests.mutation.servers import servers
from tests.mutation.session import Session
from tests.mutation.workspace import HOME, Workspace

_HERE = Path(__file__).parent


def main() -> None:
    """Run the faults that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Plant faults; see who notices.")
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help="a path such as chassis/concurrency/batcher.py; else all"
    )
    parser.add_argument("--configuration", action="store_true", help="the faults of configuration.toml instead")
    parser.add_argument("--survivors", action="store_true", help="only what survived the last run, with today's tests")
    parser.add_argument("--copy", default="tree", help="the copy's name: two runs side by side need one each")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    HOME.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(HOME / wanted.copy, repository=Path.cwd())
    try:
        if wanted.configuration:
            text = configuration.run(workspace)
        else:
            text = run(workspace, wanted.modules or MODULES, only_survivors=wanted.survivors)
    except (RunFailed, configuration.FaultUnknown) as error:
        sys.exit(str(error))
    sys.exit(1 if text else 0)


def run(workspace: Workspace, modules: list[str] | tuple[str, ...], *, only_survivors: bool) -> str:
    """Print the table of the modules' mutants; return what survived, as text."""
    env = {**os.environ, "PYTHONPATH": f"{workspace.root}:{workspace.root / 'generated'}"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    sources = {
        str(path.relative_to(workspace.root)): path.read_text()
        for package in PACKAGES
        for path in sorted((workspace.root / package).rglob("*.py"))
    }
    (HOME / "answers").mkdir(exist_ok=True)
    with servers(workspace.root, env=env) as variables:
        fork = Fork(workspace.root, variables=variables, log=HOME / f"{workspace.root.name}.log")
        session = Session(
            workspace=workspace,
            fork=fork,
            covered=covered(fork, HOME / "coverage"),
            sources=sources,
            equivalents=equivalents.read(_HERE / "equivalents.toml"),
            home=HOME / "answers",
            only_survivors=only_survivors,
        )
        results = [session.run(module) for module in modules]
    found = report.survivors(results, sources=sources)
    (HOME / f"{workspace.root.name}.md").write_text(f"{report.table(results)}\n\n{found}\n")
    print(f"\n{found}\n\n{report.table(results)}")
    return found


if __name__ == "__main__":
    main()
