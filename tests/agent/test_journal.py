from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.agent import journal as journals
from khonsu.agent.journal import Damaged, decode, encode, open_journal, replay
from khonsu.env import SystemEnv
from khonsu.errors import StoreTooNew, UnsafeFile

if TYPE_CHECKING:
    from pathlib import Path

HEADER = encode({"khonsu-journal": 1})
KEYS = st.sampled_from(["a", "b", "c"])
RECORDS = st.lists(
    st.one_of(
        st.builds(lambda key, value: {"put": key, "value": value}, KEYS, st.integers() | st.text()),
        st.builds(lambda key: {"drop": key}, KEYS),
    ),
    max_size=12,
)


class Patient(SystemEnv):
    """Does not wait before it tries again, but says that it would."""

    def __init__(self) -> None:
        super().__init__()
        self.slept = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.set()
        await anyio.lowlevel.checkpoint()


def lines(records: list[dict[str, Any]]) -> bytes:
    """Return a file."""
    return HEADER + b"".join(map(encode, records))


@given(RECORDS)
def test_the_last_record_of_a_key_counts(records: list[dict[str, Any]]) -> None:
    """What is read is what a dictionary would hold."""
    expected: dict[str, Any] = {}
    for record in records:
        if "put" in record:
            expected[record["put"]] = record["value"]
        else:
            expected.pop(record["drop"], None)
    assert replay(decode(lines(records))) == expected


@given(RECORDS, st.data())
def test_an_end_that_was_cut_is_forgotten(records: list[dict[str, Any]], data: st.DataObject) -> None:
    """A file cut anywhere, or with garbage at its end, holds what was written before that."""
    whole = lines(records)
    cut = data.draw(st.integers(len(HEADER), len(whole)))
    tail = data.draw(st.sampled_from([b"", b"\0" * 40, b"zz\nzz\n"]))
    assert list(decode(whole[:cut] + tail)) == records[: whole[:cut].count(b"\n") - 1]


@given(RECORDS.filter(lambda records: len(records) > 1), st.data())
def test_damage_in_the_middle_is_found(records: list[dict[str, Any]], data: st.DataObject) -> None:
    """A bit that changed before a line that is right is damage, and nothing is taken from such a file."""
    last = encode(records[-1])
    whole = lines(records)
    place = data.draw(st.integers(len(HEADER), len(whole) - len(last) - 2))
    changed = bytearray(whole)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Damaged):
        list(decode(bytes(changed)))


def test_a_hole_ends_it() -> None:
    """Of what had not reached the disk at a power cut, a part behind may be there and one before it not."""
    whole = encode({"khonsu-journal": 1}) + encode({"put": "a", "value": 1}) + encode({"put": "b", "value": 2})
    tail = b"".join(encode({"put": f"c{number}", "value": "x" * 100}) for number in range(10))
    holed = tail[:50] + bytes(512) + tail[562:]
    assert list(decode(whole + holed)) == list(decode(whole))


def test_what_is_no_journal_is_damage() -> None:
    """A file of somebody else is not read as a journal."""
    with pytest.raises(Damaged):
        list(decode(b"hello\nworld\n" + encode({"put": "a", "value": 1})))
    with pytest.raises(Damaged):
        list(decode(encode({"put": "a", "value": 1})))


def test_a_journal_of_a_newer_version_is_refused() -> None:
    """What a newer Khonsu wrote is neither guessed at nor set aside."""
    with pytest.raises(StoreTooNew, match="newer"):
        list(decode(encode({"khonsu-journal": 2})))


@pytest.mark.anyio
async def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    """Values survive, dropped ones do not, and what was durable did not wait for the end."""
    path = tmp_path / "journal"
    async with open_journal(path, SystemEnv()) as (journal, found):
        assert found.values == {}
        journal.put("a", {"x": [1, None]})
        journal.put("b", 1)
        journal.drop("b")
        journal.drop("nothing")
        await journal.durable()
        assert replay(decode(path.read_bytes())) == {"a": {"x": [1, None]}}
        journal.put("c", 2)
    async with open_journal(path, SystemEnv()) as (_, found):
        assert found.values == {"a": {"x": [1, None]}, "c": 2}
        assert found.damaged is None
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.anyio
async def test_many_at_once_cost_a_few_waits_for_the_disk(tmp_path: Path) -> None:
    """Those who wait for the disk at the same time wait for the same sync."""
    async with open_journal(tmp_path / "journal", SystemEnv()) as (journal, _), anyio.create_task_group() as tasks:

        async def note(number: int) -> None:
            journal.put(f"k{number}", number)
            await journal.durable()

        for number in range(200):
            tasks.start_soon(note, number)
    assert journal.syncs <= 5


@pytest.mark.anyio
async def test_what_is_safe_is_not_waited_for_again(tmp_path: Path) -> None:
    """Waiting for a line that went to the disk with an earlier one costs nothing, whatever was noted since."""
    async with open_journal(tmp_path / "journal", SystemEnv()) as (journal, _):
        for number in range(200):
            journal.put(f"k{number}", number)
        position = journal.position
        await journal.durable()
        syncs = journal.syncs
        journal.put("later", 1)
        for _ in range(200):
            await journal.durable(position)
        assert journal.syncs == syncs
        await journal.durable()
        assert journal.syncs == syncs + 1


