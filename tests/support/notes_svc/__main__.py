"""`python -m tests.support.notes_svc serve | worker | migrate | events …`."""

from __future__ import annotations

from typing import Final

from chassis.runtime import cli

MODULES: Final = cli.modules_of("tests.support.notes_svc")

if __name__ == "__main__":
    cli.main("tests.support.notes_svc", MODULES)
