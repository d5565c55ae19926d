"""Texts that are JSON, almost JSON, or JSON written in another way, made from good requests; and what each one says."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from google.protobuf import json_format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from tests.e2e.contract import Json

_LITERALS: Final = ("NaN", "-NaN", "Infinity", "-Infinity", "True", "nul", "nulll", "undefined", "None", "tru e")
_NUMBERS: Final = (
    "3",
    "-0",
    "3.0",
    "30e-1",
    "0.3E+1",
    "3e0",
    "3.5",
    "03",
    "00",
    "-03",
    "+3",
    "3.",
    ".3",
    "3e",
    "3e+",
    "3.e1",
    "--3",
    "- 3",
    "0x3",
    "0b1",
    "3_0",
    "3 0",
    "3L",
    "1e400",
    "2147483647",
    "2147483648",
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "123456789012345678901234567890",
    "100000000000000000000",
    '"3"',
    '"03"',
    '" 3"',
    '"3 "',
    '"0x3"',
    '"NaN"',
    '""',
    "true",
    "null",
    "[3]",
    '{"a":3}',
)
_STRINGS: Final = (
    r'"\u0041"',
    r'"\u00e9\n\t\b\f\r\"\\\/"',
    r'"\ud83d\ude00"',
    r'"\uD83D\uDE00"',
    r'"\ud83d"',
    r'"\ude00"',
    r'"\ude00\ud83d"',
    r'"\ud83d\ud83d"',
    r'"\ud83dx\ude00"',
    r'"\ud83d\u0041"',
    r'"\u12"',
    r'"\u12g4"',
    r'"\U00000041"',
    r'"\x41"',
    r'"\0"',
    r'"\a"',
    r'"\'"',
    r'"\ "',
    '"\\\n"',
    '"a\nb"',
    '"a\tb"',
    '"a\x01b"',
    '"a\x1fb"',
    '"a\x7fb"',
    '"\u2028"',
    '"\\"',
    "'a'",
    '"a" "b"',
    '"a"+"b"',
    "a",
    "`a`",
    "5",
    "true",
    "false",
    "null",
    '["a"]',
    '{"a":"b"}',
)
_BYTES: Final = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xe2\x82", b"\x80", b"\x00")
_FREE: Final = (
    "{}",
    '{"":1}',
    '{"a":{"a":1}}',
    '{"a":[]}',
    '{"a":[null,true,1.5,"x",{}]}',
    '{"a":1,"a":2}',
    r'{"a":1,"\u0061":2}',
    r'{"\u0061\"\\":1,"\ud83d\ude00":2}',
    '{"b":{"a":1,"a":1}}',
    '{"a":1,"A":2}',
    '{"a":[1,]}',
    '{"a":[,1]}',
    '{"a":[1 2]}',
    '{"a":1,}',
    '{,"a":1}',
    '{"a":1,,"b":2}',
    '{"a"}',
    '{"a":}',
    '{"a" 1}',
    '{"a"::1}',
    '{"a"=1}',
    "{a:1}",
    "{'a':1}",
    "{1:1}",
    "{null:1}",
    '{"a":[1}',
    '{"a":(1)}',
    "[]",
    "null",
    "1",
    '"a"',
    '{"a":9007199254740992}',
    '{"a":9007199254740993}',
    '{"a":-9007199254740993}',
    '{"a":[{"b":12345678901234567890}]}',
    '{"a":1152921504606846976}',
    '{"a":0.1,"b":1e-7,"c":123456789012.5}',
)


def texts(request: Json) -> Iterator[tuple[str, bytes]]:
    """Yield texts that differ from the request's JSON in one thing, each with a name. The first is the plain one."""
    text = json.dumps(request, separators=(",", ":"))
    yield "plain", text.encode()
    yield from _wholes(text)
    yield from _punctuation(text)
    for name, value in request.items():
        yield from _values(text, name, value)
    for name in ("quantity", "nanos", "units"):
        stands = re.search(rf'"{name}":("?)[0-9]+\1', text)
        if stands:
            for number in _NUMBERS:
                yield f"{name} is {number}", text.replace(stands[0], f'"{name}":{number}', 1).encode()
    if "status" in request:
        for status in ('"CONFIRMED"', '"order_status_confirmed"', "2", '"2"', "2.0", "99", "[]"):
            yield f"status is {status}", re.sub(r'"status":"\w+"', f'"status":{status}', text).encode()


def _values(text: str, name: str, value: object) -> Iterator[tuple[str, bytes]]:
    """Yield the text with another name or value of the field."""
    stands = f'"{name}":{json.dumps(value, separators=(",", ":"))}'
    for kind, other in _names(name, stands):
        yield f"{name} {kind}", text.replace(stands, other, 1).encode()
    others = _LITERALS + (_STRINGS if isinstance(value, str) else ()) + (_FREE if name == "profile" else ())
    for other in others:
        yield f"{name} is {other!r}", text.replace(stands, f'"{name}":{other}', 1).encode()
    for data in _BYTES if isinstance(value, str) else ():
        yield f"{name} has {data!r}", text.encode().replace(stands.encode(), stands[:-1].encode() + data + b'"')


