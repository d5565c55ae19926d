"""A refusal that a test asks of the server in memory is one that the services give: text, facts, details, trailers."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import pytest
from google.rpc import error_details_pb2
from shop.system.v1.access_pb2 import access
from shop.user.v1.user_service_pb2 import UpdateUserRequest
from typing_extensions import override

from chassis.server.status import code_of, status_of
from chassis.service import services
from envoy.errors import rate_limited
from protos.testing import ShopServer, refusals
from tests.integration.conformance.requests import good_request, token_for
from tests.integration.conformance.scenarios import SCENARIOS
from tests.integration.conformance.test_conformance import reasons_in
from tests.integration.conformance.worlds import RPCS, Memory, packages
from tests.support.reasons import REASONS, Reason

if TYPE_CHECKING:
    from google.protobuf.message import Message

# The edge answers them to what is no valid call of an rpc.
NO_CALL: Final = {"ROUTE_NOT_FOUND", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"}


class Recorded(Memory):
    """The server in memory, with the refusals that its calls got by themselves, by rpc and reason."""

    def __init__(self, server: ShopServer) -> None:
        super().__init__(packages(dict.fromkeys((each.name for each in services()), server.target)), server=server)
        self.refused: dict[tuple[str, str], set[str]] = defaultdict(set)

    @override
    async def call(self, rpc: str, request: Message, **options: Any) -> Any:
        answer = await super().call(rpc, request, **options)
        refused = self.transcript[-1][1]
        for reason in reasons_in(refused):
            self.refused[rpc, reason].add(plain(refused))
        return answer


def plain(refused: Any) -> str:
    """Return a refusal without the ids, versions and times in it."""
    text = json.dumps(refused, sort_keys=True)
    for pattern, name in ((r"id-\d+", "<id>"), (r'"v\d+"', '"<etag>"'), (r'"retryDelay": "\d+s"', '"retryDelay": ""')):
        text = re.sub(pattern, name, text)
    return re.sub(r'"retry-after": "\d+"', '"retry-after": ""', text)


def test_a_refusal_that_a_test_asks_for_is_one_that_the_services_give() -> None:
    asked, given = asyncio.run(_asked_and_given())

    assert {each: answer for each, answer in asked.items() if answer not in given[each]} == {}
    assert {reason for _, reason in asked} >= {"ETAG_MISMATCH", "ROLE_REQUIRED", "INVALID_FIELDS"}


async def _asked_and_given() -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], set[str]]]:
    """Return each refusal that refuse() makes of an rpc, and all that the rpc gives by itself, by rpc and reason.

    test_both_shops_answer_the_same compares the latter with the services.
    """
    given: dict[tuple[str, str], set[str]] = defaultdict(set)
    for scenario in SCENARIOS.values():
        with ShopServer() as server:
            world = Recorded(server)
            await scenario(world)
            await world.close()
        for each, answers in world.refused.items():
            given[each] |= answers
    asked = {}
    with ShopServer() as server:
        world = Recorded(server)
        for rpc, reason in sorted(given):
            owner = await world.person()
            request = await good_request(world, rpc, of=owner)
            server.refuse(reason, rpc=rpc)
            token = "" if RPCS[rpc].GetOptions().Extensions[access].public else token_for(world, rpc, owner)
            await world.call(rpc, request, token=token)
            asked[rpc, reason] = plain(world.transcript[-1][1])
        await world.close()
    return asked, given


def test_every_reason_of_a_call_can_be_asked_for() -> None:
    assert {reason.name for reason in REASONS.values()} - refusals.reasons() == NO_CALL


@pytest.mark.parametrize(
    "reason", [each for each in REASONS.values() if each.name not in NO_CALL], ids=lambda each: each.name
)
def test_a_refusal_has_the_code_the_facts_and_the_details_of_its_reason(reason: Reason) -> None:
    package = reason.domain if reason.domain != "shop.system.v1" else "shop.user.v1"
    [method, *_] = [
        f"/{rpc.containing_service.full_name}/{name}"
        for name, rpc in RPCS.items()
        if rpc.containing_service.file.package == package and name.startswith(("Update", "Create"))
    ]
    request = UpdateUserRequest(id="019b2f0a-5b1e-7c0d-8a44-3c9f2b7e6d10")

    error = refusals.refusal(reason.name, method=method, request=request)

    assert (error.domain, error.reason, code_of(error).name) == (reason.domain, reason.name, reason.code)
    assert error.metadata.keys() >= reason.metadata
    assert "some" not in error.metadata.values()
    details = {each.Unpack for each in status_of(error).details}
    for kind in (error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
        assert any(unpack(kind()) for unpack in details) == (kind.DESCRIPTOR.name in reason.text), kind


def test_the_limit_is_told_as_the_edge_tells_it() -> None:
    assert refusals.RateLimited().message == rate_limited(1).message
