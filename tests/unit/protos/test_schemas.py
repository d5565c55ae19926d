"""The schema and the example of each kind of field that a contract can have, as JSON of the contract spells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, timestamp_pb2
from jsonschema import Draft202012Validator

from protos.codegen.descriptors import Contract
from protos.codegen.examples import NoExample, example_of
from protos.codegen.schemas import Schemas, UnknownForm

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor

Field = descriptor_pb2.FieldDescriptorProto
TOY = ".shop.toy.v1.Toy"
SCALARS = sorted(set(Field.Type.values()) - {Field.TYPE_GROUP, Field.TYPE_MESSAGE, Field.TYPE_ENUM})


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The examples of the package, to fill."""
    values: dict[str, Any] = {}
    monkeypatch.setattr("protos.codegen.examples._values_of", lambda _package: values)
    return values


def a_message(add: Callable[[descriptor_pb2.DescriptorProto], object]) -> tuple[Descriptor, Schemas]:
    """Return the message Toy, to which fields were added, and the schemas of its contract."""
    files = descriptor_pb2.FileDescriptorSet()
    for each in (descriptor_pb2.DESCRIPTOR, timestamp_pb2.DESCRIPTOR):
        each.CopyToProto(files.file.add())
    fields = descriptor_pool.Default().FindFileByName("google/protobuf/field_mask.proto")
    fields.CopyToProto(files.file.add())
    toys = files.file.add(name="toys.proto", package="shop.toy.v1", syntax="proto3")
    toys.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/field_mask.proto"])
    colour = toys.enum_type.add(name="Colour")
    colour.value.add(name="COLOUR_UNSPECIFIED", number=0)
    toy = toys.message_type.add(name="Toy")
    add(toy)
    toys.source_code_info.location.add(path=[4, 0], leading_comments="A toy.")
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMessageTypeByName("shop.toy.v1.Toy"), Schemas(Contract(files.SerializeToString()))


def add_map(toy: descriptor_pb2.DescriptorProto) -> None:
    entry = toy.nested_type.add(name="LabelsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    entry.field.add(name="value", number=2, type="TYPE_STRING", label="LABEL_OPTIONAL")
    labels = toy.field.add(name="labels", number=1, type="TYPE_MESSAGE", label="LABEL_REPEATED")
    labels.type_name = f"{TOY}.LabelsEntry"
    rules = labels.options.Extensions[validate_pb2.field].map
    rules.max_pairs = 2
    rules.keys.string.max_len = 8
    rules.values.string.max_len = 16


def test_a_map_is_an_object(examples: dict[str, Any]) -> None:
    examples["labels"] = {"colour": "red"}
    toy, schemas = a_message(add_map)

    schemas.message(toy, is_request=True)

    assert list(schemas.components) == ["ToyInput"]
    schema = schemas.components["ToyInput"]["properties"]["labels"]
    assert schema | {"description": ""} == {
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 16},
        "propertyNames": {"maxLength": 8},
        "maxProperties": 2,
        "description": "",
        "examples": [{"colour": "red"}],
    }
    sent = message_factory.GetMessageClass(toy)()
    json_format.ParseDict(dict(example_of(toy, is_request=True)), sent)
    Draft202012Validator(schema).validate(json_format.MessageToDict(sent)["labels"])


def test_a_map_without_an_example_is_named_with_the_file_of_its_package(examples: dict[str, Any]) -> None:
    assert examples == {}
    toy, _ = a_message(add_map)

    with pytest.raises(
        NoExample, match=r"^name an example of shop\.toy\.v1\.Toy\.labels in shop/toy/v1/examples\.toml$"
    ):
        example_of(toy, is_request=True)


