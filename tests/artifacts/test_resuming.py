from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from khonsu.artifacts import ArtifactStore
from khonsu.env import SystemEnv
from khonsu.errors import ArtifactError, DigestMismatch
from tests.artifacts.conftest import KIB, MIB, Site, Visit, content, sha256

pytestmark = pytest.mark.anyio

OpenStore = Callable[..., ArtifactStore]
BODY = content(2 * MIB)
CUT = MIB + 1000


async def _fail_halfway(store: ArtifactStore, site: Site, digest: str | None, **options: object) -> str:
    url = site.file("/tool", BODY, cut_after=CUT, **options)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=rf"/tool: cut after {CUT} of {len(BODY)} bytes") as caught:
        await store.fetch(url, digest)
    assert caught.value.retryable
    return url


async def test_a_cut_download_goes_on_where_it_was_cut(site: Site, open_store: OpenStore) -> None:
    """What came before a cut is not fetched again, and progress begins with it."""
    seen: list[tuple[int, int | None]] = []
    async with open_store() as store:
        await _fail_halfway(store, site, sha256(BODY), etag='"v1"')
        url = site.file("/tool", BODY, etag='"v1"')
        with await store.fetch(url, sha256(BODY), progress=lambda *step: seen.append(step)) as artifact:
            assert artifact.path.read_bytes() == BODY
    assert site.asked("range") == [None, f"bytes={CUT}-"]
    assert site.asked("if-range") == [None, '"v1"']
    assert seen[0] == (CUT, len(BODY))


async def test_a_pinned_download_goes_on_after_a_restart(site: Site, open_store: OpenStore) -> None:
    """A restarted agent goes on from what it has; the digest vouches for it."""
    async with open_store() as store:
        url = await _fail_halfway(store, site, sha256(BODY), etag='"v1"')
    site.file("/tool", BODY, etag='"v1"')
    async with open_store() as store:
        with await store.fetch(url, sha256(BODY)) as artifact:
            assert artifact.path.read_bytes() == BODY
    assert site.asked("range") == [None, f"bytes={CUT}-"]
    assert site.asked("if-range") == [None, None]


async def test_it_goes_on_from_another_address(site: Site, other_site: Site, open_store: OpenStore) -> None:
    """A mirror may supply the rest, since the digest is the same."""
    async with open_store() as store:
        await _fail_halfway(store, site, sha256(BODY))
        with await store.fetch(other_site.file("/mirror", BODY), sha256(BODY)) as artifact:
            assert artifact.path.read_bytes() == BODY
    assert other_site.asked("range") == [f"bytes={CUT}-"]


@pytest.mark.parametrize("pinned", [True, False])
async def test_a_file_that_changed_meanwhile_begins_anew(
    secure_site: Site, open_store: OpenStore, pinned: bool
) -> None:
    """Halves of two versions are never put together."""
    new = content(len(BODY), "new")
    async with open_store() as store:
        await _fail_halfway(store, secure_site, sha256(new) if pinned else None, etag='"v1"')
        url = secure_site.file("/tool", new, etag='"v2"')
        with await store.fetch(url, sha256(new) if pinned else None) as artifact:
            assert artifact.path.read_bytes() == new
    assert secure_site.asked("if-range") == [None, '"v1"']


async def test_a_server_that_mixes_versions_up_is_noticed(secure_site: Site, open_store: OpenStore) -> None:
    """A server that ignores the condition and serves a part of a new version is asked for the whole."""
    new = content(len(BODY), "new")
    async with open_store() as store:
        await _fail_halfway(store, secure_site, None, etag='"v1"')

        def mixing(visit: Visit) -> None:
            if secure_site.asked("range")[-1] is None:
                visit.answer(200, new, ETag='"v2"')
            else:
                part = f"bytes {CUT}-{len(new) - 1}/{len(new)}"
                visit.answer(206, new[CUT:], ETag='"v2"', Content_Range=part)

        with await store.fetch(secure_site.page("/tool", mixing)) as artifact:
            assert artifact.path.read_bytes() == new


async def test_without_digest_and_version_nothing_is_resumed(
    tmp_path: Path, secure_site: Site, open_store: OpenStore
) -> None:
    """Where nobody can say that two halves belong together, the first is not kept."""
    async with open_store() as store:
        for version in ({}, {"etag": 'W/"weak"'}, {"modified": "Tue, 15 Nov 1994 12:45:26 GMT"}):
            await _fail_halfway(store, secure_site, None, **version)
            assert os.listdir(tmp_path / "cache" / "parts") == []
        url = secure_site.file("/tool", BODY)
        (await store.fetch(url)).release()
    assert secure_site.asked("range") == [None] * 4


