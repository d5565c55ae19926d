"""Takes elements whose sunset has passed out of an earlier contract, so that `buf breaking` accepts their removal.

    python -m protos.codegen.removals before.binpb after.binpb

Both are images of buf; `before.binpb` is written again. An element is taken out if its sunset has passed and the
present contract lacks it. The number and the name of a field or a value become reserved, so buf demands that the
present contract reserves them too. Messages and enums that only a removed rpc or field used are taken out with it.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from protos.codegen.deprecation import deprecations, names_of
from protos.codegen.descriptors import OWN_PACKAGES
from protos.codegen.refusals import ending_with_a_sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, MutableSequence

    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        EnumDescriptorProto,
        FieldDescriptorProto,
        FileDescriptorProto,
        MethodDescriptorProto,
    )


class Removals:
    """The earlier contract, while what may be gone is taken out.

    Args:
        before: the earlier contract; it is changed.
        after: the present one.
        today: the day that sunsets are compared with.
    """

    def __init__(self, before: FileDescriptorSet, after: FileDescriptorSet, *, today: date) -> None:
        self._before: Final = before
        self._own: Final = _own(before)
        self._present: Final = set(names_of(after.file))
        self._expired: Final = {
            name
            for name, deprecation in deprecations(self._own).items()
            if deprecation.sunset and deprecation.sunset <= today and name not in self._present
        }
        # The types that something removed has used.
        self._used: Final[set[str]] = set()

    def take_out(self) -> None:
        """Take out what may be gone."""
        for file in self._own:
            self._take_rpcs(file)
            for name, message in _messages(file.message_type, scope=file.package):
                self._take_fields(message, name)
            for name, enum in _enums(file):
                self._take_values(enum, name)
        while self._take_types():
            pass
        self._take_files()

    def _take_rpcs(self, file: FileDescriptorProto) -> None:
        for service in list(file.service):
            name = f"{file.package}.{service.name}"
            for method in list(service.method):
                if f"{name}.{method.name}" in self._expired:
                    self._used.update(_types_of(method))
                    service.method.remove(method)
            if name in self._expired and not service.method:
                file.service.remove(service)

    def _take_fields(self, message: DescriptorProto, name: str) -> None:
        for field in list(message.field):
            if f"{name}.{field.name}" in self._expired:
                self._used.update(_type_of(field))
                message.field.remove(field)
                message.reserved_range.add(start=field.number, end=field.number + 1)
                message.reserved_name.append(field.name)
                _drop_entries(message, field)
        _drop_empty_oneofs(message)

    def _take_values(self, enum: EnumDescriptorProto, name: str) -> None:
        for value in list(enum.value):
            if f"{name}.{value.name}" in self._expired:
                enum.value.remove(value)
                enum.reserved_range.add(start=value.number, end=value.number)
                enum.reserved_name.append(value.name)

    def _take_types(self) -> bool:
        """Take out messages and enums that may be gone and that nothing uses; return whether there were any."""
        needed = {name for file in self._before.file for name in _used_by(file)}
        taken = False
        for file in self._own:
            for scope, messages, enums in list(_types_in(file)):
                for message in list(messages):
                    if self._may_go(f"{scope}.{message.name}", needed):
                        self._used.update(used for field in message.field for used in _type_of(field))
                        messages.remove(message)
                        taken = True
                for enum in list(enums):
                    if self._may_go(f"{scope}.{enum.name}", needed):
                        enums.remove(enum)
                        taken = True
        return taken

    def _may_go(self, name: str, needed: set[str]) -> bool:
        return name not in self._present and name not in needed and name in self._expired | self._used

    def _take_files(self) -> None:
        empty = {
            file.name
            for file in self._own
            if file.name not in self._present
            if not (file.service or file.message_type or file.enum_type or file.extension)
        }
        for file in list(self._before.file):
            if file.name in empty:
                self._before.file.remove(file)
            elif empty & set(file.dependency):
                _drop_dependencies(file, empty)


def brought_forward(before: FileDescriptorSet, after: FileDescriptorSet) -> list[str]:
    """Return a line for each element whose sunset is now earlier than callers were promised."""
    present = deprecations(_own(after))
    return [
        f"{name}: its sunset was {promised.sunset} and is now {now.sunset}: callers plan with the day they were told"
        for name, promised in deprecations(_own(before)).items()
        if (now := present.get(name)) and promised.sunset and now.sunset and now.sunset < promised.sunset
    ]


def _own(contract: FileDescriptorSet) -> list[FileDescriptorProto]:
    return [file for file in contract.file if file.package.startswith(OWN_PACKAGES)]


def _messages(messages: Iterable[DescriptorProto], *, scope: str) -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        name = f"{scope}.{message.name}"
        yield name, message
        yield from _messages(message.nested_type, scope=name)


def _types_in(
    file: FileDescriptorProto,
) -> Iterator[tuple[str, MutableSequence[DescriptorProto], MutableSequence[EnumDescriptorProto]]]:
    """Yield each scope with its messages and enums: the package, and each message."""
    yield file.package, file.message_type, file.enum_type
    for name, message in _messages(file.message_type, scope=file.package):
        yield name, message.nested_type, message.enum_type


def _enums(file: FileDescriptorProto) -> Iterator[tuple[str, EnumDescriptorProto]]:
    for scope, _, enums in _types_in(file):
        yield from ((f"{scope}.{enum.name}", enum) for enum in enums)


def _used_by(file: FileDescriptorProto) -> Iterator[str]:
    """Yield the names of the types that the file's rpcs, fields and options use; not that of a message by itself."""
    for service in file.service:
        for method in service.method:
            yield from _types_of(method)
    for name, message in _messages(file.message_type, scope=file.package):
        yield from (used for field in message.field for used in _type_of(field) if used != name)
    for extension in file.extension:
        yield from (*_type_of(extension), extension.extendee.removeprefix("."))


