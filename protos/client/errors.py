"""The error of a failed call."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from typing_extensions import override

from chassis.client.errors import detail_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Self

_DETAILS: Final = "grpc-status-details-bin"

# The request was not wrong: the same one may succeed later.
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)

REFUSED_TOKEN: Final = frozenset({"TOKEN_EXPIRED", "TOKEN_INVALID"})
"""Reasons after which the same call may succeed with another access token."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that is wrong.

    Attributes:
        field: its path in the JSON of the request: `items[0].unitPrice`.
        message: what it must be, for a person.
        rule: the name of the rule, for a program: `string.min_len`; empty if the rule has no name.
    """

    field: str
    message: str
    rule: str


class ShopError(Exception):
    """A call that failed. Its cause is gRPC's own error.

    Attributes:
        reason: why, for a program: `EMAIL_TAKEN`. Empty if the call did not reach the shop, or its answer was lost.
        domain: the package whose enum `ErrorReason` has the reason: `shop.user.v1`.
        metadata: the facts of the message, by their names in the enum's comments.
        fields: the fields of the request that are wrong.
        retry_after: seconds after which to try again; None if the shop did not say.
        code: gRPC's status code.
        message: why, for a person.
    """

    def __init__(  # noqa: PLR0913  an error is made of its facts
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        fields: Iterable[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{reason or code.name}: {message}")
        self.message: Final = message
        self.code: Final = code
        self.reason: Final = reason
        self.domain: Final = domain
        self.metadata: Final = dict(metadata or {})
        self.fields: Final = tuple(fields)
        self.retry_after: Final = retry_after

    @override
    def __reduce__(self) -> tuple[Callable[[], ShopError], tuple[()]]:
        """Return how to make it again in another process."""
        facts = {
            name: getattr(self, name) for name in ("code", "reason", "domain", "metadata", "fields", "retry_after")
        }
        return functools.partial(type(self), self.message, **facts), ()

    @classmethod
    def of(cls, error: grpc.RpcError) -> Self:
        """Return what an error of gRPC says, for channels that connect() did not make."""
        failed = cast("grpc.Call", error)
        status = _status(failed)
        info = detail_of(status, error_details_pb2.ErrorInfo)
        bad_request = detail_of(status, error_details_pb2.BadRequest)
        retry = detail_of(status, error_details_pb2.RetryInfo)
        return cls(
            failed.details() or "",
            code=failed.code(),
            reason=info.reason if info else "",
            domain=info.domain if info else "",
            metadata=info.metadata if info else {},
            fields=[
                FieldViolation(each.field, each.description, each.reason)
                for each in (bad_request.field_violations if bad_request else ())
            ],
            retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
        )

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        return self.code in _PASSING


def _status(failed: grpc.Call) -> status_pb2.Status:
    """Return the status with its details; an empty one if it has none that can be read."""
    # Pairs, whatever grpcio's types say; a call that did not reach a server has none.
    for key, value in cast("Iterable[tuple[str, bytes]]", failed.trailing_metadata() or ()):
        if key == _DETAILS:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:  # not from the shop
                break
    return status_pb2.Status()