def test_a_field_of_a_nested_message_has_its_example_in_the_file_of_the_package(examples: dict[str, Any]) -> None:
    def add(toy: descriptor_pb2.DescriptorProto) -> None:
        toy.nested_type.add(name="Wheel").field.add(name="size", number=1, type="TYPE_INT32", label="LABEL_OPTIONAL")
        toy.field.add(name="wheel", number=1, type="TYPE_MESSAGE", type_name=f"{TOY}.Wheel", label="LABEL_OPTIONAL")

    toy, _ = a_message(add)
    with pytest.raises(NoExample, match=r"^name an example of shop\.toy\.v1\.Toy\.Wheel\.size in shop/toy/v1/examples"):
        example_of(toy, is_request=True)
    examples["Wheel.size"] = 3

    assert example_of(toy, is_request=True) == {"wheel": {"size": 3}}


@pytest.mark.parametrize("kind", SCALARS, ids=Field.Type.Name)
def test_a_scalar_of_each_type_has_the_form_that_json_gives_it(kind: int, examples: dict[str, Any]) -> None:
    examples["size"] = "x"
    toy, schemas = a_message(lambda toy: toy.field.add(name="size", number=1, type=kind, label="LABEL_OPTIONAL"))
    sent = message_factory.GetMessageClass(toy)()
    sent.size = {Field.TYPE_STRING: "a", Field.TYPE_BYTES: b"a"}.get(kind, 1)

    schema = schemas.field(toy.fields_by_name["size"], is_request=False)

    Draft202012Validator(schema).validate(json_format.MessageToDict(sent)["size"])


def test_a_message_that_holds_itself_has_an_example(examples: dict[str, Any]) -> None:
    def add(toy: descriptor_pb2.DescriptorProto) -> None:
        toy.field.add(name="name", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
        toy.field.add(name="parts", number=2, type="TYPE_MESSAGE", type_name=TOY, label="LABEL_REPEATED")

    examples["name"] = "Car"
    toy, _ = a_message(add)

    assert example_of(toy, is_request=True) == {"name": "Car"}


def test_an_example_has_one_field_of_a_oneof(examples: dict[str, Any]) -> None:
    def add(toy: descriptor_pb2.DescriptorProto) -> None:
        toy.oneof_decl.add(name="place")
        for number, name in enumerate(("shelf", "box"), start=1):
            toy.field.add(name=name, number=number, type="TYPE_STRING", label="LABEL_OPTIONAL", oneof_index=0)

    examples |= {"shelf": "a", "box": "b"}
    toy, _ = a_message(add)

    assert example_of(toy, is_request=True) == {"shelf": "a"}


def test_an_enum_with_a_single_value_has_an_example(examples: dict[str, Any]) -> None:
    assert examples == {}
    toy, _ = a_message(
        lambda toy: toy.field.add(
            name="colour", number=1, type="TYPE_ENUM", type_name=".shop.toy.v1.Colour", label="LABEL_OPTIONAL"
        )
    )

    assert example_of(toy, is_request=True) == {"colour": "COLOUR_UNSPECIFIED"}


def test_a_time_without_an_example_is_named_and_not_its_parts(examples: dict[str, Any]) -> None:
    assert examples == {}
    toy, _ = a_message(
        lambda toy: toy.field.add(
            name="sold_at",
            number=1,
            type="TYPE_MESSAGE",
            type_name=".google.protobuf.Timestamp",
            label="LABEL_OPTIONAL",
        )
    )

    with pytest.raises(NoExample, match=r"^name an example of shop\.toy\.v1\.Toy\.sold_at in shop/toy/v1/"):
        example_of(toy, is_request=True)


def test_a_message_of_googles_whose_form_is_unknown_is_refused(examples: dict[str, Any]) -> None:
    examples["mask"] = "name"
    toy, schemas = a_message(
        lambda toy: toy.field.add(
            name="mask", number=1, type="TYPE_MESSAGE", type_name=".google.protobuf.FieldMask", label="LABEL_OPTIONAL"
        )
    )

    with pytest.raises(UnknownForm, match=r"google\.protobuf\.FieldMask"):
        schemas.message(toy, is_request=True)
