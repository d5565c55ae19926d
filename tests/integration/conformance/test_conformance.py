"""The server in memory answers as the services do: the same calls get the same answers from both, to the letter.

Ids, times and tokens differ from run to run; everything else of every answer and every error is compared, with the
details of its status and its trailers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from shop.order.v1 import error_reason_pb2 as order_reasons
from shop.system.v1 import error_reason_pb2 as system_reasons
from shop.user.v1 import error_reason_pb2 as user_reasons

from protos.testing import ShopServer
from tests.integration.conformance.scenarios import SCENARIOS
from tests.integration.conformance.worlds import RPCS, Memory, Services, packages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from chassis.testing import ManualClock

# Which no scenario provokes: the edge's, and those of failures that the server in memory does not have of itself.
_NOT_PROVOKED = {
    "ROUTE_NOT_FOUND", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "RATE_LIMITED",
    "DATABASE_UNAVAILABLE", "SERVICE_UNAVAILABLE", "USER_SERVICE_UNAVAILABLE", "OVERLOADED", "DEADLINE_EXCEEDED",
    "INTERNAL", "SERVER_STOPPING", "STREAM_TOO_SLOW", "MALFORMED_REQUEST",
}  # fmt: skip


@pytest.fixture
async def services(users_address: str, orders_address: str, clock: ManualClock) -> AsyncIterator[Services]:
    world = Services(packages({"user_svc": users_address, "order_svc": orders_address}), clock=clock)
    yield world
    await world.close()


@pytest.fixture
async def memory() -> AsyncIterator[Memory]:
    with ShopServer() as server:
        world = Memory(packages({"user_svc": server.target, "order_svc": server.target}), server=server)
        yield world
        await world.close()


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_both_shops_answer_the_same(scenario: str, services: Services, memory: Memory) -> None:
    for world in (services, memory):
        await SCENARIOS[scenario](world)

    for real, remembered in zip(services.transcript, memory.transcript, strict=True):
        assert remembered == real


async def test_the_scenarios_call_every_rpc_and_provoke_every_reason() -> None:
    answered: set[str] = set()
    reasons: set[str] = set()
    for scenario in SCENARIOS.values():
        with ShopServer() as server:
            world = Memory(packages({"user_svc": server.target, "order_svc": server.target}), server=server)
            await scenario(world)
            await world.close()
        answered |= {note.split(" ")[0] for note, answer in world.transcript if isinstance(answer, dict)}
        reasons |= {reason for _, answer in world.transcript for reason in reasons_in(answer)}

    assert set(RPCS) <= answered
    assert reasons == contract_reasons() - _NOT_PROVOKED


def reasons_in(answer: Any) -> Iterator[str]:
    if isinstance(answer, list) and len(answer) == 3 and isinstance(answer[1], dict):
        yield from (detail["reason"] for detail in answer[1].get("details", ()) if "domain" in detail)


def contract_reasons() -> set[str]:
    enums = (order_reasons.ErrorReason, system_reasons.ErrorReason, user_reasons.ErrorReason)
    names = {name.removeprefix("ERROR_REASON_") for enum in enums for name in enum.keys()}  # noqa: SIM118  no mapping
    return names - {"UNSPECIFIED"}
