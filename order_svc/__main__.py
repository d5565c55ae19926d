"""`python -m order_svc serve | worker | migrate | events …`: reads the settings and runs the service."""

from __future__ import annotations

from typing import Final

from chassis.runtime import cli

MODULES: Final = {
    "serve": "order_svc.serving",
    "worker": "order_svc.worker",
    "migrate": "order_svc.serving",
    "events": "order_svc.worker",
}

if __name__ == "__main__":
    cli.main("order_svc", MODULES)
