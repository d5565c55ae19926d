"""Requests for both shops: good ones of each rpc, and what can be wrong with them.

They follow from the contract. What a service's requests need beside it is in `tests/services/<service>/conformance.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from buf.validate import validate_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.struct_pb2 import Struct
from shop.system.v1 import access_pb2, system_service_pb2

from chassis.context import Role
from chassis.testing import new_uuid
from tests.integration.conformance.worlds import RPCS
from tests.support.guards import modules
from tests.support.standard_requests import example_request, make_unique, verb_and_resource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from tests.integration.conformance.worlds import Person, World

STAFF: Final = (Role.USER, Role.ADMIN)


def told(table: str) -> dict[str, Any]:
    """Return a table of every service's conformance.py, in one."""
    return {name: value for module in modules("conformance") for name, value in getattr(module, table, {}).items()}


def token_for(world: World, rpc: str, owner: Person) -> str:
    """Return the token of the owner if users may call the rpc, else an admin's."""
    rule = RPCS[rpc].GetOptions().Extensions[access_pb2.access]
    is_for_users = rule.public or rule.owner or access_pb2.ROLE_USER in rule.roles
    return owner.token if is_for_users else world.token(*STAFF)


async def good_request(world: World, rpc: str, *, of: Person) -> Any:
    """Return a request of the rpc that succeeds if its caller may make it, on a resource of this person's."""
    requests: Mapping[str, Callable[[World, Person], Awaitable[Message]]] = {"GetHealth": _health, **told("REQUESTS")}
    return await (requests[rpc](world, of) if rpc in requests else _standard_request(world, rpc))


async def _health(_world: World, _of: Person) -> Message:
    return system_service_pb2.GetHealthRequest()


async def _standard_request(world: World, rpc: str) -> Any:
    """Return a request of a standard method, on a new resource.

    Raises:
        AssertionError: the method is not standard. The message says where to write a request.
    """
    verb, resource = verb_and_resource(rpc)
    create = f"Create{resource}"
    assert verb in {"Create", "List"} or create in RPCS, f"write a request of {rpc} into REQUESTS of conformance.py"
    request: Any = example_request(message_factory.GetMessageClass(RPCS[rpc].input_type))
    if verb == "Create":
        make_unique(request, world.number())
    elif verb != "List":
        created = await world.call(create, await _standard_request(world, create), token=world.token(*STAFF))
        request.id = created.id
    return request


def change(request: Any, rpc: str) -> None:
    """Change the content of a write, so that it is still good."""
    changes = told("CHANGES")
    if rpc in changes:
        changes[rpc](request)
        return
    for field in request.DESCRIPTOR.fields:
        rules = field.GetOptions().Extensions[validate_pb2.field].string
        is_free = field.type == Field.TYPE_STRING and not (rules.WhichOneof("well_known") or rules.pattern)
        if is_free and field.name != "etag":
            setattr(request, field.name, f"{getattr(request, field.name)} once more")
            return
    raise AssertionError(f"write a change of {rpc} into CHANGES of conformance.py")


def broken(request: Message) -> list[tuple[str, Message]]:
    """Return requests with one field changed each, most of them wrong, and how each was changed."""
    found: list[tuple[str, Message]] = [("nothing", type(request)())]
    for field in request.DESCRIPTOR.fields:
        for value in _odd_values(field):
            changed = type(request)()
            changed.CopyFrom(request)
            try:
                _set(changed, field, value)
            except (TypeError, ValueError):
                continue
            found.append((f"{field.name}={str(value)[:40]!r}", changed))
    return found


def _odd_values(field: Field) -> list[Any]:
    if field.message_type is not None and field.message_type.full_name in (known := told("ODD_VALUES")):
        values: list[Any] = known[field.message_type.full_name]
        return values
    if field.message_type is not None:
        return [
            struct({}),
            struct({"a": [1, None, {"b": "c"}]}),
            struct({"n": 2.0**60}),
            _deep(20),
            struct({"t": "x" * 17_000}),
        ]
    if field.is_repeated:
        return [[], ["no uuid"], [new_uuid()] * 201]
    if field.type == Field.TYPE_STRING:
        sizes = (0, 1, 63, 64, 65, 100, 101, 129, 256, 501, 513)
        texts = [" ", "\0", "password12345678", "e\u0301@ex\u00e4mple.com", "UPPER", "a b", "-", "a-", "a-b"]
        ids = [new_uuid(), "ada@example", "EUR", "XAU", "JPY", "eur", "v1", "v99", '"v1"']
        return [*("x" * size for size in sizes), *texts, *ids]
    if field.enum_type is not None:
        return [*[value.number for value in field.enum_type.values], 99]
    return [-1, 0, 1, 200, 201, 2**31 - 1]


def _set(message: Any, field: Field, value: Any) -> None:
    if field.is_repeated:
        message.ClearField(field.name)
        if field.message_type is not None:
            for each in value:
                getattr(message, field.name).add(**each)
        else:
            getattr(message, field.name).extend(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def struct(value: Mapping[str, Any]) -> Struct:
    """Return the value as a Struct."""
    made = Struct()
    made.update(value)
    return made


def _deep(levels: int) -> Struct:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return struct(value)
