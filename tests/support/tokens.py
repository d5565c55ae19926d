"""Access tokens that are none, or no longer are, by what is wrong with them."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from grpc import StatusCode

from chassis.testing import SIGNER, bearer, refusal_of, token_of

if TYPE_CHECKING:
    from collections.abc import Callable

DROPPED = object()
DEEP = b'{"a":' * 600

# Nothing is decided by it, and tokens of the release before have none.
NOT_NEEDED = {"client_id"}


def claims_of(user_id: str, **changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, but for the changes."""
    good = jwt.decode(token_of(user_id), options={"verify_signature": False})
    return {name: value for name, value in {**good, **changes}.items() if value is not DROPPED}


def encoded(part: object) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(claims: object, *, key: Ed25519PrivateKey = SIGNER.private, **header: Any) -> str:
    """Return a token with a good signature, whatever it says."""
    fields = {"alg": "EdDSA", "typ": "at+jwt", "kid": SIGNER.kid, **header}
    head = {name: value for name, value in fields.items() if value is not DROPPED}
    content = f"{encoded(head)}.{encoded(claims)}"
    return f"{content}.{encoded(key.sign(content.encode()))}"


def by_library(claims: dict[str, Any], key: Any, alg: str) -> str:
    return jwt.encode(claims, key, algorithm=alg, headers={"kid": SIGNER.kid, "typ": "at+jwt"})


def with_secret(claims: dict[str, Any], secret: bytes) -> str:
    # The library refuses to sign with what looks like a public key, so by hand.
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    content = f"{encoded({'alg': 'HS256', 'typ': 'at+jwt', 'kid': SIGNER.kid})}.{encoded(claims)}"
    return f"{content}.{encoded(algorithm.sign(content.encode(), secret))}"


def corpus(user_id: str) -> dict[str, str]:
    """Return tokens that are none, or no longer are, by what is wrong with them."""
    now = int(time.time())
    good = token_of(user_id)
    head, body, signature = good.split(".")
    public = SIGNER.private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    alone = {"alg": "none", "typ": "at+jwt", "kid": SIGNER.kid}

    def claims(**changes: Any) -> dict[str, Any]:
        return claims_of(user_id, **changes)

    return {
        "alg none": f"{encoded(alone)}.{body}.",
        "alg none with the signature": f"{encoded(alone)}.{body}.{signature}",
        "alg None": f"{encoded({**alone, 'alg': 'None'})}.{body}.",
        "no alg": signed(claims(), alg=DROPPED),
        "alg null": signed(claims(), alg=None),
        "HS256 with the public key": with_secret(claims(), public.public_bytes_raw()),
        "HS256 with the public key as PEM": with_secret(claims(), pem),
        "HS256 with the key as in the JWKS": with_secret(claims(), encoded(public.public_bytes_raw()).encode()),
        "RS256": by_library(claims(), rsa.generate_private_key(65537, 2048), "RS256"),
        "ES256": by_library(claims(), ec.generate_private_key(ec.SECP256R1()), "ES256"),
        "alg RS256 with our signature": signed(claims(), alg="RS256"),
        "another key": signed(claims(), key=Ed25519PrivateKey.generate()),
        "another key, in the header": signed(
            claims(), key=(other := Ed25519PrivateKey.generate()), jwk=jwk_of(other), jku="http://127.0.0.1:1/jwks.json"
        ),
        "wrong kid": signed(claims(), kid="other"),
        "no kid": signed(claims(), kid=DROPPED),
        "kid null": signed(claims(), kid=None),
        "kid a number": signed(claims(), kid=1),
        "kid a list": signed(claims(), kid=[SIGNER.kid]),
        "kid a path": signed(claims(), kid="../../../../dev/null"),
        "kid SQL": signed(claims(), kid="' OR '1'='1"),
        "kid SQL that names ours": signed(claims(), kid=f"x' UNION SELECT '{SIGNER.kid}"),
        "kid with a NUL": signed(claims(), kid=f"{SIGNER.kid}\0"),
        "kid empty": signed(claims(), kid=""),
        "typ JWT": signed(claims(), typ="JWT"),
        "no typ": signed(claims(), typ=DROPPED),
        "typ of another kind": signed(claims(), typ="logout+jwt"),
        "crit unknown": signed(claims(), crit=["x"], x=1),
        "crit b64": signed(claims(), crit=["b64"], b64=False),
        "crit empty": signed(claims(), crit=[]),
        "b64 false": signed(claims(), b64=False),
        "issued in the future": signed(claims(iat=now + 3600)),
        "not before the future": signed(claims(nbf=now + 3600)),
        "exp no number": signed(claims(exp="tomorrow")),
        "exp null": signed(claims(exp=None)),
        **{f"no {name}": signed(claims(**{name: DROPPED})) for name in claims().keys() - NOT_NEEDED},
        **{f"{name} null": signed(claims(**{name: None})) for name in claims().keys() - NOT_NEEDED},
        "wrong iss": signed(claims(iss="https://evil.example")),
        "iss a list": signed(claims(iss=["https://shop.local"])),
        "iss with a slash more": signed(claims(iss="https://shop.local/")),
        "wrong aud": signed(claims(aud="bank")),
        "aud a list of others": signed(claims(aud=["bank", "library"])),
        "sub no UUID": signed(claims(sub="admin")),
        "sub a number": signed(claims(sub=1)),
        "sub empty": signed(claims(sub="")),
        "sid no UUID": signed(claims(sid="none")),
        "unknown role": signed(claims(roles=["USER", "ROOT"])),
        "role in lower case": signed(claims(roles=["admin"])),
        "roles a text": signed(claims(roles="ADMIN")),
        "roles an object": signed(claims(roles={"ADMIN": True})),
        "role a list": signed(claims(roles=[["ADMIN"]])),
        "claims a list": signed([claims()]),
        "claims no JSON": signed(b"{"),
        "claims changed": f"{head}.{encoded(claims(roles=['ADMIN']))}.{signature}",
        "header changed": f"{encoded({'alg': 'EdDSA', 'typ': 'at+jwt', 'kid': SIGNER.kid, 'x': 1})}.{body}.{signature}",
        "no signature": f"{head}.{body}.",
        "half a signature": f"{head}.{body}.{signature[:40]}",
        "two parts": f"{head}.{body}",
        "four parts": f"{good}.{signature}",
        "five parts": f"{head}.{body}.{body}.{body}.{signature}",
        "oversized": signed(claims(padding="x" * 4096)),
        "garbage": "garbage",
        "dots": "..",
        "empty": "",
        "header no JSON": f"{encoded(b'{')}.{body}.{signature}",
        "header a list": f"{encoded([])}.{body}.{signature}",
        "header deep": f"{encoded(b'[' * 3000)}.{body}.{signature}",
        "header deep objects": f"{encoded(DEEP)}.{body}.{signature}",
        "header no UTF-8": f"{encoded(bytes([0xFF, 0xFE]))}.{body}.{signature}",
        "no base64": f"{head}.{body}.!!!",
    }


def jwk_of(key: Ed25519PrivateKey) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": encoded(key.public_key().public_bytes_raw())}


async def reasons(call: Callable[[Any], Any], corpus: dict[str, str]) -> dict[str, str]:
    """Return why each token is refused, by what is wrong with it."""
    refused = {}
    for name, token in corpus.items():
        refusal = await refusal_of(call(bearer(token)))
        assert (refusal.code, refusal.domain) == (StatusCode.UNAUTHENTICATED, "shop.system.v1"), name
        refused[name] = refusal.reason
    return refused
