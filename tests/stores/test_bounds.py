"""The file and its log stay bounded, and a full disk is survived."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from khonsu.core.revision import ZERO, Revision
from khonsu.errors import StoreFull
from khonsu.stores import file
from khonsu.stores.sqlite import SQLiteStore
from khonsu.testing.store_samples import allocation, number, setting
from tests.stores.samples import put, put_setting, take

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Return one event loop: it makes no difference to files."""
    return "trio"


MEGABYTE = 1_000_000


def size(path: Path) -> int:
    """Return the size of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


async def test_churn_takes_no_more_and_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under churn, file and log grow to some size and stay there."""
    monkeypatch.setattr(file, "WAL_PAGES", 100)
    monkeypatch.setattr(file, "WAL_BYTES_KEPT", MEGABYTE)
    path = tmp_path / "state.db"
    sizes = []
    async with SQLiteStore(path, history_bytes_max=60_000) as store:
        for generation in range(12):
            for plan in range(10):
                first = (generation * 10 + plan) * 100
                await store.write(put(*map(allocation, range(first, first + 100))))
            keys = [number(n) for n in range(generation * 1000, generation * 1000 + 1000)]
            await store.write(lambda transaction, keys=keys: transaction.delete("allocation", *keys, pruned=True))  # type: ignore[misc]
            sizes.append((size(path), size(tmp_path / "state.db-wal")))
    assert max(sizes[6:])[0] <= max(sizes[:6])[0] * 1.05
    assert max(log for _, log in sizes) < 2 * MEGABYTE


async def test_the_log_shrinks_after_a_large_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that one large write made long is cut by the writes after it."""
    monkeypatch.setattr(file, "WAL_PAGES", 100)
    monkeypatch.setattr(file, "WAL_BYTES_KEPT", MEGABYTE)
    log = tmp_path / "state.db-wal"
    async with SQLiteStore(tmp_path / "state.db") as store:
        await store.write(put(*map(allocation, range(20_000))))
        assert size(log) > 2 * MEGABYTE
        await store.write(put_setting("a"))
        await store.write(put_setting("a"))
        assert size(log) <= MEGABYTE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder with a file system of 6 MB of its own."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system takes root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_disk(path: Path) -> None:
    """Write to a file until there is no room left."""
    with path.open("wb", buffering=0) as junk:
        try:
            while True:
                junk.write(b"x" * 4096)
        except OSError:
            pass


async def test_a_full_disk(small_disk: Path) -> None:
    """On a full disk writes fail, wholly, reads go on, and writing goes on by itself when there is room again."""
    path, junk = small_disk / "state.db", small_disk / "junk"
    async with SQLiteStore(path) as store:
        for index in range(3):
            await store.write(put(*map(allocation, range(index * 100, index * 100 + 100))))
        for _ in range(2):
            last = await store.read(lambda view: view.revision)
            before = await store.read(lambda view: view.find("allocation"))
            fill_disk(junk)
            full = 0
            while full < 3:  # the log has some room of its own at first
                try:
                    await store.write(put(*map(allocation, range(1000, 1500)), setting("more")))
                except StoreFull:
                    full += 1
                else:
                    last = await store.read(lambda view: view.revision)
                    before = await store.read(lambda view: view.find("allocation"))
            assert await store.read(lambda view: view.revision) == last
            assert await store.read(lambda view: view.find("allocation")) == before
            os.unlink(junk)  # noqa: PTH108 - a path method would be reported as blocking
            assert (await store.write(put_setting("again"))).revision == Revision(0, last.number + 1)
        count = last.number + 1
        assert [found.revision.number for found in await take(store, ZERO, count)] == list(range(1, count + 1))
    async with SQLiteStore(path) as store:
        assert await store.read(lambda view: view.find("allocation")) == before
