"""The bench's own load over gRPC, against a server that gives back exactly the room that HTTP/2 says was taken."""

from __future__ import annotations

import asyncio
import struct
from unittest.mock import create_autospec

from tests.perf.grpc_load import Connection, Tally, frame

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
