"""The dates and the replacement of a deprecated element of the contract.

The options stand beside `deprecated = true` (shop/system/v1/deprecation.proto). Generation refuses one without the
other, and dates that are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from shop.system.v1 import deprecation_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor_pb2 import (
        EnumOptions,
        EnumValueOptions,
        FieldOptions,
        FileOptions,
        MessageOptions,
        MethodOptions,
        ServiceOptions,
    )

    Options: TypeAlias = (
        FileOptions | ServiceOptions | MethodOptions | MessageOptions | FieldOptions | EnumOptions | EnumValueOptions
    )

_EXTENSIONS: Final[Mapping[str, Any]] = {
    "google.protobuf.FileOptions": deprecation_pb2.file_deprecation,
    "google.protobuf.ServiceOptions": deprecation_pb2.service_deprecation,
    "google.protobuf.MethodOptions": deprecation_pb2.method_deprecation,
    "google.protobuf.MessageOptions": deprecation_pb2.message_deprecation,
    "google.protobuf.FieldOptions": deprecation_pb2.field_deprecation,
    "google.protobuf.EnumOptions": deprecation_pb2.enum_deprecation,
    "google.protobuf.EnumValueOptions": deprecation_pb2.value_deprecation,
}


@dataclass(frozen=True, slots=True)
class Deprecation:
    """The dates and the replacement of a deprecated element.

    Attributes:
        since: the first day on which it is deprecated; it can be in the future.
        sunset: the first day on which it may be gone; None while it is not decided.
        replacement: the replacement, in whole sentences.
    """

    since: date
    sunset: date | None
    replacement: str

    def in_words(self) -> str:
        """Return it in sentences, for people."""
        end = f"; may be removed from {self.sunset} on" if self.sunset else ""
        return f"Deprecated as of {self.since}{end}. {self.replacement}"


def deprecation_of(*options: Options) -> Deprecation | None:
    """Return the deprecation of an element: its own, or else the nearest one around it; None if nothing is deprecated.

    Args:
        options: those of the element, then of the elements around it: of an rpc, its service, their file.

    Raises:
        ValueError: a date is none.
    """
    for each in options:
        if text := option_of(each):
            sunset = date.fromisoformat(text.sunset) if text.sunset else None
            return Deprecation(date.fromisoformat(text.since), sunset, text.replacement)
    return None


def option_of(options: Options) -> deprecation_pb2.Deprecation | None:
    """Return the option as it is written, or None without one."""
    extension = _EXTENSIONS[options.DESCRIPTOR.full_name]
    found: deprecation_pb2.Deprecation | None = (
        options.Extensions[extension] if options.HasExtension(extension) else None
    )
    return found


def option_name(options: Options) -> str:
    """Return the name of the option for elements of this kind: `shop.system.v1.method_deprecation` for an rpc."""
    name: str = _EXTENSIONS[options.DESCRIPTOR.full_name].full_name
    return name
