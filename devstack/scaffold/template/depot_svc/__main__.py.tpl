"""`python -m depot_svc serve | worker | migrate | events …`."""

from typing import Final

from chassis.runtime import cli

MODULES: Final = cli.modules_of("depot_svc")

if __name__ == "__main__":
    cli.main("depot_svc", MODULES)
