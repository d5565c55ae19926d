"""Headers and trailers that HTTP/2 forbids, or that a gRPC server cannot read: they end their own call at most."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from grpc._cython import cygrpc
from shop.system.v1 import system_service_pb2

from tests.integration.envoy.test_hanging_replicas import edge_of
from tests.integration.http2 import caller_of, frame
from tests.support.hanging import Replica, serving

GET_HEALTH: Final = "/shop.system.v1.SystemService/GetHealth"
REQUEST: Final = frame(system_service_pb2.GetHealthRequest().SerializeToString())

# RFC 9113, 8.2 and 8.3.
FORBIDDEN: Final = [("connection", "close"), ("te", "gzip"), ("X-Upper", "a"), ("x-control", "\x7f"), (":path", "/b")]


def unreadable() -> list[tuple[str, str]]:
    """Return fields that gRPC's servers refuse, for each header that gRPC's library reads itself."""
    own = sorted({name.decode() for name in re.findall(rb"\bgrpc-[a-z-]+[a-z]\b", Path(cygrpc.__file__).read_bytes())})
    assert "grpc-timeout" in own
    return [(name, value) for name in own for value in ("x", "-1")] + [("x-a-bin", "%%%"), ("a&b", "c")]


async def test_a_malformed_call_does_not_end_the_others_on_its_connection(tmp_path: Path) -> None:
    replica = Replica(answers_after_s=0)

    async with serving(replica), edge_of([replica], tmp_path) as client:
        for field in FORBIDDEN:
            async with caller_of(client.base_url.netloc.decode(), is_strict=False) as caller:
                other = await caller.begin(GET_HEALTH)
                malformed = await caller.call(GET_HEALTH, REQUEST, headers=[field])
                await caller.send(other, REQUEST, ends=True)
                answer = await caller.answer(other)

            assert malformed.was_reset, field
            assert answer.code == 0, field


async def test_no_field_of_a_caller_makes_a_service_answer_that_it_is_defect(tmp_path: Path) -> None:
    replica = Replica(answers_after_s=0)
    answers = {}

    async with (
        serving(replica),
        edge_of([replica], tmp_path) as client,
        caller_of(client.base_url.netloc.decode(), is_strict=False) as caller,
    ):
        for field in unreadable():
            answers[f"header {field}"] = await caller.call(GET_HEALTH, REQUEST, headers=[field])
            answers[f"trailer {field}"] = await caller.call(GET_HEALTH, REQUEST, trailers=[field])

    refused = {field: answer for field, answer in answers.items() if answer.code != 0}
    assert {field: (answer.code, answer.reason) for field, answer in refused.items()} == dict.fromkeys(
        refused, (3, "MALFORMED_REQUEST")
    )
    assert not [field for field in refused if field.startswith("trailer")]
