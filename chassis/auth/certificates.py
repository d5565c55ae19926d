"""Mutual TLS: the certificate of this process, the peers that may connect, and renewal while the process runs.

The files are read again after they have changed. Existing connections keep the old certificate; new connections use the
new one.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Self

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BeforeValidator, FilePath, field_validator, model_validator
from pydantic_settings import NoDecode

from chassis.auth.access import SERVICE_IDENTITY
from chassis.errors import StartupError
from chassis.runtime.periodic import Failures, every
from chassis.settings import Section
from chassis.telemetry.metrics.process import watch_certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path


log = structlog.get_logger(__name__)

# Certificates are renewed hours before they expire, so any interval is short enough; three stat() calls cost nothing.
_POLL_S: Final = 1.0
# The names in certificates are those of packages, and `edge`.
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


def _split(names: object) -> object:
    return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names


class TlsSettings(Section, env_prefix="TLS_"):
    """Mutual TLS: all of these, or none for clear text."""

    cert_file: FilePath | None = None
    """This process's certificate and the chain to its CA, as PEM. It names the service twice: as the URI
    `spiffe://shop/order_svc`, by which servers know their clients, and as a DNS name for its clients."""
    key_file: FilePath | None = None
    """Its private key, as PEM."""
    ca_file: FilePath | None = None
    """The CAs that the other side's certificate may come from, as PEM; the old and the new one while a CA is
    replaced."""
    allowed_peers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    """The services that may connect, separated by commas: `edge,order_svc`."""

    @field_validator("allowed_peers")
    @classmethod
    def _are_identities(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        # A Kubernetes name such as notes-svc, one in capitals or in brackets, would match no certificate.
        if not all(_NAME.fullmatch(name) for name in names):
            raise ValueError("must be `edge` and names as in certificates, which end in `_svc`, separated by commas")
        return names

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        named = [self.cert_file, self.key_file, self.ca_file, self.allowed_peers]
        if any(named) and not all(named):
            raise ValueError("set TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE and TLS_ALLOWED_PEERS, or none of them")
        return self


@dataclass(frozen=True, slots=True)
class Credentials:
    """The content of the files, as PEM.

    Attributes:
        certificates: this process's certificate, and the intermediate ones up to a CA.
        identity: the name of the service in the certificate; empty if it has none.
        own_begins_at: when the last of the certificates becomes valid.
        own_ends_at: when the first of the certificates expires.
        authorities_end_at: when the last of the CAs expires: while a CA is replaced, the old one may expire.
    """

    certificates: bytes
    private_key: bytes = field(repr=False)
    authorities: bytes
    identity: str
    own_begins_at: datetime
    own_ends_at: datetime
    authorities_end_at: datetime


class CertificateFiles:
    """The certificate, key and CAs of this process, read again when the files change. The arguments are TlsSettings'.

    With an `identity`, a warning is logged if the certificate is that of another service.

    Raises:
        StartupError: the files do not hold a certificate, its key and a CA.
    """

    def __init__(
        self,
        cert_file: Path,
        key_file: Path,
        ca_file: Path,
        *,
        allowed_peers: tuple[str, ...] = (),
        identity: str = "",
    ) -> None:
        self.allowed_peers: Final = frozenset(allowed_peers)
        self._identity: Final = identity
        self._files: Final = (cert_file, key_file, ca_file)
        self._lock: Final = threading.Lock()
        self._last_error = ""
        try:
            self._versions, self._credentials = self._file_versions(), self._read()
        except (OSError, ValueError) as error:
            raise StartupError(
                f"{cert_file}, {key_file} and {ca_file} cannot be used: {error}. "
                "Set TLS_CERT_FILE, TLS_KEY_FILE and TLS_CA_FILE to files that belong together"
            ) from error
        self._warn_of(self._credentials)
        # Read at each scrape: without new connections nothing else might read the files.
        watch_certificate("own", lambda: self.credentials().own_ends_at)
        watch_certificate("authority", lambda: self.credentials().authorities_end_at)

    @classmethod
    def of(cls, settings: TlsSettings, *, identity: str = "") -> CertificateFiles | None:
        """Return the files that the settings name; None if they name none."""
        if not (settings.cert_file and settings.key_file and settings.ca_file):
            return None
        files = (settings.cert_file, settings.key_file, settings.ca_file)
        return cls(*files, allowed_peers=settings.allowed_peers, identity=identity)

    def credentials(self) -> Credentials:
        """Return the content of the files; the same object until they change.

        While files are replaced one by one, key and certificate may not match: keep the old content until they do.
        """
        with self._lock:
            try:
                versions = self._file_versions()
                if versions != self._versions:
                    self._credentials, self._versions, self._last_error = self._read(), versions, ""
                    log.info("tls.renewed", expires_at=self._credentials.own_ends_at.isoformat())
                    self._warn_of(self._credentials)
            except (OSError, ValueError) as error:
                if str(error) != self._last_error:
                    self._last_error = str(error)
                    log.warning("tls.not_renewed", file=str(self._files[0]), error=self._last_error)
            return self._credentials

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials for a server that requires a client certificate."""
        used = self.credentials()

        # Called by a thread of gRPC for each new connection.
        def renewed() -> grpc.ServerCertificateConfiguration:
            nonlocal used
            latest = self.credentials()
            if latest is used:
                return None  # type: ignore[return-value]  # means "no change"; grpcio's types do not allow it
            used = latest
            return _server_configuration(latest)

        return grpc.dynamic_ssl_server_credentials(
            _server_configuration(used), renewed, require_client_authentication=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials for one channel. They do not follow the files: see chassis.client.renewable."""
        latest = self.credentials()
        return grpc.ssl_channel_credentials(latest.authorities, latest.private_key, latest.certificates)

    async def renew_forever(self, renew: Callable[[], Awaitable[None]]) -> None:
        """Renew a channel each time the files have changed, until cancelled.

        Args:
            renew: replaces the channel's connections; raises TimeoutError if the old ones stay in use.
        """
        used = self.credentials()

        async def renew_if_changed() -> None:
            nonlocal used
            latest = self.credentials()
            if latest is not used:
                await renew()
                used = latest
                log.info("tls.channel_renewed")

        failures = Failures(
            failed="tls.channel_not_renewed",
            recovered=None,  # a renewal has an event of its own
            errors=(TimeoutError,),
            fields=lambda: {"consequence": "the old connections are used, and new ones tried"},
        )
        await every(_POLL_S, renew_if_changed, failures=failures)

    def _warn_of(self, used: Credentials) -> None:
        """Log why peers will refuse the certificate. It is used all the same: a clock may be wrong, or set right."""
        for why in self._doubts(used):
            log.warning("tls.will_be_refused", file=str(self._files[0]), why=why)

    def _doubts(self, used: Credentials) -> Iterator[str]:
        now = datetime.now(UTC)
        if now < used.own_begins_at:
            yield f"it is not valid before {used.own_begins_at.isoformat()}"
        if used.own_ends_at < now:
            yield f"it expired at {used.own_ends_at.isoformat()}"
        if self._identity not in {"", used.identity}:
            yield f"it names {used.identity or 'no service'}: it needs the URI {SERVICE_IDENTITY}{self._identity}"

    def _file_versions(self) -> tuple[tuple[int, ...], ...]:
        facts = (file.stat() for file in self._files)
        return tuple((fact.st_dev, fact.st_ino, fact.st_mtime_ns, fact.st_size) for fact in facts)

    def _read(self) -> Credentials:
        certificates, private_key, authorities = (file.read_bytes() for file in self._files)
        chain = x509.load_pem_x509_certificates(certificates)
        try:
            key = load_pem_private_key(private_key, password=None)
        except (TypeError, UnsupportedAlgorithm) as error:
            raise ValueError("the key has a passphrase, or is of a kind that is not supported") from error
        if key.public_key() != chain[0].public_key():
            raise ValueError("the key is not the certificate's")
        return Credentials(
            certificates,
            private_key,
            authorities,
            identity=_identity_of(chain[0]),
            own_begins_at=max(each.not_valid_before_utc for each in chain),
            own_ends_at=min(each.not_valid_after_utc for each in chain),
            authorities_end_at=max(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(authorities)),
        )


def _identity_of(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return next((uri.removeprefix(SERVICE_IDENTITY) for uri in uris if uri.startswith(SERVICE_IDENTITY)), "")


def _server_configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(credentials.private_key, credentials.certificates)], root_certificates=credentials.authorities
    )
