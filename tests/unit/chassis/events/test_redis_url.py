from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.events.redis_streams import BrokerSettings
from chassis.events.redis_url import RedisUrl
from chassis.settings import load

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "hosts", "options"),
    [
        ("redis://:pw@a:1/2", [("a", 1)], {"password": "pw", "db": 2}),
        ("redis://", [("localhost", 6379)], {}),
        ("rediss://u:p%2Fw@[::1]?ssl_ca_certs=/ca.crt", [("::1", 6379)], {"ssl_ca_certs": "/ca.crt", "username": "u"}),
        ("redis+cluster://:pw@a:1,b", [("a", 1), ("b", 6379)], {"password": "pw"}),
        ("rediss+cluster://a/0?ssl_ca_certs=/ca.crt", [("a", 6379)], {"ssl_ca_certs": "/ca.crt"}),
        ("redis://u:a%40b%2Fc:d%25%C3%A9[@a?protocol=2", [("a", 6379)], {"password": "a@b/c:d%é[", "protocol": 2}),
        ("Redis://a?db=4&socket_keepalive=yes", [("a", 6379)], {"db": 4, "socket_keepalive": True}),
        ("redis+sentinel://u:pw@a,[fd00::2]:5/shop/3", [("a", 26379), ("fd00::2", 5)], {"username": "u", "db": 3}),
    ],
)
def test_a_url_names_hosts_and_options(url: str, hosts: list[tuple[str, int]], options: dict[str, object]) -> None:
    parsed = RedisUrl.parse(url)

    assert parsed.hosts == hosts
    assert options.items() <= parsed.options.items()
    assert parsed.is_tls == url.startswith("rediss")


def test_a_cluster_has_no_database_and_sentinels_have_a_password_of_their_own() -> None:
    cluster = RedisUrl.parse("redis+cluster://a/0")
    sentinel = RedisUrl.parse("rediss+sentinel://:pw@a/shop?sentinel_password=other&ssl_ca_certs=/ca.crt")

    assert (cluster.topology, cluster.options) == ("cluster", {})
    assert (sentinel.topology, sentinel.service) == ("sentinel", "shop")
    assert sentinel.options == {"password": "pw", "ssl_ca_certs": "/ca.crt"}
    assert sentinel.sentinel_options == {"password": "other", "ssl_ca_certs": "/ca.crt"}


MALFORMED = [
    f"http://:{SECRET}@a",
    f"redis:/:{SECRET}@a",
    f"unix://:{SECRET}@/run/redis",
    f"redis://:{SECRET}@a,b",
    f"redis://:{SECRET}@a:99999",
    f"redis://:{SECRET}@a:0",
    f"redis://:{SECRET}@a:port",
    f"redis://:{SECRET}@a/shop",
    f"redis://:{SECRET}@a b",
    f"redis://:{SECRET}@a?{SECRET}",
    f"redis://:{SECRET}@a?{SECRET}=1",
    f"redis://:{SECRET}@a?socket_timeout={SECRET}",
    f"redis://:{SECRET}@a?socket_timeout=5",
    f"redis://:{SECRET}@a?port=5",
    f"redis://:{SECRET}@a?retry={SECRET}",
    f"redis://:{SECRET}@a?password={SECRET}",
    f"redis://:{SECRET}@a?max_connections={SECRET}",
    f"rediss://:{SECRET}@a?ssl_cert_reqs={SECRET}",
    f"rediss://:{SECRET}@a?ssl_password={SECRET}",
    f"redis://:{SECRET}@a?ssl_ca_certs=/ca.crt",
    f"redis://:{SECRET}@a?sentinel_password={SECRET}",
    f"redis://:{SECRET}/@a",
    f"redis://:{SECRET}#@a",
    f"redis://:{SECRET}?@a",
    f"redis://:{SECRET}@@a",
    f"rediss://:{SECRET}@a?ssl_ca_certs=/{SECRET}",
    f"rediss+sentinel://:{SECRET}@a/shop?ssl_certfile=/{SECRET}",
    f"rediss+cluster://:{SECRET}@a?ssl_keyfile=/{SECRET}",
    f"redis+sentinel://:{SECRET}@a",
    f"redis+sentinel://:{SECRET}@/shop",
    f"redis+sentinel://:{SECRET}@a,/shop",
    f"redis+sentinel://:{SECRET}@a/shop/zero",
    f"redis+sentinel://:{SECRET}@a/shop/0/1",
    f"redis+cluster://:{SECRET}@",
    f"redis+cluster://:{SECRET}@a/1",
    f"redis+cluster://:{SECRET}@a,b:x",
    f"redis+clusters://:{SECRET}@a",
    SECRET,
    "",
]


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_is_one_line_that_names_the_variable_and_keeps_the_password(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("REDIS_URL", url)

    with pytest.raises(SystemExit):
        load(BrokerSettings)

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("REDIS_URL: ")
    assert SECRET not in line


@given(st.text(st.sampled_from("redis+sntlcu:/@,?#=&[]%.019 ") | st.characters(), max_size=60))
def test_any_text_is_a_url_or_an_error_without_its_content(text: str) -> None:
    marked = f"redis+sentinel://:{SECRET}{text}"

    try:
        parsed = RedisUrl.parse(marked)
    except ValueError as complaint:
        assert SECRET not in str(complaint)  # noqa: PT017  it may be raised, or not
    else:
        assert SECRET not in repr(parsed)


def test_settings_do_not_show_the_password() -> None:
    settings = BrokerSettings(url=RedisUrl.parse(f"redis://:{SECRET}@a"))

    assert SECRET not in repr(settings)
