"""Errors as AIP-193 and google/rpc/error_details.proto want them, and as the contract and docs/errors.md describe them.

Every error of ours is made twice, from facts that differ in everything: what differs in the messages are their dynamic
parts.
"""

from __future__ import annotations

import inspect
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from google.protobuf import descriptor_pool, json_format
from google.rpc import code_pb2, error_details_pb2

import order_svc.errors
import user_svc.errors
from chassis import errors
from chassis.errors import DomainError, FailedPrecondition, FieldViolation, NotFound
from chassis.server.status import code_of, status_of
from tests.unit.chassis.server.test_errors import CODES, detail, is_ours, kinds_of

REPOSITORY: Final = Path(__file__).parents[4]
PAGES: Final = (REPOSITORY / "docs" / "errors.md", *sorted((REPOSITORY / "docs" / "services").glob("*.md")))
DOCS: Final = "\n".join(page.read_text() for page in PAGES)

ID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NUMBERS: Final = itertools.count(1001)

# Arguments for an error, by the type of the parameter: another value at each call.
FACTS: Final[dict[Any, Callable[[], object]]] = {
    str: lambda: f"fact{next(_NUMBERS)}",
    float: lambda: float(next(_NUMBERS)),
    UUID: uuid4,
    Iterable[str]: lambda: [f"fact{next(_NUMBERS)}", f"fact{next(_NUMBERS)}"],
    Sequence[FieldViolation]: lambda: [FieldViolation(f"fact{next(_NUMBERS)}", "must be right") for _ in "ab"],
}
NAMES: Final = {"UUID": UUID, "Iterable": Iterable, "Mapping": Mapping, "Sequence": Sequence}
MADE: Final = sorted(
    {kind for kind in kinds_of(DomainError) if is_ours(kind) and hasattr(kind, "reason") and "__init__" in vars(kind)},
    key=lambda kind: (kind.__module__, kind.__name__),
)


def an_error(kind: type[DomainError]) -> DomainError:
    """Return an error of the kind, from facts that no other has."""
    parameters = inspect.signature(kind, eval_str=True, locals=NAMES).parameters.values()
    required = [each for each in parameters if each.default is each.empty]
    positional = [FACTS[each.annotation]() for each in required if each.kind is not each.KEYWORD_ONLY]
    keywords: dict[str, Any] = {
        each.name: FACTS[each.annotation]() for each in required if each.kind is each.KEYWORD_ONLY
    }
    return kind(*positional, **keywords)


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w.-]*\w", text))


