"""The OpenAPI document: what the committed one says, and that its generator is strict about what it reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from buf.validate import validate_pb2
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from openapi_spec_validator import OpenAPIV31SpecValidator
from shop.system.v1 import access_pb2

from envoy.contract import DESCRIPTOR_SET, Contract
from envoy.files import REPOSITORY
from protos.codegen.access import NoAccess
from protos.codegen.descriptors import Contract as CommentedContract
from protos.codegen.descriptors import json_path
from protos.codegen.examples import NoExample
from protos.codegen.openapi import Document
from protos.codegen.reasons import BadComment
from protos.codegen.rules import UnknownRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envoy.contract import Binding

DOCUMENT: dict[str, Any] = json.loads((REPOSITORY / "generated" / "openapi.json").read_text())
SCHEMAS: dict[str, dict[str, Any]] = DOCUMENT["components"]["schemas"]
BINDINGS = Contract(DESCRIPTOR_SET.read_bytes()).bindings
OPERATIONS: list[dict[str, Any]] = [each for item in DOCUMENT["paths"].values() for each in item.values()]


def operation(binding: Binding) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][json_path(binding.path)][binding.verb.lower()]
    return found


def label(value: object) -> str:
    return f"{getattr(value, 'verb', '')}-{getattr(value, 'path', '')}"


def a_contract(
    *,
    reason: str = "NOT_FOUND, 404. There is no such toy.",
    rpc: str = "Returns a toy.\n\nReasons: TOY_NOT_FOUND.",
    service: str = "Every rpc can also answer the reasons of shop.system.v1: INTERNAL.",
    field: str = "service",
) -> descriptor_pb2.FileDescriptorSet:
    """Return a contract with one rpc, GetToy, and the comments that the reasons are read from."""
    edge = ("MALFORMED_REQUEST", "RATE_LIMITED", "SERVICE_UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL")
    files = descriptor_pb2.FileDescriptorSet()
    annotations = ("google/protobuf/descriptor.proto", "google/api/http.proto", "google/api/annotations.proto")
    for name in annotations:
        pool = annotations_pb2.DESCRIPTOR.pool
        pool.FindFileByName(name).CopyToProto(files.file.add())
    system = files.file.add(name="system.proto", package="shop.system.v1", syntax="proto3")
    add_reasons(system, dict.fromkeys(edge, "INTERNAL, 500. It went wrong."))
    toys = files.file.add(name="toys.proto", package="shop.toy.v1", syntax="proto3")
    toys.dependency.append("google/api/annotations.proto")
    add_reasons(toys, {"TOY_NOT_FOUND": reason})
    request = toys.message_type.add(name="GetToyRequest")
    request.field.add(name=field, number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    method = toys.service.add(name="ToyService").method.add(name="GetToy")
    method.input_type = method.output_type = ".shop.toy.v1.GetToyRequest"
    method.options.Extensions[annotations_pb2.http].get = "/toys"
    method.options.Extensions[access_pb2.access].public = True
    toys.source_code_info.location.add(path=[6, 0], leading_comments=service)
    toys.source_code_info.location.add(path=[6, 0, 2, 0], leading_comments=rpc)
    return files


def add_reasons(file: descriptor_pb2.FileDescriptorProto, reasons: dict[str, str]) -> None:
    enum = file.enum_type.add(name="ErrorReason")
    enum.value.add(name="ERROR_REASON_UNSPECIFIED", number=0)
    for number, (name, comment) in enumerate(reasons.items(), start=1):
        enum.value.add(name=f"ERROR_REASON_{name}", number=number)
        file.source_code_info.location.add(path=[5, 0, 2, number], leading_comments=comment)


def document_of(contract: descriptor_pb2.FileDescriptorSet) -> dict[str, Any]:
    document: dict[str, Any] = Document(CommentedContract(contract.SerializeToString())).as_json()
    return document


def properties() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for message, schema in SCHEMAS.items():
        for name, each in schema.get("properties", {}).items():
            yield message, name, each


def test_the_document_is_valid_openapi() -> None:
    errors = list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors())

    assert errors == []


@pytest.mark.parametrize("binding", BINDINGS, ids=label)
def test_every_way_to_call_a_method_is_an_operation(binding: Binding) -> None:
    found = operation(binding)

    assert found["operationId"].partition("_")[0].lower() == binding.method.lower()
    assert ("requestBody" in found) == (binding.body is not None)
    assert found["description"]


def test_every_operation_belongs_to_a_method() -> None:
    assert len(OPERATIONS) == len(BINDINGS)
    assert len({each["operationId"] for each in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("binding", BINDINGS, ids=label)
def test_creations_answer_201_and_the_rest_200(binding: Binding) -> None:
    successes = [status for status in operation(binding)["responses"] if status < "300"]

    assert successes == ["201" if binding.method.startswith("Create") else "200"]


@pytest.mark.parametrize("binding", BINDINGS, ids=label)
def test_every_operation_documents_what_the_edge_may_answer(binding: Binding) -> None:
    statuses = operation(binding)["responses"].keys()

    assert statuses >= {"400", "500", "503", "504"}
    assert ({"413", "415"} <= statuses) == (binding.body is not None)


@pytest.mark.parametrize("binding", BINDINGS, ids=label)
def test_every_variable_of_a_path_is_a_required_parameter(binding: Binding) -> None:
    parameters = operation(binding)["parameters"]

    in_path = [each["name"] for each in parameters if each.get("in") == "path"]
    assert in_path == [name.strip("{}") for name in binding.path.replace(":", "/").split("/") if name.startswith("{")]
    assert all(each["required"] for each in parameters if each.get("in") == "path")


def test_a_service_has_its_own_reason_before_the_common_one_of_the_same_name() -> None:
    responses = DOCUMENT["paths"]["/api/v1/users/{id}"]["patch"]["responses"]

    example = responses["400"]["content"]["application/json"]["examples"]["USER_NOT_ACTIVE"]
    assert example == {"$ref": "#/components/examples/shop.user.v1.USER_NOT_ACTIVE"}


def test_bodies_refuse_fields_that_their_message_does_not_have() -> None:
    bodies = [
        schema for name, schema in SCHEMAS.items() if name.endswith(("Request", "Input")) and name != "BadRequest"
    ]

    assert bodies
    assert all(schema["additionalProperties"] is False for schema in bodies)


def test_passwords_are_only_written_and_never_shown() -> None:
    passwords = [(message, each) for message, name, each in properties() if "password" in name.lower()]

    assert {message for message, _ in passwords} == {
        "CreateUserRequest",
        "ChangePasswordRequest",
        "CreateSessionRequest",
        "UpdateUserRequest",
        "DeleteUserRequest",
    }
    assert all(each["writeOnly"] and each["format"] == "password" for _, each in passwords)


def test_no_query_holds_a_secret() -> None:
    names = {
        parameter["name"]
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
        for parameter in operation["parameters"]
        if parameter.get("in") == "query"
    }

    assert "pageSize" in names
    assert not {name for name in names if "password" in name.lower() or "refreshToken" in name}


def test_the_toy_contract_of_these_tests_is_a_good_one() -> None:
    responses = document_of(a_contract())["paths"]["/toys"]["get"]["responses"]

    assert responses.keys() == {"200", "404", "500"}


@pytest.mark.parametrize(
    "comments",
    [
        {"reason": "There is no such toy."},
        {"reason": "NOT_FOUND 404. There is no such toy."},
        {"reason": "NOT_THERE, 404. There is no such toy."},
        {"rpc": "Returns a toy.\n\nReasons: TOY_LOST."},
        {"rpc": "Returns a toy.\n\nReasons: TOY_NOT_FOUND, and others."},
        {"service": "Every rpc can also answer INTERNAL."},
    ],
    ids=str,
)
def test_an_unparsable_comment_ends_the_generation(comments: dict[str, str]) -> None:
    with pytest.raises(BadComment):
        document_of(a_contract(**comments))


def test_a_contract_without_comments_is_refused() -> None:
    with pytest.raises(ValueError, match="source info"):
        CommentedContract(DESCRIPTOR_SET.read_bytes())


def test_a_field_without_an_example_ends_the_generation() -> None:
    with pytest.raises(NoExample, match="colour"):
        document_of(a_contract(field="colour"))


def test_an_untranslated_rule_ends_the_generation() -> None:
    contract = a_contract()
    options = contract.file[-1].message_type[0].field[0].options
    options.Extensions[validate_pb2.field].string.email = True

    with pytest.raises(UnknownRule, match="email"):
        document_of(contract)


def test_operations_document_their_roles() -> None:
    paths = DOCUMENT["paths"]

    log_in, get_user = paths["/api/v1/sessions"]["post"], paths["/api/v1/users/{id}"]["get"]

    assert log_in["security"] == []
    assert get_user["security"] == [{"bearer": []}]
    assert get_user["description"].endswith("For its owner, admin and service.")
    assert {"401", "403"} <= get_user["responses"].keys()
    assert "403" not in log_in["responses"]


def test_an_rpc_without_an_access_rule_ends_the_generation() -> None:
    contract = a_contract()
    contract.file[-1].service[0].method[0].options.ClearExtension(access_pb2.access)

    with pytest.raises(NoAccess, match="GetToy"):
        document_of(contract)


def test_a_path_names_its_parameters_as_the_document_does() -> None:
    contract = a_contract(field="request_id")
    rule = contract.file[-1].service[0].method[0].options.Extensions[annotations_pb2.http]
    rule.get = "/api/v1/toys/{request_id}"
    field = contract.file[-1].message_type[0].field[0]

    [(path, item)] = document_of(contract)["paths"].items()

    assert field.name == "request_id"
    assert path == "/api/v1/toys/{requestId}"
    assert [each["name"] for each in item["get"]["parameters"] if each.get("in") == "path"] == ["requestId"]
