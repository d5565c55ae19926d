"""The declaration of a service: the file `service.toml` in its folder. Every other part of the system reads it there.

The edge, the local stack, the compose files, the chart, the import rules and the tests have no list of services: they
call `services()`. This module needs the standard library only, because the edge's image has nothing else.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT: Final = Path(__file__).resolve().parent.parent
"""The folder that holds the folders of the services."""

FILE: Final = "service.toml"
SUFFIX: Final = "_svc"
_WORD: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_NAME: Final = re.compile(rf"{_WORD.pattern}{SUFFIX}")
_MAX_NAME: Final = 40  # objects on Kubernetes have this name with an ending, and at most 63 characters
KEYS: Final = ("uuid", "text")
_LISTS: Final = ("serves", "calls", "reads", "secrets")


class InvalidDeclaration(ValueError):
    """A file `service.toml` is missing or wrong. The message names the file."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service, as its `service.toml` declares it.

    Attributes:
        name: the name of its folder, of its PostgreSQL role, of its cluster in Envoy, in its certificate: `order_svc`.
        collection: what it keeps, in the plural: `orders`. The name of its database and of its path `/health/orders`.
        serves: the full names of its gRPC services. The health of the first one is that of the whole replica.
        calls: the services that it calls, by name. It finds `user_svc` in the variable USER_SERVICE_URL.
        publishes: the resource whose events it publishes: `order`. Empty: none.
        key: the type of this resource's key, which is the subject of its events: `uuid` or `text`.
        reads: the resources whose events it applies: `user`. Their services are others.
        secrets: the names of the settings that only this service has and that must be kept secret.
        modules: its own modules beside the standard ones, by the layer of the import rules to which each belongs
            (devstack/import_rules.py).
    """

    name: str
    collection: str
    serves: tuple[str, ...]
    calls: tuple[str, ...] = ()
    publishes: str = ""
    key: str = KEYS[0]
    reads: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    modules: Mapping[str, tuple[str, ...]] = field(hash=False)

    @property
    def host(self) -> str:
        """Its name where underscores are not allowed: in DNS, of its image, on Kubernetes: `order-svc`."""
        return self.name.replace("_", "-")

    @property
    def short_name(self) -> str:
        """Its name without the suffix: `order`."""
        return self.name.removesuffix(SUFFIX)

    @property
    def database(self) -> str:
        """The name of its database."""
        return self.collection

    @property
    def url_variable(self) -> str:
        """The environment variable by which its callers know its address: `ORDER_SERVICE_URL`."""
        return f"{self.short_name.upper()}_SERVICE_URL"

    @property
    def path_name(self) -> str:
        """The collection as it is spelt in paths of REST: `gift-cards`."""
        return self.collection.replace("_", "-")

    @property
    def health_path(self) -> str:
        """Where its health is, over REST."""
        return f"/health/{self.path_name}"

    @property
    def has_worker(self) -> bool:
        """Whether it has processes that publish or apply events."""
        return bool(self.publishes or self.reads)

    @cached_property
    def file(self) -> Path:
        """Its declaration."""
        return ROOT / self.name / FILE


def service_of(package: str) -> Service:
    """Return the service whose folder is this package.

    Raises:
        InvalidDeclaration: it does not declare itself, or not correctly.
    """
    return read(ROOT.joinpath(*package.split("."), FILE))


def services(root: Path = ROOT) -> tuple[Service, ...]:
    """Return every service in the order of starting: after the services that it calls, else by name.

    Raises:
        InvalidDeclaration: a declaration is not valid, or does not fit the others.
    """
    found = {file.parent.name: read(file) for file in sorted(root.glob(f"*/{FILE}"))}
    if not found:
        raise InvalidDeclaration(f"no folder in {root} has a {FILE}")
    _require_fitting(found)
    sorter = TopologicalSorter({name: sorted(service.calls) for name, service in found.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " calls ".join(reversed(error.args[1]))
        raise InvalidDeclaration(
            f"{FILE}: {circle}; services that call each other cannot be started in order"
        ) from None
    ordered: list[Service] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += [found[name] for name in ready]
        sorter.done(*ready)
    return tuple(ordered)


def callers_of(service: Service, all_services: tuple[Service, ...]) -> tuple[str, ...]:
    """Return who may connect to the service: the edge, then the services that call it."""
    return ("edge", *(each.name for each in all_services if service.name in each.calls))


def read(file: Path) -> Service:
    """Return the service that the file declares.

    Raises:
        InvalidDeclaration: the file is missing, or is not a valid declaration.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidDeclaration(f"{file} is missing: a service declares itself there") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidDeclaration(f"{file}: {error}") from None
    if complaint := next(_complaints(file.parent.name, content), ""):
        raise InvalidDeclaration(f"{file}: {complaint}")
    return Service(
        name=file.parent.name,
        collection=content["collection"],
        publishes=content.get("publishes", ""),
        key=content.get("key", KEYS[0]),
        modules={layer: tuple(modules) for layer, modules in content.get("modules", {}).items()},
        **{key: tuple(content.get(key, ())) for key in _LISTS},
    )


def _complaints(name: str, content: Mapping[str, Any]) -> Iterator[str]:
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        yield f"the folder's name must be in lower case, end with {SUFFIX} and have at most {_MAX_NAME} characters"
    known = {each.name for each in fields(Service)} - {"name"}
    if unknown := content.keys() - known:
        yield f"there is no key {', '.join(sorted(unknown))}; the keys are {', '.join(sorted(known))}"
    if not _is_word(content.get("collection")):
        yield "collection must be a word in lower case, such as orders"
    if "publishes" in content and not _is_word(content["publishes"]):
        yield "publishes must be a word in lower case, such as order"
    if content.get("key", KEYS[0]) not in KEYS:
        yield f"key must be {' or '.join(KEYS)}: the type of the resource's key"
    modules = content.get("modules", {})
    if not isinstance(modules, dict) or not all(map(_is_list, modules.values())):
        yield "modules must be a table of lists of names"
    for key in _LISTS:
        if not _is_list(content.get(key, [])):
            yield f"{key} must be a list of names, each of them once"
    if not content.get("serves"):
        yield "serves must name a gRPC service, such as shop.order.v1.OrderService"


def _is_word(value: object) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _is_list(value: object) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(each, str) and each for each in value)
        and len({*value}) == len(value)
    )


def _require_fitting(found: Mapping[str, Service]) -> None:
    publishers = {service.publishes: service.name for service in found.values() if service.publishes}
    for service in found.values():
        if unknown := set(service.calls) - found.keys():
            raise InvalidDeclaration(f"{service.file}: calls: there is no service {', '.join(sorted(unknown))}")
        if unknown := set(service.reads) - publishers.keys():
            raise InvalidDeclaration(f"{service.file}: reads: no service publishes {', '.join(sorted(unknown))}")
        if service.publishes in service.reads:
            raise InvalidDeclaration(f"{service.file}: reads: its own events are {service.publishes}")
    for what, values in (
        ("collection", [(each.collection, each) for each in found.values()]),
        ("serves", [(served, each) for each in found.values() for served in each.serves]),
        ("publishes", [(each.publishes, each) for each in found.values() if each.publishes]),
    ):
        seen: dict[str, Service] = {}
        for value, service in values:
            if value in seen:
                raise InvalidDeclaration(f"{service.file}: {what}: {value} is {seen[value].name}'s already")
            seen[value] = service
