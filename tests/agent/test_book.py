from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from khonsu.agent.book import Book, Kept, read
from khonsu.agent.events import Begin, Prepared, Started
from khonsu.agent.journal import open_journal
from khonsu.agent.lifecycle import step
from khonsu.agent.state import AllocationState
from khonsu.core.ids import AllocationId
from khonsu.core.records import PortAssignment, Time
from khonsu.core.revision import Revision
from khonsu.env import SystemEnv
from tests.agent.samples import a_group, a_task, an_assignment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_a_book_is_read_as_it_was_left(tmp_path: Path) -> None:
    """Allocations, their groups and what was seen come back after a restart, and what was forgotten does not."""
    group = a_group(a_task(env={"A": "ä"}, kill_timeout="7s"), ports={"http": "dynamic"})
    ports = (PortAssignment(name="http", host=20_000, task=20_000),)
    one, two = (AllocationState(assignment=an_assignment(key, ports=ports), group=group) for key in ("one", "two"))
    async with open_journal(tmp_path / "journal", SystemEnv()) as (journal, found):
        assert read(found.values) == Kept()
        book = Book(journal, Kept())
        for state in (one, two):
            book.note(state)
        book.note_boot("boot")
        book.note_seen(Revision(2, 7))
        for event in (
            Begin(now=1.0),
            Prepared(task="one", attempt=1),
            Started(task="one", attempt=1, handle={"pid": 3, "x": [1, {}]}, at=Time(5.0), now=2.0),
        ):
            one, _ = step(one, event)
            book.note(one)
        book.forget(AllocationId("two"))
        book.forget(AllocationId("nobody"))
    async with open_journal(tmp_path / "journal", SystemEnv()) as (journal, found):
        assert read(found.values) == Kept(states=(one,), seen=Revision(2, 7), boot="boot")
        book = Book(journal, read(found.values))
        book.forget(AllocationId("alloc"))
        book.forget(AllocationId("one"))
    async with open_journal(tmp_path / "journal", SystemEnv()) as (_, found):
        assert set(found.values) == {"seen", "boot"}


async def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """An entry of another version keeps no agent from starting with the others, and does not stay for ever."""
    states = [AllocationState(assignment=an_assignment(key), group=a_group()) for key in ("one", "two")]
    async with open_journal(tmp_path / "journal", SystemEnv()) as (journal, _):
        book = Book(journal, Kept())
        for state in states:
            book.note(state)
        journal.put("progress/one", {"status": "dancing"})
        journal.put("group/of nobody", {})
    async with open_journal(tmp_path / "journal", SystemEnv()) as (journal, found):
        kept = read(found.values)
        assert kept.states == (states[1],)
        Book(journal, kept)
    async with open_journal(tmp_path / "journal", SystemEnv()) as (_, found):
        assert read(found.values) == Kept(states=(states[1],))
