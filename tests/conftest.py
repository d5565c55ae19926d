"""The environment of every test of every suite."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling

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


_WITH_A_STACK_OF_THEIR_OWN = {f"tests/e2e/test_{name}.py" for name in ("cost", "edge_hardening", "traces")}


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_the_shell() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(_SETTINGS) and name != "HOSTNAME":
                patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _plain_exceptions_in_logs() -> None:
    """Let structlog write exceptions as Python does, and no colours.

    rich draws all local variables, for a second of CPU each time.
    """
    *others, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*others, plain])


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what the collection has made, 300,000 objects: a look at them takes 0.3 s.

    Meanwhile a service in this process answers no call, and a thread that holds a row lock keeps it.
    """
    gc.collect()
    gc.freeze()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Keep a file's tests on one worker, and likewise all files of e2e that share a stack: a start is 15 s of CPU."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415  only where xdist distributes tests

    class SharedStack(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            shares = file.startswith("tests/e2e/") and file not in _WITH_A_STACK_OF_THEIR_OWN
            return "tests/e2e" if shares else file

    return SharedStack(config, log)
