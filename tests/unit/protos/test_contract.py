"""The contract itself, read from its descriptors: what must hold for every rpc and every field, also of later ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor

from chassis.errors import FieldViolation, InvalidFields
from chassis.server.contract import service_names
from chassis.server.validation import require_valid
from protos.codegen.descriptors import entry_of
from tests.support.guards import all_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from google.protobuf.descriptor import Descriptor, MethodDescriptor
    from google.protobuf.message import Message

METHODS: list[MethodDescriptor] = [
    method for service in service_names() for method in descriptor_pool.Default().FindServiceByName(service).methods
]
REQUESTS: list[Descriptor] = list({method.input_type.full_name: method.input_type for method in METHODS}.values())
# Writes without a request id, each with its reason in the guards.toml of its service.
REPEATABLE_AS_THEY_ARE = all_facts("repeatable")
WRITES = [
    method
    for method in METHODS
    if not re.match("Get|List|BatchGet|Watch", method.name) and method.name not in REPEATABLE_AS_THEY_ARE
]

ANSWERS: list[Descriptor] = list({method.output_type.full_name: method.output_type for method in METHODS}.values())

# Fields that only the service sets. If a caller names one, the guards.toml of the service has the reason.
DECIDED_BY_THE_SERVICE = {
    "status", "state", "role", "roles", "total", "total_amount", "total_price", "created_at", "updated_at", "version",
}  # fmt: skip
NAMED_ALL_THE_SAME = all_facts("named_by_callers")
# Compared or hashed, and never stored, so a NUL does no harm in them.
NUL_DOES_NO_HARM = {"page_token", "etag", "password", "current_password", "new_password", "refresh_token"}

Path = tuple[FieldDescriptor, ...]


def paths_in(message: Descriptor, *, to: int) -> Iterator[Path]:
    """Yield every way from the message to a field of the type. A Struct is the service's own to bound."""
    for field in message.fields:
        if field.type == to:
            yield (field,)
        inner = field.message_type
        if inner is not None and inner.full_name != "google.protobuf.Struct":
            yield from ((field, *rest) for rest in paths_in(inner, to=to))


def with_value(root: Descriptor, path: Path, value: object) -> Message:
    """Return a message that is empty but for the value at the end of the path."""
    message = message_factory.GetMessageClass(root)()
    inner: Any = message
    for field in path[:-1]:
        child = getattr(inner, field.name)
        inner = child.add() if field.is_repeated else child
    last = path[-1]
    if last.is_repeated:
        getattr(inner, last.name).append(value)
    else:
        setattr(inner, last.name, value)
    return message


def violations_of(request: Message) -> Sequence[FieldViolation]:
    try:
        require_valid(request)
    except InvalidFields as error:
        return error.violations
    return ()


def refused_fields(request: Message) -> list[str]:
    return [each.field for each in violations_of(request)]


def is_refused(root: Descriptor, path: Path, value: object, *, unlike: object) -> bool:
    """Return whether the value is refused for itself, and not for what else is missing from the message.

    That is, the refusal names the field; or, for a rule that stands on the message around it, names more than with
    the other value.
    """
    refused = refused_fields(with_value(root, path, value))
    name = ".".join(field.json_name for field in path)
    names_it = name in {re.sub(r"\[\d+\]", "", each) for each in refused}
    return names_it or len(refused) > len(refused_fields(with_value(root, path, unlike)))


def string_fields() -> list[Any]:
    return [
        pytest.param(root, path, id=f"{root.name}.{'.'.join(field.name for field in path)}")
        for root in REQUESTS
        for path in paths_in(root, to=FieldDescriptor.TYPE_STRING)
    ]


def by_name(each: Any) -> str:
    return str(each.name)


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_every_rpc_is_reachable_over_rest(method: MethodDescriptor) -> None:
    (verb, path, _body) = bindings(method)[0]

    expected = {"Create": "post", "Update": "patch", "Delete": "delete"}
    expected |= dict.fromkeys(("Get", "List", "BatchGet", "Watch"), "get")
    prefix = next((each for each in expected if method.name.startswith(each)), "")
    assert verb == expected.get(prefix, "post")
    assert path.startswith(("/api/v1/", "/health", "/.well-known/"))


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_a_binding_carries_the_whole_request(method: MethodDescriptor) -> None:
    for verb, path, body in bindings(method):
        assert body == ("*" if verb in {"post", "patch"} else "")
        for name in re.findall(r"{(\w+)}", path):
            assert method.input_type.fields_by_name[name].type == FieldDescriptor.TYPE_STRING


def test_no_two_rpcs_share_a_route() -> None:
    routes = [(verb, re.sub("{.*?}", "*", path)) for method in METHODS for verb, path, _ in bindings(method)]

    assert len(routes) == len(set(routes))


@pytest.mark.parametrize("method", [each for each in METHODS if each.server_streaming], ids=by_name)
def test_every_stream_can_be_resumed_and_says_why_it_ends(method: MethodDescriptor) -> None:
    fields = method.output_type.fields_by_name

    assert fields["end"].message_type.full_name == "google.rpc.Status"
    assert "resume_token" in fields
    assert "resume_token" in method.input_type.fields_by_name


