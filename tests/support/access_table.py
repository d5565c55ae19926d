"""The table of access, and requests about a user's own resources: shared by the tests in process and at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shop.system.v1 import system_service_pb2

from chassis.service import services
from tests.support.guards import facts, modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from google.protobuf.message import Message
    from shop.user.v1 import session_service_pb2 as sessions_pb
    from shop.user.v1.user_pb2 import User


@dataclass(frozen=True, slots=True)
class Subject:
    """A user with a session, and with what services keep for users.

    Attributes:
        owned: what was made for the user, by the full name of the rpc that made it.
    """

    owner: User
    session: sessions_pb.Session
    owned: Mapping[str, Message]


CALLERS = ("anonymous", "other", "owner", "support", "admin", "service")


def _by_rpc(table: str) -> Iterator[tuple[str, str]]:
    """Yield a table of every service, by the full names of rpcs."""
    for service in services():
        package = service.serves[0].rpartition(".")[0]
        yield from ((f"{package}.{rpc}", value) for rpc, value in facts(table, service.name).items())


# The rules of the contract, written down a second time: an option in a proto that says something else is a mistake.
# Each is a list of callers, or `everybody`; `user` is any user, `owner` only the one whose resource it is.
ALLOWED = {"shop.system.v1.SystemService.GetHealth": "everybody", **dict(_by_rpc("access"))}

# Answers about another user's resource: the same as about one that does not exist.
NOTHING = "an empty answer"
FOREIGN = dict(_by_rpc("foreign"))


def expected(method: str, caller: str) -> str:
    """Return what the contract has for this cell."""
    allowed = ALLOWED[method].split()
    if caller in allowed or allowed == ["everybody"] or ("user" in allowed and caller in {"other", "owner"}):
        return "OK"
    if caller == "anonymous":
        return "TOKEN_INVALID"
    if caller == "service" or "owner" not in allowed:
        return "ROLE_REQUIRED"
    return FOREIGN[method]


# By rpc, a valid request about the subject's resources; tests of FOREIGN replace the id.
REQUESTS: dict[str, Callable[[Subject], Message]] = {
    "shop.system.v1.SystemService.GetHealth": lambda _: system_service_pb2.GetHealthRequest(),
    **{rpc: make for module in modules("requests") for rpc, make in module.OF_SUBJECT.items()},
}

MADE_FOR: Final[Mapping[str, Callable[[User], Message]]] = {
    rpc: make for module in modules("requests") for rpc, make in getattr(module, "MADE_FOR", {}).items()
}
"""By rpc, a request to make something that belongs to the user: what a Subject owns."""
