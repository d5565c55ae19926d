"""Who may call what: the contract says it, in the option `shop.system.v1.access` of each rpc; this enforces it.

The roles decide here. That a user touches only what is theirs is decided where the rows are: this tells the servicer
whose they have to be (`chassis.context.current_owner`), and the repository puts it into the query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pool
from shop.system.v1 import access_pb2

from chassis.context import ANONYMOUS, Caller, Role
from chassis.errors import RoleRequired, TokenInvalid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from grpc import aio

    from chassis.auth.access_tokens import AccessTokens
    from chassis.context import Call

    Context = aio.ServicerContext[Any, Any]

# In the certificate of each process: `spiffe://shop/order_svc`.
SERVICE_IDENTITY: Final = "spiffe://shop/"
_IDENTITY: Final = SERVICE_IDENTITY.encode()
EDGE: Final = "edge"

_ROLES = {
    access_pb2.ROLE_USER: Role.USER,
    access_pb2.ROLE_SUPPORT: Role.SUPPORT,
    access_pb2.ROLE_ADMIN: Role.ADMIN,
    access_pb2.ROLE_SERVICE: Role.SERVICE,
}


class NoAccessRule(Exception):
    """An rpc does not say who may call it, or nothing would enforce it, so nobody may serve it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call one rpc: anybody, the owner, callers with one of the roles."""

    is_public: bool
    is_for_owner: bool
    roles: frozenset[Role]

    def owner_for(self, caller: Caller) -> str:
        """Return whose resources the caller may touch: empty for everybody's.

        Raises:
            TokenInvalid: the caller has to say who they are.
            RoleRequired: the caller may not call this at all.
        """
        if self.is_public or caller.roles & self.roles:
            return ""
        if caller == ANONYMOUS:
            raise TokenInvalid
        if self.is_for_owner and Role.SERVICE not in caller.roles:
            return caller.subject
        raise RoleRequired(self.roles)


def rules_of(services: Iterable[str]) -> dict[str, Rule]:
    """Return the rule of every rpc of these services, by `/package.Service/Method`.

    Raises:
        NoAccessRule: one of them has none.
    """
    pool = descriptor_pool.Default()
    rules: dict[str, Rule] = {}
    for name in services:
        for method in pool.FindServiceByName(name).methods:
            if method.client_streaming:
                raise NoAccessRule(f"{method.full_name} takes a stream, which nothing guards yet")
            options = method.GetOptions()
            if not options.HasExtension(access_pb2.access):
                raise NoAccessRule(f"{method.full_name} has no option shop.system.v1.access")
            access = options.Extensions[access_pb2.access]
            rules[f"/{name}/{method.name}"] = Rule(
                is_public=access.public,
                is_for_owner=access.owner,
                roles=frozenset(_ROLES[role] for role in access.roles),
            )
    return rules


class AccessControl:
    """Finds out who calls, and lets in whom the contract lets in.

    Args:
        tokens: checks access tokens.
        allowed_peers: the services that may connect at all; None where there is no TLS to know them by.
    """

    def __init__(self, tokens: AccessTokens, *, allowed_peers: Collection[str] | None = None) -> None:
        self._tokens = tokens
        self._allowed_peers = allowed_peers
        self._rules: dict[str, Rule] = {}

    def guard(self, services: Iterable[str]) -> None:
        """Enforce the rules of these services, by their full names, before the first call.

        Raises:
            NoAccessRule: an rpc has none.
        """
        self._rules = rules_of(services)

    def admission_to(self, method: str) -> Callable[[Call, Context], Awaitable[None]]:
        """Return what lets a call of this method in: it sets the call's caller and owner, or raises as Rule does."""
        rule = self._rules.get(method)
        if rule is None and not method.startswith("/grpc."):
            return _keep_out
        if rule is None or rule.is_public:
            # grpc.health.v1 and reflection are not of the contract: who may connect may ask them.
            return self._admit_peer

        async def admit(call: Call, context: Context) -> None:
            self.require_allowed_peer(context)
            call.caller = await self._caller(call, context)
            call.owner = rule.owner_for(call.caller)

        return admit

    def require_allowed_peer(self, context: Context) -> None:
        """Return if the process at the other end of the connection may call this service at all.

        gRPC cannot refuse it in the handshake, which only finds that the certificate is one of ours.

        Raises:
            RoleRequired: it may not.
        """
        if self._allowed_peers is not None and peer_of(context) not in self._allowed_peers:
            raise RoleRequired([Role.SERVICE])

    async def _admit_peer(self, _call: Call, context: Context) -> None:
        self.require_allowed_peer(context)

    async def _caller(self, call: Call, context: Context) -> Caller:
        scheme, _, token = call.authorization.partition(" ")
        if not call.authorization:
            return calling_service(context)
        if scheme.lower() != "bearer":
            raise TokenInvalid
        return await self._tokens.caller(token)


def peer_of(context: Context) -> str:
    """Return the service whose certificate the connection was made with; empty without one, or if it names two."""
    # Not auth_context(): it builds the whole certificate for every call, 9 µs against 0.2.
    identities = context.peer_identities() or ()
    services = [name.removeprefix(_IDENTITY) for name in identities if name.startswith(_IDENTITY)]
    return services[0].decode(errors="replace") if len(services) == 1 else ""


async def _keep_out(call: Call, _context: Context) -> None:
    """Let nobody in: a servicer that guard() was not told of."""
    raise NoAccessRule(call.method)


def calling_service(context: Context) -> Caller:
    """Return the service whose certificate the connection was made with; nobody in particular for the edge's.

    The edge speaks for whoever called it; with no token that is nobody. A service speaks for itself.
    """
    service = peer_of(context)
    if service in {"", EDGE}:
        return ANONYMOUS
    return Caller(subject=service, roles=frozenset({Role.SERVICE}))
