"""Which process may connect, by the certificate of its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from chassis.auth.access import SERVICE_IDENTITY, AccessControl, calling_service
from chassis.auth.access_tokens import AccessTokens, TokenSettings
from chassis.context import ANONYMOUS, Caller, Role
from chassis.errors import RoleRequired
from chassis.testing import SIGNER
from tests.support.builders import a_call
from tests.support.notes_svc import notes_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from chassis.auth.access import Context

NOTES = notes_pb2.DESCRIPTOR.services_by_name["NoteService"].full_name
METHODS = (f"/{NOTES}/GetNote", "/grpc.health.v1.Health/Check")


class Connection:
    """Of a context, what says whose certificate the connection was made with."""

    def __init__(self, *names: str) -> None:
        self._identities: Sequence[bytes] | None = [name.encode() for name in names] or None

    def peer_identities(self) -> Sequence[bytes] | None:
        return self._identities


class Ring:
    async def key(self, _kid: str) -> Ed25519PublicKey:
        return SIGNER.private.public_key()


def connection_of(*services: str) -> Context:
    names = [f"{SERVICE_IDENTITY}{service}" for service in services]
    return cast("Context", Connection(*(["notes.internal"] if names else []), *names))


def access_for(allowed: Sequence[str] | None) -> AccessControl:
    return AccessControl(AccessTokens(TokenSettings(), Ring()), [NOTES], allowed_peers=allowed)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("services", [("library_svc",), (), ("edge", "library_svc")], ids=["another", "none", "two"])
async def test_a_process_that_may_not_connect_may_call_nothing(method: str, services: tuple[str, ...]) -> None:
    call = a_call(method=method, authorization=f"Bearer {SIGNER.token()}")

    with pytest.raises(RoleRequired):
        await access_for(["edge"]).admission_to(method)(call, connection_of(*services))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("allowed", "services"), [(["edge"], ("edge",)), (None, ())], ids=["allowed", "without TLS"])
async def test_a_process_that_may_connect_calls_for_the_user_of_the_token(
    method: str, allowed: list[str] | None, services: tuple[str, ...]
) -> None:
    call = a_call(method=method, authorization=f"Bearer {SIGNER.token()}")

    await access_for(allowed).admission_to(method)(call, connection_of(*services))

    assert (call.caller == ANONYMOUS) == method.startswith("/grpc.")


@pytest.mark.parametrize(
    ("services", "caller"),
    [
        (("notes_svc",), Caller(subject="notes_svc", roles=frozenset({Role.SERVICE}))),
        (("edge",), ANONYMOUS),
        ((), ANONYMOUS),
        (("notes_svc", "library_svc"), ANONYMOUS),
    ],
)
def test_a_service_speaks_for_itself_and_the_edge_for_its_callers(services: tuple[str, ...], caller: Caller) -> None:
    assert calling_service(connection_of(*services)) == caller
