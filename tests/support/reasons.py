"""Every reason of the contract for refusing a call, as its enum documents it."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chassis.service import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """A reason for refusing a call.

    Attributes:
        domain: the package of the enum.
        name: without the prefix.
        code: the name of the gRPC status.
        http: the HTTP status.
        text: what else the comment says.
    """

    domain: str
    name: str
    code: str
    http: int
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """A unique id of the reason."""
        return self.domain, self.name

    @property
    def metadata(self) -> frozenset[str]:
        """The names of the facts that always come with it."""
        return frozenset(re.findall(r"`(\w+)`", self.text.partition("Metadata:")[2]))


def _reasons() -> Iterator[Reason]:
    for path in sorted(ROOT.glob("protos/shop/*/v1/error_reason.proto")):
        module = importlib.import_module(".".join(path.relative_to(ROOT / "protos").with_suffix("").parts) + "_pb2")
        file, source = module.DESCRIPTOR, path.read_text()
        for value in file.enum_types_by_name["ErrorReason"].values:
            if value.number == 0:
                continue
            # Comments are not in the generated modules.
            comment = re.search(rf"((?: *//.*\n)+) *{value.name} =", source)
            assert comment, f"{path}: {value.name} has no comment"
            told = re.fullmatch(r"([A-Z_]+), (\d{3})\. (.+)", " ".join(comment[1].replace("//", "").split()))
            assert told, f"{path}: the comment of {value.name} must begin as in `NOT_FOUND, 404. …`"
            yield Reason(
                domain=file.package,
                name=value.name.removeprefix("ERROR_REASON_"),
                code=told[1],
                http=int(told[2]),
                text=told[3],
            )


REASONS: Final[Mapping[tuple[str, str], Reason]] = {reason.key: reason for reason in _reasons()}
