"""The kinds of domain errors, and the errors that any service can raise.

A service raises an error with facts; `chassis.server.status` alone knows which status a kind becomes. Nothing
here knows gRPC. `reason` and `domain` name a value of the enum `ErrorReason` in the package `domain`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that is wrong.

    Attributes:
        field: its path as in the JSON of the request: `items[0].unitPrice`.
        message: what it must be, for a person.
        rule: the rule's name, for a program: `string.min_len`.
    """

    field: str
    message: str
    rule: str = ""


class DomainError(Exception):
    """A refusal with a reason. A class whose errors have one message states it as its attribute.

    Args:
        message: what is wrong and what to do next. Reaches the caller: no secrets, no SQL, no personal data.
        metadata: facts for programs, named in lowerCamelCase; at least every fact of the message.
        subject: the resource that is missing or in the wrong state, such as `orders/{id}`.
        violations: the fields that are wrong.
        retry_after_s: when it is worth trying again; None if it is not, or as the class states it.
    """

    domain: ClassVar[str] = "shop.system.v1"
    reason: ClassVar[str]
    message: str
    subject: str = ""
    retry_after_s: float | None = None

    def __init__(
        self,
        message: str = "",
        *,
        metadata: Mapping[str, str] | None = None,
        subject: str = "",
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        self.message = message or self.message
        super().__init__(self.message)
        self.metadata = dict(metadata or {})
        self.subject = subject or self.subject
        self.violations = tuple(violations)
        self.retry_after_s = self.retry_after_s if retry_after_s is None else retry_after_s


class StartupError(Exception):
    """A mistake of the operator's that ends the process: one line that names what to set, and never a secret value."""


class InvalidArgument(DomainError):
    """The request is wrong whatever the state of the system."""


class NotFound(DomainError):
    """The resource does not exist, or is not the caller's to see.

    Attributes:
        resource_type: the full name of the resource's message.
    """

    resource_type: ClassVar[str]


class AlreadyExists(DomainError):
    """The request collides with something that exists."""


class Aborted(DomainError):
    """The request lost against another one. Read again and decide again."""


class FailedPrecondition(DomainError):
    """The state of the system forbids the request."""


class Unauthenticated(DomainError):
    """The caller has not proven who it is."""


class PermissionDenied(DomainError):
    """The caller is known and may not do this."""


class ResourceExhausted(DomainError):
    """A limit is reached: of the caller or of the replica."""


class Unavailable(DomainError):
    """Something that is needed does not answer. Try again."""


class DeadlineExceeded(DomainError):
    """The call took longer than it may."""

    reason = "DEADLINE_EXCEEDED"
    message = "The call took longer than it may. Repeat a write with the same request id."


# A status is sent in headers, in base64 and once more as a sentence. gRPC clients take 8 KiB of headers by default.
MAX_NAMED: Final = 20
_MAX_IN_WORDS: Final = 10


class InvalidFields(InvalidArgument):
    """Fields of the request break their rules.

    Args:
        violations: all known ones. The first 20 reach the caller.
        count: how many there are, if not all of them are known.
    """

    reason = "INVALID_FIELDS"

    def __init__(
        self,
        violations: Sequence[FieldViolation],
        *,
        count: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        named, in_words = violations[:MAX_NAMED], violations[:_MAX_IN_WORDS]
        listed = "; ".join(f"{each.field or 'request'}: {each.message}" for each in in_words)
        more = (count or len(violations)) - len(in_words)
        facts = {"fields": ",".join(each.field or "request" for each in named), **(metadata or {})}
        super().__init__(
            f"Correct these fields: {listed}" + (f"; and {more} more" if more else ""),
            metadata=facts | ({"more": str(more)} if more else {}),
            violations=named,
        )

    @staticmethod
    def of(field: str, message: str, rule: str = "") -> InvalidFields:
        """Return the error of one wrong field, with what FieldViolation says of it."""
        return InvalidFields([FieldViolation(field, message, rule)])


class InvalidPageToken(InvalidArgument):
    """A page token that this list did not give out for this filter, or too long ago."""

    reason = "INVALID_PAGE_TOKEN"

    def __init__(self) -> None:
        message = "is not a token of this list with this filter, or is over a day old"
        super().__init__(
            f"The page token {message}. Start again without one.",
            violations=[FieldViolation("pageToken", message)],
        )


class MalformedRequest(InvalidArgument):
    """Bytes that are not the request message, or far too many."""

    reason = "MALFORMED_REQUEST"
    message = "The request cannot be decoded. Send the message that the contract names."


class RequestIdReused(AlreadyExists):
    """A request id that another request has used."""

    reason = "REQUEST_ID_REUSED"
    message = "The request id was used for a request with other content. Choose a new one."

    def __init__(self, request_id: str) -> None:
        super().__init__(metadata={"requestId": request_id})


class AnswerErased(RequestIdReused):
    """A request whose id was used by one whose stored response is erased, with its fingerprint. It is not executed.

    Without the fingerprint a repetition cannot be told from a request with other content: the message is for both.
    """

    reason = "ANSWER_ERASED"
    message = (
        "This request, or another one with its request id, was done, and its answer was erased when a user was "
        "deleted. Nothing was done now. Do not repeat it: read the resource, or choose a new request id for a new "
        "request."
    )


class EtagMismatch(Aborted):
    """A write based on a state that is gone."""

    reason = "ETAG_MISMATCH"
    message = "The resource has changed since this etag was read. Read it again and decide again."

    def __init__(self, *, current: str) -> None:
        super().__init__(metadata={"etag": current})


class DatabaseUnavailable(Unavailable):
    """The database does not answer, or not in time."""

    reason = "DATABASE_UNAVAILABLE"
    message = "The database does not answer. Try again shortly."
    retry_after_s = 1


class OutcomeUnknown(DatabaseUnavailable):
    """The answer to a COMMIT was lost. It may have happened: only the caller, with its request id, may repeat it."""


class Overloaded(ResourceExhausted):
    """More calls wait than can be answered in time."""

    reason = "OVERLOADED"
    message = "Too many calls wait already, so this one was not begun. Try again shortly."
    retry_after_s = 1


class StreamTooSlow(ResourceExhausted):
    """The caller of a stream reads more slowly than changes come."""

    reason = "STREAM_TOO_SLOW"
    message = "Changes came faster than they were read. Open the stream again with the token."

    def __init__(self, *, resume_token: str) -> None:
        super().__init__(metadata={"resumeToken": resume_token})


class ServerStopping(Unavailable):
    """The replica that a stream comes from stops."""

    reason = "SERVER_STOPPING"
    message = "This replica stops. Open the stream again with the token."
    retry_after_s = 1

    def __init__(self, *, resume_token: str) -> None:
        super().__init__(metadata={"resumeToken": resume_token})


class ResumeTokenExpired(FailedPrecondition):
    """The change that the token names is gone, or never existed."""

    reason = "RESUME_TOKEN_EXPIRED"
    message = "Nothing is known of this resume token any more. Open the stream without one, then list again."
    subject = "resumeToken"


class TokenInvalid(Unauthenticated):
    """No token, or none of ours."""

    reason = "TOKEN_INVALID"
    message = "There is no token, or it is not valid. Log in and send the access token as a bearer token."


class TokenExpired(Unauthenticated):
    """The token was valid and has expired."""

    reason = "TOKEN_EXPIRED"
    message = "The token has expired. Refresh the session, or log in."


class RoleRequired(PermissionDenied):
    """The caller has no role that may do this."""

    reason = "ROLE_REQUIRED"

    def __init__(self, roles: Iterable[str]) -> None:
        wanted = sorted(roles)
        super().__init__(
            f"This takes one of the roles {', '.join(wanted)}." if wanted else "Only the user may do this.",
            metadata={"roles": ",".join(wanted)},
        )


class KeysUnavailable(Unavailable):
    """The keys of tokens are unknown, so no token can be checked."""

    reason = "SERVICE_UNAVAILABLE"
    message = "The token cannot be checked now. Try again shortly."
    retry_after_s = 1
