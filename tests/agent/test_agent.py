from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest
from attrs import field, frozen

from khonsu.agent.agent import Agent
from khonsu.agent.journal import open_journal
from khonsu.core.job import Restart, Update
from khonsu.core.states import AllocationStatus, JobType, TaskState
from khonsu.env import SystemEnv
from khonsu.errors import Conflict, InvalidRequest, Unauthenticated, UnsafeFile
from khonsu.testing import FakeConfig, FakeDriver
from tests.agent.conftest import Hasty
from tests.agent.desk import Desk
from tests.agent.samples import a_group, a_task, an_assignment

if TYPE_CHECKING:
    from tests.agent.conftest import Home

pytestmark = pytest.mark.anyio

A = AllocationStatus


async def test_it_is_registered_on_entry(home: Home) -> None:
    """The block is entered when the node has joined and told what it is."""
    async with home.agent(labels={"disk": "ssd"}, pool="edge"):
        assert list(home.desk.nodes) == ["node0"]
        first = home.desk.syncs[0]
        assert first.seen is None
        assert first.facts is not None
        assert (first.facts.labels, first.facts.pool) == ({"disk": "ssd"}, "edge")
        assert first.facts.attributes["driver.fake.version"] == "1"
    async with home.agent():
        assert list(home.desk.nodes) == ["node0"]
        assert home.desk.syncs[-1].session != first.session


async def test_a_service_runs_until_it_is_stopped(home: Home) -> None:
    """What is wanted is started, told, and stopped when it is not wanted any more."""
    async with home.agent():
        home.want("a1")
        report = await home.desk.until_status("a1", A.RUNNING)
        assert report.tasks[0].status is TaskState.RUNNING
        assert report.tasks[0].pid is not None
        home.desk.stop("a1")
        report = await home.desk.until_status("a1", A.STOPPED)
        assert report.tasks[0].signal == 15
    assert home.machine.started == ["a1/one/1"]


async def test_a_batch_task_completes(home: Home) -> None:
    """The exit code is told, and then the agent has forgotten the copy."""
    async with home.agent():
        home.want("good", FakeConfig(run_seconds=0.0), type=JobType.BATCH)
        home.want("bad", FakeConfig(run_seconds=0.0, exit_code=7), type=JobType.BATCH, restart=Restart(attempts=0))
        assert (await home.desk.until_status("good", A.COMPLETE)).tasks[0].exit_code == 0
        assert (await home.desk.until_status("bad", A.FAILED)).tasks[0].exit_code == 7


async def test_a_task_is_restarted_and_then_fails(home: Home) -> None:
    """Each attempt is told, and the last one ends the copy."""
    async with home.agent():
        config = FakeConfig(run_seconds=0.0, exit_code=1)
        home.want("a1", config, restart=Restart(attempts=2, delay=0.01, delay_max=0.01))
        report = await home.desk.until_status("a1", A.FAILED)
        assert report.tasks[0].attempt == 3
        assert report.health is False
    assert home.machine.started == ["a1/one/1", "a1/one/2", "a1/one/3"]


async def test_health_is_told(home: Home) -> None:
    """A service that has run for long enough is healthy."""
    async with home.agent():
        home.want("a1", update=Update(healthy_for=0.05))
        await home.desk.until(lambda: "a1" in home.desk.reports and home.desk.reports["a1"].health is True)


@pytest.mark.parametrize("verb", ["prepare", "start"])
async def test_what_cannot_run_says_why(home: Home, verb: Literal["prepare", "start"]) -> None:
    """A refusal of the driver is the reason that is told."""
    async with home.agent():
        home.want("a1", FakeConfig(fails=verb))
        report = await home.desk.until_status("a1", A.FAILED)
        assert report.message == f"task one: the fake driver does not {verb} one"
    assert home.machine.started == []


async def test_a_folder_that_cannot_be_made_is_tried_again(home: Home) -> None:
    """A disk that does not allow it may do so later; after the last try it is what the copy failed of."""
    async with home.agent():
        (home.folder / "allocations" / "a1").write_text("in the way")
        home.want("a1", restart=Restart(attempts=1, delay=0.01))
        report = await home.desk.until_status("a1", A.FAILED)
        assert report.tasks[0].attempt == 2
        assert "cannot make" in report.message
        assert "Look at the agent's disk" in report.message


async def test_an_unknown_driver_says_which_there_are(home: Home) -> None:
    """A task of a driver that the node does not have fails at once."""
    async with home.agent():
        group = a_group(a_task(driver="oci"))
        home.desk.assign(an_assignment("a1"), group)
        report = await home.desk.until_status("a1", A.FAILED)
        assert "this node has no driver 'oci'. It has: binary, fake" in report.message


