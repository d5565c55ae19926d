"""`python -m tests.chaos.crashing STEP N worker`: a worker that kills itself (-9) at the Nth such step.

A step counts when it had something to do. Steps of a relay are the order service's, those of a consumer the auditor's.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from chassis.events.consumer_group import ConsumerGroup
from chassis.events.processor import EventProcessor
from chassis.events.relay import Relay
from chassis.runtime.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

# After which call the process dies, and what is then done and not done.
STEPS: dict[str, tuple[type, str, Callable[[Any], bool]]] = {
    "sent": (Relay, "_send", lambda arguments: bool(arguments[0])),  # published, not marked
    "read": (ConsumerGroup, "read", bool),  # delivered, without effect
    "applied": (EventProcessor, "apply", bool),  # with its effect, not acknowledged
}


def die_after(step: str, times: int) -> None:
    """Let this process kill itself when it has done the step so often."""
    owner, name, _ = STEPS[step]
    original = getattr(owner, name)
    done = 0

    def count(had_work: object) -> None:
        nonlocal done
        done += bool(had_work)
        if done >= times and had_work:
            os.kill(os.getpid(), signal.SIGKILL)

    def sync(self: object, *arguments: Any, **named: Any) -> Any:
        result = original(self, *arguments, **named)
        count(arguments[0])
        return result

    async def asynchronous(self: object, *arguments: Any, **named: Any) -> Any:
        result = await original(self, *arguments, **named)
        count(result if step == "read" else arguments[0])
        return result

    setattr(owner, name, sync if step == "sent" else asynchronous)


if __name__ == "__main__":
    step, times = sys.argv[1], int(sys.argv[2])
    del sys.argv[1:3]
    die_after(step, times)
    os.environ.setdefault("SERVICE_NAME", "order_svc" if step == "sent" else "auditor")
    main("tests.chaos.crashing", {"worker": "order_svc.worker" if step == "sent" else "tests.chaos.auditor"})
