"""A channel that is renewed under its stubs, against a real server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import aio

from chassis.auth.certificates import CertificateFiles
from chassis.client import connect, renewable
from chassis.client.renewable import RenewableChannel
from devstack.certificates import Certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass
class Target:
    """A server whose one method answers who called, once it may."""

    address: str = ""
    has_arrived: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def connect(self) -> aio.Channel:
        # Without its own pool, two channels would share a connection, which with TLS they do not.
        return aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])

    async def answer(self, _request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        self.has_arrived.set()
        await self.may_answer.wait()
        return context.peer().encode()


def a_server(behaviour: Any) -> aio.Server:
    server = aio.server()
    handler = grpc.unary_unary_rpc_method_handler(behaviour)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": handler}),))
    return server


def identity_of(files: Path) -> CertificateFiles:
    return CertificateFiles(files / "tls.crt", files / "tls.key", files / "ca.crt")


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    target = Target()
    server = a_server(target.answer)
    target.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield target
    await server.stop(0)


async def test_calls_after_a_renewal_take_the_new_connection(target: Target) -> None:
    target.may_answer.set()
    async with RenewableChannel(target.connect) as channel:
        call = channel.unary_unary("/a.B/C")
        before = [await call(b""), await call(b"")]

        await channel.renew()

        after = [await call(b""), await call(b"")]
    assert len(set(before)) == len(set(after)) == 1
    assert before != after


async def test_a_renewed_channel_shows_its_new_certificate(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "tls")
    certificates.prepare()
    server_files, client_files = (identity_of(certificates.folder_of(name).path) for name in ("rate_limiter", "edge"))

    async def certificate_of_caller(_request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        return context.auth_context()["x509_pem_cert"][0]

    server = a_server(certificate_of_caller)
    port = server.add_secure_port("127.0.0.1:0", server_files.server_credentials())
    await server.start()

    def connect_to_server() -> aio.Channel:
        return connect(f"127.0.0.1:{port}", credentials=client_files.channel_credentials(), server_name="rate-limiter")

    async with RenewableChannel(connect_to_server) as channel:
        call = channel.unary_unary("/a.B/C")
        before = await call(b"")
        certificates.rotate()

        await channel.renew()

        after = await call(b"")
    await server.stop(0)
    assert after != before
    assert after == (certificates.folder_of("edge").path / "tls.crt").read_bytes()


async def test_a_call_under_way_survives_a_renewal(target: Target) -> None:
    async with RenewableChannel(target.connect) as channel:
        running = channel.unary_unary("/a.B/C")(b"")
        await target.has_arrived.wait()

        await channel.renew()
        await asyncio.sleep(0)  # a turn of the loop, in which the old channel may be closed, but not yet

        target.may_answer.set()
        assert await running


async def test_a_renewal_that_does_not_connect_changes_nothing(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewable, "_READY_TIMEOUT_S", 0.2)
    target.may_answer.set()
    async with RenewableChannel(target.connect) as channel:
        call = channel.unary_unary("/a.B/C")
        before = await call(b"")
        target.address = "127.0.0.1:1"

        with pytest.raises(TimeoutError):
            await channel.renew()

        assert await call(b"") == before
