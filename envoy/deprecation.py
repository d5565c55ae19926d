"""The headers by which answers say that the called method is deprecated."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import format_datetime
from typing import Final

from chassis.deprecation import Deprecation

_PAGE: Final = '</docs>; rel="deprecation"; type="text/html"'
"""The page that says what to use instead."""


def deprecation_headers(deprecation: Deprecation | None) -> Mapping[str, str]:
    """Return the headers `deprecation` (RFC 9745), `sunset` (RFC 8594) and `link`; none if nothing is deprecated.

    A day begins at midnight UTC.
    """
    if deprecation is None:
        return {}
    sunset = {"sunset": format_datetime(_start(deprecation.sunset), usegmt=True)} if deprecation.sunset else {}
    return {"deprecation": f"@{int(_start(deprecation.since).timestamp())}"} | sunset | {"link": _PAGE}


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
