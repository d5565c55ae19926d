"""Thousands of requests that are wrong in random ways: no 5xx, no answer of another shape."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest
from google.protobuf import json_format

from tests.e2e.callers import require_clean_error
from tests.e2e.contract import RPCS
from tests.e2e.mutations import Mutator
from tests.e2e.world import request_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.e2e.callers import Edge
    from tests.e2e.contract import Json, Rpc
    from tests.e2e.mutations import Case
    from tests.e2e.world import World

# FUZZ_SEED=random makes each run different; a failure prints the seed and the request.
SEED = os.environ.get("FUZZ_SEED", "20261123")
# A tenth of what `make test-fuzz` sends. They provoke every status that the test asks for.
CASES = int(os.environ.get("FUZZ_CASES", "500"))
_AT_ONCE = 12
_GOOD_ONES_EACH = 12


@pytest.mark.timeout(300)
async def test_no_bad_request_makes_the_system_fail(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    seed = str(random.SystemRandom().getrandbits(32)) if SEED == "random" else SEED
    mutator = Mutator(random.Random(seed), _good_requests(world))
    cases = (mutator.case() for _ in range(CASES))

    statuses, complaints = await _send_all(world.edge, cases)

    with capsys.disabled():
        counts = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
        print(f"\n{CASES} random requests, seed {seed}: {counts}")  # noqa: T201  the figures are the point
    assert not complaints, "\n\n".join(complaints)
    assert statuses.total() == CASES
    assert {200, 201, 400, 404, 415} <= statuses.keys(), "the requests have become too bad or too good to test much"


def _good_requests(world: World) -> Mapping[str, list[Json]]:
    return {rpc.name: [request_json(world.request(rpc.name)) for _ in range(_GOOD_ONES_EACH)] for rpc in RPCS}


async def _send_all(edge: Edge, cases: Iterator[Case]) -> tuple[Counter[int], list[str]]:
    """Return how often which status came, and what was wrong with the answers."""
    statuses: Counter[int] = Counter()
    complaints: list[str] = []

    async def send_some(client: httpx.AsyncClient) -> None:
        for case in cases:
            try:
                statuses[await _send(client, case)] += 1
            except (AssertionError, httpx.HTTPError, ValueError) as error:
                complaints.append(f"{case!r:.1500}\n    -> {error!r:.1500}")

    limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
    async with httpx.AsyncClient(
        base_url=edge.url, timeout=30, limits=limits, trust_env=False, headers=edge.http.headers
    ) as client:
        await asyncio.gather(*(send_some(client) for _ in range(_AT_ONCE)))
    return statuses, complaints


async def _send(client: httpx.AsyncClient, case: Case) -> int:
    """Return the status of the answer.

    Raises:
        AssertionError: it is no answer that the contract knows.
    """
    # Not as the URL, which httpx would put in order.
    as_it_is = {"target": case.target.encode()}
    request = client.build_request(case.verb, "/", content=case.body, headers=dict(case.headers), extensions=as_it_is)
    response = await client.send(request, stream=True)
    if response.headers.get("content-type") == "text/event-stream":
        await response.aclose()
        return response.status_code
    await response.aread()
    if response.headers.get("content-encoding") == "zstd":  # which nothing here can read
        return response.status_code
    if response.status_code >= 400:
        require_clean_error(response)
        return response.status_code
    if response.status_code == 302:
        assert response.headers["location"] == "/docs"
        return response.status_code
    assert response.status_code in {200, 201}
    assert response.headers.get("content-type") == "application/json" or "/healthz" in case.path, response.headers
    # A mutated path may be another method's.
    answerers = RPCS if case.mutations else [case.binding.rpc]
    assert any(_is_reply(response.json(), rpc) for rpc in answerers), response.text
    return response.status_code


def _is_reply(body: Json, rpc: Rpc) -> bool:
    try:
        json_format.ParseDict(body, rpc.reply())
    except json_format.ParseError:
        return False
    return True
