from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from khonsu.artifacts import ArtifactStore, CachedArtifact
from khonsu.artifacts.cache import KNOWN_MAX, Cache
from khonsu.artifacts.directory import Known, write_known
from khonsu.artifacts.http import VALIDATOR_LENGTH_MAX
from khonsu.artifacts.incoming import Validator
from khonsu.env import SystemEnv
from khonsu.errors import ArtifactError, UnsafeFile
from tests.artifacts.conftest import KIB, MIB, NEAR, Site, content, sha256

pytestmark = pytest.mark.anyio

OpenStore = Callable[..., ArtifactStore]


class _Files:
    """Artifacts of one KiB that are files of this machine, by a letter."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def fetch(self, store: ArtifactStore, letter: str) -> CachedArtifact:
        body = content(KIB, letter)
        (self._directory / letter).write_bytes(body)
        return await store.fetch(f"file://{self._directory}/{letter}", sha256(body))


@pytest.fixture
def files(tmp_path: Path) -> _Files:
    """Return artifacts by a letter."""
    (tmp_path / "files").mkdir()
    return _Files(tmp_path / "files")


@pytest.fixture
def letters(tmp_path: Path) -> Callable[[], str]:
    """Return a function that says which artifacts are in the cache."""
    by_digest = {sha256(content(KIB, letter)): letter for letter in "abcdef"}
    return lambda: "".join(sorted(by_digest[name] for name in os.listdir(tmp_path / "cache" / "objects")))


async def test_the_least_recently_used_goes_first(
    open_store: OpenStore, files: _Files, letters: Callable[[], str]
) -> None:
    """Beyond the limit what was not used for longest is removed, and use counts across restarts."""
    async with open_store(limit_bytes=3 * KIB) as store:
        for letter in "abca":
            (await files.fetch(store, letter)).release()
        assert letters() == "abc"
        (await files.fetch(store, "d")).release()
        assert letters() == "acd"
    async with open_store(limit_bytes=3 * KIB) as store:
        (await files.fetch(store, "a")).release()
        (await files.fetch(store, "e")).release()
        assert letters() == "ade"


async def test_what_is_in_use_stays(open_store: OpenStore, files: _Files, letters: Callable[[], str]) -> None:
    """A lease keeps an artifact whatever the limit says; after it, the limit counts again."""
    async with open_store(limit_bytes=2 * KIB) as store:
        leased = [await files.fetch(store, letter) for letter in "abc"]
        assert letters() == "abc"
        again = await files.fetch(store, "a")
        leased[0].release()
        leased[0].release()
        (await files.fetch(store, "d")).release()
        (await files.fetch(store, "e")).release()
        assert letters() == "abce"
        assert again.path.read_bytes() == content(KIB, "a")
        for artifact in (again, *leased):
            artifact.release()
        (await files.fetch(store, "f")).release()
        assert letters() == "ef"


async def test_a_smaller_limit_holds_from_the_start(
    open_store: OpenStore, files: _Files, letters: Callable[[], str]
) -> None:
    """An agent that is given less room makes it at its next start."""
    async with open_store() as store:
        for letter in "abcd":
            (await files.fetch(store, letter)).release()
    async with open_store(limit_bytes=2 * KIB):
        assert letters() == "cd"


async def test_partial_downloads_count_and_go_first(
    tmp_path: Path, site: Site, open_store: OpenStore, files: _Files, letters: Callable[[], str]
) -> None:
    """What stopped halfway is the first to be removed."""
    body = content(2 * KIB, "half")
    url = site.file("/half", body, cut_after=KIB)
    async with open_store(limit_bytes=3 * KIB) as store:
        (await files.fetch(store, "a")).release()
        with pytest.raises(ArtifactError, match="cut"):
            await store.fetch(url, sha256(body))
        assert os.listdir(tmp_path / "cache" / "parts") == [sha256(body)]
        (await files.fetch(store, "b")).release()
        assert letters() == "ab"
        assert os.listdir(tmp_path / "cache" / "parts") == [sha256(body)]
        (await files.fetch(store, "c")).release()
        assert letters() == "abc"
        assert os.listdir(tmp_path / "cache" / "parts") == []


async def test_room_is_made_before_a_download(
    site: Site, open_store: OpenStore, files: _Files, letters: Callable[[], str]
) -> None:
    """A download whose size is known has its room before it comes."""
    body = content(2 * KIB, "large")
    url = site.file("/large", body, hold_after=100)
    async with open_store(limit_bytes=3 * KIB) as store, anyio.create_task_group() as tasks:
        for letter in "abc":
            (await files.fetch(store, letter)).release()
        begun = anyio.Event()

        async def fetch() -> None:
            (await store.fetch(url, sha256(body), progress=lambda *_: begun.set())).release()

        tasks.start_soon(fetch)
        await begun.wait()
        assert letters() == "c"
        site.gate.set()


async def test_two_stores_cannot_share_a_directory(open_store: OpenStore) -> None:
    """The second is refused at once, and the directory is free again when the first is closed."""
    async with open_store():
        with pytest.raises(ArtifactError, match=r"in use by another agent.*data directory of its own"):
            async with open_store():
                pass
    async with open_store():
        pass


async def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, open_store: OpenStore) -> None:
    """A cache that anybody could fill is not used."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(UnsafeFile, match="everybody"):
        async with open_store():
            pass


