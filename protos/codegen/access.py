"""The callers that an rpc admits, from its option `(shop.system.v1.access)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shop.system.v1 import access_pb2

from protos.codegen.refusals import Refusal

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    from protos.codegen.json_types import JsonObject

BEARER: Final[JsonObject] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The access token of a session: `POST /api/v1/sessions` gives one.",
    }
}


class NoAccess(Refusal):
    """An rpc does not say who may call it."""


def is_public(method: MethodDescriptor) -> bool:
    """Return whether the rpc needs no access token.

    Raises:
        NoAccess: it does not say.
    """
    return _access(method).public


def security_of(method: MethodDescriptor) -> JsonObject:
    """Return the security requirement of the rpc's operation: a bearer token or none."""
    return {"security": [] if is_public(method) else [{"bearer": []}]}


def callers_of(method: MethodDescriptor) -> str:
    """Return the sentence that names the callers of the rpc."""
    access = _access(method)
    if access.public:
        return "Public: needs no access token."
    roles = [access_pb2.Role.Name(role).removeprefix("ROLE_").lower() for role in access.roles]
    who = [*(["its owner"] if access.owner else []), *roles]
    return f"For {', '.join(who[:-1])} and {who[-1]}." if len(who) > 1 else f"For {who[0]}."


def _access(method: MethodDescriptor) -> access_pb2.Access:
    options = method.GetOptions()
    if not options.HasExtension(access_pb2.access):
        raise NoAccess(f"{method.full_name} has no option shop.system.v1.access")
    return options.Extensions[access_pb2.access]
