"""The names of the operations of the OpenAPI document, and where the page of the documentation shows one."""

from typing import Final
from urllib.parse import quote

from chassis.service import services

_PAGE: Final = "/docs"


def heading_of(service: str) -> str:
    """Return the heading of a gRPC service, given by its full name: what the service keeps, or `Sessions`."""
    name = service.rpartition(".")[2].removesuffix("Service")
    for each in services():
        if service == each.serves[0]:
            return each.collection.replace("_", " ").capitalize()
        if service in each.serves:
            return f"{name}s"
    return name


def operation_id(method: str, *, number: int = 1) -> str:
    """Return the id of the operation of an rpc, given by its name. `number` counts its paths from 1."""
    return method[0].lower() + method[1:] + (f"_{number}" if number > 1 else "")


def address_of(rpc: str) -> str:
    """Return where the page shows the operation of the rpc of this gRPC path."""
    service, _, method = rpc.strip("/").partition("/")
    return f"{_PAGE}#/{quote(heading_of(service))}/{operation_id(method)}"
