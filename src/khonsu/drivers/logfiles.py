"""Read the log files of a task while a helper writes and rotates them.

A stream is `stdout.0`, `stdout.1` and so on, of which the oldest vanish. Beside each is `.idx`, with the wall time at
which what begins at an offset was written. Memory stays bounded, however long a line or a file is.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from sys import getsizeof

from attrs import frozen

from khonsu.env import Env
from khonsu.supervisor.logs import INDEX_ENTRY

LINE_BYTES_MAX = 64 * 2**10
"""A longer line is cut into several."""

BACKLOG_BYTES_MAX = 8 * 2**20
"""How much memory the last lines of a stream take at most; of more lines the first are left out."""

_CHUNK_BYTES = 2**17
_INDEX_BYTES_MAX = 2**22
_PAUSE_SECONDS_MIN = 0.01
_PAUSE_SECONDS_MAX = 0.5

STREAMS = ("stdout", "stderr")


@frozen
class LogEntry:
    """A line of output: its stream, the wall time at which it was written (to a tenth of a second), its text."""

    stream: str
    time: float
    text: str


class LogCursor:
    """A place in one stream, from which lines are read; blocking, and used by one caller at a time.

    It begins at the oldest line that is there, or where `seek_tail` or `seek_time` put it.
    """

    def __init__(self, directory: Path, stream: str) -> None:
        """Open nothing yet: the stream may not have begun."""
        self._directory = directory
        self._stream = stream
        self._file = -1
        self._number = -1
        self._offset = 0  # in the file, of what is read next
        self._rest = b""  # the beginning of a line whose end is not there yet
        self._rest_time = 0.0
        self._index = b""
        self._entry = 0  # the offset in `_index` of the entry that holds
        self._end: tuple[int, int] | None = None  # the file and the offset in it at which to stop

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def numbers(self) -> list[int]:
        """Return the numbers of the files that are there, the oldest first."""
        prefix = f"{self._stream}."
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        rests = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        return sorted(int(rest) for rest in rests if rest.isdigit())

    def read(self) -> list[LogEntry]:
        """Return the next lines; none if there are no more for now."""
        while True:
            if self._end is not None and (self._number, self._offset) >= self._end:
                return []
            if self._file < 0 and not self._open_after(self._number):
                return []
            at = self._offset
            data = os.pread(self._file, _CHUNK_BYTES, at)
            if data:
                self._offset += len(data)
                lines = self._lines(data, at)
                if lines:
                    return lines
            elif not self._advance():
                return []

    def read_rest(self) -> list[LogEntry]:
        """Return what is there of a line that will have no end."""
        rest, self._rest = self._rest, b""
        return [self._entry_of(rest, self._rest_time)] if rest else []

    def end_here(self) -> None:
        """Read what is there now, and not much of what comes: a task may write faster than we read."""
        number = max(self.numbers(), default=-1)
        try:
            size_bytes = (self._directory / f"{self._stream}.{number}").stat().st_size
        except FileNotFoundError:
            size_bytes = 0
        self._end = number, size_bytes

    def go_on(self) -> None:
        """Read all that comes."""
        self._end = None

    def seek_tail(self, lines: int) -> None:
        """Go to where the last lines begin that are there now."""
        missing = lines + 1  # ends of lines: also that of the line before the first of them
        is_end = True
        for number in reversed(self.numbers()):
            if not self._open(number):
                break
            end = os.fstat(self._file).st_size
            while end > 0:
                start = max(0, end - _CHUNK_BYTES)
                block = os.pread(self._file, end - start, start)
                if is_end and lines and not block.endswith(b"\n"):
                    missing -= 1  # the last line has no end yet
                is_end = False
                found = block.count(b"\n")
                if found >= missing:
                    self._offset = start + _after_newline(block, missing)
                    return
                missing -= found
                end = start
        self._rewind()

    def seek_time(self, since: float) -> None:
        """Go to a place before everything that was written since then, and not much before."""
        for number in reversed(self.numbers()):
            if not self._open(number):
                break
            times = list(INDEX_ENTRY.iter_unpack(self._index))
            if times and times[0][1] < since:
                self._offset = max(offset for offset, time in times if time < since)
                return
        self._rewind()

    def _rewind(self) -> None:
        self.close()
        self._number = -1
        self._offset = 0

    def _advance(self) -> bool:
        """Go on with the next file, once nothing can be added to this one any more."""
        newer = [number for number in self.numbers() if number > self._number]
        if not newer or os.fstat(self._file).st_size > self._offset:
            return bool(newer)  # written to between our last look and its rotation
        return self._open(newer[0])

    def _open_after(self, number: int) -> bool:
        return any(self._open(candidate) for candidate in self.numbers() if candidate > number)

    def _open(self, number: int) -> bool:
        """Go to the beginning of a file; False if it is gone."""
        try:
            file = os.open(self._directory / f"{self._stream}.{number}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.close()
        if self._rest and number != self._number + 1:
            self._rest = b""  # the rest of that line was removed before we came to it
        self._file, self._number, self._offset = file, number, 0
        self._index, self._entry = b"", 0
        self._load_index()
        return True

    def _load_index(self) -> None:
        try:
            with open(self._directory / f"{self._stream}.{self._number}.idx", "rb") as file:  # noqa: PTH123 - part of it
                index = file.read(_INDEX_BYTES_MAX)
        except FileNotFoundError:
            return  # rotated away; what was read of it still holds
        self._index = index[: len(index) // INDEX_ENTRY.size * INDEX_ENTRY.size]

    def _lines(self, data: bytes, at: int) -> list[LogEntry]:
        """Cut what was read at an offset into lines, and keep the beginning of the last."""
        self._load_index()
        found: list[LogEntry] = []
        start = 0
        while start < len(data):
            room = start + LINE_BYTES_MAX - len(self._rest)
            newline = data.find(b"\n", start, room + 1)
            end = newline if newline >= 0 else min(len(data), room)
            if not self._rest:
                self._rest_time = self._time_at(at + start)
            self._rest += data[start:end]
            if newline < 0 and len(self._rest) < LINE_BYTES_MAX:
                break
            found.append(self._entry_of(self._rest, self._rest_time))
            self._rest = b""
            start = end + 1 if newline >= 0 else end
        return found

    def _entry_of(self, line: bytes, time: float) -> LogEntry:
        return LogEntry(self._stream, time, line.decode("utf-8", "replace"))

    def _time_at(self, offset: int) -> float:
        """Return when what is at an offset was written; offsets are asked for in order."""
        size = INDEX_ENTRY.size
        while self._entry + size < len(self._index):
            following: int = INDEX_ENTRY.unpack_from(self._index, self._entry + size)[0]
            if following > offset:
                break
            self._entry += size
        if not self._index:
            return os.fstat(self._file).st_mtime
        time: float = INDEX_ENTRY.unpack_from(self._index, self._entry)[1]
        return time


def _after_newline(block: bytes, count: int) -> int:
    """Return the place after the count-th newline from the end."""
    place = len(block)
    for _ in range(count):
        place = block.rfind(b"\n", 0, place)
    return place + 1


async def read_logs(
    directory: Path,
    *,
    env: Env,
    streams: Sequence[str] = STREAMS,
    tail: int | None = None,
    since: float | None = None,
    follow: bool = False,
    ended: Callable[[], bool] = lambda: True,
) -> AsyncGenerator[LogEntry, None]:
    """Yield the lines of a task's output, both streams merged by the time at which they were written.

    To be closed if it is left early (`contextlib.aclosing`).

    Args:
        directory: Where the log files are; it need not be there yet.
        env: Time and threads.
        streams: Which streams.
        tail: At most the last so many lines of what is there now, counted over all streams; fewer of very long ones.
        since: Only what was written since this wall time, in seconds.
        follow: Whether to go on with what is written from now on, until `ended`.
        ended: Tells whether nothing can be written any more; asked before the last look.

    """
    cursors = [LogCursor(directory, stream) for stream in streams]
    pause = _PAUSE_SECONDS_MIN
    try:
        for entry in await env.run_blocking(_begin, cursors, tail, since, follow=follow):
            yield entry
        pending: dict[LogCursor, deque[LogEntry]] = {cursor: deque() for cursor in cursors}
        while True:
            last = not follow or ended()
            found = False
            exhausted: set[LogCursor] = set()
            while (line := await _next(pending, exhausted, env)) is not None:
                found = True
                if since is None or line.time >= since:
                    yield line
            if last and not found:
                break
            pause = _PAUSE_SECONDS_MIN if found else min(2 * pause, _PAUSE_SECONDS_MAX)
            if not last:
                await env.sleep(pause)
        for entry in _by_time(entry for cursor in cursors for entry in cursor.read_rest()):
            if since is None or entry.time >= since:
                yield entry
    finally:
        for cursor in cursors:
            cursor.close()


async def _next(pending: dict[LogCursor, deque[LogEntry]], exhausted: set[LogCursor], env: Env) -> LogEntry | None:
    """Return the earliest of the streams' next lines, or None if there is none for now.

    A stream that had no more is not looked at again in the same round.
    """
    for cursor, lines in pending.items():
        if not lines and cursor not in exhausted:
            lines.extend(await env.run_blocking(cursor.read))
            if not lines:
                exhausted.add(cursor)
    ready = [lines for lines in pending.values() if lines]
    return min(ready, key=lambda lines: lines[0].time).popleft() if ready else None


def _begin(cursors: Sequence[LogCursor], tail: int | None, since: float | None, *, follow: bool) -> list[LogEntry]:
    """Put cursors where to begin; return the last lines, where those are asked for."""
    backlog = _backlog(cursors, tail, since) if tail is not None else []
    for cursor in cursors:
        if tail is None and since is not None:
            cursor.seek_time(since)
        if follow:
            cursor.go_on()
        elif tail is None:
            cursor.end_here()
    return backlog


def _backlog(cursors: Sequence[LogCursor], tail: int, since: float | None) -> list[LogEntry]:
    """Return the last lines over all streams, and leave the cursors behind them."""
    kept: list[LogEntry] = []
    for cursor in cursors:
        cursor.seek_tail(tail)
        cursor.end_here()
        last: deque[LogEntry] = deque()
        size_bytes = 0
        while lines := cursor.read():
            for line in lines:
                last.append(line)
                size_bytes += getsizeof(line.text)
                while len(last) > tail or size_bytes > BACKLOG_BYTES_MAX:
                    size_bytes -= getsizeof(last.popleft().text)
        kept += [entry for entry in last if since is None or entry.time >= since]
    return _by_time(kept)[-tail:] if tail else []


def _by_time(entries: Iterable[LogEntry]) -> list[LogEntry]:
    return sorted(entries, key=attrgetter("time"))
