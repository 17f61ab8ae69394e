from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from khonsu.artifacts import ArtifactStore, http
from khonsu.errors import ArtifactError, DigestMismatch
from tests.artifacts.conftest import KIB, MIB, Site, Visit, content, sha256

pytestmark = pytest.mark.anyio

OpenStore = Callable[..., ArtifactStore]
BODY = content(300 * KIB)


def _cached(tmp_path: Path) -> dict[str, list[str]]:
    return {name: sorted(os.listdir(tmp_path / "cache" / name)) for name in ("objects", "parts")}


async def test_fetches_over_https_without_a_digest(secure_site: Site, open_store: OpenStore) -> None:
    """An artifact comes over TLS and is known by its digest and the name in its address."""
    url = secure_site.file("/dir/tool%20v1", BODY)
    async with open_store() as store:
        with await store.fetch(url) as artifact:
            assert artifact.path.read_bytes() == BODY
            assert artifact.sha256 == sha256(BODY)
            assert artifact.size_bytes == len(BODY)
            assert artifact.name == "tool v1"


async def test_fetches_over_http_with_a_digest(site: Site, open_store: OpenStore) -> None:
    """Where the digest decides, plain HTTP is good enough; the digest may be written in capitals."""
    url = site.file("/tool", BODY)
    async with open_store() as store:
        with await store.fetch(url, sha256(BODY).upper()) as artifact:
            assert artifact.path.read_bytes() == BODY
    assert site.asked("accept-encoding") == ["identity"]


async def test_an_empty_artifact_is_one(site: Site, secure_site: Site, open_store: OpenStore) -> None:
    """A file without bytes is a file."""
    async with open_store() as store:
        with await store.fetch(site.file("/empty", b""), sha256(b"")) as artifact:
            assert artifact.path.read_bytes() == b""
        with await store.fetch(secure_site.file("/empty", b"")) as artifact:
            assert artifact.size_bytes == 0


async def test_tells_how_far_it_is(site: Site, open_store: OpenStore) -> None:
    """Progress begins with nothing of the whole, only grows, and ends with all of it."""
    body = content(3 * MIB)
    seen: list[tuple[int, int | None]] = []
    async with open_store() as store:
        await store.fetch(site.file("/tool", body), sha256(body), progress=lambda *step: seen.append(step))
    assert seen[0] == (0, len(body))
    assert seen[-1] == (len(body), len(body))
    assert seen == sorted(seen)
    assert len(seen) >= 4


async def test_a_pinned_artifact_is_fetched_once(site: Site, open_store: OpenStore) -> None:
    """What is in the cache is not asked for again, from whatever address and after a restart."""
    url = site.file("/tool", BODY)
    async with open_store() as store:
        (await store.fetch(url, sha256(BODY))).release()
        (await store.fetch(url, sha256(BODY))).release()
        with await store.fetch(site.url + "/nowhere/renamed", sha256(BODY)) as artifact:
            assert artifact.name == "renamed"
    async with open_store() as store:
        (await store.fetch(url, sha256(BODY))).release()
    assert len(site.visits) == 1


@pytest.mark.parametrize(
    "version",
    [{"etag": '"v1"'}, {"etag": 'W/"v1"'}, {"modified": "Tue, 15 Nov 1994 12:45:26 GMT"}],
    ids=["strong", "weak", "date"],
)
async def test_an_unpinned_artifact_is_asked_after(
    secure_site: Site, open_store: OpenStore, version: dict[str, str]
) -> None:
    """Without a digest the server says whether the artifact changed, and only a change is downloaded."""
    url = secure_site.file("/tool", BODY, **version)  # type: ignore[arg-type]
    async with open_store() as store:
        first = await store.fetch(url)
        first.release()
    async with open_store() as store:
        again = await store.fetch(url)
        assert again.sha256 == first.sha256
        again.release()
        new = content(100, "new")
        secure_site.file("/tool", new, etag='"v2"', modified="Wed, 16 Nov 1994 12:45:26 GMT")
        with await store.fetch(url) as artifact:
            assert artifact.path.read_bytes() == new
    asked = list(zip(secure_site.asked("if-none-match"), secure_site.asked("if-modified-since"), strict=True))
    known = (version.get("etag"), version.get("modified"))
    assert asked == [(None, None), known, known]


