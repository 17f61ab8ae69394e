from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from khonsu.security.files import PrivateDirectory
from khonsu.testing.simulation.files import SECTOR_BYTES, FileDisk

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = b"o" * 5 * SECTOR_BYTES, b"n" * 7 * SECTOR_BYTES


def made(folder: Path, seed: int) -> FileDisk:
    """Return a disk below a folder."""
    return FileDisk(folder / str(seed), random.Random(seed))


def test_a_file_that_was_replaced_in_order_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    """`PrivateDirectory.write` keeps its promise: after it returned, the new bytes are there."""
    for seed in range(50):
        disk = made(tmp_path, seed)
        with PrivateDirectory(disk.root, disk.fsync) as files:
            files.write("kept", OLD)
            disk.power_cut()
        with PrivateDirectory(disk.root, disk.fsync) as files:
            assert files.read("kept") == OLD
            files.write("kept", NEW)
        disk.power_cut()
        with PrivateDirectory(disk.root, disk.fsync) as files:
            assert files.read("kept") == NEW


def test_what_was_not_waited_for_may_be_lost_kept_or_torn(tmp_path: Path) -> None:
    """A file that was only written is there, or is not, or has some of its sectors."""
    found: set[str] = set()
    for seed in range(60):
        disk = made(tmp_path, seed)
        (disk.root / "loose").write_bytes(NEW)
        disk.power_cut()
        path = disk.root / "loose"
        data = path.read_bytes() if path.exists() else None
        found.add("lost" if data is None else "kept" if data == NEW else "torn")
    assert found == {"lost", "kept", "torn"}


def test_an_appended_line_is_safe_once_it_was_waited_for(tmp_path: Path) -> None:
    """What was appended and waited for stays; what came after it may be lost."""
    lengths: set[int] = set()
    for seed in range(30):
        disk = made(tmp_path, seed)
        file = os.open(disk.root / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        folder = os.open(disk.root, os.O_RDONLY)
        os.write(file, OLD)
        disk.fsync(file)
        disk.fsync(folder)
        os.write(file, NEW)
        os.close(file)
        os.close(folder)
        disk.power_cut()
        data = (disk.root / "log").read_bytes()
        lengths.add(len(data))
        assert data[: len(OLD)] == OLD
    assert lengths == {len(OLD), len(OLD + NEW)}


def test_a_disk_that_lies_loses_what_was_waited_for(tmp_path: Path) -> None:
    """A disk that only says that something is safe loses it, sometimes."""
    left: set[bool] = set()
    for seed in range(20):
        disk = made(tmp_path, seed)
        disk.lies = 1.0
        with PrivateDirectory(disk.root, disk.fsync) as files:
            files.write("kept", OLD)
        disk.power_cut()
        left.add((disk.root / "kept").exists())
    assert left == {True, False}
