"""A PostgreSQL that speaks TLS, on every kind of address: Debian's, since the wheel's build has no TLS."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from devstack.certificates import Certificates, Subject
from devstack.postgres import PostgresServer
from devstack.privileges import chown_to_unprivileged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MISSING: Final = "PostgreSQL with TLS is missing: apt-get install postgresql"


def debians_binaries() -> Path | None:
    """Return the folder of Debian's newest PostgreSQL; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return found[-1] if found and (found[-1] / "postgres").exists() else None


class TlsPostgres(PostgresServer):
    """A server whose certificate a CA of its own has signed.

    Attributes:
        certificates: the CA; `client` in its folder has a certificate of `notes_svc`.
        sockets: the folder of its Unix socket.
    """

    def __init__(self, home: Path, binaries: Path) -> None:
        self.certificates: Final = Certificates(home / "certificates")
        self.certificates.prepare()
        # A socket's path has at most 107 bytes.
        self.sockets: Final = Path(tempfile.mkdtemp(prefix="pg"))
        server = self.certificates.folder / "server"
        self.certificates.issue(Subject("database", hosts=("localhost", "127.0.0.1", "::1")), into=server)
        self.certificates.issue(Subject("notes_svc"), into=self.certificates.folder / "client")
        for path in (self.sockets, server, server / "tls.key", self.certificates.folder):
            chown_to_unprivileged(path)
        super().__init__(home / "server", binaries=binaries, flags=self._tls(server))

    def _tls(self, folder: Path) -> Mapping[str, str]:
        return {
            "listen_addresses": "127.0.0.1,::1",
            "unix_socket_directories": str(self.sockets),
            "ssl": "on",
            "ssl_cert_file": str(folder / "tls.crt"),
            "ssl_key_file": str(folder / "tls.key"),
            "ssl_ca_file": str(folder / "ca.crt"),
        }

    @override
    def close(self) -> None:
        """Stop the server, and remove the folder of its socket."""
        super().close()
        shutil.rmtree(self.sockets)


@contextmanager
def tls_postgres(home: Path, binaries: Path) -> Iterator[TlsPostgres]:
    """Run the server with a database `notes` of `notes_svc` while the block runs."""
    with TlsPostgres(home, binaries) as server:
        server.create_private_database("notes", role="notes_svc")
        yield server
