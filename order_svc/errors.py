"""Why the order service refuses; each names a reason of shop.order.v1.ErrorReason."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from chassis.errors import (
    DomainError,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    InvalidFields,
    NotFound,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID


class OrderError(DomainError):
    """A refusal of the order service."""

    domain: ClassVar[str] = "shop.order.v1"


class OrderNotFound(OrderError, NotFound):
    """There is no such order, or it is not the caller's to see."""

    reason = "ORDER_NOT_FOUND"
    message = "There is no such order."
    resource_type = "shop.order.v1.Order"

    def __init__(self, order_id: UUID) -> None:
        super().__init__(metadata={"orderId": str(order_id)}, subject=f"orders/{order_id}")


class UnknownCurrency(InvalidFields):
    """A currency that ISO 4217 does not have, or in which nothing can be paid."""

    def __init__(self, field: str, *, currency_code: str) -> None:
        super().__init__(
            [FieldViolation(field, "must be a currency of ISO 4217 that has a minor unit", "currency_code.iso_4217")],
            metadata={"currencyCode": currency_code},
        )


class AmountTooFine(InvalidFields):
    """Prices with more decimals than their currency has."""

    def __init__(self, fields: Iterable[str], *, currency_code: str, minor_unit: str) -> None:
        message = f"must be a multiple of {minor_unit} {currency_code}"
        super().__init__(
            [FieldViolation(field, message, "money.minor_unit") for field in fields],
            metadata={"currencyCode": currency_code, "minorUnit": minor_unit},
        )


class CurrencyMismatch(OrderError, InvalidArgument):
    """A price is in another currency than the order."""

    reason = "CURRENCY_MISMATCH"

    def __init__(self, field: str, *, expected: str) -> None:
        super().__init__(
            f"An order has one currency: give every price in {expected}.",
            metadata={"field": field, "currencyCode": expected},
            violations=[FieldViolation(field, f"must be {expected}, as the order's")],
        )


class AmountOutOfRange(OrderError, InvalidArgument):
    """A price or the total is larger than an order can hold."""

    reason = "AMOUNT_OUT_OF_RANGE"

    def __init__(self, field: str, *, limit: str) -> None:
        super().__init__(
            f"The amount is too large: it must be below {limit}. Split the order.",
            metadata={"field": field, "limitUnits": limit},
            violations=[FieldViolation(field, f"must be below {limit}")],
        )


class InvalidStatusTransition(OrderError, FailedPrecondition):
    """The order cannot go from its status to the one asked for."""

    reason = "INVALID_STATUS_TRANSITION"

    def __init__(self, order_id: UUID, *, current: str, wanted: str, allowed: Iterable[str]) -> None:
        choices = ", ".join(allowed)
        super().__init__(
            f"The order is {current} and cannot become {wanted}. "
            + (f"It can become {choices}." if choices else "It can no longer change."),
            metadata={"from": current, "to": wanted, "allowed": choices.replace(" ", "")},
            subject=f"orders/{order_id}",
        )


class OrderingUserNotFound(OrderError, FailedPrecondition):
    """The user who is to order does not exist."""

    reason = "ORDERING_USER_NOT_FOUND"
    message = "The user who is to order does not exist."

    def __init__(self, user_id: UUID) -> None:
        super().__init__(metadata={"userId": str(user_id)}, subject=f"users/{user_id}")


class UserNotActive(OrderError, FailedPrecondition):
    """The user who is to order may not."""

    reason = "USER_NOT_ACTIVE"
    message = "The user who is to order is suspended or deleted."

    def __init__(self, user_id: UUID) -> None:
        super().__init__(metadata={"userId": str(user_id)}, subject=f"users/{user_id}")


class UserServiceUnavailable(OrderError, Unavailable):
    """The user service does not answer, so the state of the buyer is unknown."""

    reason = "USER_SERVICE_UNAVAILABLE"
    message = "The user service does not answer, so nothing was ordered. Try again later."

    def __init__(self, *, retry_after_s: float) -> None:
        super().__init__(retry_after_s=retry_after_s)
