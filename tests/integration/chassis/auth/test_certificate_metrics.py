"""When certificates end is seen before they do: real ones, as they are in the files at the moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from chassis.auth.certificates import CertificateFiles
from chassis.telemetry.metrics import REGISTRY
from devstack.certificates import Certificates

if TYPE_CHECKING:
    from pathlib import Path


def test_a_certificate_about_to_end_is_seen_without_a_new_connection(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    certificates.prepare()
    folder = certificates.folder_of("edge").path
    files = (folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    _certificates = CertificateFiles(*files)
    begin = left("own")

    reissue(certificates, folder / "tls.crt", ends_in=timedelta(hours=20))

    assert timedelta(days=6) < begin <= timedelta(days=7)
    assert timedelta(hours=19) < left("own") <= timedelta(hours=20)
    assert left("authority") > timedelta(days=80)


def test_of_two_authorities_the_one_that_ends_last_counts(tmp_path: Path) -> None:
    old, new = Certificates(tmp_path / "old"), Certificates(tmp_path / "new")
    old.prepare()
    new.prepare()
    reissue(old, old.authority, ends_in=timedelta(hours=1))
    folder = new.folder_of("edge").path
    (folder / "ca.crt").write_bytes(old.authority.read_bytes() + new.authority.read_bytes())

    _certificates = CertificateFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")

    assert left("authority") > timedelta(days=80)


def left(certificate: str) -> timedelta:
    """Return the time until this certificate ends, as Prometheus sees it."""
    ends = REGISTRY.get_sample_value("shop_certificate_expiration_timestamp_seconds", {"certificate": certificate})
    assert ends
    return datetime.fromtimestamp(ends, UTC) - datetime.now(UTC)


def reissue(certificates: Certificates, path: Path, *, ends_in: timedelta) -> None:
    """Replace a certificate by one that is the same but for its end."""
    key = load_pem_private_key((certificates.folder / "ca.key").read_bytes(), password=None)
    authority = x509.load_pem_x509_certificate(certificates.authority.read_bytes())
    was = x509.load_pem_x509_certificate(path.read_bytes())
    builder = x509.CertificateBuilder(
        issuer_name=authority.subject,
        subject_name=was.subject,
        public_key=was.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=was.not_valid_before_utc,
        not_valid_after=datetime.now(UTC) + ends_in,
    )
    for extension in was.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    signed = builder.sign(key, hashes.SHA256())
    path.write_bytes(signed.public_bytes(Encoding.PEM))
