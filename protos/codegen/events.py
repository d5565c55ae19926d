"""Prints docs/events.md: the events of the contract, from a descriptor set with source info on standard input."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chassis.events.redis_streams import stream_of
from chassis.service import services
from protos.codegen.descriptors import Contract
from protos.codegen.refusals import Refusal, ending_with_a_sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor

PACKAGE: Final = "shop.event.v1"
_INTRODUCTION: Final = Path(__file__).with_name("events.md")


class Undescribed(Refusal):
    """A message or a field has no comment."""


class UnknownResource(Refusal):
    """The name of a message does not begin with a resource whose events a service publishes."""


def event_type(message: str) -> str:
    """Return the type of the events with this message as data: `OrderStatusChanged` becomes `order.status_changed`.

    Raises:
        UnknownResource: no service publishes events of such a resource.
    """
    words = "_".join(re.findall(r"[A-Z][a-z0-9]*", message)).lower()
    published = [service.publishes for service in services() if words.startswith(f"{service.publishes}_")]
    if not published:
        raise UnknownResource(f"{message}: no service.toml publishes a resource with which this name begins")
    resource = max(published, key=len)
    return f"{resource}.{words.removeprefix(f'{resource}_')}"


def document(contract: Contract) -> str:
    """Return the page."""
    sections = [_INTRODUCTION.read_text(encoding="utf-8")]
    messages = contract.messages_of(PACKAGE)
    for resource, events in groupby(messages, key=lambda message: event_type(message.name).partition(".")[0]):
        sections.append(f"\n## {resource}.*\n\nStream `{stream_of(resource)}`.\n")
        sections += ["\n".join(_section(contract, message)) for message in events]
    return "".join(sections)


def _section(contract: Contract, message: Descriptor) -> Iterator[str]:
    yield f"\n### {event_type(message.name)}\n\n{_line(contract, message.full_name)}\n"
    yield "| field | |"
    yield "|---|---|"
    for field in message.fields:
        yield f"| `{field.json_name}` | {_line(contract, field.full_name)} |"
    yield ""


def _line(contract: Contract, name: str) -> str:
    comment = " ".join(contract.comment(name).split())
    if not comment:
        raise Undescribed(f"{name} has no comment")
    return comment + contract.notice(name, after=" ")


def main() -> None:
    """Print the page of the descriptor set on standard input."""
    with ending_with_a_sentence():
        sys.stdout.write(document(Contract(sys.stdin.buffer.read())))


if __name__ == "__main__":
    main()