async def test_the_cache_is_private(tmp_path: Path, open_store: OpenStore, files: _Files) -> None:
    """Other users neither read nor change what is cached."""
    async with open_store() as store:
        with await files.fetch(store, "a") as artifact:
            assert stat.S_IMODE(artifact.path.stat().st_mode) == 0o400
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


async def test_foreign_things_in_the_directory_are_removed(
    tmp_path: Path, open_store: OpenStore, files: _Files
) -> None:
    """What is not named by a digest is nobody's, and a link is not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    async with open_store() as store:
        (await files.fetch(store, "a")).release()
    objects = tmp_path / "cache" / "objects"
    (objects / "junk").write_bytes(b"1")
    (objects / "folder").mkdir()
    (objects / "folder" / "file").write_bytes(b"1")
    (objects / ("0" * 64)).symlink_to(outside / "precious")
    (objects / "link").symlink_to(outside)
    (tmp_path / "cache" / "parts" / "url-abc").write_bytes(b"1")
    async with open_store():
        assert os.listdir(objects) == [sha256(content(KIB, "a"))]
        assert os.listdir(tmp_path / "cache" / "parts") == []
    assert os.listdir(outside) == ["precious"]


async def test_a_cache_emptied_by_hand_is_filled_again(tmp_path: Path, open_store: OpenStore, files: _Files) -> None:
    """A user may remove files of the cache at any time."""
    async with open_store() as store:
        (await files.fetch(store, "a")).release()
        for path in (tmp_path / "cache" / "objects").iterdir():
            path.unlink()
        with await files.fetch(store, "a") as artifact:
            assert artifact.path.read_bytes() == content(KIB, "a")


async def test_a_damaged_list_of_addresses_is_forgotten(
    tmp_path: Path, secure_site: Site, open_store: OpenStore
) -> None:
    """What was found where can be asked again; a damaged list stops no agent."""
    url = secure_site.file("/tool", b"moon", etag='"v1"')
    for text in ("", "nonsense", "[]", '{"url-1": {}}', '{"url-1": 5}', '{"a": {"sha256": []}}'):
        async with open_store() as store:
            (await store.fetch(url)).release()
        (tmp_path / "cache" / "urls.json").write_text(text)
    async with open_store() as store:
        (await store.fetch(url)).release()
        (await store.fetch(url)).release()
    assert secure_site.asked("if-none-match") == [None] * 7 + ['"v1"']


async def test_a_removed_artifact_is_not_asked_after(
    tmp_path: Path, secure_site: Site, open_store: OpenStore, files: _Files
) -> None:
    """The list of addresses does not outgrow the cache."""
    url = secure_site.file("/tool", content(KIB), etag='"v1"')
    async with open_store(limit_bytes=2 * KIB) as store:
        (await store.fetch(url)).release()
        assert len(json.loads((tmp_path / "cache" / "urls.json").read_text())) == 1
        for letter in "abc":
            (await files.fetch(store, letter)).release()
        assert json.loads((tmp_path / "cache" / "urls.json").read_text()) == {}
        (await store.fetch(url)).release()
    assert secure_site.asked("if-none-match") == [None, None]
    assert "127.0.0.1" not in (tmp_path / "cache" / "urls.json").read_text()


async def test_an_error_in_the_block_leaves_it_bare(open_store: OpenStore) -> None:
    """What the caller's own code raises is not wrapped."""
    with pytest.raises(LookupError):
        async with open_store():
            raise LookupError


