"""The calls that are made to both shops. These follow from the contract: every rpc, field, list and write.

A service's own, such as the transitions of its state machine, are in `tests/services/<service>/conformance.py`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from shop.user.v1 import user_service_pb2 as users

from chassis.context import Role
from tests.integration.conformance.requests import STAFF, broken, change, good_request, token_for, told
from tests.integration.conformance.worlds import RPCS, new_uuid, settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.integration.conformance.worlds import World


async def access(world: World, rpc: str) -> None:
    """Call the rpc as every kind of caller."""
    owner, other = await world.person(), await world.person()
    callers = {
        "anonymous": "",
        "owner": owner.token,
        "other": other.token,
        "nobody's": world.token(Role.USER),
        "support": world.token(Role.USER, Role.SUPPORT),
        "admin": world.token(*STAFF),
        "service": world.token(Role.SERVICE),
        "no roles": world.token(),
        "expired": world.expired_token(),
        "garbage": "e30.e30.e30",
    }
    for kind, token in callers.items():
        request = await good_request(world, rpc, of=owner)
        await world.call(rpc, request, token=token, note=f"{rpc} as {kind}")
    await world.call(rpc, request, metadata=[("authorization", "Basic YWRhOmFkYQ==")], note=f"{rpc} with Basic")
    request = await good_request(world, rpc, of=owner)
    await world.call(rpc, request, token=token_for(world, rpc, owner), metadata=[("if-match", "v1")])


async def validation(world: World, rpc: str) -> None:
    """Break each rule of each field of the request."""
    owner = await world.person()
    request = await good_request(world, rpc, of=owner)
    token = world.token(*STAFF, subject=owner.id)
    for note, wrong in broken(request):
        await world.call(rpc, wrong, token=token, note=f"{rpc} with {note}")


async def replays(world: World, rpc: str) -> None:
    """Repeat a write: with its id, with other content, as another caller, by each header, and a day later."""
    other = await world.person()
    admin = world.token(*STAFF)
    for by in ("field", "idempotency-key", "quoted", "x-request-id"):
        key = new_uuid()
        owner = await world.person()
        token = token_for(world, rpc, owner)
        request = await good_request(world, rpc, of=owner)
        metadata = {
            "idempotency-key": [("idempotency-key", key)],
            "quoted": [("idempotency-key", f'"{key}"')],
            "x-request-id": [("x-request-id", key)],
        }.get(by, [])
        if by == "field":
            request.request_id = key
        changed = type(request)()
        changed.CopyFrom(request)
        change(changed, rpc)
        for note, sent, caller in [
            ("first", request, token),
            ("again", request, token),
            ("changed", changed, token),
            ("by another", request, admin if token != admin else world.token(Role.USER, Role.SUPPORT)),
            ("by a stranger", request, other.token),
        ]:
            await world.call(rpc, sent, token=caller, metadata=metadata, note=f"{rpc} {note}, by {by}")
    await world.call(rpc, request, token=token, metadata=[("idempotency-key", "none")], note=f"{rpc} with no key")
    world.advance(timedelta(hours=25))
    await world.call(rpc, request, token=token, metadata=metadata, note=f"{rpc} a day later")


async def etags(world: World, rpc: str) -> None:
    """Write with the current etag, with a stale one, and with each form of the header `if-match`."""
    owner = await world.person()
    token = token_for(world, rpc, owner)
    request = await good_request(world, rpc, of=owner)
    for etag in ("v99", "v2", "v1") if "etag" in request.DESCRIPTOR.fields_by_name else ():
        given = type(request)()
        given.CopyFrom(request)
        given.etag = etag
        await world.call(rpc, given, token=token, note=f"{rpc} etag {etag}")
    for header in ('"v7"', "v7", "*", 'W/"v1"', '"v1", "v2"', "", '"v1"', '"v2"', '"v3"'):
        await world.call(rpc, request, token=token, metadata=[("if-match", header)], note=f"{rpc} if-match {header}")


async def pages(world: World, rpc: str) -> None:
    """Read the list page by page, and with each wrong token."""
    owner = await world.person()
    await world.person()
    token = token_for(world, rpc, owner)
    [listed] = [field for field in RPCS[rpc].output_type.fields if field.is_repeated]
    create = f"Create{listed.message_type.name}"
    for _ in range(5 if create in RPCS else 0):
        await settled()
        made = await good_request(world, create, of=owner)
        await world.call(create, made, token=token_for(world, create, owner))
    request = await good_request(world, rpc, of=owner)
    tokens: list[str] = []
    for size in (1, 2, 0, 1000):
        tokens += await world.read_pages(rpc, request, token=token, size=size)
    elsewhere = await world.read_pages("ListUsers", users.ListUsersRequest(), token=world.token(*STAFF), size=1)
    for page_token in (*tokens[:3], *elsewhere[:1], "none", "a" * 48):
        request.page_token = page_token
        await world.call(rpc, request, token=token, note=f"{rpc} with the token of some list")
    world.advance(timedelta(hours=25))
    request.page_token = [*tokens, *elsewhere][0]
    await world.call(rpc, request, token=token, note=f"{rpc} a day later")


def _with(field: str) -> list[str]:
    return [name for name, rpc in RPCS.items() if field in rpc.input_type.fields_by_name]


SCENARIOS: Final[Mapping[str, Callable[[World], Awaitable[None]]]] = {
    **{
        f"{make.__name__} of {name}": lambda world, make=make, name=name: make(world, name)
        for make, names in (
            (access, RPCS),
            (validation, RPCS),
            (replays, _with("request_id")),
            (etags, _with("etag")),
            (pages, _with("page_token")),
        )
        for name in names
    },
    **told("SCENARIOS"),
}
