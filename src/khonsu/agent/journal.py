"""The journal: what an agent must still know after it was killed. Values by key, in a file that is only appended to.

Each line is a checksum and a JSON object: a value that is put, or a key that is dropped; the last one counts. Lines
are written by one thread, and as many as have come together with one `fsync`. A line that was cut by a power cut can
only be the end of the file and was promised to nobody, and so is what follows a hole; anything else that does not fit
its checksum is damage, and then the file is set aside as a whole: half of a history would start things twice.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
from attrs import define, field, frozen

from khonsu.core.job import JSON
from khonsu.env import Env, Worker
from khonsu.errors import StoreTooNew, UnsafeFile
from khonsu.scopes import bare_task_group, first

FORMAT: Final = 1
COMPACT_BYTES_MIN: Final = 4 * 2**20
COMPACT_SHARE: Final = 4
"""The file is written anew when it is larger than this many times what is live in it."""
ASIDE: Final = ".damaged-"
"""Between the name of a journal and the time at which it was set aside."""
RETRY_SECONDS: Final = 1.0
LAZY_SECONDS: Final = 0.05
"""How long a line waits for others when nobody waits for it; what is lost with it can be found out again."""

_HEADER: Final = {"khonsu-journal": FORMAT}
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_log = logging.getLogger(__name__)


class Damaged(Exception):
    """A journal cannot be trusted."""


def encode(record: Mapping[str, JSON]) -> bytes:
    """Return a line."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode(data: bytes) -> Iterator[Mapping[str, JSON]]:
    """Yield the records of a journal, without its header and without an end that was cut.

    Raises:
        Damaged: Something in the middle does not fit its checksum, or it is no journal.
        StoreTooNew: A newer Khonsu wrote it.

    """
    records = list(_records(data))
    if not records:
        return
    first = records[0]
    version = first.get("khonsu-journal") if first is not None else None
    if not isinstance(version, int):
        raise Damaged("it does not begin like a journal")
    if version > FORMAT:
        raise StoreTooNew(
            "the journal of this agent was written by a newer Khonsu",
            hint="Upgrade this one, or give it a data directory of its own",
        )
    whole = len(records)
    while records[whole - 1] is None:
        whole -= 1
    for number, record in enumerate(records[1:whole], 2):
        if record is None:
            raise Damaged(f"line {number} does not fit its checksum")
        yield record


def _records(data: bytes) -> Iterator[Mapping[str, JSON] | None]:
    """Yield each line as a record, or None for one that does not fit its checksum."""
    lines = data.split(b"\n")
    last = lines.pop()
    for line in lines:
        if b"\0\0" in line:
            # A hole: a part that had not reached the disk when the power went, while one behind it had. Nobody was
            # promised any of it, for an `fsync` leaves no holes.
            yield None
            return
        yield _record(line)
    if last:
        yield None


def _record(line: bytes) -> Mapping[str, JSON] | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        record = json.loads(text)
    except ValueError:  # the checksum of nothing is zero
        return None
    return record if isinstance(record, dict) else None


def replay(records: Iterable[Mapping[str, JSON]]) -> dict[str, JSON]:
    """Return the values that are left after all records."""
    values: dict[str, JSON] = {}
    for record in records:
        if "put" in record:
            values[record["put"]] = record["value"]
        else:
            values.pop(record["drop"], None)
    return values


@frozen(kw_only=True)
class Found:
    """What a journal held when it was opened."""

    values: dict[str, JSON]
    damaged: str | None = None
    """What was wrong with it and where it was put, if it was set aside; or where an earlier one is that was."""


@define(eq=False)
class _Batch:
    """Lines that go to the disk together, and who waits for them to be safe there."""

    lines: list[bytes] = field(factory=list)
    waiting: list[anyio.Event] = field(factory=list)


