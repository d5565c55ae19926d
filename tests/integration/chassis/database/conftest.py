"""The server with TLS that tests of the database share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.tls_postgres import MISSING, TlsPostgres, debians_binaries, tls_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsPostgres]:
    """A PostgreSQL with TLS and an empty database `notes` of `notes_svc`."""
    binaries = debians_binaries()
    if binaries is None:
        pytest.skip(MISSING)
    with tls_postgres(tmp_path_factory.mktemp("tls"), binaries) as server:
        yield server
