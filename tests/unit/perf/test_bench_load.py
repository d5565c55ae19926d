"""The bench's own load over gRPC, against a server that gives back exactly the room that HTTP/2 says was taken."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING
from unittest.mock import create_autospec

from tests.perf.grpc_load import Connection, Tally, frame
from tests.perf.open_loop import Spec, requests_of

if TYPE_CHECKING:
    from pathlib import Path

_DATA, _HEADERS, _WINDOW_UPDATE = 0, 1, 8
_END_STREAM = 1
_MESSAGE = b"x" * 38


async def test_a_connection_never_runs_out_of_room() -> None:
    transport = create_autospec(asyncio.Transport, instance=True)
    tally = Tally([])
    connection = Connection([(":path", "/a.B/C")], message=lambda: _MESSAGE, in_flight=1, tally=tally)
    connection.connection_made(transport)
    taken = struct.pack(">I", 5 + len(_MESSAGE))

    for call in range(10_000):
        stream = 2 * call + 1
        answer = frame(_DATA, 0, stream, b"\0\0\0\0\1x") + frame(_HEADERS, _END_STREAM, stream)
        connection.data_received(answer + frame(_WINDOW_UPDATE, 0, 0, taken))
        assert transport.write.call_args.args[0].endswith(_MESSAGE)

    assert (len(tally.latencies_s), tally.failed) == (10_000, 0)


def test_writes_are_spread_evenly_among_reads(tmp_path: Path) -> None:
    bodies = tmp_path / "orders.json"
    bodies.write_text('{"n": 1}\n{"n": 2}\n')
    spec = Spec(address="a:1", paths="", token="t", rate=1, seconds=1, bodies=str(bodies), writes=0.2)

    requests = requests_of(spec, [f"/api/v1/users/{number}" for number in range(10)])

    verbs = [request.split()[0].decode() for request in requests]
    assert verbs == ["GET", "GET", "GET", "GET", "POST"] * 2
    assert requests[4].endswith(b"Content-Length: 8\r\n\r\n" + b'{"n": 1}')
