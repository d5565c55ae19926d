"""The services of the whole contract, for reflection."""

import importlib
from pathlib import Path

import shop


def service_names() -> list[str]:
    """Return the full names of all services of the contract, including those of other processes, sorted.

    The edge sends a reflection call to any replica of any service, so each must know all of them.
    """
    names: set[str] = set()  # a folder may be on the path twice
    for root in shop.__path__:
        for file in Path(root).rglob("*_service_pb2.py"):
            module_name = ".".join(("shop", *file.relative_to(root).with_suffix("").parts))
            module = importlib.import_module(module_name)
            names.update(service.full_name for service in module.DESCRIPTOR.services_by_name.values())
    return sorted(names)