async def test_an_unpinned_artifact_of_no_version_is_downloaded_again(secure_site: Site, open_store: OpenStore) -> None:
    """What the server gives no version of is never taken for unchanged."""
    url = secure_site.file("/tool", BODY)
    async with open_store() as store:
        (await store.fetch(url)).release()
        secure_site.file("/tool", BODY[:100])
        with await store.fetch(url) as artifact:
            assert artifact.size_bytes == 100


async def test_a_version_that_cannot_be_sent_back_is_none(secure_site: Site, open_store: OpenStore) -> None:
    """Strange entity tags make an artifact one without a version, and nothing worse."""
    async with open_store() as store:
        for etag in ('"caf\xe9"', '"' + "a" * 1000 + '"', ""):
            url = secure_site.file("/tool", BODY, etag=etag)
            for _ in range(2):
                (await store.fetch(url)).release()
    assert secure_site.asked("if-none-match") == [None] * 6


async def test_an_address_with_another_query_or_password_is_another_one(
    secure_site: Site, open_store: OpenStore
) -> None:
    """What was found for one user is not shown to another."""
    url = secure_site.file("/tool", BODY, etag='"v1"')
    async with open_store() as store:
        for variant in (url, url + "?a=1", url.replace("//", "//ann:secret@"), url.replace("//", "//bob:secret@")):
            (await store.fetch(variant)).release()
    assert secure_site.asked("if-none-match") == [None] * 4


async def test_a_wrong_digest_is_refused_and_nothing_is_kept(tmp_path: Path, site: Site, open_store: OpenStore) -> None:
    """Other bytes than the pinned ones never get into the cache; the error has both digests."""
    url = site.file("/tool", BODY)
    expected = sha256(b"other")
    async with open_store() as store:
        with pytest.raises(DigestMismatch) as caught:
            await store.fetch(url, expected)
    assert expected in str(caught.value)
    assert sha256(BODY) in str(caught.value)
    assert url in str(caught.value)
    assert not caught.value.retryable
    assert _cached(tmp_path) == {"objects": [], "parts": []}


async def test_a_refusal_is_named(site: Site, open_store: OpenStore) -> None:
    """The error has the address and the status, and says whether to try again."""
    retryable = dict.fromkeys((204, 400, 401, 403, 404, 410), False) | dict.fromkeys((408, 429, 500, 502, 503), True)
    async with open_store() as store:
        for status, expected in retryable.items():
            url = site.page("/tool", lambda visit, status=status: visit.answer(status))  # type: ignore[misc]
            with pytest.raises(ArtifactError, match=f"/tool: the server answered {status}") as caught:
                await store.fetch(url, sha256(BODY))
            assert (status, caught.value.retryable) == (status, expected)


async def test_nobody_there_may_be_tried_again(site: Site, open_store: OpenStore) -> None:
    """A refused connection and an unknown host are errors that may pass."""
    async with open_store() as store:
        for url in ("http://127.0.0.1:1/tool", "http://nowhere.invalid/tool"):
            with pytest.raises(ArtifactError, match="no answer") as caught:
                await store.fetch(url, sha256(BODY))
            assert caught.value.retryable


async def test_an_untrusted_server_is_refused(secure_site: Site, open_store: OpenStore) -> None:
    """A certificate of an unknown authority is refused, digest or not, and the hint says how to trust it."""
    url = secure_site.file("/tool", BODY)
    async with open_store(ca_file=None) as store:
        for digest in (None, sha256(BODY)):
            with pytest.raises(ArtifactError, match=r"not trusted.*SSL_CERT_FILE"):
                await store.fetch(url, digest)
    assert secure_site.visits == []


