"""`python -m envoy.probe`: exit code 0 if the edge in this container can serve, for images without a shell."""

import sys
from http.client import HTTPConnection, HTTPException
from typing import Final

from envoy.environments import PORT

_TIMEOUT_S: Final = 3


def main() -> None:
    """Check /healthz; unless half of the replicas of each service are healthy, print one line and exit with code 1."""
    try:
        connection = HTTPConnection("127.0.0.1", PORT, timeout=_TIMEOUT_S)
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        sys.exit(f"No answer on {PORT}: {error}.")
    if status != 200:
        sys.exit(f"/healthz answers {status}.")


if __name__ == "__main__":
    main()
