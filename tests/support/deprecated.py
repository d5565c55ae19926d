"""The contract with deprecated rpcs that a test has chosen, whatever it has of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from shop.system.v1.deprecation_pb2 import (
    Deprecation,
    file_deprecation,
    method_deprecation,
    service_deprecation,
)

from envoy.contract import DESCRIPTOR_SET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAMES: Final = frozenset({"deprecation", "sunset", "link"})
"""The names of the headers about a deprecation."""


def headers_of(operation: str, *, has_sunset: bool = True) -> dict[str, str]:
    """Return the headers of an rpc that is deprecated as of 2026-11-01, and may be gone from 2027-05-01 on.

    Args:
        operation: where the page shows it: `Users/getUser`.
        has_sunset: whether it may be gone one day.
    """
    sunset = {"sunset": "Sat, 01 May 2027 00:00:00 GMT"} if has_sunset else {}
    link = f'</docs#/{operation}>; rel="deprecation"; type="text/html"'
    return {"deprecation": "@1793491200", **sunset, "link": link}


def contract_with(folder: Path, *, rpcs: Sequence[str] = (), services: Sequence[str] = ()) -> Path:
    """Write the real contract, in which only these rpcs and all rpcs of these services are deprecated; return the file.

    Args:
        folder: where to write it.
        rpcs: by name. They have a sunset.
        services: by name. They have none.
    """
    contract = FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes())
    marked = []
    for file in contract.file:
        file.options.ClearExtension(file_deprecation)
    for service in (each for file in contract.file for each in file.service):
        service.options.ClearExtension(service_deprecation)
        for method in service.method:
            method.options.ClearExtension(method_deprecation)
        if service.name in services:
            service.options.deprecated = True
            dates = Deprecation(since="2026-11-01", replacement="Nothing replaces it.")
            service.options.Extensions[service_deprecation].CopyFrom(dates)
            marked.append(service.name)
        for method in (each for each in service.method if each.name in rpcs):
            method.options.deprecated = True
            dates = Deprecation(since="2026-11-01", sunset="2027-05-01", replacement="Nothing replaces it.")
            method.options.Extensions[method_deprecation].CopyFrom(dates)
            marked.append(method.name)
    assert sorted(marked) == sorted([*rpcs, *services])
    path = folder / "shop.binpb"
    path.write_bytes(contract.SerializeToString())
    return path
