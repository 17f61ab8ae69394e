"""The agent with real processes."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from attrs import evolve

from khonsu.agent.book import Book, Kept, read
from khonsu.agent.journal import open_journal
from khonsu.agent.state import TaskRun
from khonsu.core.ids import fencing_token
from khonsu.core.job import Artifact, ArtifactSource, Restart, Task
from khonsu.core.records import PortAssignment, TaskStatus
from khonsu.core.states import AllocationStatus, JobType, TaskState
from khonsu.drivers.binary import BinaryConfig
from khonsu.drivers.programs import node_platform
from khonsu.env import SystemEnv
from khonsu.supervisor.processes import look
from khonsu.testing import FakeDriver
from tests.agent.samples import a_group, an_assignment
from tests.agent.test_logs import lines, open_fifo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.agent.conftest import Home

pytestmark = pytest.mark.anyio

A = AllocationStatus
ONCE = Restart(attempts=0)
SLEEP = BinaryConfig("sleep", args=["1000"])


def shell(script: str) -> BinaryConfig:
    """Return the config of a shell script."""
    return BinaryConfig("sh", args=["-c", script])


async def output(home: Home, key: str) -> list[str]:
    """Return what a task printed, by line."""
    return [line["text"] for line in await lines(home, f"logs-{key}", allocation=key)]


async def until_said(home: Home, key: str, text: str = "") -> str:
    """Wait until a task has printed a line that holds a text, and return the line."""
    for number in count():
        printed = await lines(home, f"{key}-{number}", allocation=key)
        found = [line["text"] for line in printed if text in line["text"]]
        if found:
            return str(found[0])
    raise AssertionError


def the_task(home: Home, key: str) -> TaskStatus:
    """Return what was told of the one task of an allocation."""
    return home.desk.reports[key].tasks[0]


async def test_what_a_task_finds(home: Home) -> None:
    """Its environment, its arguments and its folder are what the job and the node make of them."""
    async with home.agent(labels={"rack": "r1"}):
        home.want(
            "a1",
            BinaryConfig("sh", args=["-c", 'env; pwd; echo "args $0 $1"', "${port.http}", "$${x} ${node.label.rack}"]),
            type=JobType.BATCH,
            task={"env": {"WHERE": "${node.attribute.os} ${meta.colour} $HOME $$"}},
            assignment={
                "meta": {"colour": "blue"},
                "slot": 4,
                "generation": 3,
                "ports": (PortAssignment(name="http", host=20001, task=20002),),
            },
        )
        await home.desk.until_status("a1", A.COMPLETE)
        found = await output(home, "a1")
        folder = f"{home.folder}/allocations/a1/one"
        variables = dict(line.split("=", 1) for line in found if "=" in line)
        assert variables["WHERE"] == f"{node_platform().split('/')[0]} blue $HOME $$"
        assert variables["KHONSU_PORT_HTTP"] == "20002"
        assert variables["KHONSU_ADDRESS_HTTP"] == "127.0.0.1:20001"
        assert variables["KHONSU_SLOT"] == "4"
        assert variables["KHONSU_EPOCH"] == str(fencing_token(1, 3, 1))
        assert variables["KHONSU_TASK_DIR"] == variables["PWD"] == folder
        assert variables["PATH"] == os.environ["PATH"]
        assert "PYTEST_CURRENT_TEST" not in variables
        assert found[-2:] == [folder, "args 20002 ${x} r1"]


async def test_a_relative_data_directory(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data directory may be given relative to where the agent starts."""
    monkeypatch.chdir(home.folder.parent)
    async with home.agent(data_dir=f"{home.folder.name}/node"):
        home.want("a1", shell("pwd; echo $KHONSU_TASK_DIR"), type=JobType.BATCH)
        await home.desk.until_status("a1", A.COMPLETE)
        assert await output(home, "a1") == [f"{home.folder}/node/allocations/a1/one"] * 2


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a folder to which everybody may pass: an agent that is root takes no artifact from another."""
    with tempfile.TemporaryDirectory(prefix="khonsu-test-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


async def test_an_artifact_is_run_from_the_folder(home: Home, public: Path) -> None:
    """A file by URL is put into the task's folder, checked, and can be its command; the platform chooses."""
    script = b"#!/bin/sh\necho from the artifact\n"
    (public / "tool.sh").write_bytes(script)
    source = ArtifactSource(source=f"file://{public}/tool.sh", sha256=hashlib.sha256(script).hexdigest())
    async with home.agent():
        artifact = Artifact(platforms={node_platform(): source}, destination="bin/tool")
        home.want("a1", BinaryConfig("bin/tool"), type=JobType.BATCH, task={"artifacts": [artifact]})
        await home.desk.until_status("a1", A.COMPLETE)
        assert await output(home, "a1") == ["from the artifact"]
        elsewhere = Artifact(platforms={"plan9/mips": source}, destination="tool")
        home.want("a2", BinaryConfig("./tool"), type=JobType.BATCH, task={"artifacts": [elsewhere]})
        await home.desk.until_status("a2", A.FAILED)
        assert f"there is no artifact for {node_platform()}, only for plan9/mips" in home.desk.reports["a2"].message
        wrong = Artifact(source=source.source, sha256="0" * 64)
        home.want("a3", BinaryConfig("./tool.sh"), type=JobType.BATCH, task={"artifacts": [wrong]}, restart=ONCE)
        await home.desk.until_status("a3", A.FAILED)
        assert "0000" in home.desk.reports["a3"].message


