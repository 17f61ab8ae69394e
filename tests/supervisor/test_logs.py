"""The writer of log files: rotation, the index of time, and a disk that is full."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.supervisor.logs import INDEX_ENTRY, LogWriter
from tests.supervisor.tasks import output, shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from khonsu.drivers.supervisor import Supervisor


def contents(folder: Path) -> dict[str, bytes]:
    """Return the log files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".idx"}


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder with room for 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here; it takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_nothing_is_made_before_there_is_output(tmp_path: Path) -> None:
    """A silent task has no log files."""
    LogWriter(str(tmp_path), "stdout", files=2, file_bytes=10).close()
    assert contents(tmp_path) == {}


def test_files_are_rotated_between_lines(tmp_path: Path) -> None:
    """A line that does not fit goes to the next file whole, and only the newest files stay."""
    log = LogWriter(str(tmp_path), "stdout", files=2, file_bytes=10)
    for number in range(5):
        log.write(b"line %d\n" % number)
    log.write(b"a\nb\n")
    assert contents(tmp_path) == {"stdout.4": b"line 4\na\n", "stdout.5": b"b\n"}
    assert sorted(path.name for path in tmp_path.glob("*.idx")) == ["stdout.4.idx", "stdout.5.idx"]
    assert log.dropped == 0


def test_a_line_longer_than_a_file_is_cut(tmp_path: Path) -> None:
    """A line that fits into no file fills several, and nothing of it is lost."""
    log = LogWriter(str(tmp_path), "stdout", files=9, file_bytes=4)
    log.write(b"0123456789\nx\n")
    assert contents(tmp_path) == {"stdout.0": b"0123", "stdout.1": b"4567", "stdout.2": b"89\n", "stdout.3": b"x\n"}


def test_a_later_attempt_goes_on_in_the_same_file(tmp_path: Path) -> None:
    """A writer continues where an earlier one ended."""
    for text in (b"one\n", b"two\n", b"three\n"):
        log = LogWriter(str(tmp_path), "stdout", files=3, file_bytes=10)
        log.write(text)
        log.close()
    assert contents(tmp_path) == {"stdout.0": b"one\ntwo\n", "stdout.1": b"three\n"}


def test_half_a_line_stays_with_its_attempt(tmp_path: Path) -> None:
    """What an attempt wrote without an end is not joined with what the next one writes first."""
    for text in (b"one\nhal", b"two\n", b"three"):
        log = LogWriter(str(tmp_path), "stdout", files=3, file_bytes=100)
        log.write(text)
        log.close()
    assert contents(tmp_path) == {"stdout.0": b"one\nhal\ntwo\nthree"}


@given(chunks=st.lists(st.binary(max_size=30)), file_bytes=st.integers(1, 20))
def test_every_byte_is_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, *, chunks: list[bytes], file_bytes: int
) -> None:
    """Whatever is written, the files hold all of it in order, each no larger than allowed."""
    folder = tmp_path_factory.mktemp("logs")
    log = LogWriter(str(folder), "stderr", files=10_000, file_bytes=file_bytes)
    for chunk in chunks:
        log.write(chunk)
    log.close()
    found = sorted(contents(folder).items(), key=lambda item: int(item[0].split(".")[1]))
    assert b"".join(data for _, data in found) == b"".join(chunks)
    assert all(len(data) <= file_bytes for _, data in found)


def test_the_index_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly a log grows, its index takes no more than 4 KiB and a quarter of the log's size."""
    import time

    clock = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    log = LogWriter(str(tmp_path), "stdout", files=1, file_bytes=2**20)
    for _ in range(4000):
        log.write(b"x\n")
    log.close()
    index = (tmp_path / "stdout.0.idx").read_bytes()
    assert len(index) <= 4096 + 8000 // 4 + INDEX_ENTRY.size
    entries = list(INDEX_ENTRY.iter_unpack(index))
    assert entries[:3] == [(0, 0.0), (2, 1.0), (4, 2.0)]
    assert entries == sorted(entries)


def test_a_full_disk_drops_and_counts(small_disk: Path) -> None:
    """What does not fit is dropped and counted; with room again, output goes on in a line of its own."""
    ballast = small_disk / "ballast"
    log = LogWriter(str(small_disk), "stdout", files=3, file_bytes=2**20)
    log.write(b"begin\nhalf a li")
    ballast.write_bytes(b"x" * 56 * 1024)
    for _ in range(10):
        log.write(b"y" * 1000)
    assert log.dropped > 0
    ballast.unlink()
    log.write(b"end\n")
    log.close()
    kept = (small_disk / "stdout.0").read_bytes()
    assert kept.startswith(b"begin\nhalf a liyyy")
    assert kept.endswith(b"y\nend\n")
    assert len(kept) - len("\n") + log.dropped == len(b"begin\nhalf a liend\n") + 10_000


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    """A log that cannot even be begun is dropped, and begins when there is room."""
    ballast = small_disk / "ballast"
    fill(ballast)
    log = LogWriter(str(small_disk), "stdout", files=3, file_bytes=2**20)
    log.write(b"lost\n")
    assert log.dropped == 5
    ballast.unlink()
    log.write(b"kept\n")
    log.close()
    assert (small_disk / "stdout.0").read_bytes() == b"kept\n"


@pytest.mark.anyio
async def test_a_task_is_never_held_up_by_a_full_disk(supervisor: Supervisor, tmp_path: Path, small_disk: Path) -> None:
    """A task whose log disk is full runs to its end, and it is said how much was dropped."""
    script = "i=0; while [ $i -lt 300 ]; do printf '%01000d\\n' $i; i=$((i+1)); done; exit 3"
    handle = await supervisor.spawn(shell(tmp_path, script, log_directory=str(small_disk)))
    ended = await supervisor.wait(handle)
    assert ended.code == 3
    size = (small_disk / "stdout.0").stat().st_size
    assert ended.message == f"{300 * 1001 - size} bytes of its output were dropped, since they could not be written"


@pytest.mark.anyio
async def test_the_end_is_recorded_on_a_full_disk(supervisor: Supervisor, tmp_path: Path, small_disk: Path) -> None:
    """The exit code gets its place when the task starts, and is kept though the disk is full by the end."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    handle = await supervisor.spawn(shell(tmp_path, f"read x < {gate}; exit 9", directory=str(small_disk / "attempt")))
    fill(small_disk / "ballast")
    gate.write_text("go\n")
    assert (await supervisor.wait(handle)).code == 9


@pytest.mark.anyio
async def test_attempts_share_a_log(supervisor: Supervisor, tmp_path: Path) -> None:
    """Two attempts with one log folder write one after the other into the same files."""
    for number in range(3):
        spec = shell(tmp_path, f"echo {number}", directory=str(tmp_path / f"attempt-{number}"))
        await supervisor.wait(await supervisor.spawn(spec))
    assert output(tmp_path) == "0\n1\n2\n"


@pytest.mark.anyio
async def test_a_flood_is_rotated(supervisor: Supervisor, tmp_path: Path) -> None:
    """A task that writes more than it may keep has its last lines, in files of the right size."""
    script = "seq 1 20000"
    await supervisor.wait(await supervisor.spawn(shell(tmp_path, script, log_files=3, log_file_bytes=10_000)))
    lines = output(tmp_path).splitlines()
    assert lines == [str(number) for number in range(20_000 - len(lines) + 1, 20_001)]
    sizes = [path.stat().st_size for path in (tmp_path / "logs").glob("stdout.*") if path.suffix != ".idx"]
    assert len(sizes) == 3
    assert max(sizes) <= 10_000
