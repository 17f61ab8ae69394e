from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.artifacts import ArtifactStore, placing
from khonsu.artifacts.placing import DamagedCopy, components, place
from khonsu.errors import ArtifactError
from tests.artifacts.conftest import MIB, content, sha256

OpenStore = Callable[..., ArtifactStore]
BODY = content(2 * MIB + 5)
DIGEST = sha256(BODY)


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """Return an artifact as the cache has it."""
    path = tmp_path / "object"
    path.write_bytes(BODY)
    path.chmod(0o400)
    return path


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Return a task's directory."""
    path = tmp_path / "task"
    path.mkdir()
    return path


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (None, "tool"),
        ("", "tool"),
        ("bin/", "bin/tool"),
        ("bin/other", "bin/other"),
        ("./bin//x/./other", "bin/x/other"),
        ("..bin/...", "..bin/..."),
        ("a b/é", "a b/é"),
    ],
)
def test_destinations(destination: str | None, expected: str) -> None:
    """A destination is relative; an end in a slash takes the artifact's own name."""
    assert "/".join(components(destination, "tool")) == expected


@pytest.mark.parametrize(
    "destination", ["/bin/tool", "..", "../tool", "a/../../tool", "a/..", "a/../b", ".", "a/.", "a\0b", "/"]
)
def test_destinations_that_lead_elsewhere_are_refused(destination: str) -> None:
    """Absolute paths and paths that climb are refused as written, wherever they would end."""
    with pytest.raises(ArtifactError, match=r"leads out.*relative to the task's directory"):
        components(destination, "tool")


@given(st.text(alphabet="a./\0", max_size=12))
def test_any_destination_is_beneath_or_refused(destination: str) -> None:
    """No text leads out of the directory."""
    try:
        parts = components(destination, "tool")
    except ArtifactError:
        return
    assert parts
    assert all(part not in ("", ".", "..") and "/" not in part and "\0" not in part for part in parts)


