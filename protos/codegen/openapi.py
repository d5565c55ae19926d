"""Prints the contract as an OpenAPI 3.1 document, from a descriptor set with source info on standard input.

It describes REST exactly as Envoy's transcoder renders it, so it is generated from what the transcoder reads, and
strict: what has no translation, as a rule, a comment or an example, ends the generation.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chassis.service import services
from envoy.operations import heading_of, operation_id
from protos.codegen.access import BEARER, callers_of, security_of
from protos.codegen.descriptors import Contract, bindings, fields_of
from protos.codegen.errors import ERROR_SCHEMAS, error_examples, error_responses
from protos.codegen.examples import REQUEST_ID, example_of
from protos.codegen.reasons import Reasons, without_reasons
from protos.codegen.refusals import ending_with_a_sentence
from protos.codegen.schemas import Schemas, is_required

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor

    from protos.codegen.descriptors import Binding
    from protos.codegen.json_types import Json, JsonObject
    from protos.deprecation import Deprecation

_INTRODUCTION: Final = Path(__file__).with_name("introduction.md")


_HEADERS: Final[JsonObject] = {
    "RequestId": {
        "description": "The id of the call in the logs of the edge and of the services.",
        "schema": {"type": "string", "format": "uuid"},
    },
    "RetryAfter": {
        "description": "How many seconds to wait before the call is tried again.",
        "schema": {"type": "integer", "minimum": 0},
    },
}
_HEADERS_OF_DEPRECATED: Final[JsonObject] = {
    "Deprecation": {
        "description": "The moment as of which the operation is deprecated, in seconds since 1970 (RFC 9745).",
        "schema": {"type": "string", "pattern": "^@[0-9]+$", "examples": ["@1793491200"]},
    },
    "Sunset": {
        "description": "The moment from which on the operation may be gone (RFC 8594).",
        "schema": {"type": "string", "examples": ["Sat, 01 May 2027 00:00:00 GMT"]},
    },
    "Link": {
        "description": 'Where the deprecation is described: `rel="deprecation"`.',
        "schema": {"type": "string"},
    },
}
_PARAMETERS: Final[JsonObject] = {
    "IdempotencyKey": {
        "name": "idempotency-key",
        "in": "header",
        "description": "The idempotency key as a header. If the field `requestId` is present too, the field counts.",
        "schema": {"type": "string", "format": "uuid", "examples": [REQUEST_ID]},
    }
}


class Document:
    """The document of one contract."""

    def __init__(self, contract: Contract) -> None:
        self._contract: Final = contract
        self._schemas: Final = Schemas(contract)
        self._reasons: Final = Reasons(contract)

    def as_json(self) -> JsonObject:
        """Return the whole document."""
        services = sorted(self._contract.services, key=_place_on_page)
        paths = self._paths(services)
        schemas = {**self._schemas.components, **ERROR_SCHEMAS}
        return {
            "openapi": "3.1.0",
            "info": {"title": "Shop", "version": "v1", "description": _INTRODUCTION.read_text()},
            "servers": [{"url": "/", "description": "The edge that serves this document."}],
            "tags": [
                {"name": heading_of(each.full_name), "description": self._comment(each.full_name)} for each in services
            ],
            "paths": paths,
            "components": {
                "schemas": dict(sorted(schemas.items())),
                "parameters": _PARAMETERS,
                "headers": _HEADERS | (_HEADERS_OF_DEPRECATED if _has_deprecated(paths) else {}),
                "examples": error_examples(self._reasons.declared),
                "securitySchemes": BEARER,
            },
        }

    def _paths(self, services: list[ServiceDescriptor]) -> dict[str, dict[str, JsonObject]]:
        paths: dict[str, dict[str, JsonObject]] = {}
        for service in services:
            for method in service.methods:
                for number, binding in enumerate(bindings(method), start=1):
                    operation = self._operation(method, binding=binding, number=number)
                    paths.setdefault(binding.json_path, {})[binding.verb] = operation
        return paths

    def _operation(self, method: MethodDescriptor, *, binding: Binding, number: int) -> JsonObject:
        operation: JsonObject = {
            "operationId": operation_id(method.name, number=number),
            "tags": [heading_of(method.containing_service.full_name)],
            "summary": _in_words(method.name),
            "description": f"{self._comment(method.full_name)}\n\n{callers_of(method)}",
            "parameters": self._parameters(method, binding=binding),
        }
        if binding.has_body:
            operation["requestBody"] = self._body(method, binding=binding)
        reasons = self._reasons.of(method, binding=binding)
        deprecation = self._contract.deprecation(method.full_name)
        headers = _headers(deprecation)
        responses = self._success(method, binding=binding, headers=headers)
        operation["responses"] = responses | error_responses(reasons, headers=headers)
        if deprecation:
            operation["deprecated"] = True
        return operation | security_of(method)

    def _parameters(self, method: MethodDescriptor, *, binding: Binding) -> list[Json]:
        fields = method.input_type.fields
        in_path = [self._parameter(each, place="path") for each in fields if each.name in binding.path_fields]
        in_query = [
            self._parameter(each, place="query")
            for each in fields_of(method.input_type, without=binding.path_fields)
            # Queries are logged, so secrets must not be in them.
            if each.message_type is None and not binding.has_body and not each.GetOptions().debug_redact
        ]
        has_request_id = "request_id" in method.input_type.fields_by_name
        headers = [{"$ref": "#/components/parameters/IdempotencyKey"}] if has_request_id else []
        return [*in_path, *in_query, *headers]

    def _parameter(self, field: FieldDescriptor, *, place: str) -> JsonObject:
        schema = self._schemas.field(field, is_request=True)
        # Documentation pages fill their forms with examples, and a call with a made-up id or page token would fail.
        schema.pop("examples", None)
        is_deprecated = schema.pop("deprecated", False)
        return {
            "name": field.json_name,
            "in": place,
            "description": schema.pop("description"),
            **({"required": True} if is_required(field) else {}),
            **({"deprecated": True} if is_deprecated else {}),
            "schema": schema,
        }

    def _body(self, method: MethodDescriptor, *, binding: Binding) -> JsonObject:
        request = method.input_type
        content: JsonObject = {
            "schema": self._schemas.message(request, is_request=True, without=binding.path_fields),
            "example": example_of(request, is_request=True, without=binding.path_fields),
        }
        return {"required": True, "content": {"application/json": content}}

    def _success(self, method: MethodDescriptor, *, binding: Binding, headers: JsonObject) -> JsonObject:
        answer = method.output_type
        schema = self._schemas.message(answer, is_request=False)
        example = example_of(answer, is_request=False)
        kind = "application/json"
        content: JsonObject = {"schema": schema, "example": example}
        if method.server_streaming:
            kind = "text/event-stream"
            content = {
                "schema": schema | {"description": "The message after each `data:`."},
                "example": f"data: {json.dumps(example)}\n\n",
            }
        is_creation = binding.verb == "post" and method.name.startswith("Create")
        response: JsonObject = {
            "description": "Created" if is_creation else "OK",
            "headers": headers,
            "content": {kind: content},
        }
        return {"201" if is_creation else "200": response}

    def _comment(self, name: str) -> str:
        return without_reasons(self._contract.comment(name)) + self._contract.notice(name, after="\n\n")


def _has_deprecated(paths: dict[str, dict[str, JsonObject]]) -> bool:
    return any("deprecated" in operation for item in paths.values() for operation in item.values())


def _headers(deprecation: Deprecation | None) -> JsonObject:
    """Return the headers of each answer of an operation."""
    names = {"x-request-id": "RequestId"}
    if deprecation:
        names |= {"deprecation": "Deprecation", "link": "Link"} | ({"sunset": "Sunset"} if deprecation.sunset else {})
    return {name: {"$ref": f"#/components/headers/{component}"} for name, component in names.items()}


def _place_on_page(service: ServiceDescriptor) -> int:
    """Return the place of a gRPC service among all: in the order of starting, services of every process last."""
    served = [name for each in services() for name in each.serves]
    return served.index(service.full_name) if service.full_name in served else len(served)


def _in_words(name: str) -> str:
    """Return the name of an rpc as a heading: `BatchGetUsers` becomes `Batch get users`."""
    return re.sub(r"(?<=[a-z])([A-Z])", r" \1", name).capitalize()


def main() -> None:
    """Print the document of the descriptor set on standard input."""
    with ending_with_a_sentence():
        contract = Contract(sys.stdin.buffer.read())
        sys.stdout.write(json.dumps(Document(contract).as_json(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
