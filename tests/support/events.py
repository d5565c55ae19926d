"""The events of the contract."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from google.protobuf.message_factory import GetMessageClass

from chassis.service import ROOT
from protos.codegen.events import PACKAGE, event_type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message


def _messages() -> dict[str, type[Message]]:
    modules = [
        importlib.import_module(f"{PACKAGE}.{file.stem}_pb2")
        for file in sorted(ROOT.glob(f"protos/{PACKAGE.replace('.', '/')}/*.proto"))
    ]
    return {
        event_type(name): GetMessageClass(message)
        for module in modules
        for name, message in module.DESCRIPTOR.message_types_by_name.items()
    }


MESSAGES: Final[Mapping[str, type[Message]]] = _messages()
"""By the type of an event, the message that its data is."""
