"""How a channel makes its calls: deadlines, retries, hedging, observation."""

import json
from dataclasses import dataclass
from typing import Final, Protocol


class Observation(Protocol):
    """The observation of one call.

    Attributes:
        traceparent: the header to send; empty for none.
    """

    traceparent: str

    def end(self, code: str) -> None:
        """Record the end of the call, with the name of its status code."""


class Observer(Protocol):
    """Observes calls, for metrics and traces."""

    def begin(self, method: str) -> Observation:
        """Record the start of a call of `/package.Service/Method`."""


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How a channel makes its calls.

    Attributes:
        timeout_s: the deadline of a call that names none.
        max_attempts: how often a call is tried in all if the server is UNAVAILABLE and does not say when to come again.
            1 to 5.
        hedge_after_s: if a read has no answer after this time, it is sent to the next replica too, and the first answer
            counts. At most three tries, within the call's deadline. None disables hedging. Writes and streams are never
            hedged.
        observer: observes every unary call of an asyncio channel; other calls are not observed.
    """

    timeout_s: float = 10
    max_attempts: int = 3
    hedge_after_s: float | None = None
    observer: Observer | None = None

    def service_config(self) -> str:
        """Return the gRPC service config, as JSON."""
        config: dict[str, object] = {
            # Distributes calls over all replicas; by default one long-lived connection would take all calls to one.
            "loadBalancingConfig": [{"round_robin": {}}],
            # If more than about a tenth of the calls fail, retries stop: they would keep an overloaded service down.
            "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        }
        if self.max_attempts > 1:
            retry_policy = {
                "maxAttempts": self.max_attempts,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            }
            config["methodConfig"] = [{"name": [{}], "retryPolicy": retry_policy}]
        return json.dumps(config)


DEFAULT_POLICY: Final = CallPolicy()
