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

LINK: Final = '</docs>; rel="deprecation"; type="text/html"'
HEADERS: Final = {"deprecation": "@1793491200", "sunset": "Sat, 01 May 2027 00:00:00 GMT", "link": LINK}
"""Those of an rpc as of 2026-11-01, until 2027-05-01."""

WITHOUT_SUNSET: Final = {"deprecation": "@1793491200", "link": LINK}
"""Those of the rpcs of a service as of the same day."""


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
