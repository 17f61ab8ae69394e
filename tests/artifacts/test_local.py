from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from khonsu.artifacts import ArtifactStore
from khonsu.errors import ArtifactError, DigestMismatch
from tests.artifacts.conftest import MIB, content, sha256

pytestmark = pytest.mark.anyio

OpenStore = Callable[..., ArtifactStore]
BODY = content(2 * MIB + 1)


async def test_a_file_is_copied(tmp_path: Path, open_store: OpenStore) -> None:
    """A file of this machine becomes an artifact that no longer depends on it."""
    (tmp_path / "a tool").write_bytes(BODY)
    async with open_store() as store:
        with await store.fetch(f"file://{tmp_path}/a%20tool", sha256(BODY)) as artifact:
            (tmp_path / "a tool").write_bytes(b"changed")
            assert artifact.path.read_bytes() == BODY
            assert artifact.name == "a tool"


async def test_a_link_to_a_file_is_followed(tmp_path: Path, open_store: OpenStore) -> None:
    """A link that the machine's owner made, such as `latest`, is fine: the digest decides."""
    (tmp_path / "tool-1").write_bytes(BODY)
    (tmp_path / "latest").symlink_to("tool-1")
    async with open_store() as store:
        (await store.fetch(f"file://{tmp_path}/latest", sha256(BODY))).release()


async def test_another_digest_is_refused(tmp_path: Path, open_store: OpenStore) -> None:
    """A file is checked like any artifact; the error does not tell what would have been right."""
    (tmp_path / "tool").write_bytes(BODY)
    async with open_store() as store:
        with pytest.raises(DigestMismatch, match=f"its sha256 is not {sha256(b'')}") as caught:
            await store.fetch(f"file://{tmp_path}/tool", sha256(b""))
    assert sha256(BODY) not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "cannot be read (No such file"),
        ("folder", "is not a plain file"),
        ("fifo", "is not a plain file"),
        ("socket", "is not a plain file"),
        ("loop", "cannot be read (Too many levels"),
    ],
)
async def test_what_is_no_plain_file_is_refused_without_waiting(
    tmp_path: Path, open_store: OpenStore, path: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories, pipes and sockets are no artifacts, and nothing waits for their other end."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        async with open_store() as store:
            with pytest.raises(ArtifactError, match=re.escape(message)) as caught:
                await store.fetch(f"file://{tmp_path}/{path}", sha256(BODY))
    assert not caught.value.retryable


async def test_devices_are_refused_unopened(open_store: OpenStore) -> None:
    """A device is no artifact."""
    async with open_store() as store:
        for path in ("/dev/zero", "/dev/null", "/dev/tty", "/dev/ptmx"):
            with pytest.raises(ArtifactError, match=r"is not a plain file|cannot be read"):
                await store.fetch(f"file://{path}", sha256(BODY))


async def test_a_file_larger_than_the_limit_is_refused(tmp_path: Path, open_store: OpenStore) -> None:
    """The limit holds for files of this machine, too."""
    (tmp_path / "tool").write_bytes(BODY)
    async with open_store(artifact_bytes_max=MIB) as store:
        with pytest.raises(ArtifactError, match="larger than the limit"):
            await store.fetch(f"file://{tmp_path}/tool", sha256(BODY))


@pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
async def test_root_does_not_read_what_others_may_not(tmp_path: Path, open_store: OpenStore, mode: int) -> None:
    """Who submits jobs cannot read, or guess at, private files through an agent that is root."""
    (tmp_path / "shadow").write_bytes(b"root:secret")
    (tmp_path / "shadow").chmod(mode)
    async with open_store() as store:
        for digest in (sha256(b"root:secret"), sha256(b"a guess")):
            with pytest.raises(ArtifactError, match=r"may not be read by everybody.*chmod o\+r") as caught:
                await store.fetch(f"file://{tmp_path}/shadow", digest)
            assert sha256(b"root:secret") not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
async def test_root_goes_where_everybody_may(tmp_path: Path, open_store: OpenStore) -> None:
    """A file that everybody may read in a folder that nobody may enter is private, whichever way leads to it."""
    private, public = tmp_path / "private", tmp_path / "public"
    for folder in (private / "inner", public):
        folder.mkdir(parents=True)
        (folder / "tool").write_bytes(BODY)
    private.chmod(0o700)
    (public / "file").symlink_to(private / "inner" / "tool")
    (public / "folder").symlink_to("../private/inner")
    (private / "out").symlink_to(public / "tool")
    (public / "around").symlink_to("../public/./../public//tool")
    refused = ["private/inner/tool", "public/file", "public/folder/tool", "private/../public/tool", "private/out"]
    async with open_store() as store:
        for path in [*refused, "private/nowhere"]:
            with pytest.raises(ArtifactError, match="may not be read by everybody"):
                await store.fetch(f"file://{tmp_path}/{path}", sha256(BODY))
        (await store.fetch(f"file://{tmp_path}/public/around", sha256(BODY))).release()


READER = """
import os, sys, anyio
from khonsu.artifacts import ArtifactStore
from khonsu.env import SystemEnv
from khonsu.errors import ArtifactError

async def main():
    # Only now: the interpreter's own folder may be for root alone.
    os.setgroups([]); os.setgid(12345); os.setuid(12345)
    async with ArtifactStore(sys.argv[1], env=SystemEnv()) as store:
        try:
            await store.fetch(sys.argv[2], sys.argv[3])
        except ArtifactError as error:
            print(error)

anyio.run(main)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_agent_reads_what_its_user_may(tmp_path: Path) -> None:
    """An agent that is not root is told by the kernel."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 12345, 12345)
    (tmp_path / "private").write_bytes(BODY)
    (tmp_path / "private").chmod(0o600)
    command = [sys.executable, "-c", READER, str(home / "cache"), f"file://{tmp_path}/private", sha256(BODY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "cannot be read (Permission denied)" in done.stdout, done.stderr


FILE_READER = """
import sys, anyio
from khonsu.artifacts import ArtifactStore
from khonsu.env import SystemEnv

async def main():
    async with ArtifactStore(sys.argv[1], env=SystemEnv()) as store:
        (await store.fetch(sys.argv[2], sys.argv[3])).release()

anyio.run(main)
print(sorted({"httpx", "cryptography", "numpy"} & set(sys.modules)))
"""


def test_without_the_web_no_http_client_is_loaded(tmp_path: Path) -> None:
    """An agent whose tasks fetch nothing from the web does not pay for it."""
    (tmp_path / "tool").write_bytes(BODY)
    command = [sys.executable, "-c", FILE_READER, str(tmp_path / "cache"), f"file://{tmp_path}/tool", sha256(BODY)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"[]\n"
