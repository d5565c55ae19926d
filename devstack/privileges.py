"""Wraps commands in util-linux's setpriv: a child ends with its parent, and PostgreSQL runs without root."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from typing import TYPE_CHECKING, Final

from devstack.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path
    from signal import Signals

_UNPRIVILEGED: Final = "nobody"


def with_parent_death_signal(argv: tuple[str, ...], *, signal: Signals) -> tuple[str, ...]:
    """Return a command whose process gets the signal when the thread that started it ends, even by kill -9.

    Only Linux supports this. On other systems, or without setpriv, the command is returned unchanged.
    """
    setpriv = shutil.which("setpriv")
    if sys.platform != "linux" or setpriv is None:
        return argv
    return (setpriv, f"--pdeathsig={signal.name.removeprefix('SIG')}", "--", *argv)


def as_unprivileged_user(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command that runs as an unprivileged user if we are root; otherwise the command unchanged.

    The process keeps one capability, dac_override, so that it can enter folders that only root may enter: a clone below
    /root, an interpreter in /root/.pyenv, a temporary folder of mode 0700.

    Raises:
        StackError: we are root and setpriv is missing.
    """
    if os.geteuid() != 0:
        return argv
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError(
            "PostgreSQL refuses to run as root and setpriv is missing: install util-linux, or run as another user"
        )
    account = pwd.getpwnam(_UNPRIVILEGED)
    return (
        setpriv,
        f"--reuid={account.pw_uid}",
        f"--regid={account.pw_gid}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        # Without this, access(2) ignores the capability, and initdb uses access(2) to find postgres.
        "--securebits=+no_setuid_fixup",
        "--",
        *argv,
    )


def chown_to_unprivileged(folder: Path) -> None:
    """If we are root, give the folder to the account of `as_unprivileged_user`."""
    if os.geteuid() == 0:
        account = pwd.getpwnam(_UNPRIVILEGED)
        os.chown(folder, account.pw_uid, account.pw_gid)
