"""A process that is killed while it writes loses nothing that it acknowledged, and tears nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from khonsu.core.revision import ZERO, Revision
from khonsu.stores.sqlite import SQLiteStore
from tests.stores.samples import take

if TYPE_CHECKING:
    from pathlib import Path

    from khonsu.abc.store import View

ROUNDS = 3

WRITER = """
import sys
import anyio
from khonsu.stores import file
from khonsu.stores.sqlite import SQLiteStore
from khonsu.testing.store_samples import allocation, setting

file.WAL_PAGES = 20  # so that some are killed while the log is moved into the file


async def main() -> None:
    async with SQLiteStore(sys.argv[1]) as store, anyio.create_task_group() as group:
        async def write(writer: int) -> None:
            number = int(sys.argv[2])
            while True:
                key = writer * 1_000_000 + number
                records = [allocation(key * 10 + part) for part in range(10)]
                commit = await store.write(lambda t: t.put(setting(f"{key}", key), *records))
                print(commit.revision.number, key, flush=True)
                number += 1
        for writer in range(3):
            group.start_soon(write, writer)

anyio.run(main)
"""


def write_and_kill(path: Path, start: int, acknowledged: dict[int, int], count: int) -> None:
    """Run a writer, and kill it after so many replies."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(start)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(count):
            number, key = process.stdout.readline().split()
            acknowledged[int(number)] = int(key)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:  # what it had said before it died counts, too
            if line.endswith("\n"):
                number, key = line.split()
                acknowledged[int(number)] = int(key)


def contents(view: View) -> tuple[Revision, set[int], dict[int, int]]:
    """Return the revision, the keys of settings, and how many allocations there are of each."""
    counts: dict[int, int] = {}
    for record in view.find("allocation"):
        key = record.slot // 10  # type: ignore[union-attr, operator]
        counts[key] = counts.get(key, 0) + 1
    return view.revision, {record.value for record in view.find("setting")}, counts  # type: ignore[union-attr]


@pytest.fixture
def anyio_backend() -> str:
    """Return one event loop: it makes no difference to files."""
    return "asyncio"


@pytest.mark.anyio
async def test_kill_9(tmp_path: Path) -> None:
    """After `kill -9` all that was acknowledged is there, every write is whole, and so is the feed."""
    path = tmp_path / "state.db"
    chance = random.Random(5)
    acknowledged: dict[int, int] = {}
    for turn in range(ROUNDS):
        write_and_kill(path, turn * 10_000, acknowledged, chance.randrange(1, 60))
        async with SQLiteStore(path) as store:
            revision, keys, counts = await store.read(contents)
            assert set(acknowledged.values()) <= keys
            assert counts == dict.fromkeys(keys, 10)
            assert revision.number == len(keys) >= max(acknowledged)
            lists = await take(store, ZERO, revision.number)
            assert [found.revision for found in lists] == [Revision(0, n) for n in range(1, revision.number + 1)]
            told = {found.revision.number: found.changes[0].records[0].value for found in lists}  # type: ignore[union-attr]
            assert acknowledged.items() <= told.items()