@pytest.mark.parametrize("kernel_copies", [True, False])
def test_places_an_executable_copy(
    cached: Path, task: Path, kernel_copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A placed artifact is whole, executable, and another file than the cached one."""
    if not kernel_copies:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    before = os.umask(0o077)
    try:
        place(cached, DIGEST, task, ("bin", "tool"))
    finally:
        os.umask(before)
    placed = task / "bin" / "tool"
    assert placed.read_bytes() == BODY
    assert stat.S_IMODE(placed.stat().st_mode) == 0o755
    assert placed.stat().st_ino != cached.stat().st_ino
    assert os.listdir(task / "bin") == ["tool"]
    placed.write_bytes(b"changed")
    assert cached.read_bytes() == BODY


def test_places_beneath_an_open_descriptor(cached: Path, task: Path) -> None:
    """A directory that is renamed meanwhile is still the one that was meant."""
    with _descriptor(task) as fd:
        task.rename(task.parent / "moved")
        place(cached, DIGEST, fd, ("tool",))
    assert (task.parent / "moved" / "tool").read_bytes() == BODY


def test_a_kernel_that_cannot_copy_is_no_obstacle(cached: Path, task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file systems cannot copy among themselves, the bytes pass through this process."""

    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    place(cached, DIGEST, task, ("tool",))
    assert (task / "tool").read_bytes() == BODY


def test_a_placed_binary_runs(tmp_path: Path, task: Path) -> None:
    """What is placed can be executed at once."""
    source = Path("/bin/true").resolve()
    place(source, sha256(source.read_bytes()), task, ("bin", "mine"))
    assert subprocess.run([task / "bin" / "mine"], check=False).returncode == 0


def test_replaces_what_was_there(cached: Path, task: Path) -> None:
    """Preparing a task again places anew; a program that runs keeps its old file."""
    (task / "tool").write_bytes(b"old")
    with (task / "tool").open("rb") as running:
        place(cached, DIGEST, task, ("tool",))
        place(cached, DIGEST, task, ("tool",))
        assert running.read() == b"old"
    assert (task / "tool").read_bytes() == BODY


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path, cached: Path, task: Path) -> None:
    """A task cannot have the agent overwrite a file elsewhere."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (task / "tool").symlink_to(outside)
    place(cached, DIGEST, task, ("tool",))
    assert outside.read_bytes() == b"precious"
    assert not (task / "tool").is_symlink()


@pytest.mark.parametrize("target", ["/tmp", "..", "../outside", "real", "nowhere"])
def test_a_link_on_the_way_is_refused(tmp_path: Path, cached: Path, task: Path, target: str) -> None:
    """A folder that is a link leads nowhere, not even within the directory."""
    (tmp_path / "outside").mkdir()
    (task / "real").mkdir()
    (task / "bin").symlink_to(target)
    (task / "deep").mkdir()
    (task / "deep" / "bin").symlink_to(tmp_path / "outside")
    for destination in (("bin", "tool"), ("deep", "bin", "tool"), ("bin", "new", "tool")):
        with pytest.raises(ArtifactError, match="a folder on the way is a link or no folder"):
            place(cached, DIGEST, task, destination)
    assert os.listdir(tmp_path / "outside") == []
    assert os.listdir(task / "real") == []


def test_a_link_under_the_passing_name_is_not_followed(tmp_path: Path, cached: Path, task: Path) -> None:
    """A task that guesses the passing name gains nothing."""
    (tmp_path / "outside").write_bytes(b"precious")
    with _descriptor(task) as fd, placing._temporary(fd, "tool") as (_, name):
        pass
    (task / name).symlink_to(tmp_path / "outside")
    place(cached, DIGEST, task, ("tool",))
    assert (tmp_path / "outside").read_bytes() == b"precious"
    assert os.listdir(task) == ["tool"]


def test_a_file_or_folder_in_the_way_is_named(cached: Path, task: Path) -> None:
    """What stands in the way is left, and the error says so."""
    (task / "bin").write_bytes(b"a file")
    (task / "tool").mkdir()
    with pytest.raises(ArtifactError, match="bin/tool: a folder on the way is a link or no folder"):
        place(cached, DIGEST, task, ("bin", "tool"))
    with pytest.raises(ArtifactError, match="tool: there is a folder of that name"):
        place(cached, DIGEST, task, ("tool",))
    assert sorted(os.listdir(task)) == ["bin", "tool"]


def test_a_long_name_is_an_error_and_the_longest_is_not(cached: Path, task: Path) -> None:
    """A name as long as a file's may be is placed."""
    place(cached, DIGEST, task, ("a" * 255,))
    with pytest.raises(ArtifactError, match="File name too long") as caught:
        place(cached, DIGEST, task, ("a" * 256,))
    assert not caught.value.retryable


def test_a_damaged_copy_is_never_placed(cached: Path, task: Path) -> None:
    """Bytes that changed in the cache are noticed before they get their name; the old file stays."""
    (task / "tool").write_bytes(b"old")
    with pytest.raises(DamagedCopy):
        place(cached, sha256(b"other"), task, ("tool",))
    assert (task / "tool").read_bytes() == b"old"
    assert os.listdir(task) == ["tool"]


@pytest.mark.anyio
async def test_a_damaged_artifact_is_dropped_and_fetched_again(
    tmp_path: Path, task: Path, open_store: OpenStore
) -> None:
    """A cache that rotted, or that a task wrote to, mends itself at the next try."""
    (tmp_path / "source").write_bytes(BODY)
    url = f"file://{tmp_path}/source"
    async with open_store() as store:
        with await store.fetch(url, DIGEST) as artifact:
            artifact.path.chmod(0o600)
            artifact.path.write_bytes(b"rotten")
            with pytest.raises(ArtifactError, match="damaged") as caught:
                await store.place(artifact, task)
        assert caught.value.retryable
        assert os.listdir(task) == []
        with await store.fetch(url, DIGEST) as artifact:
            assert await store.place(artifact, task, "bin/") == "bin/source"
    assert (task / "bin" / "source").read_bytes() == BODY


@pytest.mark.anyio
async def test_an_artifact_removed_by_hand_is_an_error_that_may_pass(
    tmp_path: Path, task: Path, open_store: OpenStore
) -> None:
    """Between fetching and placing a user may empty the cache; trying again fetches again."""
    (tmp_path / "source").write_bytes(BODY)
    async with open_store() as store:
        with await store.fetch(f"file://{tmp_path}/source", DIGEST) as artifact:
            artifact.path.unlink()
            with pytest.raises(ArtifactError, match="No such file") as caught:
                await store.place(artifact, task)
    assert caught.value.retryable