async def test_a_config_that_its_own_class_stumbles_over_ends_no_agent(home: Home) -> None:
    """Whatever a driver's config raises when it is made of what a job says, that is what the copy failed of."""

    def stumble(_: object, __: object, path: str) -> None:
        raise AttributeError(f"{path} has none")

    @frozen
    class Config:
        path: str = field(validator=stumble)

    class Odd(FakeDriver):
        name = "odd"
        config_type = Config  # type: ignore[assignment]

    async with home.agent(drivers=[Odd(home.machine)]):
        home.desk.assign(an_assignment("a1"), a_group(a_task(config={"path": "relative"}, driver="odd")))
        report = await home.desk.until_status("a1", A.FAILED)
        assert "the driver odd failed to read its config: AttributeError: relative has none" in report.message


@pytest.mark.parametrize(
    ("verb", "answer", "message"),
    [
        ("start", None, "failed to start: TypeError: it returned NoneType, not Mapping"),
        ("start", {"path": Path("/")}, "failed to start: TypeError: a PosixPath has no JSON form"),
        ("wait", None, "failed to wait: TypeError: it returned NoneType, not TaskExit"),
    ],
)
async def test_what_a_driver_returns_ends_no_agent(home: Home, verb: str, answer: object, message: str) -> None:
    """A handle that cannot be kept, or an end that is none, is what the copy failed of; nothing of it runs on."""

    async def returns(*_: object) -> object:
        return answer

    driver = FakeDriver(home.machine)
    setattr(driver, verb, returns)
    async with home.agent(drivers=[driver]):
        home.want("a1", restart=Restart(attempts=0))
        report = await home.desk.until_status("a1", A.FAILED)
        assert message in report.message


async def test_tasks_run_on_while_the_agent_is_away(home: Home) -> None:
    """The next agent finds them, starts nothing twice, and tells what ended meanwhile."""
    async with home.agent():
        home.want("stays")
        home.want("ends", FakeConfig(exit_code=3), type=JobType.BATCH, restart=Restart(attempts=0))
        before = await home.desk.until_status("stays", A.RUNNING)
        await home.desk.until_status("ends", A.RUNNING)
    process = home.machine.processes["ends/one/1"]
    home.machine.end(process, 0.0, process.exit)
    async with home.agent():
        assert (await home.desk.until_status("ends", A.FAILED)).tasks[0].exit_code == 3
        assert home.desk.reports["stays"] == before
    assert sorted(home.machine.started) == ["ends/one/1", "stays/one/1"]


async def test_what_is_gone_without_a_trace_is_restarted(home: Home) -> None:
    """A task that nobody can find any more has ended, and a new attempt is made."""
    async with home.agent():
        home.want("a1", restart=Restart(delay=0.01))
        await home.desk.until_status("a1", A.RUNNING)
    home.machine.crash()
    async with home.agent():
        await home.desk.until(lambda: home.desk.reports["a1"].tasks[0].attempt == 2)
        await home.desk.until(lambda: home.desk.reports["a1"].tasks[0].status is TaskState.RUNNING)


