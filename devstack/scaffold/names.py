"""The names of a new service, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import json
import keyword
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS

from chassis.service import KEYS, ROOT, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chassis.service import Service

_MAX: Final = 20  # lines of code and names on Kubernetes have room for no more
_RESERVED: Final = frozenset(
    # Packages of the contract, names in certificates, folders, and what pytest and Python take for theirs.
    {"shop", "system", "event", "options", "edge", "debug", "localhost", "rate_limiter", "chassis", "devstack", "tests"}
    | {"generated", "google", "grpc", "buf", "all", "none", "self", "service", "test", "conftest", "health"}
    # Every PostgreSQL has these databases, and a service has one with the name of its collection.
    | {"postgres", "template0", "template1"}
)
_IRREGULAR: Final = {"person": "people", "child": "children", "man": "men", "woman": "women", "index": "indices"}


class BadName(ValueError):
    """A name cannot be used. The message says which one would."""


@dataclass(frozen=True, slots=True)
class Read:
    """A resource whose events the new service reads.

    Attributes:
        resource: its name: `order`.
        resources: several of them.
        key: the type of its key.
        publisher: the package that publishes these events.
    """

    resource: str
    resources: str
    key: str = KEYS[0]
    publisher: str = ""

    def substitutions(self) -> Iterator[tuple[str, str]]:
        """Yield the same as Names.substitutions(), for the parts of the template that are about this resource."""
        for before, after in (
            ("«cargo key»", self.key),
            ("«cargo service»", self.publisher),
            ("«cargo subject»", '"first-1"' if self.key == "text" else "new_id()"),
            ("«cargos»", self.resources.replace("_", " ")),
        ):
            yield re.escape(before), after
        yield from _spellings({"cargos": self.resources, "cargo": self.resource})


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a new service, each in lower case with underscores.

    Attributes:
        service: without `_svc`: `stock`.
        resource: what it keeps: `stock_item`.
        resources: several of them: `stock_items`.
        reads: the resources whose events it reads.
        key: the type of the resource's key: a `uuid` that the service makes, or a `text` that callers choose.
    """

    service: str
    resource: str
    resources: str
    reads: tuple[Read, ...] = ()
    key: str = KEYS[0]

    @property
    def package(self) -> str:
        """The folder of the service."""
        return f"{self.service}{SUFFIX}"

    def substitutions(self) -> Iterator[tuple[str, str]]:
        """Yield patterns of what stands in the template, each with what replaces it; the first that matches counts."""
        words, plural = self.resource.replace("_", " "), self.resources.replace("_", " ")
        article = "an" if words[0] in "aeiou" else "a"
        known = [each.resources.replace("_", " ") for each in self.reads]
        for before, after in (
            ("«key»", self.key),
            ("«key in Python»", "str" if self.key == "text" else "UUID"),
            ("«key as text»", f"{self.resource}_id" if self.key == "text" else f"str({self.resource}_id)"),
            ("«reads»", ", ".join(f'"{each.resource}"' for each in self.reads)),
            ("«all cargos»", ", ".join(known[:-1]) + (" and " if known[1:] else "") + "".join(known[-1:])),
            ("«import of ids»", ", new_id" if any(each.key == "uuid" for each in self.reads) else ""),
            ("«A parcel»", f"{article.capitalize()} {words}"),
            ("«a parcel»", f"{article} {words}"),
            ("«Parcels»", plural.capitalize()),
            ("«parcels»", plural),
            ("«Parcel»", words.capitalize()),
            ("«parcel»", words),
            ("«depot»", self.service.replace("_", " ")),
            ("«Depot»", self.service.replace("_", " ").capitalize()),
            ("/parcels", "/" + self.resources.replace("_", "-")),
            ('["parcels"]', f'["{_in_json(self.resources)}"]'),
            ("parcels/{", self.resources.replace("_", "-") + "/{"),
            ("depot-svc", self.package.replace("_", "-")),
        ):
            yield re.escape(before), after
        yield from _spellings({"parcels": self.resources, "parcel": self.resource, "depot": self.service})


