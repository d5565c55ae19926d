"""Example values of fields: realistic, so that a form filled with them can be sent unchanged.

Each package has its own in `examples.toml` beside its files. A field is looked up there as `Message.field` first, then
by its name alone, then among the common ones.
"""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from protos.codegen.descriptors import entry_of, fields_of
from protos.codegen.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from protos.codegen.json_types import Json

REQUEST_ID: Final = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
_PROTOS: Final = Path(__file__).parents[1]
_EVENT_ID: Final = "01930b71-03fb-7c02-b1d9-3f60a85e7b41"
_USER_ID: Final = "01930b6e-8c2a-7d41-9f35-5b1e0c7a2d64"
_EARLIER: Final = "2026-03-01T12:00:00.125Z"
_LATER: Final = "2026-03-01T12:04:31.500Z"

# Fields that several packages have. A package's own fields are in its examples.toml.
_COMMON: Final[Mapping[str, Json]] = {
    "created_at": _EARLIER,
    "etag": "v1",
    "fields": "items[0].unitPrice",
    "google.type.Money.currency_code": "EUR",
    "google.type.Money.units": "4",
    "google.type.Money.nanos": 500_000_000,
    "currencyCode": "EUR",
    "minorUnit": "0.01",
    "next_page_token": "",
    "occurred_at": _LATER,
    "page_size": 20,
    "page_token": "",
    "peak_rss_kib": 88_104,
    "request_id": REQUEST_ID,
    "requestId": REQUEST_ID,
    "resume_token": _EVENT_ID,
    "resumeToken": _EVENT_ID,
    "roles": "ADMIN",
    "rss_kib": 84_412,
    "service": "user_svc",
    "timestamp": _LATER,
    "updated_at": _LATER,
    "uptime": "86400.250s",
    "user_id": _USER_ID,
    "userId": _USER_ID,
    "version": "0.1.0",
}

_LEFT_OUT: Final = frozenset({"etag", "request_id", "page_token", "resume_token", "user_id"})
"""Fields whose example must not be sent: it names another resource or user, or makes a second call a repetition."""


class NoExample(Refusal):
    """A field of the contract has no example."""


def example_of(
    message: Descriptor, *, is_request: bool, without: Sequence[str] = (), within: Sequence[Descriptor] = ()
) -> Mapping[str, Json]:
    """Return a message as JSON.

    Args:
        message: the message.
        is_request: whether a caller sends it.
        without: fields that come another way.
        within: the messages around it, of which it holds no further one.

    Raises:
        NoExample: a field of it has none.
    """
    around = (*within, message)
    return {
        field.json_name: example(field, is_request=is_request, within=around)
        for field in fields_of(message, without=without)
        if not ((is_request and field.name in _LEFT_OUT) or _is_error(field) or _is_alternative(field))
        and field.message_type not in around
    }


def example(field: FieldDescriptor, *, is_request: bool, within: Sequence[Descriptor] = ()) -> Json:
    """Return the field's value as JSON.

    Raises:
        NoExample: the field has none. A message's fields and an enum's first value after zero speak for themselves;
            a scalar, a map and the messages of Google's that have a form of their own in JSON do not.
    """
    message_type = cast("Descriptor", field.containing_type)
    package, message = message_type.file.package, message_type.name
    values = _values_of(package)
    for name in (f"{package}.{message}.{field.name}", f"{message}.{field.name}", field.name):
        if name in values:
            return values[name]
    if field.enum_type is not None:
        value: Json = field.enum_type.values[:2][-1].name
    elif field.message_type and not entry_of(field) and field.message_type.file.package != "google.protobuf":
        value = example_of(field.message_type, is_request=is_request, within=within)
    else:
        raise NoExample(f"name an example of {field.full_name} in {_file_of(package)}")
    return [value] if field.is_repeated else value


def _is_alternative(field: FieldDescriptor) -> bool:
    """Return whether the field is one of a oneof, of which the example has the first."""
    return field.containing_oneof is not None and field.containing_oneof.fields[0].number != field.number


def _is_error(field: FieldDescriptor) -> bool:
    """Return whether the field is the error that ends a stream: the example is of a message without one."""
    return field.message_type is not None and field.message_type.full_name == "google.rpc.Status"


def metadata_example(name: str, *, domain: str) -> Json:
    """Return the value of this name in the metadata of an error with a reason of this package.

    Raises:
        NoExample: there is none.
    """
    values = _values_of(domain)
    if name not in values:
        raise NoExample(f"name an example of an error's metadata {name} in {_file_of(domain)}")
    return values[name]


@functools.cache
def _values_of(package: str) -> Mapping[str, Json]:
    file = _PROTOS / _file_of(package)
    return {**_COMMON, **(tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {})}


def _file_of(package: str) -> str:
    return f"{package.replace('.', '/')}/examples.toml"
