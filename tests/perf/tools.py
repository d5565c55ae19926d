"""The programs and packages that a benchmark needs and the project does not: found, or installed below `.bench`.

Nothing is installed into the system: Debian's packages are fetched by apt as any user may, and unpacked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from devstack.postgres_cluster import find_binaries
from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

BENCH: Final = REPOSITORY / ".bench"
PEERS: Final = Path(__file__).parent / "peers"

_PACKAGES: Final = {"h2load": "nghttp2-client", "wrk": "wrk", "nginx": "nginx-light"}
_UNPACKED: Final = BENCH / "debian"
_GO: Final = BENCH / "go"


class ToolMissing(Exception):
    """A program is not there and cannot be fetched. The message says what to install."""


def pgbench() -> str:
    """Return the pgbench of the stack's own PostgreSQL."""
    return str(find_binaries() / "pgbench")


def program(name: str) -> str:
    """Return the path of h2load, wrk or nginx.

    Raises:
        ToolMissing: there is none, even after `install`.
    """
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", f"{_UNPACKED}/usr/bin", f"{_UNPACKED}/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise ToolMissing(f"{name} is missing: on Debian, apt-get install --no-install-recommends {_PACKAGES[name]}")
    return found


def environment() -> dict[str, str]:
    """Return the environment in which programs find the libraries that were unpacked with them."""
    libraries = ":".join(str(folder) for folder in _UNPACKED.glob("usr/lib/*-linux-gnu"))
    return {"PATH": os.environ.get("PATH", os.defpath), "LD_LIBRARY_PATH": libraries}


def install(report: Callable[[str], None]) -> None:
    """Install whatever is missing: programs, Express and what it uses, FastAPI and what it uses.

    Raises:
        ToolMissing: something cannot be had here.
    """
    BENCH.mkdir(exist_ok=True)
    _fetch_programs(report)
    _install_express(report)
    _install_fastapi(report)
    _build_go(report)


def fastapi_python() -> Path:
    """Return the interpreter that knows FastAPI."""
    return BENCH / "venv" / "bin" / "python"


def go_server(name: str) -> Path | None:
    """Return a peer in Go, `tutorial` or `same`; None where there is no Go."""
    program = _GO / name
    return program if program.exists() else None


def _fetch_programs(report: Callable[[str], None]) -> None:
    missing = [package for name, package in _PACKAGES.items() if not _is_found(name)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ToolMissing(f"{', '.join(missing)}: install these packages, or what your system calls them")
    report(f"Fetching {', '.join(missing)} with apt into {_UNPACKED}")
    # Lists and cache of our own: the system's need root, and may be empty.
    apt = BENCH / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    own = ("-o", f"Dir::State::Lists={apt}/lists", "-o", f"Dir::Cache={apt}", "-o", "Debug::NoLocking=1", "-qq")
    _run("apt-get", *own, "update")
    _run("apt-get", *own, "--yes", "--no-install-recommends", "--download-only", "install", *missing)
    for package in (apt / "archives").glob("*.deb"):
        _run("dpkg", "-x", str(package), str(_UNPACKED))
    for name in _PACKAGES:
        program(name)


def _is_found(name: str) -> bool:
    try:
        program(name)
    except ToolMissing:
        return False
    return True


def _install_express(report: Callable[[str], None]) -> None:
    if not shutil.which("npm"):
        raise ToolMissing("npm is missing: install Node.js 20 or newer")
    for name in ("express", "express_same"):
        folder = PEERS / name
        with Installation(folder / "node_modules" / "ready", [folder / "package-lock.json"]) as installation:
            if installation.is_needed:
                report(f"Installing the packages of {name} with npm")
                _run("npm", "ci", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder))


def _install_fastapi(report: Callable[[str], None]) -> None:
    lock, folder = REPOSITORY / "requirements" / "bench.txt", BENCH / "venv"
    with Installation(folder / "ready", [lock], also=sys.version) as installation:
        if installation.is_needed:
            report(f"Installing FastAPI and what it uses into {folder}")
            _run(sys.executable, "-m", "venv", "--clear", str(folder))
            pip = (str(fastapi_python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            _run(*pip, "--require-hashes", "--no-deps", "-r", str(lock))


def _build_go(report: Callable[[str], None]) -> None:
    source = PEERS / "grpc_go"
    if not shutil.which("go"):
        report("There is no Go: without the peers in Go")
        return
    files = sorted(file for file in source.rglob("*") if file.suffix in {".go", ".mod", ".sum"})
    with Installation(_GO / "ready", files) as installation:
        if installation.is_needed:
            report(f"Building the peers in Go into {_GO}")
            for name, package in {"tutorial": ".", "same": "./same"}.items():
                _run("go", "build", "-C", str(source), "-o", str(_GO / name), package)


class Installation:
    """Something that is installed anew only if the content of its files has changed.

    Not their times: a new checkout of the same files has new ones.

    Attributes:
        is_needed: whether it has to be installed.
    """

    def __init__(self, ready: Path, files: Sequence[Path], *, also: str = "") -> None:
        content = hashlib.sha256(also.encode())
        for file in files:
            content.update(file.read_bytes())
        self._digest: Final = content.hexdigest()
        self._ready: Final = ready
        self.is_needed: Final = not ready.exists() or ready.read_text() != self._digest

    def __enter__(self) -> Self:
        """Forget what was installed before: an interrupted installation is repeated."""
        if self.is_needed:
            self._ready.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remember what is installed, if it succeeded."""
        if self.is_needed and error is None:
            self._ready.parent.mkdir(parents=True, exist_ok=True)
            self._ready.write_text(self._digest)


def _run(*command: str) -> None:
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ToolMissing(f"`{' '.join(command)}` failed: {ended.stderr.strip() or ended.stdout.strip()}")
