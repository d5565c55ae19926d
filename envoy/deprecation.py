"""The headers by which answers say that the called method is deprecated."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import format_datetime

from envoy.operations import address_of
from protos.deprecation import Deprecation


def deprecation_headers(rpc: str, deprecation: Deprecation | None) -> Mapping[str, str]:
    """Return the headers `deprecation` (RFC 9745), `sunset` (RFC 8594) and `link`; none if nothing is deprecated.

    A day begins at midnight UTC. The link leads to the operation of the rpc, which says what to use instead.

    Args:
        rpc: its gRPC path.
        deprecation: of the rpc.
    """
    if deprecation is None:
        return {}
    sunset = {"sunset": format_datetime(_start(deprecation.sunset), usegmt=True)} if deprecation.sunset else {}
    link = f'<{address_of(rpc)}>; rel="deprecation"; type="text/html"'
    return {"deprecation": f"@{int(_start(deprecation.since).timestamp())}"} | sunset | {"link": link}


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
