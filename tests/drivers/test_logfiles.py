"""The reader of log files, while they are written and rotated."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.drivers import logfiles
from khonsu.drivers.logfiles import LINE_BYTES_MAX, LogCursor, LogEntry, read_logs
from khonsu.env import SystemEnv
from khonsu.supervisor.logs import LogWriter

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

ENV = SystemEnv()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time at which writers write, to be changed."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def writer(folder: Path, stream: str = "stdout", *, files: int = 5, file_bytes: int = 2**20) -> LogWriter:
    """Return a writer of a stream."""
    return LogWriter(str(folder), stream, files=files, file_bytes=file_bytes)


async def texts(folder: Path, **options: object) -> list[str]:
    """Return the lines that a reader gives."""
    return [entry.text async for entry in read_logs(folder, env=ENV, **options)]  # type: ignore[arg-type]


async def test_no_output_is_no_line(tmp_path: Path) -> None:
    """A task that wrote nothing, or whose folder is not there yet, has no lines."""
    assert await texts(tmp_path / "none") == []
    assert await texts(tmp_path, tail=3) == []


async def test_streams_are_merged_by_time(tmp_path: Path, clock: list[float]) -> None:
    """Lines of both streams come in the order in which they were written."""
    out, err = writer(tmp_path), writer(tmp_path, "stderr")
    for number in range(6):
        clock[0] += 1
        (err if number % 3 == 1 else out).write(b"%d\n" % number)
    found = [entry async for entry in read_logs(tmp_path, env=ENV)]
    assert [entry.text for entry in found] == ["0", "1", "2", "3", "4", "5"]
    assert found[1] == LogEntry("stderr", 1002.0, "1")
    assert await texts(tmp_path, streams=["stderr"]) == ["1", "4"]


async def test_a_last_line_without_an_end_is_a_line(tmp_path: Path) -> None:
    """What a task wrote last is shown, also without a newline."""
    writer(tmp_path).write(b"one\ntwo")
    assert await texts(tmp_path) == ["one", "two"]
    assert await texts(tmp_path, tail=1) == ["two"]


async def test_the_last_lines_take_a_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very long lines fewer are given than were asked for, and these are the last ones."""
    monkeypatch.setattr(logfiles, "BACKLOG_BYTES_MAX", 3000)
    writer(tmp_path).write(b"".join(b"%d%s\n" % (number, b"x" * 900) for number in range(9)))
    assert [text[0] for text in await texts(tmp_path, tail=8)] == ["6", "7", "8"]


@pytest.mark.parametrize("options", [{"tail": 2}, {"since": 0.0}, {}])
async def test_who_does_not_follow_comes_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    """A task that writes faster than its lines are read does not keep a reader for ever, nor a thread."""
    out = writer(tmp_path, files=3, file_bytes=1000)
    out.write(b"old\n" * 10)
    once = LogCursor.read

    def read(cursor: LogCursor) -> list[LogEntry]:
        lines = once(cursor)
        out.write(b"new\n" * 200)
        return lines

    monkeypatch.setattr(LogCursor, "read", read)
    with anyio.fail_after(5):
        found = await texts(tmp_path, streams=["stdout"], **options)
    assert found[:2] == ["old", "old"]
    assert len(found) <= 10


async def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 do not stop a reader."""
    writer(tmp_path).write(b"\xff\xc3\xa4\n")
    assert await texts(tmp_path) == ["�ä"]


async def test_a_very_long_line_is_cut(tmp_path: Path) -> None:
    """A line longer than 64 KiB comes in pieces, and one of exactly that length in one."""
    writer(tmp_path).write(b"x" * (3 * LINE_BYTES_MAX + 5) + b"\n" + b"y" * LINE_BYTES_MAX + b"\nz\n")
    assert [len(text) for text in await texts(tmp_path)] == [LINE_BYTES_MAX] * 3 + [5, LINE_BYTES_MAX, 1]


async def test_since_gives_what_was_written_since(tmp_path: Path, clock: list[float]) -> None:
    """Only lines written at that time or later are given, over files that were rotated."""
    out = writer(tmp_path, files=100, file_bytes=50)
    for number in range(100):
        clock[0] = 1000.0 + number
        out.write(b"line %d\n" % number)
    assert await texts(tmp_path, since=1090.0) == [f"line {number}" for number in range(90, 100)]
    assert await texts(tmp_path, since=1090.0, tail=3) == ["line 97", "line 98", "line 99"]
    assert await texts(tmp_path, since=1098.0, tail=30) == ["line 98", "line 99"]
    assert len(await texts(tmp_path, since=1.0)) == 100
    assert await texts(tmp_path, since=5000.0) == []


async def test_since_without_an_index(tmp_path: Path) -> None:
    """A log whose index is gone is still read; its lines have the file's time."""
    writer(tmp_path).write(b"a\nb\n")
    (tmp_path / "stdout.0.idx").unlink()
    assert await texts(tmp_path, since=1.0) == ["a", "b"]


