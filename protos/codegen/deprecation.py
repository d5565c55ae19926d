"""Finds the deprecated elements of the contract and refuses breaches of the policy (docs/api-changes.md)."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from google.api.field_behavior_pb2 import FieldBehavior, field_behavior
from google.protobuf.descriptor_pb2 import FieldOptions

from protos.codegen.refusals import Refusal
from protos.deprecation import Deprecation, deprecation_of, option_name, option_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto
    from shop.system.v1.deprecation_pb2 import Deprecation as Option

    from protos.deprecation import Options

    # A name, the options of the element, and those of the elements around it whose deprecation is its own too.
    Element: TypeAlias = tuple[str, Options, *tuple[Options, ...]]

SHORTEST: Final = timedelta(days=180)
"""The shortest time from the day of deprecation to the sunset: two releases of a caller that releases every quarter."""

_POLICY: Final = "see docs/api-changes.md"


class BadDeprecation(Refusal):
    """Something is deprecated in another way than the policy says; each line is a place and what to do there."""


def deprecations(files: Sequence[FileDescriptorProto]) -> dict[str, Deprecation]:
    """Return what is deprecated, by full name; a value of an enum is named as `shop.user.v1.Role.ROLE_USER`.

    A deprecated file or service deprecates its rpcs, messages and enums; a message deprecates its nested types.

    Raises:
        BadDeprecation: something has no dates or wrong ones, or an option without `deprecated = true`.
    """
    elements = [each for file in files for each in _elements(file)]
    if faults := [f"{name}: {fault}" for name, own, *_around in elements for fault in _faults(own)]:
        raise BadDeprecation("\n".join(faults))
    found = {name: deprecation_of(*options) for name, *options in elements}
    return {name: deprecation for name, deprecation in found.items() if deprecation}


def names_of(files: Iterable[FileDescriptorProto]) -> Iterator[str]:
    """Yield the name of each element that can be deprecated."""
    return (name for file in files for name, *_options in _elements(file))


def _elements(file: FileDescriptorProto) -> Iterator[Element]:
    yield file.name, file.options
    for service in file.service:
        name = f"{file.package}.{service.name}"
        yield name, service.options, file.options
        yield from ((f"{name}.{each.name}", each.options, service.options, file.options) for each in service.method)
    for message in file.message_type:
        yield from _in_message(message, file.package, file.options)
    for enum in file.enum_type:
        yield from _in_enum(enum, file.package, file.options)
    yield from ((f"{file.package}.{each.name}", each.options) for each in file.extension)


def _in_message(message: DescriptorProto, scope: str, *around: Options) -> Iterator[Element]:
    name = f"{scope}.{message.name}"
    yield name, message.options, *around
    yield from ((f"{name}.{field.name}", field.options) for field in message.field)
    for nested in message.nested_type:
        yield from _in_message(nested, name, message.options, *around)
    for enum in message.enum_type:
        yield from _in_enum(enum, name, message.options, *around)


def _in_enum(enum: EnumDescriptorProto, scope: str, *around: Options) -> Iterator[Element]:
    name = f"{scope}.{enum.name}"
    yield name, enum.options, *around
    yield from ((f"{name}.{value.name}", value.options) for value in enum.value)


def _faults(options: Options) -> Iterator[str]:
    """Yield what is wrong with an element's deprecation, and what to do about it."""
    option = option_of(options)
    if option is None:
        if options.deprecated:
            yield f"it is deprecated, so add the option ({option_name(options)}) with dates; {_POLICY}"
        return
    if not options.deprecated:
        yield f"it has the option ({option_name(options)}), so add `deprecated = true`, or remove the option"
    yield from _wrong_dates(option)
    if not option.replacement.endswith("."):
        yield "`replacement` must say in whole sentences what to use instead, or why nothing is needed"
    if isinstance(options, FieldOptions) and FieldBehavior.REQUIRED in options.Extensions[field_behavior]:
        yield "it is REQUIRED, so no caller could stop sending it: remove the rules that require it"


def _wrong_dates(option: Option) -> Iterator[str]:
    since, sunset = _day(option.since), _day(option.sunset)
    if since is None:
        yield f"`since` must be a day such as 2026-11-01, not {option.since!r}"
    if sunset is None and option.sunset:
        yield f"`sunset` must be a day such as 2027-05-01, not {option.sunset!r}; leave it out if it is not decided"
    if since and sunset and sunset - since < SHORTEST:
        yield f"`sunset` must be {since + SHORTEST} or later, {SHORTEST.days} days after `since`; {_POLICY}"


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    # Python also reads `20261101` and `2026-W44-7`.
    return day if str(day) == text else None
