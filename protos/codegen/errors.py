"""The failures in the OpenAPI document: one schema for all, one example for each reason."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from google.rpc.code_pb2 import Code

from chassis.service import services
from protos.codegen.descriptors import json_name
from protos.codegen.examples import metadata_example

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chassis.service import Service
    from protos.codegen.json_types import Json, JsonObject
    from protos.codegen.reasons import Reason

_TYPE: Final = "type.googleapis.com/google.rpc."
_TEXT: Final[JsonObject] = {"type": "string"}


def error_responses(reasons: Sequence[Reason], *, headers: Mapping[str, Json]) -> JsonObject:
    """Return the answers of an operation that fails for these reasons, which are in the order of their status.

    Args:
        reasons: why it can fail.
        headers: those of all its answers.
    """
    by_status = groupby(reasons, key=lambda reason: reason.http)
    return {str(status): _response(list(group), headers) for status, group in by_status}


def error_examples(reasons: Sequence[Reason]) -> JsonObject:
    """Return the examples to which the answers refer, for the document's components."""
    return {
        f"{each.domain}.{each.name}": {"summary": each.name, "value": _body(each)}
        for each in sorted(reasons, key=lambda reason: (reason.domain, reason.name))
    }


def _response(reasons: Sequence[Reason], headers: Mapping[str, Json]) -> JsonObject:
    listed = "\n".join(f"* `{reason.name}`: {reason.text}{reason.notice}" for reason in reasons)
    if any(reason.retries for reason in reasons):
        headers = {**headers, "retry-after": {"$ref": "#/components/headers/RetryAfter"}}
    return {
        "description": listed,
        "headers": headers,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Error"},
                "examples": {
                    reason.name: {"$ref": f"#/components/examples/{reason.domain}.{reason.name}"} for reason in reasons
                },
            }
        },
    }


def _body(reason: Reason) -> Mapping[str, Json]:
    message = reason.text.partition(" Metadata:")[0]
    return {"code": Code.Value(reason.code), "message": message, "details": _details(reason, message=message)}


def _details(reason: Reason, *, message: str) -> list[Json]:
    facts = {name: metadata_example(name, domain=reason.domain) for name in reason.metadata}
    details: list[Json] = [
        {"@type": f"{_TYPE}ErrorInfo", "reason": reason.name, "domain": reason.domain, "metadata": facts}
    ]
    if "BadRequest" in reason.text:
        violation = {"field": "email", "description": "must be at least 3 characters", "reason": "string.min_len"}
        details.append({"@type": f"{_TYPE}BadRequest", "fieldViolations": [violation]})
    subject = _subject_of(reason)
    if reason.code == "FAILED_PRECONDITION":
        violation = {"type": reason.name, "subject": subject, "description": message}
        details.append({"@type": f"{_TYPE}PreconditionFailure", "violations": [violation]})
    if reason.code == "NOT_FOUND" and subject:
        resource = "".join(word.title() for word in reason.name.removesuffix("_NOT_FOUND").split("_"))
        kind = f"{reason.domain}.{resource}"
        about = {"resourceType": kind, "resourceName": subject, "owner": "", "description": message}
        details.append({"@type": f"{_TYPE}ResourceInfo", **about})
    if reason.retries:
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": "1s"})
    return details


def _subject_of(reason: Reason) -> str:
    """Return the name of the resource that the reason is about; empty if it is about none."""
    if reason.name == "RESUME_TOKEN_EXPIRED":
        return "resumeToken"
    ids = {f"{json_name(service.publishes)}Id": service.path_name for service in services() if service.publishes}
    for name in reason.metadata:
        if name in ids:
            return f"{ids[name]}/{metadata_example(name, domain=reason.domain)}"
    own = [f"{json_name(service.publishes)}Id" for service in services() if _is_of(service, reason.domain)]
    # A failed precondition is about the state of the service's own resource, if its facts do not say about which.
    if reason.code == "FAILED_PRECONDITION" and own:
        return f"{ids[own[0]]}/{metadata_example(own[0], domain=reason.domain)}"
    return ""


def _is_of(service: Service, package: str) -> bool:
    return bool(service.publishes) and any(served.startswith(f"{package}.") for served in service.serves)


def _detail(name: str, *, says: str, properties: JsonObject) -> JsonObject:
    kind: JsonObject = {"type": "string", "const": _TYPE + name}
    return {
        "type": "object",
        "title": name,
        "description": says,
        "required": ["@type", *properties],
        "properties": {"@type": kind, **properties},
    }


def _list_of(**properties: Json) -> JsonObject:
    return {"type": "array", "items": {"type": "object", "required": list(properties), "properties": properties}}


ERROR_SCHEMAS: Final[Mapping[str, JsonObject]] = {
    "Error": {
        "type": "object",
        "description": "A google.rpc.Status: the body of every failure, of a service or of the edge.",
        "required": ["code", "message", "details"],
        "properties": {
            "code": {"type": "integer", "description": "The gRPC status.", "minimum": 1, "maximum": 16},
            "message": {"type": "string", "description": "For people: what happened and what to do."},
            "details": {
                "type": "array",
                "description": "For programs: always an ErrorInfo with the reason; other details depend on it.",
                "items": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/ErrorInfo"},
                        {"$ref": "#/components/schemas/BadRequest"},
                        {"$ref": "#/components/schemas/PreconditionFailure"},
                        {"$ref": "#/components/schemas/ResourceInfo"},
                        {"$ref": "#/components/schemas/RetryInfo"},
                    ]
                },
            },
        },
    },
    "ErrorInfo": _detail(
        "ErrorInfo",
        says="The reason why the call failed.",
        properties={
            "reason": {
                "type": "string",
                "description": "One of the reasons listed with the answer.",
                "pattern": "^[A-Z0-9_]+$",
            },
            "domain": {"type": "string", "description": "The package of the contract that declares the reason."},
            "metadata": {
                "type": "object",
                "description": "Facts, by name.",
                "additionalProperties": _TEXT,
            },
        },
    ),
    "BadRequest": _detail(
        "BadRequest",
        says="The fields of the request that are wrong: `reason` is the rule that each breaks.",
        properties={"fieldViolations": _list_of(field=_TEXT, description=_TEXT, reason=_TEXT)},
    ),
    "PreconditionFailure": _detail(
        "PreconditionFailure",
        says="The state that forbids the call: `subject` is the resource that is in it.",
        properties={"violations": _list_of(type=_TEXT, subject=_TEXT, description=_TEXT)},
    ),
    "ResourceInfo": _detail(
        "ResourceInfo",
        says="The resource that does not exist.",
        properties={"resourceType": _TEXT, "resourceName": _TEXT, "owner": _TEXT, "description": _TEXT},
    ),
    "RetryInfo": _detail(
        "RetryInfo",
        says="How long to wait before the call is tried again.",
        properties={"retryDelay": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,9})?s$", "examples": ["1s"]}},
    ),
}
