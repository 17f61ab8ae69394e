from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.artifacts.source import parse_wanted, redirected, url_key
from khonsu.errors import ArtifactError

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("url", "shown", "name"),
    [
        ("https://example.org/a/tool", "https://example.org/a/tool", "tool"),
        ("HTTPS://Example.ORG:443/tool", "https://example.org/tool", "tool"),
        ("https://example.org:8443/tool?token=secret", "https://example.org:8443/tool?...", "tool"),
        ("https://ann:secret@example.org/tool#part", "https://example.org/tool", "tool"),
        ("https://example.org", "https://example.org/", "artifact"),
        ("https://example.org/a/", "https://example.org/a/", "artifact"),
        ("https://example.org/%2e%2e", "https://example.org/%2e%2e", "artifact"),
        ("https://example.org/a%2Fb", "https://example.org/a%2Fb", "b"),
        ("https://example.org/a%00b", "https://example.org/a%00b", "artifact"),
        ("https://example.org/" + "%C3%A9" * 200, "https://example.org/" + "%C3%A9" * 200, "artifact"),
        ("https://example.org/caf%C3%A9", "https://example.org/caf%C3%A9", "café"),
        ("https://[2001:db8::1]:444/tool", "https://[2001:db8::1]:444/tool", "tool"),
        ("http://example.org/tool", "http://example.org/tool", "tool"),
        ("file:///srv/a%20tool", "file:///srv/a%20tool", "a tool"),
        ("file://localhost/srv/tool", "file:///srv/tool", "tool"),
    ],
)
def test_addresses(url: str, shown: str, name: str) -> None:
    """An address is shown without what may be secret in it, and suggests a file name that is one."""
    source = parse_wanted(url, DIGEST).source
    assert source.shown == shown
    assert source.name == name


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "no scheme is not supported"),
        ("tool", "no scheme is not supported"),
        ("/srv/tool", "no scheme is not supported"),
        ("ftp://example.org/tool", "ftp is not supported.*https, http and file"),
        ("s3://bucket/tool", "s3 is not supported"),
        ("javascript:alert(1)", "javascript is not supported"),
        ("https:///tool", "names no host"),
        ("https://:443/tool", "names no host"),
        ("https://ann@/tool", "names no host"),
        ("https://example.org:0/tool", "names no host"),
        ("https://example.org:99999/tool", "cannot be read"),
        ("https://example.org:http/tool", "cannot be read"),
        ("https://[::1/tool", "cannot be read"),
        ("https://example.org/a b", "a character that none may have"),
        ("https://example.org/a\nHost: evil", "a character that none may have"),
        ("https://example.org\\@evil/", "a character that none may have"),
        ("https://exämple.org/", "a character that none may have"),
        ("https://example.org/" + "a" * 9000, "too long"),
        ("file://server/srv/tool", "names no file of this machine"),
        ("file:srv/tool", "names no file of this machine"),
        ("file:///srv/a%00b", "names no file of this machine"),
        ("file:///srv/a?b", "a file has no"),
        ("file:///srv/a#b", "a file has no"),
    ],
)
def test_what_is_no_address_is_refused(url: str, message: str) -> None:
    """A wrong address is refused with what is wrong, before anything is dialled."""
    with pytest.raises(ArtifactError, match=message) as caught:
        parse_wanted(url, DIGEST)
    assert not caught.value.retryable
    assert caught.value.hint
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("url", ["http://example.org/tool", "file:///srv/tool"])
def test_without_a_digest_only_https_will_do(url: str) -> None:
    """What could be changed on the way needs a digest."""
    with pytest.raises(ArtifactError, match=r"without a digest.*sha256"):
        parse_wanted(url, None)
    assert parse_wanted("https://example.org/tool", None).sha256 is None


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "0" * 63, "0" * 65, "sha1:" + "0" * 64, "sha512:" + "0" * 128])
def test_what_is_no_digest_is_refused(sha256: str) -> None:
    """A digest that is none is an error, and never taken for no digest."""
    with pytest.raises(ArtifactError, match="64 hexadecimal digits"):
        parse_wanted("https://example.org/tool", sha256)


