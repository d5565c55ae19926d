"""The errors of the contract by their reasons, to make a call fail as the shop would."""

from __future__ import annotations

import contextlib
import inspect
import re
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor

from chassis.auth.access import rules_of
from chassis.context import current_call
from chassis.errors import DomainError, EtagMismatch, InvalidFields, ResourceExhausted, RoleRequired
from chassis.server.if_match import take_if_match
from chassis.server.validation import require_valid
from chassis.versions import etag_of
from protos.testing.shop import refusals_of_services, services

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.message import Message

# The packages of the contract. A test's process can have services with other ones.
_CONTRACT: Final = "shop."
_NOBODY: Final = UUID(int=0)


class RateLimited(ResourceExhausted):
    """Too many calls from one address: the edge says it, not a service."""

    reason = "RATE_LIMITED"
    message = "Too many calls came from this address: wait as long as Retry-After says."
    retry_after_s = 1


# Facts that a request need not have.
_FACTS: Final[Mapping[str, Any]] = {"request_id": str(_NOBODY), "resume_token": "", "retry_after_s": 1.0}
# Values that no field may have, by their types.
_WRONG: Final[Mapping[int, Any]] = {FieldDescriptor.CPPTYPE_INT32: -1, FieldDescriptor.CPPTYPE_STRING: "\0"}
# Any other fact, by its type as the error's class writes it.
_SOME: Final[Mapping[str, Any]] = {"str": "some", "int": 1, "float": 1.0}


def reasons() -> set[str]:
    """Return every reason that a call can be refused with."""
    services()  # imports the classes of their errors
    return {kind.reason for kind in _kinds()}


def refusal(reason: str, *, method: str, request: Message) -> DomainError:
    """Return the error of a reason, as the shop could answer this request.

    Args:
        reason: of the enum ErrorReason of one of the packages.
        method: `/package.Service/Method`: two packages may have a reason in common.
        request: of the call.
    """
    package = method[1:].rpartition(".")[0]
    kinds = sorted((kind for kind in _kinds() if kind.reason == reason), key=lambda kind: kind.domain != package)
    if kinds[0] is RoleRequired:
        return RoleRequired(rules_of([method[1:].partition("/")[0]])[method].roles)
    make = {EtagMismatch: _stale, InvalidFields: _wrong, **refusals_of_services()}.get(kinds[0])
    return make(request) if make else _made(kinds[0], request)


def _stale(request: Any) -> DomainError:
    """Return the refusal of the request's etag: the resource has changed once since."""
    seen = re.search(r"\d+", getattr(request, "etag", ""))
    return EtagMismatch(current=etag_of(int(seen[0]) + 1 if seen else 2))


def _wrong(request: Message) -> DomainError:
    """Return the refusal of a request of this type that is empty, has one wrong field, or comes with a wrong header."""
    kind = type(request)
    fields = [each for each in request.DESCRIPTOR.fields if not each.is_repeated and each.cpp_type in _WRONG]
    try:
        require_valid(kind())
        for field in fields:
            require_valid(kind(**{field.name: _WRONG[field.cpp_type]}))
        take_if_match(kind(), "")
    except InvalidFields as error:
        return error
    raise AssertionError("an empty header is no etag")


def _made(kind: type[DomainError], request: Message) -> DomainError:
    """Return an error whose facts are the request's, as far as it has them by the names of the error's parameters."""
    parameters = inspect.signature(kind).parameters.values()
    needed = {each.name: each for each in parameters if each.default is each.empty}
    values = {name: _fact(name, request, annotation=str(each.annotation)) for name, each in needed.items()}
    positional = [values[name] for name, each in needed.items() if each.kind is not each.KEYWORD_ONLY]
    named = {name: values[name] for name, each in needed.items() if each.kind is each.KEYWORD_ONLY}
    return kind(*positional, **named)


def _fact(name: str, request: Message, *, annotation: str) -> Any:
    if name.endswith("_id") and name not in _FACTS:
        return _id(name, request, is_text=annotation == "str")
    said = getattr(request, name, "")
    return said or _FACTS.get(name, _SOME.get(annotation, ()))


def _id(name: str, request: Message, *, is_text: bool) -> UUID | str:
    """Return the id that the request names, or the caller's for `user_id`; one of nothing if it names none."""
    call = current_call()
    caller = call.caller.subject if call and name == "user_id" else ""
    said = getattr(request, name, "") or getattr(request, "id", "") or caller
    if is_text:
        return said or "none"
    with contextlib.suppress(ValueError):  # a text, or a service's name
        return UUID(said)
    return _NOBODY


def _kinds(of: type[DomainError] = DomainError) -> Iterator[type[DomainError]]:
    for kind in of.__subclasses__():
        if "reason" in vars(kind) and kind.domain.startswith(_CONTRACT):
            yield kind
        yield from _kinds(kind)