@pytest.mark.anyio
async def test_a_damaged_journal_is_set_aside(tmp_path: Path) -> None:
    """The agent starts with nothing, the file is kept, and it is told where, until somebody takes it away."""
    path = tmp_path / "journal"
    bad = HEADER + b"00000000 {}\n" + encode({"put": "a", "value": 1})
    path.write_bytes(bad)
    async with open_journal(path, SystemEnv()) as (journal, found):
        assert found.values == {}
        (aside,) = [tmp_path / name for name in os.listdir(tmp_path) if "damaged" in name]
        assert aside.read_bytes() == bad
        assert found.damaged == f"line 2 does not fit its checksum; it is now {aside}"
        journal.put("b", 2)
    async with open_journal(path, SystemEnv()) as (_, found):
        assert (found.values, found.damaged) == ({"b": 2}, f"an earlier one was damaged; it is now {aside}")
    path.unlink()
    async with open_journal(path, SystemEnv()) as (_, found):
        assert (found.values, found.damaged) == ({}, f"an earlier one was damaged; it is now {aside}")
    aside.unlink()
    async with open_journal(path, SystemEnv()) as (_, found):
        assert found.damaged is None


@pytest.mark.anyio
async def test_it_is_written_anew_when_most_of_it_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays within a multiple of what is live in it."""
    monkeypatch.setattr("khonsu.agent.journal.COMPACT_BYTES_MIN", 10_000)
    path = tmp_path / "journal"
    async with open_journal(path, SystemEnv()) as (journal, _):
        journal.put("stays", 1)
        for number in range(100):
            journal.put("changes", "x" * 1000)
            journal.put(f"gone{number}", "y" * 100)
            journal.drop(f"gone{number}")
            await journal.durable()
            assert path.stat().st_size < 16_000
    async with open_journal(path, SystemEnv()) as (_, found):
        assert set(found.values) == {"stays", "changes"}


@pytest.mark.anyio
async def test_a_disk_that_fails_is_waited_for(tmp_path: Path) -> None:
    """While the journal cannot be written nobody is told that it was; then all of it is there."""
    path, env = tmp_path / "journal", Patient()
    hindrance = tmp_path / "journal.new"
    hindrance.mkdir()
    said: list[str] = []
    async with open_journal(path, env) as (journal, _), anyio.create_task_group() as tasks:

        async def note(key: str) -> None:
            journal.put(key, key)
            await journal.durable()
            said.append(key)

        tasks.start_soon(note, "a")
        await env.slept.wait()
        tasks.start_soon(note, "b")
        await anyio.lowlevel.checkpoint()
        assert said == []
        hindrance.rmdir()
    assert sorted(said) == ["a", "b"]
    assert replay(decode(path.read_bytes())) == {"a": "a", "b": "b"}


@pytest.mark.anyio
async def test_the_end_waits_for_a_write_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file is not closed under a write, which might then go to whatever is opened next."""
    begun, go_on = threading.Event(), threading.Event()
    write = journals._write

    def slow(file: int, data: bytes, fsync: Any) -> int:
        begun.set()
        assert go_on.wait(10.0)
        return write(file, data, fsync)

    async def release() -> None:
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        go_on.set()

    path = tmp_path / "journal"
    async with anyio.create_task_group() as group:
        async with open_journal(path, SystemEnv()) as (journal, _):
            journal.put("a", 1)
            await journal.durable()
            monkeypatch.setattr(journals, "_write", slow)
            journal.put("b", 2)
            group.start_soon(journal.durable)
            while not begun.is_set():
                await anyio.lowlevel.checkpoint()
            group.start_soon(release)
        assert go_on.is_set()
    async with open_journal(path, SystemEnv()) as (_, found):
        assert found.values == {"a": 1, "b": 2}
    assert caplog.messages == []


@pytest.mark.anyio
async def test_an_empty_journal_is_damage_and_each_has_its_name(tmp_path: Path) -> None:
    """A journal is put in its place whole, so that an empty one has lost what it held; two keep two names."""
    path = tmp_path / "journal"

    class Noon(SystemEnv):
        def now(self) -> float:
            return 1000.0

    for content in (b"", b"other"):
        path.write_bytes(content)
        async with open_journal(path, Noon()) as (_, found):
            assert found.damaged is not None
    assert [(tmp_path / f"journal.damaged-{number}").read_bytes() for number in (1000, 1001)] == [b"", b"other"]


def test_a_line_that_is_no_json_is_damage() -> None:
    """Zeros may be the right checksum of nothing."""
    with pytest.raises(Damaged):
        list(decode(HEADER + b"00000000 \n" + encode({"put": "a", "value": 1})))


@pytest.mark.anyio
async def test_a_journal_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    """What is in its place is named."""
    (tmp_path / "journal").mkdir()
    with pytest.raises(UnsafeFile, match="cannot be read"):
        async with open_journal(tmp_path / "journal", SystemEnv()):
            pass
