from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from khonsu.artifacts import ArtifactStore
from khonsu.errors import ArtifactError
from tests.artifacts.conftest import Site, content, sha256

pytestmark = pytest.mark.anyio

OpenStore = Callable[..., ArtifactStore]
BODY = content(1000)
DIGEST = sha256(BODY)


def _with_user(url: str) -> str:
    return url.replace("//", "//ann:s3cret@")


async def test_redirects_are_followed(site: Site, open_store: OpenStore) -> None:
    """An artifact keeps the name of the address that the job gave."""
    for status in (301, 302, 303, 307, 308):
        body = content(1000, str(status))
        site.file("/dir/real", body)
        url = site.redirect("/latest", "dir/real", status)
        async with open_store() as store:
            with await store.fetch(url, sha256(body)) as artifact:
                assert artifact.path.read_bytes() == body
                assert artifact.name == "latest"


async def test_five_redirects_are_followed_and_no_more(site: Site, open_store: OpenStore) -> None:
    """A chain of five is fine; a sixth is one too many, and so is a circle."""
    site.file("/0", BODY)
    for number in range(1, 7):
        site.redirect(f"/{number}", f"/{number - 1}")
    site.redirect("/circle", "/circle")
    async with open_store() as store:
        for path in ("/6", "/circle"):
            with pytest.raises(ArtifactError, match=f"{path}: more than 5 redirects"):
                await store.fetch(site.url + path, DIGEST)
        (await store.fetch(site.url + "/5", DIGEST)).release()


async def test_a_redirect_never_leads_to_a_weaker_scheme(secure_site: Site, site: Site, open_store: OpenStore) -> None:
    """From https there is no way to http, not even with a digest; the other place is not asked."""
    site.file("/tool", BODY)
    url = secure_site.redirect("/tool", site.url + "/tool")
    async with open_store() as store:
        for digest in (None, DIGEST):
            with pytest.raises(ArtifactError, match="weaker"):
                await store.fetch(url, digest)
    assert site.visits == []


async def test_a_redirect_to_a_stronger_scheme_is_followed(
    secure_site: Site, site: Site, open_store: OpenStore
) -> None:
    """From http to https is what many servers do."""
    secure_site.file("/tool", BODY)
    async with open_store() as store:
        (await store.fetch(site.redirect("/tool", secure_site.url + "/tool"), DIGEST)).release()


async def test_a_redirect_never_leads_elsewhere_than_the_web(site: Site, open_store: OpenStore) -> None:
    """A server cannot have the agent read its own files."""
    async with open_store() as store:
        for location in ("file:///etc/hostname", "ftp://127.0.0.1/tool", "data:,moon", "http://[/", "gopher:"):
            with pytest.raises(ArtifactError, match=r"weaker|not supported|cannot be read"):
                await store.fetch(site.redirect("/tool", location), DIGEST)


async def test_a_redirect_without_location_is_a_refusal(site: Site, open_store: OpenStore) -> None:
    """A redirect that leads nowhere is shown as what it is."""
    url = site.page("/tool", lambda visit: visit.answer(302))
    async with open_store() as store:
        with pytest.raises(ArtifactError, match="answered 302"):
            await store.fetch(url, DIGEST)


async def test_credentials_go_to_their_origin_only(site: Site, other_site: Site, open_store: OpenStore) -> None:
    """User and password are sent where the job says, along redirects of the same origin, and never elsewhere."""
    expected = "Basic " + base64.b64encode(b"ann:s3cret").decode()
    other_site.redirect("/back", site.url + "/tool")
    site.redirect("/away", other_site.url + "/back")
    site.redirect("/latest", "/away")
    site.file("/tool", BODY)
    async with open_store() as store:
        (await store.fetch(_with_user(site.url + "/latest"), DIGEST)).release()
    assert site.asked("authorization") == [expected, expected, None]
    assert other_site.asked("authorization") == [None]
    assert [path for path, _ in site.visits] == ["/latest", "/away", "/tool"]


async def test_credentials_of_a_redirect_are_not_used(site: Site, other_site: Site, open_store: OpenStore) -> None:
    """A redirect cannot make the agent log in somewhere."""
    other_site.file("/tool", BODY)
    url = site.redirect("/tool", _with_user(other_site.url + "/tool"))
    async with open_store() as store:
        (await store.fetch(url, DIGEST)).release()
    assert other_site.asked("authorization") == [None]


async def test_errors_do_not_show_credentials(site: Site, open_store: OpenStore) -> None:
    """Neither the password nor a signed query is in an error."""
    async with open_store() as store:
        with pytest.raises(ArtifactError, match=r"/nowhere\?\.\.\.: the server answered 404") as caught:
            await store.fetch(_with_user(site.url + "/nowhere?signature=s3cret"), DIGEST)
    assert "s3cret" not in str(caught.value)
    assert site.visits[0][0] == "/nowhere?signature=s3cret"