def test_every_exception_is_about_something_in_the_contract() -> None:
    assert REPEATABLE_AS_THEY_ARE.keys() <= {method.name for method in METHODS}
    assert NAMED_ALL_THE_SAME.keys() <= {field.full_name for request in REQUESTS for field in request.fields}


@pytest.mark.parametrize("method", WRITES, ids=by_name)
def test_every_write_can_be_repeated(method: MethodDescriptor) -> None:
    fields = method.input_type.fields_by_name
    assert "request_id" in fields, "give it one, or the reason in [repeatable] of the service's guards.toml"
    field = fields["request_id"]

    assert not is_refused(method.input_type, (field,), "01960000-0000-7000-8000-000000000001", unlike="")
    assert is_refused(method.input_type, (field,), "not-a-uuid", unlike="")
    assert "requestId" not in refused_fields(with_value(method.input_type, (field,), ""))


@pytest.mark.parametrize("method", [each for each in METHODS if each not in WRITES], ids=by_name)
def test_no_read_takes_a_request_id(method: MethodDescriptor) -> None:
    assert "request_id" not in method.input_type.fields_by_name


@pytest.mark.parametrize("root", REQUESTS, ids=by_name)
def test_a_request_holds_only_what_the_caller_may_set(root: Descriptor) -> None:
    named = {
        field.full_name for message in messages_in(root) for field in message.fields
        if field.name in DECIDED_BY_THE_SERVICE
    }  # fmt: skip

    assert named <= NAMED_ALL_THE_SAME.keys()


@pytest.mark.parametrize(("root", "path"), string_fields())
def test_no_text_is_unbounded(root: Descriptor, path: Path) -> None:
    assert is_refused(root, path, "x" * 2000, unlike="")


@pytest.mark.parametrize(("root", "path"), string_fields())
def test_no_text_with_a_nul_reaches_the_database(root: Descriptor, path: Path) -> None:
    # Long enough for a password, short enough for every field that has a length.
    refused = is_refused(root, path, "with a nul: \0", unlike="")

    assert refused or path[-1].name in NUL_DOES_NO_HARM


@pytest.mark.parametrize("root", REQUESTS, ids=by_name)
def test_no_list_is_unbounded(root: Descriptor) -> None:
    for message in messages_in(root):
        for field in message.fields:
            if field.is_repeated and message is root:
                assert field.json_name in refused_fields(_with_many(root, field, 1000))
            assert message is root or not field.is_repeated, "reach it from its request, and bound it here"


@pytest.mark.parametrize("root", REQUESTS, ids=by_name)
def test_a_request_has_a_list_and_no_map(root: Descriptor) -> None:
    maps = [field.full_name for message in messages_in(root) for field in message.fields if entry_of(field)]

    assert maps == [], "a list of messages with keys has bounds that every guard knows (protos/README.md)"


@pytest.mark.parametrize("root", REQUESTS, ids=by_name)
def test_an_unknown_enum_value_is_refused(root: Descriptor) -> None:
    for path in paths_in(root, to=FieldDescriptor.TYPE_ENUM):
        assert is_refused(root, path, 99, unlike=1)


@pytest.mark.parametrize("root", REQUESTS, ids=by_name)
def test_an_enum_that_must_be_set_is_called_required(root: Descriptor) -> None:
    for path in paths_in(root, to=FieldDescriptor.TYPE_ENUM):
        name = ".".join(field.json_name for field in path)
        rules = {each.rule for each in violations_of(with_value(root, path, 0)) if each.field == name}

        # `not_in: [0]` is told as "must not be in list [0]", which says nothing to callers who left the field out.
        assert rules <= {"required"}


@pytest.mark.parametrize("root", [*REQUESTS, *ANSWERS], ids=by_name)
def test_a_secret_is_redacted_wherever_messages_are_printed(root: Descriptor) -> None:
    for field in root.fields:
        assert field.GetOptions().debug_redact == (field.name.endswith(("password", "refresh_token", "access_token")))


@pytest.mark.parametrize("method", [each for each in METHODS if each.name.startswith("List")], ids=by_name)
def test_every_list_has_pages(method: MethodDescriptor) -> None:
    assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
    assert "next_page_token" in method.output_type.fields_by_name


def test_there_is_something_to_check() -> None:
    assert len(METHODS) >= 12
    assert len(WRITES) >= 4
    assert len(string_fields()) >= 20


def bindings(method: MethodDescriptor) -> list[tuple[str, str, str]]:
    """Return the rpc's verbs, paths and bodies over REST, the main one first."""
    main = method.GetOptions().Extensions[annotations_pb2.http]
    return [
        (rule.WhichOneof("pattern"), getattr(rule, rule.WhichOneof("pattern")), rule.body)
        for rule in (main, *main.additional_bindings)
    ]


def messages_in(root: Descriptor) -> Iterator[Descriptor]:
    yield root
    for field in root.fields:
        inner = field.message_type
        if inner is not None and inner.full_name.startswith("shop."):
            yield from messages_in(inner)


def _with_many(root: Descriptor, field: FieldDescriptor, count: int) -> Message:
    message = message_factory.GetMessageClass(root)()
    values = getattr(message, field.name)
    add: Callable[[], object] = values.add if field.message_type else lambda: values.append("")
    for _ in range(count):
        add()
    return message
