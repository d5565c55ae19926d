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
    """A file that the edge is to serve is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file.

    Attributes:
        path: where callers find it.
        source: where it lies, relative to the repository and to `Edge.files_root` alike.
        content_type: what it is.
    """

    path: str
    source: str
    content_type: str

    @property
    def etag(self) -> str:
        """What names its content. Weak, because it names the compressed form too.

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
        """What the edge holds of it in memory for each answer, in KiB.

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
    # Nothing but our own files runs or is loaded, and calls go to this edge alone. `data:` is for Swagger UI's icons.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # Ask each time whether the copy is still good: a new contract shows at once, an old one costs a 304.
    "cache-control": "no-cache",
}
"""What comes with every file."""
