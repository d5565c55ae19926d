"""The names of a new service, and what is wrong with them."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chassis.service import KEYS, ROOT, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chassis.service import Service

_MAX: Final = 20  # lines of code and names on Kubernetes have room for no more
_RESERVED: Final = frozenset(
    # Packages of the contract, names in certificates, folders, and what pytest and Python take for theirs.
    {"shop", "system", "event", "options", "edge", "debug", "localhost", "rate_limiter", "chassis", "devstack", "tests"}
    | {"generated", "google", "grpc", "buf", "all", "none", "self", "service", "test", "conftest", "health"}
)
_IRREGULAR: Final = {"person": "people", "child": "children", "man": "men", "woman": "women", "index": "indices"}


class BadName(ValueError):
    """A name cannot be used. The message says which one would."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a new service, each in lower case with underscores.

    Attributes:
        service: without `_svc`: `stock`.
        resource: what it keeps: `stock_item`.
        resources: several of them: `stock_items`.
        reads: the resource whose events it reads; empty for none.
        key: the type of the resource's key: a `uuid` that the service makes, or a `text` that callers choose.
        reads_key: the same of the resource whose events it reads.
        publisher: the package that publishes these events.
    """

    service: str
    resource: str
    resources: str
    reads: str = ""
    key: str = "uuid"
    reads_key: str = "uuid"
    publisher: str = ""

    @property
    def package(self) -> str:
        """The folder of the service."""
        return f"{self.service}{SUFFIX}"

    def substitutions(self) -> Iterator[tuple[re.Pattern[str], str]]:
        """Yield what stands in the template, and the text that replaces it, in this order."""
        words, plural = self.resource.replace("_", " "), self.resources.replace("_", " ")
        article = "an" if words[0] in "aeiou" else "a"
        read, reads = self.reads.replace("_", " "), plural_of(self.reads).replace("_", " ") if self.reads else ""
        for before, after in (
            ("«key»", self.key),
            ("«key in Python»", "str" if self.key == "text" else "UUID"),
            ("«key as text»", f"{self.resource}_id" if self.key == "text" else f"str({self.resource}_id)"),
            ("«cargo key»", self.reads_key),
            ("«cargo service»", self.publisher),
            ("«cargo import»", "" if self.reads_key == "text" else ", new_id"),
            ("«cargo subject»", '"first-1"' if self.reads_key == "text" else "new_id()"),
            ("«cargo»", read),
            ("«cargos»", reads),
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
            yield re.compile(re.escape(before)), after
        for word, name in (
            ("cargos", plural_of(self.reads) if self.reads else ""),
            ("cargo", self.reads),
            ("parcels", self.resources),
            ("parcel", self.resource),
            ("depot", self.service),
        ):
            if not name:
                continue
            # Not inside of other words. In `parcelId` and `ParcelId` the next letter begins another word.
            yield re.compile(rf"(?<![a-z]){word}(?=[A-Z])"), _in_json(name)
            yield re.compile(rf"(?<![a-z]){word}(?![a-z])"), name
            yield re.compile(rf"{word.capitalize()}(?![a-z])"), camel(name)
            yield re.compile(rf"(?<![A-Z]){word.upper()}(?![A-Z])"), name.upper()


def _in_json(name: str) -> str:
    return camel(name)[0].lower() + camel(name)[1:]


def camel(name: str) -> str:
    """Return the name as a type has it: `StockItem`."""
    return "".join(word.capitalize() for word in name.split("_"))


def snake(name: str) -> str:
    """Return a name in any spelling in lower case with underscores: `StockItem`, `stock-item`, `stock item` alike."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
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
    if key not in {"", *KEYS}:
        raise BadName(f"KEY={key}: use {' or '.join(KEYS)}: the type of the resource's key")
    if single == several:
        raise BadName(f"PLURAL={several}: the plural must differ from the resource; name one, such as {single}_list")
    return Names(service, single, several, snake(reads) if reads else "", key or KEYS[0])


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
    published = [each.publishes for each in services if each.publishes]
    if names.reads and names.reads not in published:
        raise BadName(f"READS={names.reads}: no service publishes such events; there are {', '.join(published)}")
