"""The reasons for which a call can fail: those in the comments of the contract, and those of the edge.

The comments are read strictly. An rpc names its reasons in a paragraph `Reasons: ORDER_NOT_FOUND, ETAG_MISMATCH.`, a
service those of all its rpcs, and the comment of a reason begins with its codes: `NOT_FOUND, 404. There is …`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.rpc.code_pb2 import Code

from protos.codegen.access import is_public
from protos.codegen.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.protobuf.descriptor import EnumDescriptor, MethodDescriptor

    from protos.codegen.descriptors import Binding, Contract

_COMMON: Final = "shop.system.v1"

_OF_THE_EDGE: Final = ("MALFORMED_REQUEST", "RATE_LIMITED", "SERVICE_UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL")
_WITHOUT_ACCESS: Final = ("TOKEN_INVALID", "TOKEN_EXPIRED", "ROLE_REQUIRED")
_OF_THE_EDGE_FOR_BODIES: Final = ("PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE")

_LIST: Final = r"[A-Z0-9_]+(?:, [A-Z0-9_]+)*"
_OF_A_SERVICE: Final = (
    rf"Every rpc can also answer the reasons of shop\.system\.v1: ({_LIST})"
    rf"(?:, and every one with a request id ({_LIST}))?\."
)


class BadComment(Refusal):
    """A comment does not list its reasons in the form that this module reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One value of an enum ErrorReason.

    Attributes:
        name: without the prefix `ERROR_REASON_`.
        domain: the package of the enum.
        code: the gRPC status.
        http: the HTTP status.
        text: what happened and what to do.
        notice: that it is deprecated, as a further sentence; empty if it is not.
    """

    name: str
    domain: str
    code: str
    http: int
    text: str
    notice: str = ""

    @property
    def retries(self) -> bool:
        """Whether the answer has a RetryInfo."""
        return self.code == "UNAVAILABLE" or "RetryInfo" in self.text

    @property
    def metadata(self) -> list[str]:
        """The names in its metadata."""
        _, _, facts = self.text.partition("Metadata:")
        return re.findall(r"`(\w+)`", facts)


class Reasons:
    """The reasons of the contract."""

    def __init__(self, contract: Contract) -> None:
        """Read the enums ErrorReason.

        Raises:
            BadComment: a value's comment does not begin with its codes.
        """
        self._contract: Final = contract
        enums = contract.enums_named("ErrorReason")
        self._all: Final = {
            (reason.domain, reason.name): reason for enum in enums for reason in _declared(contract, enum=enum)
        }

    @property
    def declared(self) -> list[Reason]:
        """Every reason of the contract."""
        return list(self._all.values())

    def of(self, method: MethodDescriptor, *, binding: Binding) -> list[Reason]:
        """Return the reasons for which the rpc can fail when called by this binding, in the order of the HTTP status.

        Raises:
            BadComment: a comment names reasons in another form, or one that does not exist.
        """
        names = [
            *_named_by_rpc(self._contract.comment(method.full_name), where=method.full_name),
            *self._named_by_service(method),
            *_OF_THE_EDGE,
            *(() if is_public(method) else _WITHOUT_ACCESS),
            *(_OF_THE_EDGE_FOR_BODIES if binding.has_body else ()),
        ]
        found = [self._find(name, method=method) for name in dict.fromkeys(names)]
        return sorted(found, key=lambda reason: reason.http)

    def _find(self, name: str, *, method: MethodDescriptor) -> Reason:
        for domain in (method.containing_service.file.package, _COMMON):
            if (domain, name) in self._all:
                return self._all[domain, name]
        raise BadComment(f"{method.full_name}: there is no reason {name}")

    def _named_by_service(self, method: MethodDescriptor) -> list[str]:
        service = method.containing_service.full_name
        common, with_request_id = _named_by_service(self._contract.comment(service), where=service)
        has_request_id = "request_id" in method.input_type.fields_by_name
        return [*common, *(with_request_id if has_request_id else ())]


def _declared(contract: Contract, *, enum: EnumDescriptor) -> Iterator[Reason]:
    for value in enum.values[1:]:
        where = f"{enum.full_name}.{value.name}"
        comment = " ".join(contract.comment(where).split())
        match = re.fullmatch(r"([A-Z_]+), ([1-5]\d\d)\. (.+\.)", comment)
        if not match or match[1] not in Code.keys():  # noqa: SIM118 - an enum wrapper, no dict
            raise BadComment(f"{where}: its comment must begin as `NOT_FOUND, 404. There is …`")
        yield Reason(
            name=value.name.removeprefix("ERROR_REASON_"),
            domain=enum.file.package,
            code=match[1],
            http=int(match[2]),
            text=match[3],
            notice=contract.notice(where, after=" "),
        )


def without_reasons(comment: str) -> str:
    """Return a comment without the paragraph that lists the reasons."""
    paragraphs = comment.split("\n\n")
    return "\n\n".join(each for each in paragraphs if "Reasons:" not in each and "Every rpc can also" not in each)


def _named_by_rpc(comment: str, *, where: str) -> list[str]:
    for paragraph in comment.split("\n\n"):
        if "Reasons:" in paragraph:
            match = re.fullmatch(rf"Reasons: ({_LIST})\.", " ".join(paragraph.split()))
            if not match:
                raise BadComment(f"{where}: its reasons must be listed as `Reasons: A, B.`")
            return match[1].split(", ")
    return []


def _named_by_service(comment: str, *, where: str) -> tuple[Sequence[str], Sequence[str]]:
    """Return the reasons of every rpc, and the additional ones of every rpc with a request id."""
    for paragraph in comment.split("\n\n"):
        if "Every rpc can also" in paragraph:
            match = re.fullmatch(_OF_A_SERVICE, " ".join(paragraph.split()))
            if not match:
                raise BadComment(f"{where}: the reasons of all its rpcs must be listed as `{_OF_A_SERVICE}`")
            return match[1].split(", "), match[2].split(", ") if match[2] else ()
    return (), ()
