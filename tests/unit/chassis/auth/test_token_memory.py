from __future__ import annotations

import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chassis.auth import access_tokens
from chassis.auth.access_tokens import AccessTokens, TokenSettings
from chassis.context import Role
from chassis.errors import TokenExpired, TokenInvalid
from chassis.testing import SIGNER, new_uuid, until


class Ring:
    """The keys that are published, by their ids."""

    def __init__(self) -> None:
        self.keys = {SIGNER.kid: SIGNER.private.public_key()}

    async def key(self, kid: str) -> Ed25519PublicKey | None:
        return self.keys.get(kid)


@pytest.fixture
def ring() -> Ring:
    return Ring()


@pytest.fixture
def access(ring: Ring) -> AccessTokens:
    return AccessTokens(TokenSettings(leeway_s=0), ring)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens whose signatures were checked."""
    seen: list[str] = []
    decode = jwt.decode

    def watched(token: str, *args: object, **options: object) -> object:
        seen.append(token)
        return decode(token, *args, **options)

    monkeypatch.setattr(jwt, "decode", watched)
    return seen


async def test_a_signature_is_checked_once(access: AccessTokens, checked: list[str]) -> None:
    user = new_uuid()
    token = SIGNER.token(subject=user)

    callers = [await access.caller(token) for _ in range(3)]

    assert checked == [token]
    assert {caller.subject for caller in callers} == {user}


async def test_tokens_of_two_sessions_are_not_confused(access: AccessTokens) -> None:
    tokens = {SIGNER.token(subject=user): user for user in (new_uuid(), new_uuid())}

    for token, user in [*tokens.items(), *tokens.items()]:
        assert (await access.caller(token)).subject == user


async def test_a_remembered_token_is_accepted_until_it_expires(access: AccessTokens) -> None:
    token = SIGNER.token(exp=int(time.time()) + 2)
    await access.caller(token)

    async def is_refused() -> bool:
        try:
            await access.caller(token)
        except TokenExpired:
            return True
        return False

    await until(is_refused)


async def test_a_caller_expires_with_the_token_plus_the_leeway_of_clocks(ring: Ring) -> None:
    access = AccessTokens(TokenSettings(leeway_s=7), ring)
    expiry = int(time.time()) + 60

    caller = await access.caller(SIGNER.token(exp=expiry))

    assert caller.expires_at_s == expiry + 7


async def test_a_remembered_token_is_refused_once_its_key_is_withdrawn(access: AccessTokens, ring: Ring) -> None:
    token = SIGNER.token()
    await access.caller(token)

    ring.keys.clear()

    with pytest.raises(TokenInvalid):
        await access.caller(token)


async def test_a_remembered_token_is_refused_once_its_key_is_replaced(access: AccessTokens, ring: Ring) -> None:
    token = SIGNER.token()
    await access.caller(token)

    ring.keys[SIGNER.kid] = Ed25519PrivateKey.generate().public_key()

    with pytest.raises(TokenInvalid):
        await access.caller(token)


async def test_a_key_that_was_fetched_again_is_the_same_key(
    access: AccessTokens, ring: Ring, checked: list[str]
) -> None:
    token = SIGNER.token(roles=(Role.ADMIN,))
    await access.caller(token)

    ring.keys[SIGNER.kid] = Ed25519PublicKey.from_public_bytes(SIGNER.private.public_key().public_bytes_raw())
    caller = await access.caller(token)

    assert caller.roles == {Role.ADMIN}
    assert checked == [token]


async def test_a_token_that_was_refused_is_refused_again(access: AccessTokens) -> None:
    token = SIGNER.token(aud="bank")

    for _ in range(2):
        with pytest.raises(TokenInvalid):
            await access.caller(token)


async def test_the_oldest_remembered_token_is_evicted_first(
    access: AccessTokens, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_tokens, "_CACHE_SIZE", 2)
    first, second, third = (SIGNER.token() for _ in range(3))

    for token in (first, second, third, second, third, first):
        await access.caller(token)

    assert checked == [first, second, third, first]
