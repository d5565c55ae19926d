"""Whether a rollout waits long enough for the caches of DNS: `python -m envoy.dns_cache user-svc-headless=10 …`.

`helm test` asks it, in the cluster whose caches count. A cache keeps the addresses of a name as long as the TTL of the
answer says; until then callers, the edge among them, know the pods of before. If a pod goes before the next one is
known, calls fail.
"""

from __future__ import annotations

import argparse
import secrets
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOKS_S: Final = 5
"""How long a caller that heard of a pod may take until it calls it: it connects, and checks its health."""

_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_TIMEOUT_S: Final = 5
_PAUSE_S: Final = 1.1  # longer than a second, so that the TTL of an answer out of a cache is less each time
_LONGEST_S: Final = 120  # no cache of a cluster keeps an address longer
_A: Final = 1
_AAAA: Final = 28
_IN: Final = 1
_RECURSION_DESIRED: Final = 0x0100
_POINTER: Final = 0xC0


class NameUnknown(Exception):
    """DNS knows no address of the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """The name server.

    Attributes:
        host: an IP address.
        port: for UDP.
        search: the domains in which a name is looked for.
    """

    host: str
    port: int = 53
    search: tuple[str, ...] = ()

    @classmethod
    def of_this_host(cls, resolv_conf: Path = _RESOLV_CONF) -> Resolver:
        """Return the first resolver of the host."""
        words = [line.split() for line in resolv_conf.read_text().splitlines()]
        found = {line[0]: tuple(line[1:]) for line in reversed(words) if line}
        return cls(host=found["nameserver"][0], search=found.get("search", ()))

    def ttl_s(self, name: str) -> int:
        """Return for how many seconds the addresses of the name may still be kept.

        Raises:
            NameUnknown: it has none.
        """
        for domain in (*self.search, ""):
            for kind in (_A, _AAAA):
                if ttls := self._ask(f"{name}.{domain}".rstrip("."), kind):
                    return max(ttls)
        raise NameUnknown(name)

    def longest_ttl_s(self, name: str) -> int:
        """Return for how many seconds a cache keeps the addresses of the name.

        An answer out of a cache has what is left of that: asked until the cache has a new one.

        Raises:
            NameUnknown: it has none.
        """
        longest = latest = self.ttl_s(name)
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
            before, latest = latest, self.ttl_s(name)
            longest = max(longest, latest)
            if latest >= before:  # new, or not out of a cache at all
                break
        return longest

    def _ask(self, name: str, kind: int) -> list[int]:
        question = secrets.token_bytes(2) + struct.pack("!5H", _RECURSION_DESIRED, 1, 0, 0, 0) + _wire_name(name)
        question += struct.pack("!2H", kind, _IN)
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.settimeout(_TIMEOUT_S)
            asking.connect((self.host, self.port))
            asking.send(question)
            while (answer := asking.recv(65535))[:2] != question[:2]:
                pass
        return _ttls(answer, kind)


def _wire_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def _ttls(answer: bytes, kind: int) -> list[int]:
    """Return the TTL of each record of this kind in an answer (RFC 1035, 4.1)."""
    _id, _flags, questions, records, _, _ = struct.unpack_from("!6H", answer)
    at = 12
    for _ in range(questions):
        at = _behind_name(answer, at) + 4
    ttls = []
    for _ in range(records):
        at = _behind_name(answer, at)
        of, _class, ttl_s, length = struct.unpack_from("!2HIH", answer, at)
        at += 10 + length
        if of == kind:
            ttls.append(ttl_s)
    return ttls


def _behind_name(answer: bytes, at: int) -> int:
    while length := answer[at]:
        if length & _POINTER == _POINTER:
            return at + 2
        at += 1 + length
    return at + 1


def complaint(name: str, *, ready_s: int, ttl_s: int) -> str:
    """Return what to set if a rollout whose pods count after `ready_s` is too fast for a cache; empty if it is not."""
    needed_s = ttl_s + LOOKS_S
    if ready_s >= needed_s:
        return ""
    return (
        f"DNS keeps the addresses of {name} for {ttl_s} s, and in a rollout the next pod goes {ready_s} s after a new "
        f"one is ready: calls can fail. Set rollout.minReadySeconds to {needed_s}, or let DNS keep addresses for "
        f"{max(ready_s - LOOKS_S, 0)} s (docs/operations.md, Caches of DNS)."
    )


def _name_and_ready_s(text: str) -> tuple[str, int]:
    name, _, ready_s = text.partition("=")
    return name, int(ready_s)


def main() -> None:
    """Say of each service whether its rollouts wait for DNS; exit with 1 if one does not."""
    parser = argparse.ArgumentParser(prog="python -m envoy.dns_cache")
    parser.add_argument("services", nargs="+", type=_name_and_ready_s, help="<DNS name>=<minReadySeconds>")
    resolver = Resolver.of_this_host()
    complaints = [
        complaint(name, ready_s=ready_s, ttl_s=resolver.longest_ttl_s(name))
        for name, ready_s in parser.parse_args().services
    ]
    sys.stdout.write("".join(f"{each}\n" for each in complaints if each))
    sys.exit(any(complaints))


if __name__ == "__main__":
    main()
