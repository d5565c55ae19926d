"""The modules in which a promise of the system is kept: what a caller or an operator counts on without seeing it."""

from __future__ import annotations

from typing import Final

MODULES: Final = (
    *(
        f"chassis/{name}.py"
        for name in ("batching", "pagination", "idempotency", "inbox", "consumer", "outbox", "feed")
    ),
    *(f"order_svc/{name}.py" for name in ("model", "service")),
    *(f"chassis/{name}.py" for name in ("tokens", "breaker", "interceptors/access")),
    *(f"user_svc/{name}.py" for name in ("session_service", "session_model", "session_repository")),
    *(f"order_svc/{name}.py" for name in ("repository", "projection", "consumer", "known_users")),
    *(f"user_svc/{name}.py" for name in ("model", "service", "repository", "keys", "passwords")),
    *(f"user_svc/{name}.py" for name in ("attempts", "attempt_repository")),
    *(
        f"chassis/{name}.py"
        for name in ("consumer_group", "relay", "watchers", "statements", "turns", "keyring", "replay")
    ),
    *(f"chassis/{name}.py" for name in ("requests", "conversions", "cloudevents", "clients", "stream")),
    *(f"chassis/interceptors/{name}.py" for name in ("__init__", "errors", "validation", "streams")),
    *(f"chassis/interceptors/{name}.py" for name in ("bounds", "client", "receiving")),
    *("order_svc/rpc.py", "order_svc/users.py", "user_svc/rpc.py"),
)
