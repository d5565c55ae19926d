"""Certificates from files: when they are taken over, and the ones that devstack makes."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

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
