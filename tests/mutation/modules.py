"""The modules in which a promise of the system is kept: what a caller or an operator counts on without seeing it."""

from __future__ import annotations

from typing import Final

_PACKAGES: Final = {
    "chassis/concurrency": "batcher limiter",
    "chassis/database": "statement_pool",
    "chassis/idempotency": "key store inserts transactions",
    "chassis/events": "outbox relay relay_state recovery stream replay consumer consumer_group processor inbox"
    " cloudevents",
    "chassis/watch": "changefeed feed hub subscription",
    "chassis/auth": "access access_tokens claims remote_keys",
    "chassis/server": "method_wrapper stream_wrapper receiving bounds validation"
    " status if_match pagination conversions",
    "chassis/client": "channel errors hedging interceptors policy telemetry breaker",
    "order_svc": "model commands service repository buyers buyer_client buyer_projection deleted_buyers consumer rpc",
    "user_svc": "model service repository rpc keys passwords attempts attempt_repository",
    "user_svc/sessions": "model service repository",
}

MODULES: Final = tuple(f"{package}/{name}.py" for package, names in _PACKAGES.items() for name in names.split())