async def test_a_disk_without_room_is_an_error_that_may_pass(tmp_path: Path, site: Site, open_store: OpenStore) -> None:
    """A disk that is too small is noticed before it is full."""
    huge = 1 << 60
    url = site.page("/tool", lambda visit: visit.head(200, Content_Length=huge))
    async with open_store(limit_bytes=2 * huge, artifact_bytes_max=huge) as store:
        with pytest.raises(ArtifactError, match=rf"has no room: {huge} bytes needed, \d+ free") as caught:
            await store.fetch(url, sha256(b""))
        assert caught.value.retryable
        assert os.listdir(tmp_path / "cache" / "parts") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return a function that gives a disk a size, and returns it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = False

    def resize(size: str) -> Path:
        nonlocal mounted
        options = f"remount,size={size}" if mounted else f"size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=False)
        if done.returncode:
            pytest.skip("only root can mount a small disk, and not in every container")
        mounted = True
        return disk

    yield resize
    if mounted:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can mount a small disk")
async def test_a_disk_that_fills_up_is_an_error_that_may_pass(site: Site, small_disk: Callable[[str], Path]) -> None:
    """A disk that is full halfway is given its room back, and the next download works once there is room."""
    disk = small_disk("2m")
    body = content(3 * MIB)
    url = site.file("/tool", body, length=False)
    async with ArtifactStore(disk / "cache", env=SystemEnv(), networks=NEAR) as store:
        with pytest.raises(ArtifactError, match=r"cannot be kept in .*No space left") as caught:
            await store.fetch(url, sha256(body))
        assert caught.value.retryable
        assert os.listdir(disk / "cache" / "parts") == []
        small_disk("20m")
        (await store.fetch(url, sha256(body))).release()


async def test_an_earlier_version_does_not_stay_in_use(secure_site: Site, open_store: OpenStore) -> None:
    """What another version has taken the place of goes when the room runs out, like anything that nobody uses."""
    async with open_store(limit_bytes=3 * KIB) as store:
        for letter in "abcdef":
            url = secure_site.file("/tool", content(KIB, letter), etag=f'"{letter}"')
            (await store.fetch(url)).release()
        assert sorted(path.name for path in store._cache.directory.glob("objects/*")) == sorted(
            sha256(content(KIB, letter)) for letter in "def"
        )


async def test_what_could_not_be_noted_does_not_stay_in_use(
    secure_site: Site, open_store: OpenStore, files: _Files, letters: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails at the last step of a download leaves an artifact that nobody uses."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with open_store(limit_bytes=2 * KIB) as store:
        with monkeypatch.context() as patched:
            patched.setattr("khonsu.artifacts.cache.write_known", fail)
            with pytest.raises(ArtifactError, match="No space left") as caught:
                await store.fetch(secure_site.file("/tool", content(KIB, "a"), etag='"a"'))
        assert caught.value.retryable
        for letter in "bc":
            (await files.fetch(store, letter)).release()
        assert letters() == "bc"


async def test_a_cache_whose_disk_fails_is_an_error_of_the_artifact(
    open_store: OpenStore, files: _Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is here and cannot be taken into use may be so later; nothing of it stays in use meanwhile."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    async with open_store(limit_bytes=KIB) as store:
        (await files.fetch(store, "a")).release()
        with monkeypatch.context() as patched:
            patched.setattr("khonsu.artifacts.cache.os.utime", fail)
            with pytest.raises(ArtifactError, match="Read-only file system") as caught:
                await files.fetch(store, "a")
        assert caught.value.retryable
        (await files.fetch(store, "b")).release()


async def test_the_list_of_addresses_can_always_be_read_again(tmp_path: Path) -> None:
    """However long what servers say of their files, the next start can read what was kept of it."""
    env = SystemEnv()
    longest = Validator('"' * VALIDATOR_LENGTH_MAX, "\\" * VALIDATOR_LENGTH_MAX)
    known = {f"url-{number:064}": Known(f"{number:064}", longest) for number in range(KNOWN_MAX)}
    await env.run_blocking(write_known, tmp_path / "cache", known, env)
    again = Cache(tmp_path / "cache", limit_bytes=KIB, env=env)
    await again.open()
    again.close()
