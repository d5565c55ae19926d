"""The whole contract, as reflection tells it."""

from __future__ import annotations

import importlib
from pathlib import Path

import shop


def service_names() -> list[str]:
    """Return the full name of every service of the contract, this process's and others', sorted.

    The edge sends reflection to any replica of any service: each must know all of them.
    """
    names: set[str] = set()  # one folder can be found in two ways
    for root in shop.__path__:
        for file in Path(root).rglob("*_service_pb2.py"):
            module_name = ".".join(("shop", *file.relative_to(root).with_suffix("").parts))
            module = importlib.import_module(module_name)
            names.update(service.full_name for service in module.DESCRIPTOR.services_by_name.values())
    return sorted(names)