def test_every_error_is_made() -> None:
    with_reason = {kind for kind in kinds_of(DomainError) if is_ours(kind) and hasattr(kind, "reason")}

    assert {order_svc.errors.AmountTooFine, user_svc.errors.TooManyAttempts, errors.StreamTooSlow} <= set(MADE)
    assert with_reason - set(MADE) == {errors.OutcomeUnknown}, "those that are made as their parents are"


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_dynamic_part_of_a_message_is_in_the_metadata(kind: type[DomainError]) -> None:
    one, other = an_error(kind), an_error(kind)

    dynamic = words(one.message) - words(other.message)
    told = set().union(*(words(value) for value in one.metadata.values()))

    assert dynamic - told == set()


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_facts_are_named_in_lower_camel_case(kind: type[DomainError]) -> None:
    keys = an_error(kind).metadata

    assert [key for key in keys if not re.fullmatch(r"[a-z][a-zA-Z0-9]{0,63}", key)] == []


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_reason_is_in_capitals_and_short(kind: type[DomainError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]", kind.reason)


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_no_kind_of_detail_comes_twice(kind: type[DomainError]) -> None:
    kinds = [each.type_url for each in status_of(an_error(kind)).details]

    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize(
    "kind", [kind for kind in MADE if issubclass(kind, FailedPrecondition)], ids=lambda kind: kind.__name__
)
def test_a_failed_precondition_names_the_resource_in_the_wrong_state(kind: type[DomainError]) -> None:
    error = an_error(kind)

    (violation,) = detail(status_of(error), error_details_pb2.PreconditionFailure).violations

    assert re.fullmatch(rf"(orders|users)/{ID}|resumeToken", violation.subject)
    assert (violation.type, violation.description) == (error.reason, error.message)


@pytest.mark.parametrize("kind", [kind for kind in MADE if issubclass(kind, NotFound)], ids=lambda kind: kind.__name__)
def test_a_not_found_error_names_the_resource(kind: type[DomainError]) -> None:
    error = an_error(kind)

    resource = detail(status_of(error), error_details_pb2.ResourceInfo)

    message = descriptor_pool.Default().FindMessageTypeByName(resource.resource_type)
    (resource_id,) = error.metadata.values()
    assert message.file.package == error.domain
    assert resource.resource_name == f"{message.name.lower()}s/{resource_id}"
    assert resource.description == error.message


def declared() -> Iterator[tuple[str, str, str, int, str]]:
    """Yield the reasons of the contract: package, name, gRPC code, HTTP status, what else the comment says."""
    for file in sorted(REPOSITORY.glob("protos/shop/*/v1/error_reason.proto")):
        text = file.read_text()
        for comment, name in re.findall(r"((?:  // .*\n)+)  ERROR_REASON_(\w+) = [1-9]", text):
            match = re.fullmatch(r"([A-Z_]+), (\d{3})\. (.+)", " ".join(comment.replace("//", "").split()))
            assert match, name
            yield f"shop.{file.parts[-3]}.v1", name, match[1], int(match[2]), match[3]


REASONS: Final = list(declared())


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason[1])
def test_the_page_and_the_contract_say_the_same_of_a_reason(reason: tuple[str, str, str, int, str]) -> None:
    _, name, code, http, _ = reason
    rows = [line.split(" | ") for line in DOCS.splitlines() if re.match(r"\| [A-Z_, ]+ \| ", line)]

    told = [row[1] for row in rows if name in row[0].removeprefix("| ").split(", ")]

    # Errors of the edge have no gRPC status of their own: over gRPC the library's status is used.
    expected = f"{code}, {http}" if name != "ROUTE_NOT_FOUND" else "UNIMPLEMENTED over gRPC; 404"
    assert set(told) == {expected}
    assert CODES.get(name, code) == code
    assert code in code_pb2.Code.keys()  # noqa: SIM118  an enum of protobuf


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason[1])
def test_the_contract_names_the_facts_that_come_with_a_reason(reason: tuple[str, str, str, int, str]) -> None:
    domain, name, code, _, text = reason
    raised = [an_error(kind) for kind in MADE if (kind.domain, kind.reason) == (domain, name)]

    always = set(re.findall(r"`(\w+)`", text.partition("Metadata:")[2]))
    ever = set(re.findall(r"`(\w+)`", text))

    assert all(always <= error.metadata.keys() <= ever for error in raised)
    assert ever == {key for error in raised for key in error.metadata} or not raised
    assert {code_of(error).name for error in raised} <= {code}
    details = {each.type_url.rpartition(".")[2] for error in raised for each in status_of(error).details}
    for said in ("BadRequest", "RetryInfo"):
        assert (said in details) <= (said in text), f"the comment names no {said}"


def test_the_example_of_the_page_is_the_real_answer() -> None:
    blocks = re.findall(r"```json\n(.+?)```", DOCS, re.DOTALL)
    example = json.loads(blocks[0])
    facts = example["details"][0]["metadata"]
    order_id = UUID(example["details"][1]["violations"][0]["subject"].removeprefix("orders/"))
    error = order_svc.errors.InvalidStatusTransition(
        order_id, current=facts["from"], wanted=facts["to"], allowed=facts["allowed"].split(",")
    )

    assert example == json_format.MessageToDict(status_of(error))
