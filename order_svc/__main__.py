"""`python -m order_svc serve | worker | migrate | events …`."""

from typing import Final

from chassis.runtime import cli

MODULES: Final = cli.modules_of("order_svc")

if __name__ == "__main__":
    cli.main("order_svc", MODULES)
