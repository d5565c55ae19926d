"""The secrets of docker/compose.yaml as files: passwords and the like made once, certificates replaced in time."""

from __future__ import annotations

import base64
import secrets
import shutil
from typing import TYPE_CHECKING, Final

from devstack.certificates import SUBJECTS, Certificates
from devstack.passwords import write_secret
from devstack.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The engine mounts each file by itself, so the folder keeps strangers of this machine out, and the files must be
# readable for the users in the containers, who are others in each image.
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o644
_POSTGRES: Final = "postgres:5432"
_REDIS: Final = "redis:6379"


def prepare(folder: Path) -> None:
    """Make what is missing in the folder, and replace the certificates if they expire soon.

    What exists is kept, so that a password changes when its file is removed and not before. The services see new
    certificates within a second; new passwords are for them to be restarted with (docs/operations.md).
    """
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    folder.chmod(_FOLDER_MODE)
    _keep(folder / "postgres_password", _password)
    for service in SERVICES:
        password = _keep(folder / f"{service.name}_password", _password)
        url = f"postgresql://{service.name}:{password}@{_POSTGRES}/{service.database}"
        _write(folder / f"{service.name}_database_url", url)
    _keep(folder / "keys_secret", _fernet_key)
    redis = _keep(folder / "redis_password", _password)
    _write(folder / "redis_conf", _redis_conf(redis))
    _write(folder / "redis_url", f"redis://:{redis}@{_REDIS}/0")
    _prepare_certificates(folder)


def _prepare_certificates(folder: Path) -> None:
    """Put everybody's certificate into a folder of its own, which stays the same one: containers have it mounted."""
    certificates = Certificates(folder / "authority")
    certificates.prepare()
    shutil.copyfile(certificates.authority, folder / "ca.crt")
    for subject in SUBJECTS:
        newest = certificates.folder_of(subject.name).path
        mounted = folder / "tls" / subject.name
        mounted.mkdir(parents=True, exist_ok=True)
        # The certificate comes last: who looks in between finds a pair that does not match and looks again.
        for name in ("ca.crt", "tls.key", "tls.crt"):
            _write(mounted / name, (newest / name).read_text())


def _keep(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        _write(path, make())
    return path.read_text()


def _write(path: Path, text: str) -> None:
    """Write the file in one step, unless it holds this already."""
    if path.exists() and path.read_text() == text:
        return
    unfinished = path.with_name(f"{path.name}.new")
    write_secret(unfinished, text)
    unfinished.chmod(_FILE_MODE)
    unfinished.replace(path)


def _password() -> str:
    # Hex, so that it needs no escaping in a URL, in SQL or in redis.conf.
    return secrets.token_hex(24)


def _redis_conf(password: str) -> str:
    # As devstack/redis.py explains them.
    return f'requirepass {password}\nappendonly yes\nsave ""\nmaxmemory 256mb\nmaxmemory-policy noeviction\n'


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
