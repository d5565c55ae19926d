"""Mutual TLS: a server admits the peers that its settings name, and knows services by their certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from shop.system.v1.system_service_pb2 import GetHealthRequest
from shop.system.v1.system_service_pb2_grpc import SystemServiceStub

from chassis.auth.certificates import TlsSettings
from chassis.client import reason_of
from chassis.testing import new_uuid
from devstack.certificates import Certificates, Subject
from tests.integration.chassis.notes import notes_service
from tests.integration.inprocess import database_settings
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import KeyServiceStub, NoteServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.integration.databases import TestDatabase

    Call = Callable[[aio.Channel], Any]

HOST: Final = "notes-svc"
REFUSED: Final = (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
NO_CONNECTION: Final = (grpc.StatusCode.UNAVAILABLE, "")


def check_health(channel: aio.Channel) -> Any:
    return HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)


def get_health(channel: aio.Channel) -> Any:
    return SystemServiceStub(channel).GetHealth(GetHealthRequest(), timeout=5)


def get_keys(channel: aio.Channel) -> Any:
    return KeyServiceStub(channel).GetKeys(pb.GetKeysRequest(), timeout=5)


def find_notes(channel: aio.Channel) -> Any:
    return NoteServiceStub(channel).FindNotes(pb.FindNotesRequest(ids=[new_uuid()]), timeout=5)


CALLS: Final = (check_health, get_health, get_keys, find_notes)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    certificates = Certificates(tmp_path / "tls")
    certificates.prepare()
    return certificates


def issued(certificates: Certificates, name: str, *hosts: str) -> Path:
    """Return the folder of a new certificate with this name."""
    folder = certificates.folder / f"of-{name}"
    certificates.issue(Subject(name, hosts=hosts), into=folder)
    return folder


@pytest.fixture
async def address(certificates: Certificates, notes_database: TestDatabase) -> AsyncIterator[str]:
    """A notes service that admits the edge and a service `reader`."""
    own = issued(certificates, "notes_svc", HOST)
    tls = TlsSettings(
        cert_file=own / "tls.crt", key_file=own / "tls.key", ca_file=own / "ca.crt", allowed_peers=("edge", "reader")
    )
    async with notes_service(database_settings(notes_database.url), tls=tls) as address:
        yield address


def channel_of(files: Path | None, address: str, *, authority: Path, host: str = HOST) -> aio.Channel:
    """Connect as the process that these files belong to would; without files, as one without a certificate."""
    own = [(files / name).read_bytes() for name in ("tls.key", "tls.crt")] if files else []
    credentials = grpc.ssl_channel_credentials(authority.read_bytes(), *own)
    options = [("grpc.default_authority", host), ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    return aio.secure_channel(address, credentials, options=options)


async def failure_of(call: Call, channel: aio.Channel) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(aio.AioRpcError) as failed:
        await call(channel)
    return failed.value.code(), reason_of(failed.value)


async def test_a_peer_of_the_settings_is_admitted(address: str, certificates: Certificates) -> None:
    edge = certificates.folder_of("edge").path

    async with channel_of(edge, address, authority=certificates.authority) as channel:
        assert (await check_health(channel)).status == health_pb2.HealthCheckResponse.SERVING
        assert await get_health(channel)
        assert (await get_keys(channel)).keys


async def test_the_certificate_of_a_service_identifies_it_and_the_edges_does_not(
    address: str, certificates: Certificates
) -> None:
    authority = certificates.authority

    async with channel_of(issued(certificates, "reader"), address, authority=authority) as channel:
        assert list((await find_notes(channel)).ids) == []
    async with channel_of(certificates.folder_of("edge").path, address, authority=authority) as channel:
        assert await failure_of(find_notes, channel) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


@pytest.mark.parametrize("name", ["stranger", "notes_svc"])
async def test_a_stranger_with_a_certificate_of_our_ca_may_call_nothing(
    address: str, certificates: Certificates, name: str
) -> None:
    files = certificates.folder / f"of-{name}"  # its own certificate is no peer's either
    files = files if files.exists() else issued(certificates, name)

    async with channel_of(files, address, authority=certificates.authority) as channel:
        assert [await failure_of(call, channel) for call in CALLS] == [REFUSED] * len(CALLS)


async def test_without_a_certificate_of_our_ca_there_is_no_connection(
    address: str, certificates: Certificates, tmp_path: Path
) -> None:
    theirs = Certificates(tmp_path / "theirs")
    theirs.prepare()

    for files in (None, theirs.folder_of("edge").path):
        async with channel_of(files, address, authority=certificates.authority) as channel:
            assert await failure_of(get_keys, channel) == NO_CONNECTION
    async with aio.insecure_channel(address) as channel:
        assert await failure_of(get_keys, channel) == NO_CONNECTION


async def test_a_client_refuses_a_server_with_another_name(address: str, certificates: Certificates) -> None:
    edge = certificates.folder_of("edge").path

    async with channel_of(edge, address, authority=certificates.authority, host="other-svc") as channel:
        assert await failure_of(get_keys, channel) == NO_CONNECTION


async def test_certificates_that_are_replaced_are_shown_on_new_connections(
    address: str, certificates: Certificates, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh"
    certificates.issue(Subject("notes_svc", hosts=("renamed-svc",)), into=fresh)
    for name in ("tls.crt", "tls.key"):
        (fresh / name).replace(certificates.folder / "of-notes_svc" / name)
    edge = certificates.folder_of("edge").path

    async with channel_of(edge, address, authority=certificates.authority, host="renamed-svc") as channel:
        assert (await get_keys(channel)).keys