async def test_the_address_is_known_before_there_is_a_network(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found the last time is used until the way to the server is found again."""
    monkeypatch.setattr("khonsu.agent.agent.address_towards", lambda _: "192.0.2.7")
    async with home.agent():
        assert home.desk.facts[-1].address == "192.0.2.7"
    async with open_journal(home.folder / "journal", SystemEnv()) as (_, found):
        assert found.values["address"] == "192.0.2.7"


async def test_on_exit_stop_stops_all(home: Home) -> None:
    """All tasks are stopped and told as stopped, and then the node leaves."""
    async with home.agent(on_exit="stop"):
        for key in ("a1", "a2"):
            home.want(key)
            await home.desk.until_status(key, A.RUNNING)
    assert [home.desk.status(key) for key in ("a1", "a2")] == [A.STOPPED, A.STOPPED]
    assert [goodbye["after"] for goodbye in home.desk.left] == [len(home.desk.syncs)]


async def test_on_exit_drain_waits_for_the_control_plane(home: Home) -> None:
    """The control plane is asked to move the tasks, and the agent waits until it has."""
    async with home.agent(on_exit="drain"):
        home.want("a1")
        await home.desk.until_status("a1", A.RUNNING)
    assert home.desk.left[0]["drain"] is True
    assert home.desk.status("a1") is A.STOPPED
    assert len(home.desk.left) == 2


async def test_on_exit_leave_lets_tasks_run(home: Home) -> None:
    """Nothing is stopped, and the node does not say goodbye while it has tasks."""
    async with home.agent():
        home.want("a1")
        await home.desk.until_status("a1", A.RUNNING)
    assert home.desk.status("a1") is A.RUNNING
    assert home.desk.left == []
    assert home.machine.processes["a1/one/1"].ends is None


async def test_a_second_agent_on_the_directory_is_refused(home: Home) -> None:
    """Two agents never share a data directory."""
    async with home.agent():
        with pytest.raises(Conflict, match="runs on the data directory"):
            async with home.agent():
                pass


async def test_a_second_agent_with_the_identity_takes_over(home: Home, tmp_path: Path) -> None:
    """The later of two agents with one identity goes on; the earlier stops with an error that says why."""
    async with home.agent():
        pass
    identity = (home.folder / "identity.json").read_bytes()
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "identity.json").write_bytes(identity)
    (clone / "identity.json").chmod(0o600)

    async def run_both() -> None:
        async with home.agent(), home.agent(data_dir=clone):
            home.want("a1")
            await anyio.sleep_forever()

    with pytest.raises(Conflict, match="the agent of node home stops"):
        await run_both()


async def test_a_node_that_was_removed_says_so(home: Home) -> None:
    """An agent whose credential is not taken any more ends, and its tasks run on."""

    async def run() -> None:
        async with home.agent():
            home.want("a1")
            await home.desk.until_status("a1", A.RUNNING)
            home.desk.nodes.clear()
            home.desk.number += 1
            home.desk.notify()
            await anyio.sleep_forever()

    with pytest.raises(Unauthenticated, match="Join again with a new token"):
        await run()
    assert home.machine.processes["a1/one/1"].ends is None
    with pytest.raises(Unauthenticated, match="Join again with a new token"):
        async with home.agent():
            pass


async def test_a_removed_node_joins_again_with_a_new_token(home: Home) -> None:
    """With a new token it is another node, and what the old one ran is stopped."""
    async with home.agent():
        home.want("a1")
        await home.desk.until_status("a1", A.RUNNING)
    home.desk.nodes.clear()
    home.desk.wanted.clear()
    home.desk.tokens.add("second")
    stopped = home.machine.processes["a1/one/1"].moved
    async with home.agent(join_token="second"):
        with anyio.fail_after(10):
            await stopped.wait()
    async with home.agent():
        pass


async def test_another_cluster_begins_anew(home: Home) -> None:
    """What another cluster wanted is ended and cleared away; the same id means another copy there."""
    async with home.agent():
        home.want("a1")
        home.want("ended", FakeConfig(run_seconds=0.0), type=JobType.BATCH)
        home.desk.number = 500
        await home.desk.until_status("a1", A.RUNNING)
        await home.desk.until_status("ended", A.COMPLETE)
    first = home.machine.processes["a1/one/1"]
    desk, home.desk = home.desk, Desk(home.desk.group)
    home.desk.cluster = "another"
    async with home.agent():
        assert first.ends is not None
        assert home.desk.reports == {}
        for key in ("a1", "ended"):
            home.want(key)
            await home.desk.until_status(key, A.RUNNING)
    assert desk.cluster == "c"
    assert len(home.machine.started) == 4


async def test_without_a_token_nobody_joins(home: Home) -> None:
    """The message says how to get one."""
    with pytest.raises(Unauthenticated, match="khonsu node invite"):
        async with home.agent(transport=home.desk.transport(None)):
            pass
    with pytest.raises(Unauthenticated, match="node home cannot join: the join token was used"):
        async with home.agent(join_token="old"):
            pass


async def test_a_directory_of_another_node_is_refused(home: Home) -> None:
    """A data directory belongs to the node that joined with it."""
    async with home.agent():
        pass
    other = Agent("away", transport=home.desk.transport(), drivers=[], data_dir=home.folder)
    with pytest.raises(InvalidRequest, match="is that of node home, not of away"):
        async with other:
            pass


async def test_an_agent_that_cannot_use_its_directory(home: Home, tmp_path: Path) -> None:
    """The error of the start leaves it bare, and names the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UnsafeFile, match="cannot be used"):
        async with home.agent(data_dir=tmp_path / "file"):
            pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drivers": [FakeDriver(), FakeDriver()]}, "there are two named fake"),
        ({"drivers": [None]}, "something among them is no driver"),
        ({"labels": {"Bad Key": "x"}}, "Bad Key"),
        ({"pool": "No Pool"}, "pool"),
        ({"volumes": {"data": "/srv"}}, "not supported yet"),
        ({"artifact_networks": ["10.0.0.1/8"]}, "artifact_networks: .*host bits"),
        ({"artifact_networks": "10.0.0.0/8"}, "artifact_networks: .*a list of them"),
    ],
)
async def test_what_an_agent_cannot_be_made_of(home: Home, changes: dict[str, Any], message: str) -> None:
    """Mistakes in the composition are found when it is composed."""
    with pytest.raises(InvalidRequest, match=message):
        home.agent(**changes)


@pytest.mark.parametrize("look", ["shutil.disk_usage", "khonsu.agent.fingerprint.version"])
async def test_a_machine_that_cannot_be_looked_at_ends_no_agent(
    home: Home, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """A disk that fails for a while, or no descriptor, changes nothing of what was found before."""
    env, asked = Hasty(), 0

    def fail(path: Path) -> None:
        nonlocal asked
        asked += 1
        raise OSError(5, "Input/output error", str(path))

    async with home.agent(env=Hasty()):
        with monkeypatch.context() as patched:
            patched.setattr(look, fail)
            while not asked:
                await env.sleep(1.0)
        home.want("a1", FakeConfig(run_seconds=0.0), type=JobType.BATCH)
        await home.desk.until_status("a1", A.COMPLETE)
