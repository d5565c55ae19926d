"""The errors of the contract by their reasons, to make a call fail as the shop would."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from chassis.context import current_call
from chassis.errors import DomainError, FieldViolation, ResourceExhausted
from order_svc import errors as order_errors
from user_svc import errors as user_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.message import Message

# Where the errors are defined. Those of other services in the same process are not the shop's.
_PACKAGES: Final = ("chassis.", order_errors.__name__, user_errors.__name__, __name__)
_NOBODY: Final = UUID(int=0)


class RateLimited(ResourceExhausted):
    """Too many calls from one address: the edge says it, not a service."""

    reason = "RATE_LIMITED"

    def __init__(self) -> None:
        super().__init__("Too many calls came from your address. Try again shortly.", retry_after_s=1)


# The facts of an error that the request does not have.
_FACTS: Final[Mapping[str, Any]] = {
    "allowed": ("CONFIRMED", "CANCELLED"),
    "currency_code": "EUR",
    "current": "v2",
    "expected": "EUR",
    "field": "items[0].unitPrice",
    "fields": ("items[0].unitPrice",),
    "limit": "1000000000000",
    "minor_unit": "0.01",
    "request_id": str(_NOBODY),
    "resume_token": "",
    "retry_after_s": 1.0,
    "roles": ("ADMIN",),
    "violations": (FieldViolation("request", "was refused by a test", "test"),),
    "wanted": "DELIVERED",
}


def reasons() -> set[str]:
    """Return every reason that a call can be refused with."""
    return {kind.reason for kind in _kinds()}


def refusal(reason: str, *, method: str, request: Message) -> DomainError:
    """Return the error of a reason, with the facts of the request where it has them.

    Args:
        reason: of the enum ErrorReason of one of the packages.
        method: `/package.Service/Method`: two packages may have a reason in common.
        request: of the call.
    """
    package = method[1:].rpartition(".")[0]
    kinds = sorted((kind for kind in _kinds() if kind.reason == reason), key=lambda kind: kind.domain != package)
    return _made(kinds[0], request)


def _made(kind: type[DomainError], request: Message) -> DomainError:
    parameters = inspect.signature(kind).parameters.values()
    needed = {each.name: each for each in parameters if each.default is each.empty}
    facts = {name: _fact(name, request) for name in needed}
    positional = [facts[name] for name, each in needed.items() if each.kind is not each.KEYWORD_ONLY]
    named = {name: facts[name] for name, each in needed.items() if each.kind is each.KEYWORD_ONLY}
    return kind(*positional, **named)


def _fact(name: str, request: Message) -> Any:
    if name in {"user_id", "order_id"}:
        call = current_call()
        caller = call.caller.subject if call and name == "user_id" else ""
        text = getattr(request, name, "") or getattr(request, "id", "") or caller
        return UUID(text) if text else _NOBODY
    return getattr(request, name, "") or _FACTS[name]


def _kinds(of: type[DomainError] = DomainError) -> Iterator[type[DomainError]]:
    for kind in of.__subclasses__():
        if "reason" in vars(kind) and kind.__module__.startswith(_PACKAGES):
            yield kind
        yield from _kinds(kind)
