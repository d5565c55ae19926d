"""Example values of fields: realistic, so that a form filled with them can be sent unchanged.

A field is looked up as `Message.field` first, then by its name alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protos.codegen.descriptors import fields_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from protos.codegen.json_types import Json

USER_ID: Final = "01930b6e-8c2a-7d41-9f35-5b1e0c7a2d64"
ORDER_ID: Final = "01930b71-03f9-7b18-8a6c-e4d2907f1c35"
SESSION_ID: Final = "01930b6f-1d40-7a6e-b0c3-8e2f5d914b77"
EVENT_ID: Final = "01930b71-03fb-7c02-b1d9-3f60a85e7b41"
REQUEST_ID: Final = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
EARLIER: Final = "2026-03-01T12:00:00.125Z"
LATER: Final = "2026-03-01T12:04:31.500Z"

_VALUES: Final[Mapping[str, Json]] = {
    "access_expires_at": LATER,
    "access_token": "eyJhbGciOiJFZERTQSIsImtpZCI6IjRmIiwidHlwIjoiYXQrand0In0.eyJzdWIiOiIwMTkzIn0.c2lnbmF0dXJl",
    "alg": "EdDSA",
    "allowed": "CONFIRMED,CANCELLED",
    "cancel_reason": "",
    "CancelOrderRequest.reason": "Ordered twice by mistake.",
    "created_at": EARLIER,
    "crv": "Ed25519",
    "currency_code": "EUR",
    "currencyCode": "EUR",
    "current_password": "correct horse battery",
    "display_name": "Ada Lovelace",
    "email": "ada@example.com",
    "etag": "v1",
    "expires_at": LATER,
    "field": "items[0].unitPrice",
    "fields": "items[0].unitPrice",
    "from": "SHIPPED",
    "from_status": "ORDER_STATUS_PENDING",
    "id": USER_ID,
    "ids": [USER_ID],
    "kid": "4f1c0d2e9ab87653",
    "kty": "OKP",
    "limitUnits": "1000000000000",
    "minorUnit": "0.01",
    "missing_ids": [ORDER_ID],
    "name": "Earl Grey, 100 g",
    "nanos": 500_000_000,
    "new_password": "staple battery horse",
    "next_page_token": "",
    "occurred_at": LATER,
    "order_count": 3,
    "Order.id": ORDER_ID,
    "order_id": ORDER_ID,
    "OrderChange.id": EVENT_ID,
    "OrderEvent.id": EVENT_ID,
    "orderId": ORDER_ID,
    "page_size": 20,
    "page_token": "",
    "password": "correct horse battery",
    "peak_rss_kib": 88_104,
    "product_id": "tea-earl-grey",
    "profile": {"city": "London", "newsletter": True},
    "quantity": 2,
    "reason": "Paid in full.",
    "refresh_token": "3DdPCupKkh6tXW96iYXLuEYW79IWX472x0nVLCEjhvI",
    "request_id": REQUEST_ID,
    "requestId": REQUEST_ID,
    "resume_token": EVENT_ID,
    "resumeToken": EVENT_ID,
    "roles": "ADMIN",
    "rss_kib": 84_412,
    "service": "user_svc",
    "Session.id": SESSION_ID,
    "DeleteSessionRequest.id": SESSION_ID,
    "timestamp": LATER,
    "to": "CANCELLED",
    "to_status": "ORDER_STATUS_CONFIRMED",
    "OrderItem.total_price": {"currencyCode": "EUR", "units": "9", "nanos": 0},
    "Order.total_amount": {"currencyCode": "EUR", "units": "9", "nanos": 0},
    "units": "4",
    "updated_at": LATER,
    "UpdateOrderStatusRequest.status": "ORDER_STATUS_CONFIRMED",
    "uptime": "86400.250s",
    "use": "sig",
    "User.roles": ["ROLE_USER"],
    "user_id": USER_ID,
    "userId": USER_ID,
    "version": "0.1.0",
    "x": "X8L34r6YTINWpot5QX7Ac6HmnFAJGjYZ2qQbT3NTLYc",
}

_LEFT_OUT: Final = frozenset({"etag", "request_id", "page_token", "resume_token", "user_id"})
"""Fields whose example must not be sent: it names another resource or user, or makes a second call a repetition."""


class NoExample(Exception):
    """A field of the contract has no example."""


def example_of(message: Descriptor, *, is_request: bool, without: Sequence[str] = ()) -> Mapping[str, Json]:
    """Return a message as JSON.

    Raises:
        NoExample: a field of it has none.
    """
    return {
        field.json_name: example(field, is_request=is_request)
        for field in fields_of(message, without=without)
        if not (is_request and field.name in _LEFT_OUT) and not _is_error(field)
    }


def example(field: FieldDescriptor, *, is_request: bool) -> Json:
    """Return the field's value as JSON.

    Raises:
        NoExample: the field is a scalar without one; a message's fields, an enum's first value speak for themselves.
    """
    message = field.full_name.split(".")[-2]
    for name in (f"{message}.{field.name}", field.name):
        if name in _VALUES:
            return _VALUES[name]
    if field.message_type is not None:
        value: Json = example_of(field.message_type, is_request=is_request)
    elif field.enum_type is not None:
        value = field.enum_type.values[1].name
    else:
        raise NoExample(f"name an example of {field.full_name} in {__name__}")
    return [value] if field.is_repeated else value


def _is_error(field: FieldDescriptor) -> bool:
    """Return whether the field is the error that ends a stream: the example is of a message without one."""
    return field.message_type is not None and field.message_type.full_name == "google.rpc.Status"


def metadata_example(name: str) -> Json:
    """Return the value of this name in the metadata of an error.

    Raises:
        NoExample: there is none.
    """
    if name not in _VALUES:
        raise NoExample(f"name an example of an error's metadata {name} in {__name__}")
    return _VALUES[name]