async def test_without_digest_a_restart_begins_anew(secure_site: Site, open_store: OpenStore) -> None:
    """A part that no digest vouches for does not outlive the process, whatever its version."""
    async with open_store() as store:
        url = await _fail_halfway(store, secure_site, None, etag='"v1"')
    secure_site.file("/tool", BODY, etag='"v1"')
    async with open_store() as store:
        (await store.fetch(url)).release()
    assert secure_site.asked("range") == [None, None]


async def test_a_server_without_ranges_begins_anew(site: Site, open_store: OpenStore) -> None:
    """A server that always sends the whole is understood."""
    async with open_store() as store:
        await _fail_halfway(store, site, sha256(BODY))
        url = site.file("/tool", BODY, ranges=False)
        with await store.fetch(url, sha256(BODY)) as artifact:
            assert artifact.path.read_bytes() == BODY


@pytest.mark.parametrize(
    "answer",
    [
        {"Content_Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"},
        {"Content_Range": f"bytes {CUT}-{len(BODY) - 1}/*"},
        {"Content_Range": "nonsense"},
        {},
    ],
)
async def test_a_server_with_strange_ranges_is_asked_for_the_whole(
    site: Site, open_store: OpenStore, answer: dict[str, str]
) -> None:
    """A part that is not the one asked for is not used."""
    async with open_store() as store:
        await _fail_halfway(store, site, sha256(BODY))

        def page(visit: Visit) -> None:
            if site.asked("range")[-1] is None:
                visit.answer(200, BODY)
            else:
                visit.answer(206, BODY[CUT:], **answer)

        with await store.fetch(site.page("/tool", page), sha256(BODY)) as artifact:
            assert artifact.path.read_bytes() == BODY


async def test_a_part_that_is_all_there_is_only_checked(tmp_path: Path, site: Site, open_store: OpenStore) -> None:
    """Killed between the last byte and the end, the next start finds that nothing is missing."""
    async with open_store() as store:
        (tmp_path / "cache" / "parts" / sha256(BODY)).write_bytes(BODY)
    async with open_store() as store:
        with await store.fetch(site.file("/tool", BODY), sha256(BODY)) as artifact:
            assert artifact.path.read_bytes() == BODY
    assert len(site.visits) == 1


@pytest.mark.parametrize("size", [100, len(BODY), len(BODY) + 5])
async def test_a_part_that_was_torn_is_noticed(tmp_path: Path, site: Site, open_store: OpenStore, size: int) -> None:
    """A part with wrong bytes, as a crash of the machine leaves it, costs a second download and nothing else."""
    async with open_store():
        (tmp_path / "cache" / "parts" / sha256(BODY)).write_bytes(bytes(size))
    async with open_store() as store:
        with await store.fetch(site.file("/tool", BODY), sha256(BODY)) as artifact:
            assert artifact.path.read_bytes() == BODY
        assert os.listdir(tmp_path / "cache" / "parts") == []


async def test_a_resumed_download_of_other_bytes_is_refused(site: Site, open_store: OpenStore) -> None:
    """When the whole, asked for anew, still is something else, the digest does not match."""
    async with open_store() as store:
        await _fail_halfway(store, site, sha256(b"other"))
        with pytest.raises(DigestMismatch, match=sha256(BODY)):
            await store.fetch(site.file("/tool", BODY), sha256(b"other"))
    assert site.asked("range") == [None, f"bytes={CUT}-", None]


FETCHER = """
import sys, anyio
from khonsu.artifacts import ArtifactStore
from khonsu.env import SystemEnv

async def main():
    async with ArtifactStore(sys.argv[1], env=SystemEnv(), networks=["127.0.0.0/8"]) as store:
        await store.fetch(sys.argv[2], sys.argv[3], progress=lambda done, total: print(done, flush=True))

anyio.run(main)
"""


