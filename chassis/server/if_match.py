"""The header `if-match`, which sets the field `etag` of a request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

from chassis.errors import InvalidFields

if TYPE_CHECKING:
    from google.protobuf.message import Message

_HEADER: Final = "if-match"
_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]+"|[\x21\x23-\x29\x2b\x2d-\x7e]+')
"""An entity tag (RFC 9110, 8.8.3), with or without its quotes."""


def take_if_match(request: Message, if_match: str) -> None:
    """Set the request's field `etag` from the header `if-match`.

    `*` requires only that the resource exists, which every write with an etag does anyway. Weak etags never match
    (RFC 9110, 13.1.1), so weak ones beside a strong one are ignored.

    Raises:
        InvalidFields: the request type has no etag, the request has another etag, or the header has no etag, several
            strong ones or only weak ones.
    """
    if "etag" not in request.DESCRIPTOR.fields_by_name:
        raise InvalidFields.of(_HEADER, "has no meaning for this call: leave the header out", "if_match.unsupported")
    named = [each.strip() for each in if_match.split(",")]
    if named == ["*"]:
        return
    strong = {each for each in named if not each.startswith("W/")}
    if not strong:
        message = "names only weak etags, which never match: send the resource's own"
        raise InvalidFields.of(_HEADER, message, "if_match.weak")
    if len(strong) > 1 or not _ETAG.fullmatch(etag := strong.pop()):
        raise InvalidFields.of(_HEADER, 'must be one etag of the resource, such as "v3", or *', "if_match.one")
    etag = etag.strip('"')
    stated = cast("Any", request)
    if stated.etag not in {"", etag}:
        raise InvalidFields.of(_HEADER, "names another etag than the request: send one of them", "if_match.conflict")
    stated.etag = etag
