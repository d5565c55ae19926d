"""`python -m user_svc serve | worker | migrate | events … | keys … | sessions … | admin …`."""

from typing import Final

from chassis.runtime import cli

MODULES: Final = cli.modules_of("user_svc", serving=("keys", "sessions", "admin"))

if __name__ == "__main__":
    cli.main("user_svc", MODULES)