class Journal:
    """An open journal, used from the event loop; see `open_journal`."""

    def __init__(self, path: Path, worker: Worker, env: Env, values: Mapping[str, JSON]) -> None:
        """Begin with these values; the file is written anew with the first of them."""
        self._path = path
        self._worker = worker
        self._env = env
        self._live = {key: encode({"put": key, "value": value}) for key, value in values.items()}
        self._live_bytes = sum(map(len, self._live.values()))
        self._file = -1
        self._file_bytes = 0
        self._open = _Batch()
        self._work = anyio.Event()
        self._hurry = anyio.Event()
        self._rewrite = True
        self._safe = 0
        self.position = 0
        """How many lines were noted."""
        self.syncs = 0
        """How often the disk was waited for."""

    def put(self, key: str, value: JSON) -> None:
        """Note a value; it is on its way to the disk when this returns."""
        line = encode({"put": key, "value": value})
        self._live_bytes += len(line) - len(self._live.get(key, b""))
        self._live[key] = line
        self._append(line)

    def drop(self, key: str) -> None:
        """Note that a value is no longer needed."""
        line = self._live.pop(key, None)
        if line is not None:
            self._live_bytes -= len(line)
            self._append(encode({"drop": key}))

    def _append(self, line: bytes) -> None:
        self._open.lines.append(line)
        self.position += 1
        self._work.set()

    async def durable(self, position: int | None = None) -> None:
        """Wait until what was noted survives a power cut; while the disk is full it waits.

        Args:
            position: What `position` was after it was noted; by default all that was noted before this call.

        """
        if self._safe >= (self.position if position is None else position) and not self._rewrite:
            return
        safe = anyio.Event()
        self._open.waiting.append(safe)
        self._work.set()
        self._hurry.set()
        await safe.wait()

    async def write(self) -> None:
        """Write batch after batch, for ever."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            if not self._open.waiting:
                await first(self._hurry, self._env.sleep, LAZY_SECONDS)
            self._hurry = anyio.Event()
            while not await self._write_batch():
                await self._env.sleep(RETRY_SECONDS)

    async def close(self) -> None:
        """Write what is left, if that is possible, and close the file."""
        try:
            await self._write_batch()
        finally:
            if self._file >= 0:
                os.close(self._file)

    async def _write_batch(self) -> bool:
        """Write the open batch; on failure it stays open, and the whole file is written anew next time."""
        batch, self._open = self._open, _Batch()
        end = self.position
        if self._file_bytes > max(COMPACT_BYTES_MIN, COMPACT_SHARE * self._live_bytes):
            self._rewrite = True
        sync = bool(batch.waiting) or self._rewrite
        try:
            if self._rewrite:
                await self._write_anew()
            elif batch.lines or sync:
                self._file_bytes += await self._worker.run(
                    _write, self._file, b"".join(batch.lines), self._env.fsync if sync else None
                )
                self.syncs += sync
        except OSError as error:
            _log.warning("the journal %s cannot be written (%s); until then nothing new is started", self._path, error)
            self._rewrite = True
            # All that is live is written anew then; the lines would only take memory for as long as that fails.
            self._open = _Batch(waiting=batch.waiting + self._open.waiting)
            return False
        self._safe = end if sync else self._safe
        for safe in batch.waiting:
            safe.set()
        return True

    async def _write_anew(self) -> None:
        """Write a file of what is live, and let it take the place of the old one."""
        data = encode(_HEADER) + b"".join(self._live.values())
        file = await self._worker.run(_write_file, self._path, data, self._env.fsync)
        old, self._file = self._file, file
        self._file_bytes = len(data)
        self._rewrite = False
        self.syncs += 1
        if old >= 0:
            await self._worker.run(os.close, old)


@asynccontextmanager
async def open_journal(path: Path, env: Env) -> AsyncGenerator[tuple[Journal, Found], None]:
    """Own a journal for the length of a block; yields it and what it held.

    A damaged file is renamed and left for whoever wants to look at it.

    Raises:
        StoreTooNew: A newer Khonsu wrote it.
        UnsafeFile: It may not be read.

    """
    async with env.worker("journal") as worker:
        found = await worker.run(_read, path, int(env.now()))
        journal = Journal(path, worker, env, found.values)
        try:
            async with bare_task_group() as group:
                group.start_soon(journal.write)
                try:
                    yield journal, found
                finally:
                    group.cancel_scope.cancel()
        finally:
            # Not before the task above has ended: it may be in the middle of a write, to a file that must be open.
            with anyio.CancelScope(shield=True):
                await journal.close()


# What runs on the thread.


def _read(path: Path, now: int) -> Found:
    """Read a journal, or set it aside."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Found(values={}, damaged=_earlier(path))
    except OSError as error:
        if error.errno != errno.EIO:
            raise UnsafeFile(str(path), f"cannot be read: {error.strerror}") from error
        return _put_aside(path, now, "the disk cannot read it")
    try:
        if not data:
            raise Damaged("it is empty")
        return Found(values=replay(decode(data)), damaged=_earlier(path))
    except Damaged as error:
        return _put_aside(path, now, str(error))


def _put_aside(path: Path, now: int, why: str) -> Found:
    """Rename a journal that cannot be used; one that was set aside before keeps its name."""
    aside = path.with_name(f"{path.name}{ASIDE}{now}")
    while aside.exists():
        now += 1
        aside = path.with_name(f"{path.name}{ASIDE}{now}")
    path.rename(aside)
    return Found(values={}, damaged=f"{why}; it is now {aside}")


def _earlier(path: Path) -> str | None:
    """Return where an earlier journal is that was set aside.

    It is told until somebody has taken it away: an agent that ends before it was heard tells it at the next start.
    """
    aside = max(path.parent.glob(f"{path.name}{ASIDE}*"), default=None)
    return None if aside is None else f"an earlier one was damaged; it is now {aside}"


def _write(file: int, data: bytes, fsync: Callable[[int], None] | None) -> int:
    """Append to the file, and wait for the disk where that is wanted; returns how much."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
    if fsync is not None:
        fsync(file)
    return len(data)


def _write_file(path: Path, data: bytes, fsync: Callable[[int], None]) -> int:
    """Write a file that takes the place of another once it is safe, and return its descriptor."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    file = os.open(temporary, _FLAGS | os.O_EXCL, 0o600)
    try:
        _write(file, data, fsync)
        temporary.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fsync(directory)
        finally:
            os.close(directory)
    except BaseException:
        os.close(file)
        raise
    return file
