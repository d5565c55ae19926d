"""`python -m user_svc serve | worker | migrate | events … | keys … | sessions … | admin …`.

Reads the settings and runs the service.
"""

from __future__ import annotations

from typing import Final

from chassis.runtime import cli

MODULES: Final = {
    "serve": "user_svc.serving",
    "worker": "user_svc.worker",
    "migrate": "user_svc.serving",
    "events": "user_svc.worker",
    "keys": "user_svc.serving",
    "sessions": "user_svc.serving",
    "admin": "user_svc.serving",
}

if __name__ == "__main__":
    cli.main("user_svc", MODULES)