@given(
    chunks=st.lists(st.sampled_from([b"a\n", b"bb\n", b"\n", b"ccc", b"d\ne\n", b"x" * 9, b"ff\ng"]), max_size=30),
    file_bytes=st.integers(3, 12),
    tail=st.integers(0, 12),
)
async def test_tail_gives_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, *, chunks: list[bytes], file_bytes: int, tail: int
) -> None:
    """Whatever was written and however it was rotated, the tail is the last lines."""
    folder = tmp_path_factory.mktemp("logs")
    out = writer(folder, files=10_000, file_bytes=file_bytes)
    for chunk in chunks:
        out.write(chunk)
    out.close()
    lines = b"".join(chunks).decode().split("\n")
    lines = lines[:-1] if not lines[-1] else lines
    assert await texts(folder) == lines
    # A tail of nothing still shows a line that has not ended: it is new when it does.
    assert (await texts(folder, tail=tail))[-tail or len(lines) :] == (lines[-tail:] if tail else [])


async def test_follow_gives_what_is_written_meanwhile(tmp_path: Path) -> None:
    """A follower gets every line in order while files are rotated, and ends after the task."""
    ended = False
    got: list[str] = []
    out = writer(tmp_path, files=1000, file_bytes=40)

    async with anyio.create_task_group() as group:

        async def follow() -> None:
            lines = read_logs(tmp_path, env=ENV, follow=True, ended=lambda: ended)
            got.extend([entry.text async for entry in lines])

        group.start_soon(follow)
        for number in range(200):
            out.write(b"line %d\nand " % number)
            await anyio.lowlevel.checkpoint()
        ended = True
    assert got == ["line 0", *[f"and line {number}" for number in range(1, 200)], "and "]


async def test_follow_from_the_end(tmp_path: Path) -> None:
    """With a tail of zero a follower gets only what is new; each line as soon as it is there."""
    out = writer(tmp_path)
    out.write(b"old\n")
    looked = anyio.Event()
    got: list[str] = []

    def ended() -> bool:
        looked.set()
        return False

    async with (
        aclosing(read_logs(tmp_path, env=ENV, follow=True, tail=0, ended=ended)) as lines,
        anyio.create_task_group() as group,
    ):

        async def first() -> None:
            got.append((await anext(lines)).text)

        group.start_soon(first)
        await looked.wait()
        out.write(b"new\n")
    assert got == ["new"]


async def test_a_follower_that_is_too_slow_goes_on_with_what_is_left(tmp_path: Path) -> None:
    """When files vanish before they are read, the reader goes on with the oldest that is there."""
    out = writer(tmp_path, files=2, file_bytes=20)
    cursor = LogCursor(tmp_path, "stdout")
    out.write(b"first\n")
    assert [entry.text for entry in cursor.read()] == ["first"]
    for number in range(100):
        out.write(b"line %d\n" % number)
    rest = []
    while lines := cursor.read():
        rest += [entry.text for entry in lines]
    cursor.close()
    left = [
        text for number in out_numbers(tmp_path) for text in (tmp_path / f"stdout.{number}").read_text().split("\n")
    ]
    # The file that the reader still held is read to its end.
    assert rest == ["line 0", "line 1", *[text for text in left if text]]


def out_numbers(folder: Path) -> list[int]:
    """Return the numbers of the files of standard output."""
    return LogCursor(folder, "stdout").numbers()
