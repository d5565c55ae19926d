"""The message `google.type.Money`, with types: the package that has it brings none that type checkers read."""

from google.type.money_pb2 import DESCRIPTOR, Money

__all__ = ["DESCRIPTOR", "Money"]
