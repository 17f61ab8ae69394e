from __future__ import annotations

import pytest

from khonsu.errors import InvalidRequest
from khonsu.transports.address import Address


@pytest.mark.parametrize(
    ("url", "host", "port", "shown"),
    [
        ("https://khonsu.example:4747", "khonsu.example", 4747, "https://khonsu.example:4747"),
        ("https://khonsu.example", "khonsu.example", 443, "https://khonsu.example"),
        (" https://KHONSU.example:1/ ", "khonsu.example", 1, "https://khonsu.example:1"),
        ("https://[::1]:4747", "::1", 4747, "https://[::1]:4747"),
        ("https://a/below/", "a", 443, "https://a/below"),
    ],
)
def test_urls_are_taken_apart(url: str, host: str, port: int, shown: str) -> None:
    """A URL names host, port and the path below which a server is mounted."""
    address = Address.parse(url)
    assert (address.host, address.port, str(address)) == (host, port, shown)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "khonsu.example:4747",
        "127.0.0.1:4747",
        "ftp://a",
        "https://",
        "https://a:b",
        "https://a:99999",
        "https://u@a",
    ],
)
def test_what_is_no_url(url: str) -> None:
    """What is not the URL of a server says how to write one."""
    with pytest.raises(InvalidRequest) as caught:
        Address.parse(url)
    assert "https://HOST:PORT" in caught.value.hint


def test_http_is_refused() -> None:
    """There is no way without TLS."""
    with pytest.raises(InvalidRequest, match="HTTPS only"):
        Address.parse("http://127.0.0.1:4747")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", "x.localhost"])
def test_loopback_needs_no_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is never asked for a server on this machine."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert Address.parse(f"https://{host}:1").proxy() is None


def test_proxies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTPS_PROXY` and `NO_PROXY` are heeded; a kind of proxy that is not supported is refused."""
    address = Address.parse("https://khonsu.example")
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert address.proxy() is None
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert address.proxy() == "http://proxy:3128"
    monkeypatch.setenv("NO_PROXY", "khonsu.example")
    assert address.proxy() is None
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:secret@proxy:1080")
    with pytest.raises(InvalidRequest, match="socks5") as caught:
        address.proxy()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://me:hunter2@a:1/", "http://me:hunter2@a", "https://me:hunter2@a:99999"])
def test_a_password_is_not_repeated(url: str) -> None:
    """A URL with a password is refused, whatever else is wrong with it, in a message that can be logged."""
    with pytest.raises(InvalidRequest, match="no password") as caught:
        Address.parse(url)
    assert "hunter2" not in str(caught.value)
