"""What is deprecated in the contract: its dates are checked, and every generated document says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.api.field_behavior_pb2 import FieldBehavior, field_behavior
from openapi_spec_validator import OpenAPIV31SpecValidator
from shop.system.v1 import deprecation_pb2

from protos.codegen import events
from protos.codegen.deprecation import BadDeprecation
from protos.codegen.descriptors import Contract
from tests.unit.protos.test_openapi import a_contract, document_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

DATES = {"since": "2026-11-01", "sunset": "2027-05-01", "replacement": "Use `list_toys`."}
SAID = "Deprecated as of 2026-11-01; may be removed from 2027-05-01 on. Use `listToys`."
OPTIONS = {
    "file": deprecation_pb2.file_deprecation,
    "service": deprecation_pb2.service_deprecation,
    "method": deprecation_pb2.method_deprecation,
    "message": deprecation_pb2.message_deprecation,
    "field": deprecation_pb2.field_deprecation,
    "enum": deprecation_pb2.enum_deprecation,
    "value": deprecation_pb2.value_deprecation,
}
PARTS: dict[str, Callable[[FileDescriptorProto], Any]] = {
    "file": lambda file: file,
    "service": lambda file: file.service[0],
    "method": lambda file: file.service[0].method[0],
    "message": lambda file: file.message_type[0],
    "field": lambda file: file.message_type[0].field[0],
    "enum": lambda file: file.enum_type[0],
    "value": lambda file: file.enum_type[0].value[1],
}
EVERY_PART = pytest.mark.parametrize("part", PARTS)


def deprecate(contract: FileDescriptorSet, part: str, **dates: str) -> FileDescriptorSet:
    """Deprecate a part of the contract's last file, with the dates or with good ones."""
    options = PARTS[part](contract.file[-1]).options
    options.deprecated = True
    options.Extensions[OPTIONS[part]].CopyFrom(deprecation_pb2.Deprecation(**(DATES | dates)))
    return contract


def operation_of(contract: FileDescriptorSet) -> dict[str, Any]:
    found: dict[str, Any] = document_of(contract)["paths"]["/toys"]["get"]
    return found


def test_nothing_is_deprecated_unless_the_contract_says_so() -> None:
    document = document_of(a_contract())

    assert "deprecated" not in str(document["paths"])
    assert document["components"]["headers"].keys() == {"RequestId", "RetryAfter"}


@pytest.mark.parametrize("part", ["method", "service", "file"])
def test_an_operation_is_deprecated_by_itself_by_its_service_and_by_its_file(part: str) -> None:
    operation = operation_of(deprecate(a_contract(), part))

    assert operation["deprecated"] is True
    assert operation["description"] == f"Returns a toy.\n\n{SAID}\n\nPublic: needs no access token."


def test_the_nearest_deprecation_counts() -> None:
    contract = deprecate(deprecate(a_contract(), "service"), "method", replacement="Use GetGame.")

    assert "Use GetGame." in operation_of(contract)["description"]


def test_each_answer_of_a_deprecated_operation_has_the_headers() -> None:
    document = document_of(deprecate(a_contract(), "method"))

    responses = document["paths"]["/toys"]["get"]["responses"]
    assert responses.keys() == {"200", "404", "500"}
    for response in responses.values():
        assert response["headers"].keys() == {"x-request-id", "deprecation", "sunset", "link"}
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_without_a_sunset_nobody_promises_one() -> None:
    operation = operation_of(deprecate(a_contract(), "method", sunset=""))

    assert "Deprecated as of 2026-11-01. Use `listToys`." in operation["description"]
    assert operation["responses"]["200"]["headers"].keys() == {"x-request-id", "deprecation", "link"}


def test_a_deprecated_field_is_a_deprecated_parameter_and_property() -> None:
    document = document_of(deprecate(a_contract(), "field"))

    [parameter] = document["paths"]["/toys"]["get"]["parameters"]
    schema = document["components"]["schemas"]["GetToyRequest"]
    assert parameter["deprecated"] is True
    assert "deprecated" not in parameter["schema"]
    assert parameter["description"].endswith(SAID)
    assert schema["properties"]["service"]["deprecated"] is True
    assert "deprecated" not in schema
    assert "deprecated" not in document["paths"]["/toys"]["get"]