def _types_of(method: MethodDescriptorProto) -> tuple[str, str]:
    return method.input_type.removeprefix("."), method.output_type.removeprefix(".")


def _type_of(field: FieldDescriptorProto) -> tuple[str, ...]:
    return (field.type_name.removeprefix("."),) if field.type_name else ()


def _drop_entries(message: DescriptorProto, field: FieldDescriptorProto) -> None:
    """Drop the nested message that holds the entries of a map, when the map is gone."""
    entry = field.type_name.rpartition(".")[2]
    for nested in list(message.nested_type):
        if nested.options.map_entry and nested.name == entry:
            message.nested_type.remove(nested)


def _drop_empty_oneofs(message: DescriptorProto) -> None:
    """Drop oneofs without fields, as the one that stands for `optional` is when its field is gone."""
    kept = sorted({field.oneof_index for field in message.field if field.HasField("oneof_index")})
    declared = [message.oneof_decl[index] for index in kept]
    for field in message.field:
        if field.HasField("oneof_index"):
            field.oneof_index = kept.index(field.oneof_index)
    names = [oneof.name for oneof in declared]
    for oneof in list(message.oneof_decl):
        if oneof.name not in names:
            message.oneof_decl.remove(oneof)


def _drop_dependencies(file: FileDescriptorProto, names: set[str]) -> None:
    kept = [name for name in file.dependency if name not in names]
    del file.dependency[:]
    file.dependency.extend(kept)
    # Indices into the dependencies, of no meaning for the comparison.
    del file.public_dependency[:], file.weak_dependency[:]


def main(before: Path, after: Path) -> None:
    """Write the image `before` again, without what may be gone today; end with 1 if a sunset was brought forward."""
    earlier, present = (FileDescriptorSet.FromString(path.read_bytes()) for path in (before, after))
    if faults := brought_forward(earlier, present):
        sys.exit("\n".join(faults))
    Removals(earlier, present, today=datetime.now(UTC).date()).take_out()
    before.write_bytes(earlier.SerializeToString())


if __name__ == "__main__":
    with ending_with_a_sentence():
        main(*map(Path, sys.argv[1:]))