def foreign_program(folder: Path) -> Path:
    """Make a program for a machine that this is not."""
    machine = 0xB7 if node_platform() != "linux/arm64" else 0x3E
    path = folder / "foreign"
    path.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HH", 2, machine) + b"\0" * 44)
    path.chmod(0o755)
    return path


async def test_commands_that_cannot_run(home: Home, tmp_path: Path) -> None:
    """Not there, not executable, for another machine, for an unknown user: each says so, and is not tried again."""
    foreign = foreign_program(tmp_path)
    (tmp_path / "plain").write_text("text")
    cases: dict[str, tuple[BinaryConfig, dict[str, Any], str]] = {
        "absent": (BinaryConfig("no-such-tool"), {}, "there is no command 'no-such-tool' on the task's PATH"),
        "plain": (BinaryConfig(f"{tmp_path}/plain"), {}, "is not executable. Run on the node: chmod +x"),
        "foreign": (BinaryConfig(str(foreign)), {}, f"and this node is {node_platform()}"),
        "user": (BinaryConfig("true"), {"user": "nobody-like-that"}, "there is no user 'nobody-like-that'"),
        "label": (BinaryConfig("${node.label.rack}"), {}, "there is no value for ${node.label.rack} on this node"),
    }
    async with home.agent():
        for key, (config, task, _) in cases.items():
            home.want(key, config, type=JobType.BATCH, task=task)
        for key, (_, _, message) in cases.items():
            await home.desk.until_status(key, A.FAILED)
            assert message in home.desk.reports[key].message
            assert the_task(home, key).attempt == 1


async def test_a_command_that_is_missing_stops_its_neighbour_before_it_starts(home: Home) -> None:
    """All tasks of a group are prepared before the first of them is started."""
    async with home.agent():
        group = a_group(
            Task("good", {"command": "sleep", "args": ["1000"]}, driver="binary"),
            Task("bad", {"command": "no-such-tool"}, driver="binary"),
        )
        home.desk.assign(an_assignment("a1"), group)
        report = await home.desk.until_status("a1", A.FAILED)
        assert [(task.name, task.pid) for task in report.tasks] == [("good", None), ("bad", None)]


async def test_codes_and_signals_are_told_apart(home: Home) -> None:
    """An exit code is a code, a signal is a signal."""
    async with home.agent():
        home.want("code", shell("exit 3"), type=JobType.BATCH, restart=ONCE)
        home.want("signal", shell("kill -11 $$"), type=JobType.BATCH, restart=ONCE)
        await home.desk.until_status("code", A.FAILED)
        await home.desk.until_status("signal", A.FAILED)
        assert (the_task(home, "code").exit_code, the_task(home, "code").signal) == (3, None)
        assert (the_task(home, "signal").exit_code, the_task(home, "signal").signal) == (None, 11)


async def test_a_stop_ends_the_whole_group(home: Home) -> None:
    """The task has its time to obey the signal; children that do not obey are killed with it."""
    async with home.agent():
        script = "trap 'echo bye; exit 0' INT; (trap '' INT; sleep 1000) & echo $!; wait"
        home.want("a1", shell(script), task={"kill_signal": "SIGINT", "kill_timeout": 0.2})
        await home.desk.until_status("a1", A.RUNNING)
        child = int(await until_said(home, "a1"))
        home.desk.stop("a1")
        report = await home.desk.until_status("a1", A.STOPPED)
        assert report.tasks[0].exit_code == 0
        assert gone(child)
        assert await output(home, "a1") == [str(child), "bye"]


def gone(pid: int) -> bool:
    """Return whether a process has ended."""
    process = look(pid)
    return process is None or process.zombie


async def sleeper(home: Home, key: str) -> int:
    """Have a task sleep, and return its pid."""
    home.want(key, SLEEP)
    await home.desk.until_status(key, A.RUNNING)
    pid = the_task(home, key).pid
    assert pid is not None
    return pid


