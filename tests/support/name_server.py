"""A name server on loopback, whose addresses a test changes while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class NameServer(asyncio.DatagramProtocol):
    """Answers every query of type A with its addresses; it has no other records.

    Attributes:
        ttls_s: for how long each of the next answers may be cached; the last number stays.
        addresses: of every name, from the next query on.
        port: of 127.0.0.1, for UDP.
        questions: the number of answered queries.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self.ttls_s = [0]
        self.port = 0
        self.questions = 0
        self._transport: asyncio.DatagramTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = dns.message.from_wire(data)
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        (asked,) = question.question
        if asked.rdtype == dns.rdatatype.A and self.addresses:
            ttl_s = self.ttls_s.pop(0) if len(self.ttls_s) > 1 else self.ttls_s[0]
            answer.answer.append(dns.rrset.from_text(asked.name, ttl_s, "IN", "A", *self.addresses))
        self.questions += 1
        assert self._transport
        self._transport.sendto(answer.to_wire(), addr)


@contextlib.asynccontextmanager
async def name_server(*addresses: str) -> AsyncIterator[NameServer]:
    """Serve while the block runs."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: NameServer(addresses), local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
