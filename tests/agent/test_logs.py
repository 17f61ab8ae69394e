from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from khonsu.core.job import Restart
from khonsu.core.states import AllocationStatus, JobType
from khonsu.drivers.binary import BinaryConfig
from khonsu.testing import FakeConfig
from tests.agent.samples import a_group, a_task, an_assignment

if TYPE_CHECKING:
    from tests.agent.conftest import Home

pytestmark = pytest.mark.anyio

A = AllocationStatus
TALK = "echo one; echo two >&2; printf three"


async def lines(home: Home, key: str, **parameters: Any) -> list[dict[str, Any]]:
    """Ask for logs and return them."""
    home.desk.ask(key, **parameters)
    await home.desk.until(lambda: home.desk.streams.get(key, [b""])[-1:] == [b"END"])
    found: list[dict[str, Any]] = home.desk.lines(key)
    return found


async def talk(home: Home, key: str, script: str = TALK) -> None:
    """Have a batch task print something, and wait until it is over and forgotten."""
    home.want(key, BinaryConfig("sh", args=["-c", script]), type=JobType.BATCH)
    await home.desk.until_status(key, A.COMPLETE)


async def test_logs_of_what_has_ended(home: Home) -> None:
    """The output of a task is there after its end: which stream, which task, and when."""
    async with home.agent():
        await talk(home, "a1")
        found = await lines(home, "l1", allocation="a1")
        assert sorted((line["stream"], line["text"]) for line in found) == [
            ("stderr", "two"),
            ("stdout", "one"),
            ("stdout", "three"),
        ]
        assert {(line["allocation"], line["task"]) for line in found} == {("a1", "one")}
        assert all(line["at"].endswith("Z") for line in found)
    async with home.agent():
        assert len(await lines(home, "l2", allocation="a1")) == 3


async def test_a_part_of_the_logs(home: Home) -> None:
    """One stream, one task, the last lines, or what came since a time."""
    async with home.agent():
        await talk(home, "a1", "for i in 1 2 3 4; do echo $i; done; echo bad >&2")
        assert [line["text"] for line in await lines(home, "l1", allocation="a1", stream="stdout", tail=2)] == [
            "3",
            "4",
        ]
        assert [line["text"] for line in await lines(home, "l2", allocation="a1", stream="stderr")] == ["bad"]
        assert len(await lines(home, "l3", allocation="a1", task="one")) == 5
        assert await lines(home, "l4", allocation="a1", since=4e9) == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"allocation": "nothing"},
        {"allocation": "a1", "task": "nobody"},
        {"allocation": "../a1"},
        {"allocation": "a1", "task": "../one"},
    ],
)
async def test_what_is_not_there_is_empty(home: Home, parameters: dict[str, Any]) -> None:
    """Nothing was printed by what was never here, and no name leads out of the folder."""
    async with home.agent():
        await talk(home, "a1")
        assert await lines(home, "l1", **parameters) == []


async def test_what_is_asked_with_a_lost_answer_is_asked_again(home: Home) -> None:
    """A request that came with an answer that was lost is served, once, and is not told again after that."""
    async with home.agent():
        await talk(home, "a1")
        home.desk.lost_answers = 1
        assert len(await lines(home, "l1", allocation="a1")) == 3
        assert home.desk.lost_answers == 0
        await home.desk.until(lambda: not home.desk.requests)
    assert [sync.taken for sync in home.desk.syncs if sync.taken] == [("l1",)]
    assert home.desk.streams["l1"].count(b"END") == 1


async def test_following_a_task_until_it_ends(home: Home) -> None:
    """Lines come as they are printed, over restarts too, and the stream ends with the task."""
    async with home.agent():
        script = 'echo "attempt $KHONSU_ATTEMPT"; read line < "$KHONSU_TASK_DIR/fifo"; test $KHONSU_ATTEMPT = 2'
        config = BinaryConfig("sh", args=["-c", f"test -e fifo || mkfifo fifo; {script}"])
        home.want("a1", config, type=JobType.BATCH, restart=Restart(delay=0.01))
        await home.desk.until_status("a1", A.RUNNING)
        home.desk.ask("l1", allocation="a1", follow=True)
        fifo = home.folder / "allocations" / "a1" / "one" / "fifo"
        for attempt in (1, 2):
            await home.desk.until(partial(said, home, "l1", f"attempt {attempt}"))
            await open_fifo(fifo)
        await home.desk.until_status("a1", A.COMPLETE)
        await home.desk.until(lambda: home.desk.streams["l1"][-1] == b"END")
        assert [line["text"] for line in home.desk.lines("l1")] == ["attempt 1", "attempt 2"]


def said(home: Home, key: str, text: str) -> bool:
    """Return whether a stream holds a text so far."""
    return text.encode() in b"".join(home.desk.streams.get(key, []))


async def open_fifo(path: Any) -> None:
    """Let a task go on that reads from a FIFO."""
    from anyio import to_thread

    await to_thread.run_sync(path.write_text, "go\n")


async def test_a_reader_that_is_gone_harms_nothing(home: Home) -> None:
    """Whoever asked may not be there any more; what was asked in a way that is not known is left alone."""
    async with home.agent():
        await talk(home, "a1")
        home.desk.ask("gone", allocation="a1")
        home.desk.ask("bad", allocation=5)
        assert len(await lines(home, "l1", allocation="a1")) == 3


@pytest.mark.parametrize(
    "parameters",
    [{"allocation": "a" * 300}, {"allocation": "a1", "tail": -1}, {"allocation": "a1", "tail": 10**9}],
)
async def test_what_cannot_be_answered_ends_no_agent(home: Home, parameters: dict[str, Any]) -> None:
    """A request that no control plane of ours would make is refused, and the next one is answered."""
    async with home.agent():
        await talk(home, "a1")
        home.desk.ask("bad", **parameters)
        assert len(await lines(home, "l1", allocation="a1")) == 3


async def test_logs_that_cannot_be_read_end_no_agent(home: Home) -> None:
    """What is no log among the logs of several tasks cuts the stream, whether or not it is followed."""
    async with home.agent():
        group = a_group(*(a_task(name, config=FakeConfig(run_seconds=1000.0)) for name in ("one", "two")))
        home.desk.assign(an_assignment("a1"), group)
        await home.desk.until_status("a1", A.RUNNING)
        for task in ("one", "two"):
            (home.folder / "allocations" / "a1" / ".khonsu" / task / "logs" / "stdout.0").mkdir()
        for key, follow in (("f1", True), ("f2", False)):
            home.desk.ask(key, allocation="a1", follow=follow)
            await home.desk.until(lambda: not home.desk.requests)
        await talk(home, "a2")
        assert len(await lines(home, "l1", allocation="a2")) == 3
        home.desk.stop("a1")
        await home.desk.until_status("a1", A.STOPPED)


async def test_much_output_arrives_whole(home: Home) -> None:
    """A long log comes in order and without a loss."""
    async with home.agent():
        await talk(home, "a1", "seq 1 6000")
        found = await lines(home, "l1", allocation="a1")
        assert [line["text"] for line in found] == [str(number) for number in range(1, 6001)]