async def test_the_next_agent_finds_the_processes(home: Home) -> None:
    """The same process runs on, and what ended meanwhile is told with its exit code."""
    async with home.agent():
        home.want("stays", SLEEP)
        home.want("ends", shell("mkfifo fifo; echo ready; read line < fifo; exit 5"), type=JobType.BATCH, restart=ONCE)
        await home.desk.until_status("stays", A.RUNNING)
        await home.desk.until_status("ends", A.RUNNING)
        await until_said(home, "ends", "ready")
        pid, ending = the_task(home, "stays").pid, the_task(home, "ends").pid
    assert pid is not None
    assert ending is not None
    await open_fifo(home.folder / "allocations" / "ends" / "one" / "fifo")
    while not gone(ending):
        await anyio.lowlevel.checkpoint()
    async with home.agent(on_exit="stop"):
        await home.desk.until_status("ends", A.FAILED)
        assert the_task(home, "ends").exit_code == 5
        assert the_task(home, "stays").pid == pid
        assert not gone(pid)
    assert gone(pid)


async def test_a_damaged_journal_leaves_no_orphan(home: Home) -> None:
    """The agent starts, says what happened, ends what nobody knows of any more, and does not start it again."""
    async with home.agent():
        pid = await sleeper(home, "a1")
    journal = home.folder / "journal"
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b'"one"', b'"two"', 1))
    async with home.agent():
        assert gone(pid)
        assert "journal.damaged" in home.desk.facts[-1].attributes
        assert home.desk.syncs[-1].seen is not None or home.desk.syncs[-1].reports == ()
        await home.desk.until_status("a1", A.LOST)
    assert any("damaged" in path.name for path in home.folder.iterdir())


async def test_after_a_boot_nothing_is_started_twice(home: Home) -> None:
    """What may have run before the machine was started anew is lost; what was only noted begins."""
    async with home.agent():
        pid = await sleeper(home, "ran")
    async with open_journal(home.folder / "journal", SystemEnv()) as (journal, found):
        assert found.values["boot"]
        Book(journal, Kept()).note_boot("another boot")
    async with home.agent():
        report = await home.desk.until_status("ran", A.LOST)
        assert report.message == "the machine was started anew"
        assert report.tasks[0].status is TaskState.STOPPED
    os.kill(pid, 9)  # there was no boot
    while not gone(pid):
        await anyio.lowlevel.checkpoint()


async def test_an_exclusive_task_ends_with_the_lease(home: Home) -> None:
    """Without contact it is stopped when the lease runs out, though others run on; it is not started again here."""
    home.desk.lease_seconds, home.desk.interval_seconds = 0.6, 0.05
    async with home.agent():
        home.want("alone", SLEEP, exclusive=True, task={"kill_timeout": 1})
        home.want("other", SLEEP)
        await home.desk.until_status("alone", A.RUNNING)
        await home.desk.until_status("other", A.RUNNING)
        pid, other = the_task(home, "alone").pid, the_task(home, "other").pid
        assert pid is not None
        assert other is not None
        home.desk.up = False
        while not gone(pid):
            await SystemEnv().sleep(0.05)
        assert not gone(other)
        home.desk.up = True
        report = await home.desk.until_status("alone", A.LOST)
        assert report.message == "the lease of the node ran out"
        home.desk.stop("other")
        await home.desk.until_status("other", A.STOPPED)


async def test_a_driver_that_is_gone_leaves_no_orphan(home: Home) -> None:
    """An agent that is started without the driver of a task ends it, for nobody else would see it end."""
    async with home.agent():
        pid = await sleeper(home, "a1")
    async with home.agent(drivers=[FakeDriver(home.machine)]):
        report = await home.desk.until_status("a1", A.FAILED)
        assert "this node has no driver 'binary'" in report.message
        assert gone(pid)


async def test_what_cannot_be_prepared_again_does_not_run(home: Home, tmp_path: Path) -> None:
    """An agent that was killed between a start and its note may find that the task can be prepared no more."""
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nexec sleep 1000\n")
    tool.chmod(0o755)
    async with home.agent():
        home.want("a1", BinaryConfig(str(tool)))
        await home.desk.until_status("a1", A.RUNNING)
        pid = the_task(home, "a1").pid
    assert pid is not None
    tool.unlink()
    async with open_journal(home.folder / "journal", SystemEnv()) as (journal, found):
        book = Book(journal, read(found.values))
        (state,) = book.states.values()
        task = TaskStatus(name="one", status=TaskState.PREPARING, attempt=1)
        progress = evolve(
            state.progress, status=A.STARTING, tasks=(TaskRun(status=task, prepared=True, starting=True),)
        )
        book.note(evolve(state, progress=progress))
    async with home.agent():
        report = await home.desk.until_status("a1", A.FAILED)
        assert "there is no command" in report.message
        assert gone(pid)
