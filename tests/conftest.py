"""The environment of every test of every suite."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Settings of the services. One that is set in a developer's shell would make a test pass or fail on that machine only.
_SETTINGS = (
    "ARGON2_",
    "BREAKER_",
    "DATABASE_",
    "DRAIN_S",
    "GRPC_",
    "HOST",
    "LOG_LEVEL",
    "MAX_CALL_S",
    "MAX_CONNECTION_AGE_S",
    "MAX_STREAM_S",
    "PASSWORD_",
    "PORT",
)
_SETTINGS += ("CONSUMER_", "KEYS_", "LOG_DIR", "METRICS_PORT", "OTEL_", "REDIS_", "RELAY_", "SECRETS_DIR")
_SETTINGS += ("SERVICE_", "SESSION_", "STOP_GRACE_S", "TLS_", "TOKEN_", "USER_SERVICE_", "WATCH_")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_the_shell() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(_SETTINGS) and name != "HOSTNAME":
                patch.delenv(name)
        yield