@pytest.mark.parametrize("sha256", ["A" * 64, "sha256:" + "a" * 64, f" {'a' * 64}\n"])
def test_digests_as_people_copy_them(sha256: str) -> None:
    """Capitals, a prefix and white space make no other digest."""
    assert parse_wanted("https://example.org/tool", sha256).sha256 == "a" * 64


@pytest.mark.parametrize(
    "url", ["https://ann:s3cret@/tool", "https://ann:s3cret@example.org/a b?s3cret", "ftp://a:s3cret@b/"]
)
def test_a_refused_address_does_not_show_its_password(url: str) -> None:
    """An error about an address shows neither user nor query."""
    with pytest.raises(ArtifactError) as caught:
        parse_wanted(url, DIGEST)
    assert "s3cret" not in str(caught.value)


def test_a_source_does_not_show_its_password() -> None:
    """Credentials are a secret from the start."""
    source = parse_wanted("https://ann:s3cret%40@example.org/tool", None).source
    assert source.credentials is not None
    assert source.credentials.reveal() == "ann:s3cret@"
    assert "s3cret" not in repr(source) + source.shown + url_key(source)


@pytest.mark.parametrize(
    ("url", "location", "shown"),
    [
        ("https://a.example/x/y", "z", "https://a.example/x/z"),
        ("https://a.example/x/y", "/z?q", "https://a.example/z?..."),
        ("https://a.example/x", "//b.example/z", "https://b.example/z"),
        ("https://a.example/x", "https://b.example:444/z", "https://b.example:444/z"),
        ("http://a.example/x", "https://b.example/z", "https://b.example/z"),
        ("http://a.example/x", "http://b.example/z", "http://b.example/z"),
        ("https://[::1]:444/x", "z", "https://[::1]:444/z"),
        ("https://a.example/x", "/a b", "https://a.example/a%20b"),
        ("https://a.example/x", "/caf\u00e9%20", "https://a.example/caf%C3%A9%20"),
    ],
)
def test_redirects(url: str, location: str, shown: str) -> None:
    """A redirect is relative to where it was found, as browsers take it."""
    assert redirected(parse_wanted(url, DIGEST).source, location, pinned=True).shown == shown


@pytest.mark.parametrize(
    ("url", "location", "message"),
    [
        ("https://a.example/x", "http://a.example/x", "weaker"),
        ("https://a.example/x", "file:///etc/passwd", "weaker"),
        ("http://a.example/x", "file:///etc/passwd", "weaker"),
        ("https://a.example/x", "ftp://a.example/x", "ftp is not supported"),
        ("https://a.example/x", "https://[/", "cannot be read"),
        ("https://a.example/x", "https://b.example:0/", "names no host"),
    ],
)
def test_redirects_that_are_refused(url: str, location: str, message: str) -> None:
    """No redirect leads to a weaker scheme or to a file, digest or not."""
    for pinned in (True, False):
        with pytest.raises(ArtifactError, match=message):
            redirected(parse_wanted(url, DIGEST).source, location, pinned=pinned)


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("/y", True),
        ("https://a.example/y", True),
        ("https://a.example:443/y", True),
        ("https://a.example:444/y", False),
        ("https://b.example/y", False),
        ("https://a.example.evil/y", False),
        ("https://bob:other@a.example/y", True),
        ("https://bob:other@b.example/y", False),
    ],
)
def test_credentials_stay_within_their_origin(location: str, kept: bool) -> None:
    """Credentials follow a redirect within scheme, host and port; a redirect never brings its own."""
    source = parse_wanted("https://ann:secret@a.example/x", None).source
    found = redirected(source, location, pinned=False)
    assert found.credentials == (source.credentials if kept else None)


@given(st.text(max_size=60), st.one_of(st.none(), st.just(DIGEST)))
def test_any_text_is_an_address_or_an_error(text: str, sha256: str | None) -> None:
    """No text raises anything else, as an address or as a redirect."""
    source = parse_wanted("https://example.org/tool", None).source
    for url in (text, f"https://{text}", f"file:///{text}"):
        with suppress(ArtifactError):
            name = parse_wanted(url, sha256).source.name
            assert name
            assert "/" not in name
        with suppress(ArtifactError):
            assert redirected(source, url, pinned=sha256 is not None).scheme == "https"
