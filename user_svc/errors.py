"""Why the user service refuses; each names a reason of shop.user.v1.ErrorReason."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from chassis.errors import (
    AlreadyExists,
    DomainError,
    FailedPrecondition,
    FieldViolation,
    NotFound,
    ResourceExhausted,
    TokenExpired,
    TokenInvalid,
    Unauthenticated,
)

if TYPE_CHECKING:
    from uuid import UUID


class UserError(DomainError):
    """A refusal of the user service."""

    domain: ClassVar[str] = "shop.user.v1"


class UserNotFound(UserError, NotFound):
    """There is no such user, or it is not the caller's to see."""

    reason = "USER_NOT_FOUND"
    message = "There is no such user."
    resource_type = "shop.user.v1.User"

    def __init__(self, user_id: UUID) -> None:
        super().__init__(metadata={"userId": str(user_id)}, subject=f"users/{user_id}")


class EmailTaken(UserError, AlreadyExists):
    """Another user has the email. Its text stays out of the message, which may be logged."""

    reason = "EMAIL_TAKEN"
    message = "Another user has this email. Choose a different one."

    def __init__(self) -> None:
        super().__init__(violations=[FieldViolation("email", "belongs to another user")])


class UserNotActive(UserError, FailedPrecondition):
    """The user is deleted."""

    reason = "USER_NOT_ACTIVE"
    message = "The user is deleted and cannot be changed."

    def __init__(self, user_id: UUID) -> None:
        super().__init__(metadata={"userId": str(user_id)}, subject=f"users/{user_id}")


class InvalidCredentials(UserError, Unauthenticated):
    """The password is not the user's."""

    reason = "INVALID_CREDENTIALS"
    message = "The password is not correct."


class LoginRefused(InvalidCredentials):
    """A log-in whose email and password are not those of a user who may log in. It does not say which is wrong."""

    message = "The email and password do not belong together, or the user may not log in. Check both."


class TooManyAttempts(UserError, ResourceExhausted):
    """Too many wrong passwords for this email, or more at once than may be wrong."""

    reason = "TOO_MANY_ATTEMPTS"
    message = "There were too many wrong passwords for this email, or too many tries at once. Wait before the next try."

    def __init__(self, *, retry_after_s: float) -> None:
        super().__init__(retry_after_s=retry_after_s)


class RefreshTokenInvalid(TokenInvalid):
    """A refresh token that was not issued here, or whose session has ended. The call takes no access token."""

    message = "The refresh token is unknown, or its session has ended. Log in again."


class SessionOver(TokenExpired):
    """A refresh token of a session that has reached its end, which no refresh can move."""

    message = "The session is over. Log in again."


class TokenReused(UserError, Unauthenticated):
    """A refresh token that was used before."""

    reason = "TOKEN_REUSED"
    message = "The refresh token was used before, so the session is ended. Log in again."
