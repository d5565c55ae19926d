"""Certificates from files: when they are taken over, and the ones that devstack makes."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import capture_logs

from chassis.auth.certificates import CertificateFiles, TlsSettings
from chassis.errors import StartupError
from chassis.settings import load
from devstack import certificates as made_by_devstack
from devstack.certificates import SUBJECTS, Certificates

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    certificates = Certificates(tmp_path / "tls")
    certificates.prepare()
    return certificates


@pytest.fixture
def files(certificates: Certificates, tmp_path: Path) -> Path:
    """A folder with a certificate's files, to be replaced one by one."""
    return shutil.copytree(certificates.folder_of("edge").path, tmp_path / "files")


def identity_of(files: Path) -> CertificateFiles:
    return CertificateFiles(files / "tls.crt", files / "tls.key", files / "ca.crt")


def set_environment(monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
    for variable, name in (("CERT_FILE", "tls.crt"), ("KEY_FILE", "tls.key"), ("CA_FILE", "ca.crt")):
        monkeypatch.setenv(f"TLS_{variable}", str(files / name))
    monkeypatch.setenv("TLS_ALLOWED_PEERS", "edge, notes_svc")


def test_the_settings_name_the_files_and_the_peers(monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
    set_environment(monkeypatch, files)

    certificates = CertificateFiles.of(load(TlsSettings))

    assert certificates
    assert certificates.allowed_peers == {"edge", "notes_svc"}
    assert certificates.credentials().certificates == (files / "tls.crt").read_bytes()


def test_without_settings_there_is_no_identity() -> None:
    assert CertificateFiles.of(load(TlsSettings)) is None


@pytest.mark.parametrize("missing", ["TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CA_FILE", "TLS_ALLOWED_PEERS"])
def test_half_of_the_settings_are_a_mistake(
    monkeypatch: pytest.MonkeyPatch, files: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_environment(monkeypatch, files)
    monkeypatch.delenv(missing)

    with pytest.raises(SystemExit):
        load(TlsSettings)

    assert capsys.readouterr().err.startswith("TLS: ")


def test_a_key_that_is_not_the_certificates_is_refused(files: Path, certificates: Certificates) -> None:
    shutil.copy(certificates.folder_of("rate_limiter").path / "tls.key", files / "tls.key")

    with pytest.raises(StartupError):
        identity_of(files)


def encrypt_key(files: Path) -> None:
    key = load_pem_private_key((files / "tls.key").read_bytes(), password=None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary"))
    (files / "tls.key").write_bytes(sealed)


def test_a_key_with_a_passphrase_is_refused_and_never_taken_over(files: Path) -> None:
    running = identity_of(files)
    before = running.credentials()

    encrypt_key(files)

    with capture_logs() as logged:
        assert running.credentials() is before
    assert [each["event"] for each in logged] == ["tls.not_renewed"]
    with pytest.raises(StartupError, match="the key has a passphrase"):
        identity_of(files)


OWN: Final = "spiffe://shop/notes_svc"


def replace(files: Path, *, begins_in: timedelta, ends_in: timedelta, uri: str) -> None:
    """Put a certificate into the files that begins and ends then."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.not_valid_before(now + begins_in).not_valid_after(now + ends_in).serial_number(1)
    alternative = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    certificate = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    (files / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (files / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize(
    ("begins_h", "ends_h", "uri", "why"),
    [
        (-2, -1, OWN, "it expired at 2"),
        (1, 2, OWN, "it is not valid before 2"),
        (-1, 1, "spiffe://shop/other_svc", "it names other_svc: it needs the URI spiffe://shop/notes_svc"),
        (-1, 1, "https://notes-svc", "it names no service: it needs the URI spiffe://shop/notes_svc"),
        (-1, 1, OWN, None),
    ],
)
def test_a_certificate_that_peers_will_refuse_is_named_at_the_start_and_when_it_is_taken_over(
    begins_h: int, ends_h: int, uri: str, why: str | None, files: Path
) -> None:
    paths = (files / "tls.crt", files / "tls.key", files / "ca.crt")
    replace(files, begins_in=timedelta(hours=-1), ends_in=timedelta(hours=1), uri=OWN)
    running = CertificateFiles(*paths, identity="notes_svc")

    replace(files, begins_in=timedelta(hours=begins_h), ends_in=timedelta(hours=ends_h), uri=uri)
    with capture_logs() as logged:
        running.credentials()
        CertificateFiles(*paths, identity="notes_svc")

    said = [each["why"] for each in logged if each["event"] == "tls.will_be_refused"]
    assert len(said) == (2 if why else 0)
    assert all(each.startswith(why) for each in said if why)


def test_nothing_changes_while_the_files_do_not(files: Path) -> None:
    certificates = identity_of(files)

    assert certificates.credentials() is certificates.credentials()


def test_files_replaced_one_by_one_are_taken_over_once_they_belong_together(
    files: Path, certificates: Certificates
) -> None:
    own = identity_of(files)
    before = own.credentials()
    certificates.rotate()
    fresh = certificates.folder_of("edge").path

    shutil.copy(fresh / "tls.crt", files / "tls.crt")
    in_between = own.credentials()
    shutil.copy(fresh / "tls.key", files / "tls.key")
    after = own.credentials()

    assert in_between is before
    assert after.certificates == (fresh / "tls.crt").read_bytes()
    assert after.private_key == (fresh / "tls.key").read_bytes()


def test_files_that_vanish_change_nothing(files: Path) -> None:
    certificates = identity_of(files)
    before = certificates.credentials()

    shutil.rmtree(files)

    assert certificates.credentials() is before


def test_only_the_owner_reads_keys(certificates: Certificates) -> None:
    keys = list(certificates.folder.rglob("*.key"))

    assert len(keys) == len(SUBJECTS) + 1
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert certificates.folder.stat().st_mode & 0o777 == 0o700


def test_certificates_are_kept_from_start_to_start(certificates: Certificates) -> None:
    before = (certificates.folder / "current").readlink()

    certificates.prepare()

    assert (certificates.folder / "current").readlink() == before


def test_certificates_that_expire_soon_are_replaced_and_the_ca_stays(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = certificates.authority.read_bytes()
    before = (certificates.folder_of("edge").path / "tls.crt").read_bytes()
    monkeypatch.setattr(made_by_devstack, "_RENEWED_BEFORE", timedelta(days=8))

    certificates.renew()

    assert (certificates.folder_of("edge").path / "tls.crt").read_bytes() != before
    assert certificates.authority.read_bytes() == authority


def test_a_ca_that_expires_soon_is_replaced_with_everything_it_signed(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (certificates.folder_of("edge").path / "ca.crt").read_bytes()
    monkeypatch.setattr(made_by_devstack, "_CA_RENEWED_BEFORE", timedelta(days=91))

    certificates.prepare()

    assert (
        (certificates.folder_of("edge").path / "ca.crt").read_bytes() == certificates.authority.read_bytes() != before
    )


def test_rotations_leave_no_more_than_the_last_two(certificates: Certificates) -> None:
    for _ in range(3):
        certificates.rotate()

    assert len([path for path in certificates.folder.iterdir() if path.is_dir() and not path.is_symlink()]) == 2
