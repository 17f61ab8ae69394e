from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from khonsu.artifacts import ArtifactStore, CachedArtifact
from khonsu.errors import ArtifactError
from tests.artifacts.conftest import KIB, MIB, Site, content, sha256

pytestmark = pytest.mark.anyio

OpenStore = Callable[..., ArtifactStore]
BODY = content(2 * MIB)
DIGEST = sha256(BODY)


class _Fetch:
    """One fetch in a task of its own."""

    def __init__(self, store: ArtifactStore, url: str, digest: str | None) -> None:
        self.begun = anyio.Event()
        self.ended = anyio.Event()
        self.scope = anyio.CancelScope()
        self.result: CachedArtifact | ArtifactError | None = None
        self.seen: list[int] = []
        self._arguments = (store, url, digest)

    async def __call__(self) -> None:
        store, url, digest = self._arguments
        with self.scope:
            try:
                self.result = await store.fetch(url, digest, progress=self._progress)
            except ArtifactError as error:
                self.result = error
        self.ended.set()

    def _progress(self, done: int, total: int | None) -> None:
        self.seen.append(done)
        self.begun.set()

    def bytes(self) -> bytes:
        assert isinstance(self.result, CachedArtifact), self.result
        return self.result.path.read_bytes()


@pytest.mark.parametrize("pinned", [True, False])
async def test_many_who_want_the_same_share_one_download(
    secure_site: Site, open_store: OpenStore, pinned: bool
) -> None:
    """Fifty tasks that want an artifact at once cost one request, and each is told how far it is."""
    url = secure_site.file("/tool", BODY, etag='"v1"', hold_after=MIB)
    async with open_store() as store:
        fetches = [_Fetch(store, url, DIGEST if pinned else None) for _ in range(50)]
        async with anyio.create_task_group() as tasks:
            for fetch in fetches:
                tasks.start_soon(fetch)
            for fetch in fetches:
                await fetch.begun.wait()
            secure_site.gate.set()
        assert {fetch.bytes() for fetch in fetches} == {BODY}
        assert all(fetch.seen[-1] == len(BODY) for fetch in fetches)
    assert len(secure_site.visits) == 1


async def test_who_leaves_does_not_stop_the_others(site: Site, open_store: OpenStore) -> None:
    """When the task that began a download is stopped, the download goes on for the others."""
    url = site.file("/tool", BODY, hold_after=MIB)
    async with open_store() as store, anyio.create_task_group() as tasks:
        first, second = _Fetch(store, url, DIGEST), _Fetch(store, url, DIGEST)
        tasks.start_soon(first)
        await first.begun.wait()
        tasks.start_soon(second)
        await second.begun.wait()
        first.scope.cancel()
        await first.ended.wait()
        site.gate.set()
        await second.ended.wait()
        assert second.bytes() == BODY
        assert first.result is None
    assert len(site.visits) == 1


async def test_the_last_who_leaves_stops_it_and_who_comes_begins_anew(site: Site, open_store: OpenStore) -> None:
    """A download that nobody wants ends; who comes at that moment does not get its error."""
    url = site.file("/tool", BODY, hold_after=MIB)
    async with open_store() as store, anyio.create_task_group() as tasks:
        first, second = _Fetch(store, url, DIGEST), _Fetch(store, url, DIGEST)
        tasks.start_soon(first)
        await first.begun.wait()
        first.scope.cancel()
        tasks.start_soon(second)
        site.gate.set()
        await second.ended.wait()
        assert second.bytes() == BODY


async def test_all_who_wait_get_the_error_of_their_address(site: Site, open_store: OpenStore) -> None:
    """A failed download fails everybody who asked for that address, and the next one tries again."""
    async with open_store() as store:
        fetches = [_Fetch(store, site.url + "/tool", DIGEST) for _ in range(5)]
        async with anyio.create_task_group() as tasks:
            for fetch in fetches:
                tasks.start_soon(fetch)
        assert all(isinstance(fetch.result, ArtifactError) for fetch in fetches)
        url = site.file("/tool", BODY)
        (await store.fetch(url, DIGEST)).release()


async def test_a_failing_address_does_not_fail_those_with_another(
    site: Site, other_site: Site, open_store: OpenStore
) -> None:
    """Of two addresses for one digest the bad one fails its own task only."""
    bad = site.file("/tool", BODY, hold_after=MIB, cut_after=MIB)
    good = other_site.file("/tool", BODY)
    async with open_store() as store, anyio.create_task_group() as tasks:
        first, second = _Fetch(store, bad, DIGEST), _Fetch(store, good, DIGEST)
        tasks.start_soon(first)
        await first.begun.wait()
        tasks.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        site.gate.set()
        await second.ended.wait()
        assert second.bytes() == BODY
        await first.ended.wait()
        assert isinstance(first.result, ArtifactError)
    assert other_site.asked("range") == [f"bytes={MIB}-"]


async def test_only_so_many_downloads_run_at_once(site: Site, open_store: OpenStore) -> None:
    """Different artifacts wait for their turn, and their time does not run while they wait."""
    bodies = [content(10 * KIB, str(number)) for number in range(6)]
    urls = [site.file(f"/{number}", body, hold_after=KIB) for number, body in enumerate(bodies)]
    async with open_store(downloads_max=2) as store:
        fetches = [_Fetch(store, url, sha256(body)) for url, body in zip(urls, bodies, strict=True)]
        async with anyio.create_task_group() as tasks:
            for fetch in fetches:
                tasks.start_soon(fetch)
            # Whose turn comes first is for the event loop to say.
            while sum(fetch.begun.is_set() for fetch in fetches) < 2:
                await anyio.wait_all_tasks_blocked()
                await anyio.lowlevel.checkpoint()
            assert len(site.visits) == 2
            site.gate.set()
        assert [fetch.bytes() for fetch in fetches] == bodies


async def test_a_bug_in_a_progress_callback_reaches_its_caller(site: Site, open_store: OpenStore) -> None:
    """What a callback raises comes out of the fetch, and the store goes on."""

    def broken(done: int, total: int | None) -> None:
        raise LookupError("moon")

    url = site.file("/tool", BODY)
    async with open_store() as store:
        with pytest.raises(LookupError, match="moon"):
            await store.fetch(url, DIGEST, progress=broken)
        (await store.fetch(url, DIGEST)).release()
