"""The server in memory answers as the services do: the same calls get the same answers from both, to the letter.

Ids, times and tokens differ from run to run; everything else of every answer and every error is compared, with the
details of its status and its trailers.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from chassis.service import services
from protos.testing import ShopServer
from tests.integration.conformance.scenarios import SCENARIOS
from tests.integration.conformance.worlds import RPCS, Memory, Services, packages
from tests.support.guards import modules
from tests.support.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from chassis.testing import ManualClock

# Which no scenario provokes: the edge's, and those of failures that the server in memory does not have of itself.
_NOT_PROVOKED = {
    "ROUTE_NOT_FOUND", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "RATE_LIMITED",
    "DATABASE_UNAVAILABLE", "SERVICE_UNAVAILABLE", "OVERLOADED", "DEADLINE_EXCEEDED",
    "INTERNAL", "SERVER_STOPPING", "STREAM_TOO_SLOW", "MALFORMED_REQUEST",
}  # fmt: skip
_OF_STREAMS = {"RESUME_TOKEN_EXPIRED"}


@pytest.fixture
def addresses(request: pytest.FixtureRequest) -> dict[str, str]:
    """Where each service serves, in this process: the fixture `<collection>_address` of each."""
    return {each.name: request.getfixturevalue(f"{each.collection}_address") for each in services()}


@pytest.fixture
async def real(addresses: dict[str, str], clock: ManualClock) -> AsyncIterator[Services]:
    world = Services(packages(addresses), clock=clock)
    yield world
    await world.close()


@contextlib.asynccontextmanager
async def in_memory() -> AsyncIterator[Memory]:
    with ShopServer() as server:
        world = Memory(packages(dict.fromkeys((each.name for each in services()), server.target)), server=server)
        try:
            yield world
        finally:
            await world.close()


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_both_shops_answer_the_same(scenario: str, real: Services) -> None:
    async with in_memory() as memory:
        for world in (real, memory):
            await SCENARIOS[scenario](world)

    for answered, remembered in zip(real.transcript, memory.transcript, strict=True):
        assert remembered == answered


async def test_the_scenarios_call_every_rpc_and_provoke_every_reason() -> None:
    answered: set[str] = set()
    reasons: set[str] = set()
    for scenario in SCENARIOS.values():
        async with in_memory() as world:
            await scenario(world)
        answered |= {note.split(" ")[0] for note, answer in world.transcript if isinstance(answer, dict)}
        reasons |= {reason for _, answer in world.transcript for reason in reasons_in(answer)}

    assert set(RPCS) <= answered
    assert reasons == {reason.name for reason in REASONS.values()} - not_provoked()


def not_provoked() -> set[str]:
    of_services = {reason for module in modules("conformance") for reason in getattr(module, "NOT_PROVOKED", ())}
    has_streams = any(rpc.server_streaming for rpc in RPCS.values())
    return _NOT_PROVOKED | of_services | (set() if has_streams else _OF_STREAMS)


def reasons_in(answer: Any) -> Iterator[str]:
    if isinstance(answer, list) and len(answer) == 3 and isinstance(answer[1], dict):
        yield from (detail["reason"] for detail in answer[1].get("details", ()) if "domain" in detail)
