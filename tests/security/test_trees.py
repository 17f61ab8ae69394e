from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from khonsu.security import trees
from khonsu.security.trees import disk_bytes, remove_tree

DEPTH = 1100
"""Deeper than the stack of an interpreter, and than the longest path."""
PLENTY = 2**60
NOBODY = 65_534


def make_deep(root: Path, depth: int) -> None:
    """Make folders in folders, with a file in the last of them."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, bytes(2**20))
    os.close(file)
    os.close(here)


def test_a_tree_may_be_of_any_depth() -> None:
    """It is measured to its end, and removed."""
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=memory if memory.exists() else None))
    make_deep(root, DEPTH)
    assert disk_bytes(root, enough_bytes=PLENTY) >= 2**20
    remove_tree(root)
    assert not root.exists()
    remove_tree(root)


def test_no_link_is_followed(tmp_path: Path) -> None:
    """What links lead to is neither counted nor touched, be it a file, a folder, or the tree itself."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(bytes(2**20))
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    for name, target in {"folder": kept, "below/file": kept / "file", "broken": tmp_path / "nothing"}.items():
        (root / name).symlink_to(target)
    (tmp_path / "link").symlink_to(kept)
    assert disk_bytes(root, enough_bytes=PLENTY) < 2**20
    with pytest.raises(NotADirectoryError):
        disk_bytes(tmp_path / "link", enough_bytes=PLENTY)
    remove_tree(root)
    remove_tree(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert [path.name for path in kept.iterdir()] == ["file"]


def test_names_that_are_taken_and_wide_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders and files may have the names that folders get on their way, and there may be many of them."""
    monkeypatch.setattr(trees, "FOLDERS_MAX", 3)
    root = tmp_path / "root"
    for number in range(1, 6):
        (root / f"removed-{number}" / "a" / f"removed-{number}").mkdir(parents=True)
        (root / f"removed-{number + 10}").parent.mkdir(exist_ok=True)
        (root / f"removed-{number + 10}").write_text("a file")
        (root / "removed-1" / f"b{number}" / "c").mkdir(parents=True)
    os.mkfifo(root / "removed-1" / "fifo")
    remove_tree(root)
    assert list(tmp_path.iterdir()) == []


def test_what_is_said_is_a_bound_only(tmp_path: Path) -> None:
    """The measure ends when it is known to be more than is allowed; a file with two names counts once."""
    for number in range(5):
        (tmp_path / f"f{number}" / "g").mkdir(parents=True)
        (tmp_path / f"f{number}" / "g" / "file").write_bytes(bytes(2**20))
    os.link(tmp_path / "f0" / "g" / "file", tmp_path / "f1" / "again")
    assert 5 * 2**20 <= disk_bytes(tmp_path, enough_bytes=PLENTY) < 6 * 2**20
    assert 2**20 < disk_bytes(tmp_path, enough_bytes=2**20) < 5 * 2**20


def test_what_cannot_be_looked_at_hides_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that is gone, or that a dead file system stands for, is left out, and the others count."""
    for name in ("one", "two", "three"):
        (tmp_path / name).write_bytes(bytes(2**20))
    scandir = os.scandir

    @contextlib.contextmanager
    def scan(folder: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            yield _without_the_first(entries, folder)

    monkeypatch.setattr("khonsu.security.trees.os.scandir", scan)
    assert 2 * 2**20 <= disk_bytes(tmp_path, enough_bytes=PLENTY) < 3 * 2**20


def _without_the_first(entries: Iterator[os.DirEntry[str]], folder: int) -> Iterator[os.DirEntry[str]]:
    first = next(entries)
    os.unlink(first.name, dir_fd=folder)
    yield first
    yield from entries


def test_what_is_mounted_or_cannot_go_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All else goes, and the reason is told; it can be tried again."""
    root = tmp_path / "root"
    (root / "a" / "mounted").mkdir(parents=True)
    (root / "a" / "mounted" / "file").write_text("kept")
    (root / "b" / "c").mkdir(parents=True)
    rename = os.rename

    def refuse(name: str, moved: str, **folders: int) -> None:
        if name == "mounted":
            raise OSError(16, "Device or resource busy")
        rename(name, moved, **folders)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        with pytest.raises(OSError, match="busy"):
            remove_tree(root)
    (left,) = root.iterdir()
    assert (left / "mounted" / "file").read_text() == "kept"
    remove_tree(root)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_tree_that_is_closed_goes_too() -> None:
    """Folders without any rights are no obstacle to whoever owns them, root or not."""
    script = """
import os, sys
from pathlib import Path
from khonsu.security.trees import disk_bytes, remove_tree
root = Path(sys.argv[1])
os.setuid(int(sys.argv[2]))
for name in ("a/b/c", "d/e"):
    (root / name).mkdir(parents=True)
(root / "a/b/c/file").write_bytes(bytes(2**20))
for name, mode in (("a/b/c", 0), ("a/b", 0o500), ("a", 0o400), ("d/e", 0o100), ("d", 0)):
    (root / name).chmod(mode)
root.chmod(0)
assert disk_bytes(root, enough_bytes=2**40) >= 2**20
for name, mode in (("a/b/c", 0), ("a/b", 0o500), ("a", 0o400), ("d/e", 0o100), ("d", 0)):
    (root / name).chmod(mode)
root.chmod(0)
try:
    remove_tree(root)
except PermissionError:  # all but the last step: the folder above is somebody else's
    pass
sys.exit(len(os.listdir(root)))
"""
    with tempfile.TemporaryDirectory() as folder:  # those of pytest are closed to others
        root = Path(folder) / "root"
        root.mkdir()
        root.parent.chmod(0o711)
        os.chown(root, NOBODY, -1)
        subprocess.run([sys.executable, "-c", script, str(root), str(NOBODY)], check=True)
