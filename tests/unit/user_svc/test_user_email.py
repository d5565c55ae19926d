from __future__ import annotations

import string
import traceback

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chassis.errors import InvalidFields
from user_svc.model import Email

letters = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20)


@pytest.mark.parametrize(
    "text",
    [
        "ada@example.com",
        "ada+shop@example.co.uk",
        '"quoted"@example.com',
        "O'Hara.x@example.com",
        "ада@example.com",
        "a" * 64 + "@example.com",
        "ada@" + ".".join(["a" * 61] * 4),
    ],
)
def test_an_address_is_kept_as_it_was_typed(text: str) -> None:
    assert Email.parse(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "ada",
        "ada@",
        "@example.com",
        "ada@example",
        "ada@example.com.",  # the same mailbox as without the dot, so it would be a second key for it
        "ada@example.",
        "ada@.example.com",
        "ada@example..com",
        "ada@-example.com",
        "ada@exa_mple.com",
        "ada@[127.0.0.1]",
        "ada@xn--a.com",
        "ada@grace@example.com",
        "a" * 65 + "@example.com",
        "ada@" + "a" * 64 + ".com",
        "ada@" + ".".join(["a" * 63] * 4),
        "ada lovelace@example.com",
        "ada@exam ple.com",
        "ada\n@example.com",
        "ada\0@example.com",
        "ada\u200b@example.com",
        "ada\u3164@example.com",  # a letter that shows nothing
        "ada\ud800@example.com",
    ],
)
def test_a_malformed_email_is_an_invalid_field(text: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        Email.parse(text)

    assert [each.field for each in refused.value.violations] == ["email"]


@given(st.text(max_size=300) | st.builds("{}@{}".format, st.text(max_size=80), st.text(max_size=80)))
@example("a@\u3002")
@example("a@xn--")
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        email = Email.parse(text)
    except InvalidFields:
        return

    assert email.key.encode()
    assert Email.parse(email.text) == email


@given(letters, letters)
def test_the_key_is_the_same_in_every_case(local: str, label: str) -> None:
    text = f"{local}@{label}.example"

    keys = {Email.parse(each).key for each in (text, text.upper(), text.lower(), text.swapcase())}

    assert len(keys) == 1


@pytest.mark.parametrize(
    "domain", ["bücher.example", "BÜCHER.example", "bu\u0308cher.example", "xn--bcher-kva.example", "Bücher。Example"]
)
def test_the_key_is_the_same_however_the_domain_is_written(domain: str) -> None:
    assert Email.parse(f"Ada@{domain}").key == "ada@xn--bcher-kva.example"


@pytest.mark.parametrize("text", [" jose\u0301@example.com", "josé@example.com\n", "\u00a0JOSÉ@example.com\u200b"])
def test_the_key_is_the_same_in_every_unicode_form_and_with_white_space_around_it(text: str) -> None:
    assert Email.parse(text).key == "josé@example.com"


def test_different_mailboxes_have_different_keys() -> None:
    texts = ["ada@example.com", "ada@example.org", "ada.l@example.com", "adal@example.com", "ada+l@example.com"]

    assert len({Email.parse(text).key for text in texts}) == len(texts)


def test_a_refusal_keeps_nothing_of_the_one_before() -> None:
    def refusal_of(text: str) -> InvalidFields:
        with pytest.raises(InvalidFields) as refused:
            Email.parse(text)
        return refused.value

    first = refusal_of("ada@" + "secret" * 60 + ".com")
    second = refusal_of("ada")

    assert second is not first
    assert "secret" not in "".join(traceback.format_exception(second))
