"""The files that the edge serves itself: the contract as a document, and the page that shows it."""

import math
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[1]

_SWAGGER_UI: Final = "node_modules/swagger-ui-dist"
_SCRIPT: Final = "text/javascript; charset=utf-8"
_STYLE: Final = "text/css; charset=utf-8"


class FileMissing(Exception):
    """A file that the edge serves is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file.

    Attributes:
        path: the path of its URL.
        source: its path, relative to the repository and to `Edge.files_root`.
        content_type: its media type.
    """

    path: str
    source: str
    content_type: str

    @property
    def etag(self) -> str:
        """The entity tag of its content. Weak, because the compressed form has the same tag.

        Raises:
            FileMissing: there is no such file in the repository.
        """
        return f'W/"{sha256(self._content()).hexdigest()[:16]}"'

    @property
    def path_regex(self) -> str:
        """The path, as a regular expression."""
        return re.escape(self.path)

    @property
    def size_kib(self) -> int:
        """The memory, in KiB, that each answer with this file takes in the edge.

        Raises:
            FileMissing: there is no such file in the repository.
        """
        return math.ceil(len(self._content()) / 1024)

    def _content(self) -> bytes:
        try:
            return (REPOSITORY / self.source).read_bytes()
        except FileNotFoundError:
            raise FileMissing(f"{self.source} is missing: `make setup` installs it") from None


FILES: Final = (
    File(path="/openapi.json", source="generated/openapi.json", content_type="application/json"),
    File(path="/docs", source="envoy/page/index.html", content_type="text/html; charset=utf-8"),
    File(path="/docs/page.js", source="envoy/page/page.js", content_type=_SCRIPT),
    File(path="/docs/page.css", source="envoy/page/page.css", content_type=_STYLE),
    File(path="/docs/icon.svg", source="envoy/page/icon.svg", content_type="image/svg+xml"),
    File(path="/docs/swagger-ui-bundle.js", source=f"{_SWAGGER_UI}/swagger-ui-bundle.js", content_type=_SCRIPT),
    File(path="/docs/swagger-ui.css", source=f"{_SWAGGER_UI}/swagger-ui.css", content_type=_STYLE),
)
"""Every file. An image of the edge holds each at the same place below `Edge.files_root`."""

PAGE_HEADERS: Final = {
    # Only our own files may be loaded and run, and only this edge may be called. Swagger UI's icons need `data:`.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # Browsers revalidate their copy each time: a new contract shows at once, and an unchanged one costs a 304.
    "cache-control": "no-cache",
}
"""The headers of every file."""
