"""The rules of `buf.validate`: in the wheel this is the package of `validate_pb2`, which it finds or has itself.

A process can have one version of them. If another package brings them, as `buf.validate`, they are taken from there.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any


def _found() -> Any:
    with contextlib.suppress(ImportError):
        return importlib.import_module("buf.validate.validate_pb2")
    return importlib.import_module(f"{__name__}.validate_pb2")


validate_pb2 = _found()
