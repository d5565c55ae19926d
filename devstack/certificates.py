"""A local certificate authority, and a certificate for every process that speaks TLS on this machine."""

from __future__ import annotations

import ipaddress
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chassis.service import services
from devstack.passwords import write_secret
from devstack.ports import LOOPBACK
from envoy.edge import CertificateFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

_CA_LIFETIME: Final = timedelta(days=90)
# A stack that starts with less time left replaces the CA: running processes trust only the CA that they started with.
_CA_RENEWED_BEFORE: Final = timedelta(days=45)
_LIFETIME: Final = timedelta(days=7)
_RENEWED_BEFORE: Final = timedelta(days=4)  # a laptop may sleep over a long weekend
# Clocks of containers and virtual machines on the laptop differ a little.
_BACKDATED: Final = timedelta(minutes=5)

DEBUG: Final = "debug"
"""The name in the certificate for connections past the edge: readiness checks and debugging."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a certificate.

    Attributes:
        name: the name of a service or of another process.
        is_inside: whether it holds the URI `spiffe://shop/<name>`, by which services identify their peers.
        hosts: the DNS names and IP addresses that it serves.
    """

    name: str
    is_inside: bool = True
    hosts: tuple[str, ...] = ()


SUBJECTS: Final = (
    Subject("edge", hosts=("edge",)),  # the rate limiter knows it by a host name: it compares no URIs
    *(Subject(service.name, hosts=(service.host,)) for service in services()),
    Subject("rate_limiter", hosts=("rate-limiter",)),
    Subject(DEBUG),
    # The certificate that callers of the edge see. Services do not accept it.
    Subject("localhost", is_inside=False, hosts=("localhost", LOOPBACK)),
)


class Certificates:
    """The CA and the certificates, in a folder that only its owner can read.

    `current` is a symbolic link to the folder of the newest ones, `current/<name>/tls.crt`, `tls.key` and `ca.crt`; it
    is replaced atomically, as Kubernetes replaces the files of a secret.

    Attributes:
        folder: the folder.
        authority: the CA's certificate; clients of the edge's TLS port must trust it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.authority: Final = folder / "ca.crt"
        self._authority_key: Final = folder / "ca.key"
        self._current: Final = folder / "current"

    def prepare(self) -> None:
        """Make the CA and the certificates if they are missing or expire soon. No process may be using the CA."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._authority_key.exists() and _time_left(self.authority) > _CA_RENEWED_BEFORE:
            self.renew()
        else:
            self._make_authority()
            self.rotate()

    def renew(self) -> None:
        """Replace the certificates if they expire soon."""
        newest = [self._current / subject.name / "tls.crt" for subject in SUBJECTS]
        if not all(path.exists() and _time_left(path) > _RENEWED_BEFORE for path in newest):
            self.rotate()

    def rotate(self) -> None:
        """Replace every certificate and key except the CA's, atomically."""
        replaced = self._current.resolve()
        fresh = Path(tempfile.mkdtemp(prefix=f"{datetime.now(UTC):%Y%m%dT%H%M%S}-", dir=self.folder))
        for subject in SUBJECTS:
            self.issue(subject, into=fresh / subject.name)
        link = self.folder / "current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(fresh.name)
        link.replace(self._current)
        # Keep the certificates that were just replaced, because a process may be reading them; remove older ones.
        for folder in self._generations():
            if folder not in {fresh, replaced}:
                shutil.rmtree(folder)

    def folder_of(self, name: str) -> CertificateFolder:
        """Return the folder with the newest certificate of this name; the path stays the same after a rotation."""
        return CertificateFolder(self._current / name, watched=self.folder)

    def issue(self, subject: Subject, *, into: Path) -> None:
        """Write a certificate signed by our CA, its key and the CA's certificate into a new folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate_of(subject, key, *self._read_authority())
        into.mkdir(mode=0o700)
        (into / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        write_secret(into / "tls.key", _pem(key))
        shutil.copyfile(self.authority, into / "ca.crt")

    def _make_authority(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Shop on this machine")
        certificate = (
            _builder(name, issuer=name, key=key.public_key(), lifetime=_CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_secret(self._authority_key, _pem(key))
        self.authority.write_bytes(certificate.public_bytes(Encoding.PEM))

    def _read_authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = load_pem_private_key(self._authority_key.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self._authority_key} is not one of ours")
        return x509.load_pem_x509_certificate(self.authority.read_bytes()), key

    def _generations(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]


def _certificate_of(
    subject: Subject, key: ec.EllipticCurvePrivateKey, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH] if subject.is_inside else []
    if subject.hosts:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    return (
        _builder(_name(subject.name), issuer=ca.subject, key=key.public_key(), lifetime=_LIFETIME)
        .add_extension(x509.SubjectAlternativeName(_names_of(subject)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _names_of(subject: Subject) -> Iterator[x509.GeneralName]:
    if subject.is_inside:
        yield x509.UniformResourceIdentifier(f"spiffe://shop/{subject.name}")
    for host in subject.hosts:
        try:
            yield x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            yield x509.DNSName(host)


def _builder(
    subject: x509.Name, *, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _BACKDATED,
        not_valid_after=now + lifetime,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _time_left(path: Path) -> timedelta:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.not_valid_after_utc - datetime.now(UTC)