@pytest.mark.parametrize("part", ["message", "file"])
def test_a_deprecated_message_is_a_deprecated_schema(part: str) -> None:
    schema = document_of(deprecate(a_contract(), part))["components"]["schemas"]["GetToyRequest"]

    assert schema["deprecated"] is True
    assert schema["description"].endswith(SAID)


def test_a_deprecated_service_says_so_on_the_page() -> None:
    [tag] = document_of(deprecate(a_contract(), "service"))["tags"]

    assert tag["description"].endswith(SAID)


def test_a_deprecated_reason_is_still_read_and_says_so() -> None:
    contract = deprecate(a_contract(), "value", replacement="It is `FAR` away.")

    answer = document_of(contract)["paths"]["/toys"]["get"]["responses"]["404"]
    assert answer["description"].endswith("It is `FAR` away.")
    example = document_of(contract)["components"]["examples"]["shop.toy.v1.TOY_NOT_FOUND"]["value"]
    assert example["details"][0]["metadata"] == {}


def test_the_page_of_events_says_what_is_deprecated() -> None:
    contract = a_contract()
    file = contract.file.add(name="events.proto", package="shop.event.v1", syntax="proto3")
    file.message_type.add(name="UserLost").field.add(
        name="user_id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL"
    )
    file.source_code_info.location.add(path=[4, 0], leading_comments="A user was lost.")
    file.source_code_info.location.add(path=[4, 0, 2, 0], leading_comments="The user.")
    deprecate(deprecate(contract, "message"), "field")

    page = events.document(Contract(contract.SerializeToString()))

    assert f"A user was lost. {SAID}" in page
    assert f"| The user. {SAID} |" in page


@EVERY_PART
def test_what_is_deprecated_without_dates_is_refused(part: str) -> None:
    contract = a_contract()
    PARTS[part](contract.file[-1]).options.deprecated = True

    with pytest.raises(BadDeprecation, match=rf"so add the option \(shop\.system\.v1\.{part}_deprecation\)"):
        document_of(contract)


@EVERY_PART
def test_dates_of_what_is_not_deprecated_are_refused(part: str) -> None:
    contract = deprecate(a_contract(), part)
    PARTS[part](contract.file[-1]).options.deprecated = False

    with pytest.raises(BadDeprecation, match=r"so add `deprecated = true`, or remove the option"):
        document_of(contract)


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        ({"since": ""}, "`since` must be a day such as 2026-11-01, not ''"),
        ({"since": "20261101"}, "`since` must be a day"),
        ({"since": "2026-02-30"}, "`since` must be a day"),
        ({"sunset": "soon"}, "`sunset` must be a day such as 2027-05-01, not 'soon'"),
        ({"sunset": "2027-04-29"}, "`sunset` must be 2027-04-30 or later, 180 days after `since`"),
        ({"sunset": "2026-10-31"}, "`sunset` must be 2027-04-30 or later"),
        ({"replacement": ""}, "`replacement` must say"),
        ({"replacement": "ListToys"}, "`replacement` must say in whole sentences"),
    ],
    ids=str,
)
def test_a_bad_option_is_refused_with_what_to_do(dates: dict[str, str], message: str) -> None:
    with pytest.raises(BadDeprecation, match=rf"shop\.toy\.v1\.ToyService\.GetToy: {message}"):
        document_of(deprecate(a_contract(), "method", **dates))


def test_a_sunset_after_180_days_is_accepted() -> None:
    assert operation_of(deprecate(a_contract(), "method", sunset="2027-04-30"))["deprecated"] is True


def test_a_deprecated_field_cannot_be_required() -> None:
    contract = deprecate(a_contract(), "field")
    contract.file[-1].message_type[0].field[0].options.Extensions[field_behavior].append(FieldBehavior.REQUIRED)

    with pytest.raises(BadDeprecation, match=r"GetToyRequest\.service: it is REQUIRED"):
        document_of(contract)


def test_every_fault_is_told_at_once() -> None:
    contract = deprecate(deprecate(a_contract(), "method", since=""), "field", replacement="")

    with pytest.raises(BadDeprecation) as refused:
        document_of(contract)

    assert len(str(refused.value).splitlines()) == 2
