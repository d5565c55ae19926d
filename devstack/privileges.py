"""What a child may do, and that it does not outlive us: command lines wrapped in util-linux's setpriv."""

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


def bound_to_us(argv: tuple[str, ...], *, signal: Signals) -> tuple[str, ...]:
    """Return a command whose process gets the signal when the thread that starts it ends, even by kill -9.

    Only Linux can do that. Where setpriv is missing the command is returned as it is.
    """
    setpriv = shutil.which("setpriv")
    if sys.platform != "linux" or setpriv is None:
        return argv
    return (setpriv, f"--pdeathsig={signal.name.removeprefix('SIG')}", "--", *argv)


def not_as_root(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command that root can run although the program refuses root; others get it unchanged.

    The process may pass the folders that only root may enter (a clone below /root, an interpreter in /root/.pyenv,
    a temporary folder of mode 0700): it keeps the one capability for that.

    Raises:
        StackError: we are root and there is no setpriv.
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
        # Without it access(2), by which initdb looks for postgres, would not count the capability.
        "--securebits=+no_setuid_fixup",
        "--",
        *argv,
    )


def hand_over(folder: Path) -> None:
    """Make the folder belong to the account that `not_as_root` runs commands as."""
    if os.geteuid() == 0:
        account = pwd.getpwnam(_UNPRIVILEGED)
        os.chown(folder, account.pw_uid, account.pw_gid)
