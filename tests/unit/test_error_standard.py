"""Errors as AIP-193 and google/rpc/error_details.proto want them, and as the contract and docs/errors.md describe them.

Every error of ours is made twice, from facts that differ in everything: what differs in the messages are their dynamic
parts.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pool, json_format
from google.rpc import code_pb2, error_details_pb2

import order_svc.errors
from chassis import errors
from chassis.errors import DomainError, FailedPrecondition, NotFound
from chassis.server.contract import service_names
from chassis.server.status import code_of, status_of
from tests.support.domain_errors import ERRORS, an_error, name_of
from tests.support.reasons import REASONS, Reason
from tests.unit.chassis.server.test_errors import detail

REPOSITORY: Final = Path(__file__).parents[2]
PAGES: Final = (REPOSITORY / "docs" / "errors.md", *sorted((REPOSITORY / "docs" / "services").glob("*.md")))
DOCS: Final = "\n".join(page.read_text() for page in PAGES)

ID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
MADE: Final = [kind for kind in ERRORS if {"__init__", "message"} & vars(kind).keys()]


def collections() -> dict[str, str]:
    """Return, by the full name of each resource, the word for many of them in the paths of REST: `orders`."""
    methods = [
        method
        for service in service_names()
        for method in descriptor_pool.Default().FindServiceByName(service).methods
        if method.name == f"Get{method.output_type.name}"
    ]
    paths = {
        method.output_type.full_name: method.GetOptions().Extensions[annotations_pb2.http].get for method in methods
    }
    return {name: re.sub(r"/\{\w+\}$", "", path).rpartition("/")[2] for name, path in paths.items()}


COLLECTIONS: Final = collections()


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w.-]*\w", text))


def test_every_error_is_made() -> None:
    assert set(ERRORS) - set(MADE) == {errors.OutcomeUnknown}, "those that are made as their parents are"


@pytest.mark.parametrize("kind", MADE, ids=name_of)
def test_every_dynamic_part_of_a_message_is_in_the_metadata(kind: type[DomainError]) -> None:
    one, other = an_error(kind), an_error(kind)

    dynamic = words(one.message) - words(other.message)
    told = set().union(*(words(value) for value in one.metadata.values()))

    assert dynamic - told == set()


@pytest.mark.parametrize("kind", MADE, ids=name_of)
def test_facts_are_named_in_lower_camel_case(kind: type[DomainError]) -> None:
    keys = an_error(kind).metadata

    assert [key for key in keys if not re.fullmatch(r"[a-z][a-zA-Z0-9]{0,63}", key)] == []


@pytest.mark.parametrize("kind", MADE, ids=name_of)
def test_a_reason_is_in_capitals_and_short(kind: type[DomainError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]", kind.reason)


@pytest.mark.parametrize("kind", MADE, ids=name_of)
def test_no_kind_of_detail_comes_twice(kind: type[DomainError]) -> None:
    kinds = [each.type_url for each in status_of(an_error(kind)).details]

    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize(
    "kind", [kind for kind in MADE if issubclass(kind, FailedPrecondition)], ids=lambda kind: kind.__name__
)
def test_a_failed_precondition_names_the_resource_in_the_wrong_state(kind: type[DomainError]) -> None:
    error = an_error(kind)

    (violation,) = detail(status_of(error), error_details_pb2.PreconditionFailure).violations

    assert re.fullmatch(rf"({'|'.join(COLLECTIONS.values())})/{ID}|resumeToken", violation.subject)
    assert (violation.type, violation.description) == (error.reason, error.message)


@pytest.mark.parametrize("kind", [kind for kind in MADE if issubclass(kind, NotFound)], ids=lambda kind: kind.__name__)
def test_a_not_found_error_names_the_resource(kind: type[DomainError]) -> None:
    error = an_error(kind)

    resource = detail(status_of(error), error_details_pb2.ResourceInfo)

    message = descriptor_pool.Default().FindMessageTypeByName(resource.resource_type)
    (resource_id,) = error.metadata.values()
    assert message.file.package == error.domain
    assert resource.resource_name == f"{COLLECTIONS[message.full_name]}/{resource_id}"
    assert resource.description == error.message


@pytest.mark.parametrize("reason", REASONS.values(), ids=lambda reason: reason.name)
def test_the_page_and_the_contract_say_the_same_of_a_reason(reason: Reason) -> None:
    rows = [line.split(" | ") for line in DOCS.splitlines() if re.match(r"\| [A-Z0-9_, ]+ \| ", line)]

    told = [row[1] for row in rows if reason.name in row[0].removeprefix("| ").split(", ")]

    # Errors of the edge have no gRPC status of their own: over gRPC the library's status is used.
    expected = f"{reason.code}, {reason.http}" if reason.name != "ROUTE_NOT_FOUND" else "UNIMPLEMENTED over gRPC; 404"
    assert set(told) == {expected}
    assert reason.code in code_pb2.Code.keys()  # noqa: SIM118  an enum of protobuf


@pytest.mark.parametrize("reason", REASONS.values(), ids=lambda reason: reason.name)
def test_the_contract_names_the_facts_that_come_with_a_reason(reason: Reason) -> None:
    raised = [an_error(kind) for kind in MADE if (kind.domain, kind.reason) == reason.key]

    ever = set(re.findall(r"`(\w+)`", reason.text))

    assert all(reason.metadata <= error.metadata.keys() <= ever for error in raised)
    assert ever == {key for error in raised for key in error.metadata} or not raised
    assert {code_of(error).name for error in raised} <= {reason.code}
    details = {each.type_url.rpartition(".")[2] for error in raised for each in status_of(error).details}
    for said in ("BadRequest", "RetryInfo"):
        assert (said in details) <= (said in reason.text), f"the comment names no {said}"


def test_the_example_of_the_page_is_the_real_answer() -> None:
    blocks = re.findall(r"```json\n(.+?)```", DOCS, re.DOTALL)
    example = json.loads(blocks[0])
    facts = example["details"][0]["metadata"]
    order_id = UUID(example["details"][1]["violations"][0]["subject"].removeprefix("orders/"))
    error = order_svc.errors.InvalidStatusTransition(
        order_id, current=facts["from"], wanted=facts["to"], allowed=facts["allowed"].split(",")
    )

    assert example == json_format.MessageToDict(status_of(error))
