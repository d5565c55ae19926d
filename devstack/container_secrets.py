"""The secrets of docker/compose.yaml as files: passwords and keys, made once, and certificates, renewed in time."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from devstack.certificates import SUBJECTS, Certificates
from devstack.passwords import new_key, new_password, write_secret
from devstack.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The engine mounts each file by itself. The folder's mode protects the files from other users of this machine; the
# files must be readable for the users in the containers, which differ by image.
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o644
_POSTGRES: Final = "postgres:5432"
_REDIS: Final = "redis:6379"


def prepare(folder: Path) -> None:
    """Make the missing files in the folder, and replace the certificates if they expire soon.

    Existing files are kept; to change a password, remove its file. The services use new certificates within a second,
    but must be restarted for a new password (docs/operations.md).
    """
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    folder.chmod(_FOLDER_MODE)
    _keep(folder / "postgres_password", new_password)
    for service in SERVICES:
        password = _keep(folder / f"{service.name}_password", new_password)
        url = f"postgresql://{service.name}:{password}@{_POSTGRES}/{service.database}"
        _write(folder / f"{service.name}_database_url", url)
    _keep(folder / "keys_secret", new_key)
    redis = _keep(folder / "redis_password", new_password)
    _write(folder / "redis_conf", _redis_conf(redis))
    _write(folder / "redis_url", f"redis://:{redis}@{_REDIS}/0")
    _prepare_certificates(folder)


def _prepare_certificates(folder: Path) -> None:
    """Copy each certificate into a folder of its own. The folders stay the same, because containers mount them."""
    certificates = Certificates(folder / "authority")
    certificates.prepare()
    shutil.copyfile(certificates.authority, folder / "ca.crt")
    for subject in SUBJECTS:
        newest = certificates.folder_of(subject.name).path
        mounted = folder / "tls" / subject.name
        mounted.mkdir(parents=True, exist_ok=True)
        # The certificate comes last: a process that reads in between finds a pair that does not match, and retries.
        for name in ("ca.crt", "tls.key", "tls.crt"):
            _write(mounted / name, (newest / name).read_text())


def _keep(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        _write(path, make())
    return path.read_text()


def _write(path: Path, text: str) -> None:
    """Replace the file atomically, unless it has this content already."""
    if path.exists() and path.read_text() == text:
        return
    unfinished = path.with_name(f"{path.name}.new")
    write_secret(unfinished, text)
    unfinished.chmod(_FILE_MODE)
    unfinished.replace(path)


def _redis_conf(password: str) -> str:
    # devstack/redis.py has the reasons for these settings.
    return f'requirepass {password}\nappendonly yes\nsave ""\nmaxmemory 256mb\nmaxmemory-policy noeviction\n'