def _killed_after(received: int, *arguments: str) -> None:
    """Run a fetch in a process of its own, and kill it once it has this much."""
    command = [sys.executable, "-c", FETCHER, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= received:
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


async def test_a_killed_agent_resumes(tmp_path: Path, site: Site, open_store: OpenStore) -> None:
    """After `kill -9` in the middle of a download the next agent goes on where the dead one stopped."""
    url = site.file("/tool", BODY, hold_after=MIB + 500 * KIB)
    _killed_after(MIB, str(tmp_path / "cache"), url, sha256(BODY))
    site.gate.set()
    assert os.listdir(tmp_path / "cache" / "objects") == []
    async with open_store() as store:
        with await store.fetch(url, sha256(BODY)) as artifact:
            assert artifact.path.read_bytes() == BODY
    [first, second] = site.asked("range")
    assert first is None
    assert second is not None
    assert int(re.findall(r"\d+", second)[0]) >= MIB


# Kills the process at the n-th call that changes a directory or a file's name, mode or time.
KILLER = """
import os, signal, sys, anyio
from khonsu.artifacts import ArtifactStore
from khonsu.env import SystemEnv

left = int(sys.argv[4])
steps = []

def step(event, arguments):
    global left
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.chmod", "os.utime", "os.link", "fcntl.flock"):
        steps.append(event)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with ArtifactStore(sys.argv[1] + "/cache", env=SystemEnv()) as store:
        with await store.fetch(sys.argv[2], sys.argv[3]) as artifact:
            await store.place(artifact, int(sys.argv[5]), "bin/tool")

sys.addaudithook(step)
anyio.run(main)
print(len(steps))
"""


def _killed_at(directory: Path, url: str, digest: str, step: int) -> int:
    directory.mkdir()
    (directory / "task").mkdir()
    task = os.open(directory / "task", os.O_RDONLY)
    try:
        command = [sys.executable, "-c", KILLER, str(directory), url, digest, str(step), str(task)]
        done = subprocess.run(command, capture_output=True, check=False, pass_fds=[task])
    finally:
        os.close(task)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return int(done.stdout or 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.costly
async def test_killed_at_any_step_nothing_partial_is_ever_used(tmp_path: Path) -> None:
    """Whichever step is the last one, what is in the cache or a task's directory is whole, and a new start works."""
    (tmp_path / "source").write_bytes(BODY)
    url, digest = f"file://{tmp_path}/source", sha256(BODY)
    steps = _killed_at(tmp_path / "all", url, digest, 0)
    assert steps >= 12
    for step in range(1, steps + 1):
        directory = tmp_path / str(step)
        assert _killed_at(directory, url, digest, step) == 0
        for path in (directory / "cache" / "objects" / digest, directory / "task" / "bin" / "tool"):
            assert not path.exists() or path.read_bytes() == BODY
        # Who is not root can go on with a part only while it is writable.
        assert all(path.stat().st_mode & 0o200 for path in (directory / "cache").glob("parts/*"))
        async with ArtifactStore(directory / "cache", env=SystemEnv()) as store:
            with await store.fetch(url, digest) as artifact:
                await store.place(artifact, directory / "task", "bin/tool")
        assert (directory / "task" / "bin" / "tool").read_bytes() == BODY
        assert os.listdir(directory / "task" / "bin") == ["tool"]
        assert os.listdir(directory / "cache" / "parts") == []


async def test_what_breaks_tls_is_a_cut(secure_site: Site, open_store: OpenStore) -> None:
    """Bytes that were changed on their way are no fault of the agent's disk, and what came before them is kept."""

    def page(visit: Visit) -> None:
        visit.head(200, Content_Length=len(BODY))
        visit.wfile.write(BODY[:CUT])
        with socket.socket(fileno=os.dup(visit.connection.fileno())) as bare:
            bare.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
        visit.close_connection = True

    url = secure_site.page("/tool", page)
    async with open_store() as store:
        with pytest.raises(
            ArtifactError, match=rf"/tool: cut after {CUT} of {len(BODY)} bytes \(.*bad record"
        ) as caught:
            await store.fetch(url, sha256(BODY))
        assert caught.value.retryable
        secure_site.file("/tool", BODY)
        (await store.fetch(url, sha256(BODY))).release()
    assert secure_site.asked("range") == [None, f"bytes={CUT}-"]


async def test_the_versions_of_what_failed_are_forgotten_in_the_end(
    site: Site, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses that fail, each another one, do not take more and more memory; what is forgotten begins anew."""
    monkeypatch.setattr("khonsu.artifacts.downloader.KNOWN_MAX", 2)
    async with open_store() as store:
        for number in range(4):
            with pytest.raises(DigestMismatch):
                await store.fetch(site.file(f"/tool-{number}", b"x", etag='"v1"'), sha256(b"%d" % number))
        assert len(store._downloader._validators) == 2