def _wholes(text: str) -> Iterator[tuple[str, bytes]]:
    for name, whole in {
        "BOM": "\ufeff" + text,
        "space around": f" \t\r\n{text} \t\r\n",
        "spaces inside": re.sub(r"([{}\[\],:])", r"\1 \n", text) if '":"' in text else text,
        "form feed": f"\f{text}",
        "vertical tab": f"{text}\v",
        "no-break space": f"\u00a0{text}",
        "NUL after it": f"{text}\0",
        "NUL before it": f"\0{text}",
        "twice": text + text,
        "two lines": f"{text}\n{text}",
        "garbage": f"{text}x",
        "brace too many": f"{text}}}",
        "bracket too many": f"{text}]",
        "comma after it": f"{text},",
        "in a list": f"[{text}]",
        "in text": json.dumps(text),
        "comment before": f"/* */{text}",
        "line comment before": f"// x\n{text}",
        "hash before": f"# x\n{text}",
        "comment after": f"{text}// x",
        "comment inside": text.replace("{", "{/**/", 1),
        "prefix": f")]}}'\n{text}",
        "record separator": f"\x1e{text}",
        "cut": text[:-1],
        "half": text[: len(text) // 2],
        "only space": " ",
        "empty list": "[]",
        "null": "null",
        "number": "1",
        "deep list": "[" * 20_000,
        "deep object": '{"a":' * 12_000,  # below the 64 KiB of every route
        "single quotes": text.replace('"', "'"),
        "semicolons": text.replace(",", ";"),
    }.items():
        yield name, whole.encode()
    yield "UTF-16", text.encode("utf-16")
    yield "UTF-32", text.encode("utf-32-le")


def _punctuation(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield the text with each mark outside of its strings left out, doubled, or another one."""
    outside = [match.start() for match in re.finditer(r'"(?:[^"\\]|\\.)*"|([{}\[\],:])', text) if match[1]]
    for at in outside:
        mark = text[at]
        for other in ("", mark * 2, {"{": "[", "}": "]", "[": "{", "]": "}", ",": ":", ":": ","}[mark]):
            yield f"{other!r} for {mark} at {at}", (text[:at] + other + text[at + 1 :]).encode()
        if mark in "]}":
            yield f"comma before {mark} at {at}", f"{text[:at]},{text[at:]}".encode()
            yield f"null before {mark} at {at}", f"{text[:at]},null{text[at:]}".encode()
        if mark in "[{":
            yield f"comma after {mark} at {at}", f"{text[: at + 1]},{text[at + 1 :]}".encode()
            yield f"null after {mark} at {at}", f"{text[: at + 1]}null,{text[at + 1 :]}".encode()


def _names(name: str, stands: str) -> Iterator[tuple[str, str]]:
    snake = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
    value = stands.partition(":")[2]
    yield "twice", f"{stands},{stands}"
    yield "again as null", f'{stands},"{name}":null'
    yield "null before", f'"{name}":null,{stands}'
    yield "in snake case", f'"{snake}":{value}'
    yield "in both spellings", f'{stands},"{snake}":{value}'
    yield "with an escaped letter", f'"\\u{ord(name[0]):04x}{name[1:]}":{value}'
    yield "again with an escaped letter", f'{stands},"\\u{ord(name[0]):04x}{name[1:]}":{value}'
    yield "in capitals", f'"{name.upper()}":{value}'
    yield "without quotes", f"{name}:{value}"
    yield "in single quotes", f"'{name}':{value}"
    yield "with a space", f'"{name} ":{value}'
    yield "in brackets", f'"[{name}]":{value}'
    yield "and an unknown one", f'{stands},"nope":1'
    yield "and an empty one", f'{stands},"":1'
    yield "and a type", f'{stands},"@type":"x"'


def message_of(text: bytes, kind: type[Message]) -> Message | None:
    """Return the message that the text is by RFC 8259 and protobuf's JSON; None if it is none.

    Integers that a double cannot hold are no values of a Struct here: they would be other ones.
    """
    try:
        said = _loaded(text.decode())
        json.dumps(said, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        message = json_format.ParseDict(said, kind())
    except (ValueError, RecursionError, json_format.ParseError):
        return None
    if isinstance(said.get("status"), bool):  # Python's True is its 1
        return None
    profile = said.get("profile")
    is_exact = profile is None or json_format.MessageToDict(message.profile) == profile
    return message if is_exact else None


def _loaded(text: str) -> Json:
    def refuse(literal: str) -> NoReturn:
        raise ValueError(literal)

    def object_of(pairs: list[tuple[str, Any]]) -> Json:
        # Both spellings of a field are one name. No free name here looks like one.
        names = [re.sub("(?<=[a-z])[A-Z]", lambda letter: f"_{letter[0].lower()}", name) for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError("a name is there twice")
        return dict(pairs)

    said = json.loads(text, object_pairs_hook=object_of, parse_constant=refuse)
    if not isinstance(said, dict):
        raise ValueError("no object")  # noqa: TRY004 - every refusal here is one kind
    return said
