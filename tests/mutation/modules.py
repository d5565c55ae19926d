"""The modules in which a promise of the system is kept: what a caller or an operator counts on without seeing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT: Final = Path(__file__).parents[2]
_PACKAGES: Final = {
    "chassis/concurrency": "batcher limiter",
    "chassis/database": "statement_pool loop_connection",
    "chassis/idempotency": "key store inserts transactions",
    "chassis/events": "outbox relay relay_state recovery stream replay consumer consumer_group processor inbox"
    " cloudevents",
    "chassis/watch": "changefeed feed hub subscription",
    "chassis/auth": "access access_tokens claims remote_keys",
    "chassis/server": "method_wrapper stream_wrapper call_facts receiving bounds validation"
    " status if_match pagination conversions",
    "chassis/client": "channel errors hedging interceptors policy telemetry breaker",
}

# Modules of a service that only put others together or describe them.
_WITHOUT_PROMISE: Final = frozenset(
    {"__init__", "__main__", "composition", "errors", "events", "metrics", "serving", "settings", "tables", "worker"}
)


def _of_services() -> Iterator[str]:
    """Yield the modules of every service in which there are promises."""
    for declaration in sorted(_ROOT.glob("*/service.toml")):
        for path in sorted(declaration.parent.rglob("*.py")):
            if path.stem not in _WITHOUT_PROMISE and "migrations" not in path.parts:
                yield str(path.relative_to(_ROOT))


MODULES: Final = (
    *(f"{package}/{name}.py" for package, names in _PACKAGES.items() for name in names.split()),
    *_of_services(),
)