def _spellings(names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield a pattern of each spelling of the words, with the same spelling of the name that replaces it."""
    for word, name in names.items():
        # Not inside of other words. In `parcelId` and `ParcelId` the next letter begins another word.
        yield rf"(?<![a-z]){word}(?=[A-Z])", _in_json(name)
        yield rf"(?<![a-z]){word}(?![a-z])", name
        yield rf"{word.capitalize()}(?![a-z])", camel(name)
        yield rf"(?<![A-Z]){word.upper()}(?![A-Z])", name.upper()


def _in_json(name: str) -> str:
    return camel(name)[0].lower() + camel(name)[1:]


def camel(name: str) -> str:
    """Return the name as a type has it: `StockItem`."""
    return "".join(word.capitalize() for word in name.split("_"))


def snake(name: str) -> str:
    """Return a name in any spelling in lower case with underscores: `StockItem`, `stock-item`, `stock item` alike."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    return re.sub(r"[\s_-]+", "_", spaced).lower()


def plural_of(name: str) -> str:
    """Return several of what the name says; English has exceptions, for which PLURAL is."""
    first, _, last = name.rpartition("_")
    if last in _IRREGULAR:
        several = _IRREGULAR[last]
    elif re.search(r"[^aeiou]y$", last):
        several = f"{last[:-1]}ies"
    elif re.search(r"(s|x|z|ch|sh)$", last):
        several = f"{last}es"
    else:
        several = f"{last}s"
    return f"{first}_{several}" if first else several


def names_of(name: str, *, resource: str = "", plural: str = "", reads: str = "", key: str = "") -> Names:
    """Return the names for what a person has typed.

    Raises:
        BadName: one of them cannot be used.
    """
    service = snake(name).removesuffix(SUFFIX)
    single = snake(resource) if resource else service
    several = snake(plural) if plural else plural_of(single)
    for variable, value in (("NAME", service), ("RESOURCE", single), ("PLURAL", several)):
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*", value):
            raise BadName(f"{variable}={value}: use words of letters, such as stock or GiftCard")
        if len(value) > _MAX:
            raise BadName(f"{variable}={value}: use at most {_MAX} characters")
        if keyword.iskeyword(value) or keyword.issoftkeyword(value):
            raise BadName(f"{variable}={value}: this is a keyword of Python; choose another word")
        if value in _RESERVED:
            raise BadName(f"{variable}={value}: this name has another meaning here; choose another word")
    if several in RESERVED_WORDS:
        raise BadName(
            f"PLURAL={several}: PostgreSQL does not take this name for a table; name one, such as {single}_list"
        )
    if key not in {"", *KEYS}:
        raise BadName(f"KEY={key}: use {' or '.join(KEYS)}: the type of the resource's key")
    if single == several:
        raise BadName(f"PLURAL={several}: the plural must differ from the resource; name one, such as {single}_list")
    if service == several:
        raise BadName(f"NAME={service}: this is the plural of the resource; use NAME={single}")
    return Names(service, single, several, _reads_of(reads, own=single), key or KEYS[0])


def _reads_of(typed: str, *, own: str) -> tuple[Read, ...]:
    names = [snake(each) for each in typed.split(",")] if typed.strip() else []
    if "" in names:
        raise BadName(f"READS={typed}: write the resources with one comma between them, such as order,user")
    if doubled := next((name for name in names if names.count(name) > 1), ""):
        raise BadName(f"READS={typed}: {doubled} is there twice; name each resource once")
    if own in names:
        raise BadName(f"READS={typed}: {own} is what the new service keeps; it reads events of other services only")
    return tuple(Read(name, plural_of(name)) for name in names)


def with_publishers(names: Names, services: tuple[Service, ...]) -> Names:
    """Return the names with what the publishers say about the resources that are read."""
    publishers = {each.publishes: each for each in services if each.publishes}
    reads = (
        Read(read.resource, found.collection, found.key, found.name)
        for read in names.reads
        for found in (publishers[read.resource],)
    )
    return dataclasses.replace(names, reads=tuple(reads))


def require_free(names: Names, services: tuple[Service, ...]) -> None:
    """Return if no service has one of the names.

    Raises:
        BadName: a service has one of the names, or none publishes the events that the new one reads.
    """
    for each in services:
        if names.resources == each.collection:
            raise BadName(f"{each.name} keeps {each.collection} already: choose another RESOURCE or PLURAL")
        if names.resource == each.publishes:
            raise BadName(f"{each.name} publishes events of {each.publishes} already: choose another RESOURCE")
    taken = [
        ROOT / names.package,
        ROOT / "protos" / "shop" / names.service,
        ROOT / "protos" / "shop" / "event" / "v1" / f"{names.resource}_events.proto",
    ]
    for path in taken:
        if path.exists():
            raise BadName(f"{path.relative_to(ROOT)} exists already: choose another name, or remove it")
    contract = json.loads((ROOT / "generated" / "openapi.json").read_text(encoding="utf-8"))
    served = {each["operationId"] for path in contract["paths"].values() for each in path.values()}
    one, several = camel(names.resource), camel(names.resources)
    there = served & {f"create{one}", f"get{one}", f"update{one}", f"list{several}"}
    there |= contract["components"]["schemas"].keys() & {one, f"List{several}Response"}
    if there:
        raise BadName(
            f"RESOURCE={names.resource}: the contract has {', '.join(sorted(there))} already; choose another one"
        )
    collection = re.escape(names.resources.replace("_", "-"))
    bindings = (each for each in contract["paths"] if re.match(rf"/api/v1/{collection}(?![\w-])", each))
    if binding := next(bindings, ""):
        raise BadName(f"PLURAL={names.resources}: the contract has the path {binding} already; choose another one")
    published = [each.publishes for each in services if each.publishes]
    if unknown := [read.resource for read in names.reads if read.resource not in published]:
        raise BadName(f"READS={', '.join(unknown)}: no service publishes such events; there are {', '.join(published)}")