async def test_ssl_cert_file_is_trusted(
    secure_site: Site, open_store: OpenStore, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual variable names an authority, too."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    url = secure_site.file("/tool", BODY)
    async with open_store(ca_file=None) as store:
        (await store.fetch(url)).release()


def test_the_systems_authorities_are_trusted_or_those_of_certifi(
    tmp_path: Path, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without authorities of its own still reaches the public web; a file comes on top of either."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert http.tls_context(None).verify_mode is ssl.CERT_REQUIRED
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    bare = http.tls_context(None)
    assert bare.cert_store_stats()["x509_ca"] > 10
    assert (bare.verify_mode, bare.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert http.tls_context(ca_file).cert_store_stats()["x509_ca"] == bare.cert_store_stats()["x509_ca"] + 1


@pytest.mark.parametrize("text", [None, "nonsense"])
async def test_a_wrong_ca_file_is_named(
    tmp_path: Path, secure_site: Site, open_store: OpenStore, text: str | None
) -> None:
    """A file of authorities that cannot be used is an error about that file."""
    file = tmp_path / "my.pem"
    if text is not None:
        file.write_text(text)
    async with open_store(ca_file=file) as store:
        with pytest.raises(ArtifactError, match=r"certificates in .*my\.pem"):
            await store.fetch(secure_site.file("/tool", BODY))


async def test_an_artifact_larger_than_the_limit_is_refused(tmp_path: Path, site: Site, open_store: OpenStore) -> None:
    """A size that is told is refused before a byte is read, and nothing is kept."""
    url = site.file("/tool", BODY)
    async with open_store(artifact_bytes_max=len(BODY) - 1) as store:
        with pytest.raises(ArtifactError, match=f"larger than the limit: {len(BODY)} of at most {len(BODY) - 1}"):
            await store.fetch(url, sha256(BODY))
    async with open_store(artifact_bytes_max=len(BODY)) as store:
        (await store.fetch(url, sha256(BODY))).release()
    async with open_store(limit_bytes=1000) as store:
        with pytest.raises(ArtifactError, match="at most 1000"):
            await store.fetch(site.file("/b", content(1001)), sha256(content(1001)))
    assert _cached(tmp_path)["parts"] == []


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_endless_artifact_is_stopped(tmp_path: Path, site: Site, open_store: OpenStore, chunked: bool) -> None:
    """A size that is not told is counted while it comes."""

    def endless(visit: Visit) -> None:
        visit.close_connection = True
        visit.head(200, Transfer_Encoding="chunked" if chunked else None)
        block = bytes(64 * KIB)
        while True:
            visit.wfile.write(b"10000\r\n" + block + b"\r\n" if chunked else block)

    async with open_store(artifact_bytes_max=3 * MIB) as store:
        with pytest.raises(ArtifactError, match="larger than the limit") as caught:
            await store.fetch(site.page("/endless", endless), sha256(BODY))
    assert not caught.value.retryable
    assert _cached(tmp_path) == {"objects": [], "parts": []}


async def test_a_length_that_is_not_told_is_fine_with_a_digest(site: Site, open_store: OpenStore) -> None:
    """The digest notices a cut where the protocol does not."""
    async with open_store() as store:
        (await store.fetch(site.file("/tool", BODY, length=False), sha256(BODY))).release()
        with pytest.raises(DigestMismatch):
            await store.fetch(site.file("/b", BODY, length=False, cut_after=100), sha256(BODY + b"b"))


async def test_a_length_that_is_not_told_is_refused_without_a_digest(secure_site: Site, open_store: OpenStore) -> None:
    """An artifact of which nobody could say that it is whole is not taken."""
    async with open_store() as store:
        with pytest.raises(ArtifactError, match=r"does not say where it ends.*sha256"):
            await store.fetch(secure_site.file("/tool", BODY, length=False))


async def test_chunks_are_whole_or_cut(tmp_path: Path, secure_site: Site, open_store: OpenStore) -> None:
    """A body in chunks needs no length; its end is told, and missing it is a cut."""

    def page(visit: Visit, end: bytes) -> None:
        visit.close_connection = True
        visit.head(200, Transfer_Encoding="chunked")
        visit.wfile.write(b"4\r\nmoon\r\n" + end)

    whole = secure_site.page("/whole", lambda visit: page(visit, b"0\r\n\r\n"))
    half = secure_site.page("/half", lambda visit: page(visit, b""))
    async with open_store() as store:
        with await store.fetch(whole) as artifact:
            assert artifact.path.read_bytes() == b"moon"
        with pytest.raises(ArtifactError, match="cut after 4 bytes") as caught:
            await store.fetch(half)
    assert caught.value.retryable
    assert _cached(tmp_path)["parts"] == []


async def test_what_takes_too_long_is_stopped_and_resumed(tmp_path: Path, site: Site, open_store: OpenStore) -> None:
    """The time limit ends a download, and the next one goes on from there."""
    body = content(2 * MIB)
    url = site.file("/tool", body, hold_after=MIB + 1000)
    async with open_store(timeout_seconds=0.3) as store:
        with pytest.raises(ArtifactError, match=r"took longer than 0\.3 s") as caught:
            await store.fetch(url, sha256(body))
        assert caught.value.retryable
        part = tmp_path / "cache" / "parts" / sha256(body)
        # A machine so busy that nothing came in time is no failure.
        came = part.stat().st_size if part.exists() else 0
        site.gate.set()
        (await store.fetch(url, sha256(body))).release()
    assert site.asked("range") == [None, f"bytes={came}-" if came else None]


async def test_cancelling_stops_and_resumes(tmp_path: Path, site: Site, open_store: OpenStore) -> None:
    """A task that is stopped while it fetches leaves a part, which the next one goes on from."""
    body = content(2 * MIB)
    url = site.file("/tool", body, hold_after=MIB)
    async with open_store() as store:
        with anyio.CancelScope() as scope:
            await store.fetch(url, sha256(body), progress=lambda done, _: scope.cancel() if done == MIB else None)
        assert scope.cancelled_caught
        site.gate.set()
        with await store.fetch(url, sha256(body)) as artifact:
            assert artifact.path.read_bytes() == body
    assert site.asked("range") == [None, f"bytes={MIB}-"]
    assert _cached(tmp_path)["parts"] == []


async def test_leaving_the_store_stops_downloads(site: Site, open_store: OpenStore) -> None:
    """Who waits for a download when the store closes gets an error, and does not wait for ever."""
    url = site.file("/tool", BODY, hold_after=100)
    errors: list[ArtifactError] = []

    async def fetch(store: ArtifactStore, begun: anyio.Event) -> None:
        try:
            await store.fetch(url, sha256(BODY), progress=lambda *_: begun.set())
        except ArtifactError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks, open_store() as store:
        begun = anyio.Event()
        tasks.start_soon(fetch, store, begun)
        await begun.wait()
    [error] = errors
    assert "stopped" in str(error)
    assert error.retryable


async def test_the_environment_sends_no_credentials(
    tmp_path: Path, site: Site, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a proxy nor a .netrc of the agent's user changes what a job asked for."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with open_store() as store:
        (await store.fetch(site.file("/tool", BODY), sha256(BODY))).release()
    assert site.asked("authorization") == [None]


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "br", "IDENTITY"])
async def test_what_is_packed_on_the_way_is_not_the_file(
    secure_site: Site, open_store: OpenStore, encoding: str
) -> None:
    """A server that packs what it was asked for as it is cannot be told from another file, but by a digest."""
    url = secure_site.page("/tool", lambda visit: visit.answer(200, BODY, Content_Encoding=encoding))
    async with open_store() as store:
        if encoding == "IDENTITY":
            (await store.fetch(url)).release()
        else:
            with pytest.raises(ArtifactError, match=rf"sends it packed \({encoding}\).*Give the sha256"):
                await store.fetch(url)
        (await store.fetch(url, sha256(BODY))).release()
