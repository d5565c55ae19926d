"""How each reason of the contract for refusing a call comes about.

Reasons that every service can give are in test_reasons.py, reasons of one service in reasons.py of its tests/services/.
The reason that a resource does not exist needs no entry if a standard method returns the resource.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chassis.testing import new_uuid
from tests.e2e.contract import BY_NAME
from tests.support.guards import modules
from tests.support.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.e2e.callers import Outcome
    from tests.e2e.contract import Rpc
    from tests.e2e.world import World

    Cause = Callable[[World], list[Outcome]]

SYSTEM: Final = "shop.system.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How a reason comes about.

    Attributes:
        cause: brings it about in every way there is, and returns what the callers heard.
        fields: the fields that the BadRequest names, where there is one.
        grpc_code: the status over gRPC, where gRPC itself has a rule that the reason's own status would break.
        has_many_words: whether the message depends on how the request was made: what is wrong with JSON is no matter
            of gRPC.
    """

    cause: Cause
    fields: tuple[str, ...] = ()
    grpc_code: str = ""
    has_many_words: bool = False


SCENARIOS: dict[tuple[str, str], Scenario] = {}


def produces(domain: str, reason: str, **expected: Any) -> Callable[[Cause], Cause]:
    """Enter the function below as the scenario of a reason."""

    def enter(cause: Cause) -> Cause:
        SCENARIOS[domain, reason] = Scenario(cause=cause, **expected)
        return cause

    return enter


def _missing_resources() -> Mapping[tuple[str, str], Scenario]:
    found = {}
    for reason in REASONS.values():
        words = re.fullmatch(r"([A-Z0-9_]+)_NOT_FOUND", reason.name)
        rpc = BY_NAME.get(f"Get{words[1].title().replace('_', '')}") if words else None
        if rpc and rpc.service.startswith(f"{reason.domain}."):
            found[reason.key] = Scenario(cause=_reads_an_unknown(rpc))
    return found


def _reads_an_unknown(rpc: Rpc) -> Cause:
    return lambda world: world.both(rpc.name, rpc.request(id=new_uuid()))


def all_scenarios() -> Mapping[tuple[str, str], Scenario]:
    """Return the scenarios that are entered by now, those of every service among them."""
    list(modules("reasons"))
    return {**_missing_resources(), **SCENARIOS}
