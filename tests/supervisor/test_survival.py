"""What outlives what: tasks their agent and the fork server, nothing its helper; and that strangers are left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from khonsu.drivers.supervisor import Supervisor
from khonsu.env import SystemEnv
from khonsu.supervisor.attempt import Attempt
from khonsu.supervisor.helper import Helper
from khonsu.supervisor.orders import Orders
from khonsu.supervisor.processes import look
from tests.supervisor.tasks import bare_spec, boot, fifo, is_alive, output, server_of, shell, spec, until_gone, word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from khonsu.abc.driver import Handle, SpawnSpec

pytestmark = pytest.mark.anyio


class Agent:
    """An agent in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.supervisor.agent", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )

    def spawn(self, what: SpawnSpec) -> dict[str, Any]:
        """Have a task started."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(attrs.asdict(what)).encode() + b"\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        self.process.kill()
        self.process.communicate()


def broken_pipe() -> int:
    """Return the end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """Yield an agent that has not been killed yet."""
    running = Agent(tmp_path)
    yield running
    running.kill()


def proc(pid: int, name: str) -> Path:
    """Return the path of what the kernel says of a process."""
    return Path("/proc") / str(pid) / name


def number(handle: Handle, name: str) -> int:
    """Return a number from a handle."""
    return int(str(handle[name]))


async def test_tasks_outlive_their_agent(agent: Agent, tmp_path: Path) -> None:
    """After `kill -9` of the agent, the next one finds the same processes, and can stop them."""
    asked = spec(tmp_path, "/bin/sleep", "1000")
    handle = agent.spawn(asked)
    agent.kill()
    assert is_alive(number(handle, "pid"))
    async with Supervisor(tmp_path / "supervisor", env=SystemEnv(), idle_seconds=0.2) as supervisor:
        assert await supervisor.reattach(handle)
        assert await supervisor.spawn(asked) == handle
        await supervisor.stop(handle, signal="SIGTERM", grace_seconds=30)
        assert (await supervisor.wait(handle)).signal == signal.SIGTERM


async def test_an_end_without_an_agent_is_not_lost(agent: Agent, tmp_path: Path) -> None:
    """A task that ends while there is no agent is reported with its code by the next one; its output is there."""
    handle = agent.spawn(shell(tmp_path, f"read x < {fifo(tmp_path / 'gate')}; echo $x; exit 11"))
    agent.kill()
    await anyio.to_thread.run_sync((tmp_path / "gate").write_text, "bye\n")
    await until_gone(number(handle, "helper_pid"))
    async with Supervisor(tmp_path / "supervisor", env=SystemEnv(), idle_seconds=0.2) as supervisor:
        assert await supervisor.reattach(handle)
        assert (await supervisor.wait(handle)).code == 11
    assert output(tmp_path) == "bye\n"


async def test_a_start_whose_answer_was_lost_is_found_again(agent: Agent, tmp_path: Path) -> None:
    """An agent killed between a start and its answer gets the same task when it asks again."""
    ready = fifo(tmp_path / "ready")
    asked = shell(tmp_path, f"echo started; echo $$ > {ready}; exec sleep 1000")
    assert agent.process.stdin is not None
    agent.process.stdin.write(json.dumps(attrs.asdict(asked)).encode() + b"\n")
    agent.process.stdin.flush()
    pid = int(await word(tmp_path / "ready"))
    agent.kill()
    async with Supervisor(tmp_path / "supervisor", env=SystemEnv(), idle_seconds=0.2) as supervisor:
        handle = await supervisor.spawn(asked)
        assert handle["pid"] == pid
        await supervisor.stop(handle, signal="SIGKILL", grace_seconds=0)
    assert output(tmp_path) == "started\n"


async def test_a_helper_takes_its_task_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    """When a helper is killed, its task and all that this started die, and the agent is told."""
    ready = fifo(tmp_path / "ready")
    script = f"setsid sleep 1000 & echo $! > {ready}; wait"
    handle = await supervisor.spawn(shell(tmp_path, script))
    child = int(await word(tmp_path / "ready"))
    os.kill(number(handle, "helper_pid"), signal.SIGKILL)
    ended = await supervisor.wait(handle)
    assert (ended.code, ended.signal) == (None, signal.SIGKILL)
    assert ended.message == "the task's helper was killed, and its task with it"
    await until_gone(number(handle, "pid"))
    await until_gone(child)
    assert not await supervisor.reattach(handle)


async def test_the_death_of_one_helper_is_nothing_to_the_others(supervisor: Supervisor, tmp_path: Path) -> None:
    """When a helper is killed, the fork server and the tasks of other helpers go on."""
    first, second = [await supervisor.spawn(spec(tmp_path / name, "/bin/sleep", "1000")) for name in "ab"]
    os.kill(number(first, "helper_pid"), signal.SIGKILL)
    await supervisor.wait(first)
    third = await supervisor.spawn(spec(tmp_path / "c", "/bin/sleep", "1000"))
    assert server_of(third) == server_of(second)
    assert not (tmp_path / "supervisor" / "v1" / "server.log.1").exists()
    for handle in (second, third):
        assert is_alive(number(handle, "pid"))
        await supervisor.stop(handle, signal="SIGKILL", grace_seconds=0)


async def test_an_attempt_whose_helper_died_is_used_up(supervisor: Supervisor, tmp_path: Path) -> None:
    """Asking for it again starts nothing: it is the same attempt, and it has failed."""
    asked = spec(tmp_path, "/bin/sleep", "1000")
    handle = await supervisor.spawn(asked)
    os.kill(number(handle, "helper_pid"), signal.SIGKILL)
    await supervisor.wait(handle)
    assert await supervisor.spawn(asked) == handle
    assert (await supervisor.wait(handle)).signal == signal.SIGKILL


async def test_helpers_outlive_the_fork_server(supervisor: Supervisor, tmp_path: Path) -> None:
    """When the fork server is killed, tasks go on, and the next start gets a new one."""
    first = await supervisor.spawn(spec(tmp_path / "1", "/bin/sleep", "1000"))
    server = server_of(first)
    os.kill(server, signal.SIGKILL)
    await until_gone(server)
    second = await supervisor.spawn(spec(tmp_path / "2", "/bin/sleep", "1000"))
    assert server_of(second) != server
    for handle in (first, second):
        assert await supervisor.reattach(handle)
        await supervisor.stop(handle, signal="SIGTERM", grace_seconds=30)
        assert (await supervisor.wait(handle)).signal == signal.SIGTERM


def test_a_helper_has_nobody_to_tell_and_goes_on(tmp_path: Path) -> None:
    """A fork server that dies between its word and the answer takes no task with it that runs already."""
    attempt = Attempt(1, bare_spec(tmp_path))
    attempt.claim()
    attempt.prepare()
    orders = Orders(attempt.orders, attempt.descriptors)
    Helper(orders, broken_pipe(), 0)._learn()
    attempt.descriptors.remove(orders.report)  # which it has closed
    attempt.hand_over()
    attempt.close_go()


async def test_nothing_is_left_when_all_that_watches_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    """With fork server and helper dead, the agent ends what is left of the task's session."""
    ready = fifo(tmp_path / "ready")
    handle = await supervisor.spawn(shell(tmp_path, f"sleep 1000 & echo $! > {ready}; wait"))
    child = int(await word(tmp_path / "ready"))
    server, helper = server_of(handle), number(handle, "helper_pid")
    os.kill(server, signal.SIGKILL)
    await until_gone(server)
    os.kill(helper, signal.SIGKILL)
    assert (await supervisor.wait(handle)).message.startswith("the task's helper was killed")
    assert not is_alive(number(handle, "pid"))
    assert not is_alive(child)


async def test_there_is_one_fork_server(tmp_path: Path) -> None:
    """Agents that start at the same time in the same folder find the same fork server."""
    handles = []

    async def run(name: int) -> None:
        async with Supervisor(tmp_path / "supervisor", env=SystemEnv(), idle_seconds=0.2) as supervisor:
            handles.append(await supervisor.spawn(spec(tmp_path / str(name), "/bin/sleep", "1000")))

    async with anyio.create_task_group() as group:
        for name in range(5):
            group.start_soon(run, name)
    assert len({server_of(handle) for handle in handles}) == 1
    async with Supervisor(tmp_path / "supervisor", env=SystemEnv(), idle_seconds=0.2) as supervisor:
        for handle in handles:
            await supervisor.stop(handle, signal="SIGKILL", grace_seconds=0)


async def test_the_fork_server_goes_when_nobody_needs_it(tmp_path: Path) -> None:
    """Without tasks and without an agent it ends; a task keeps it."""
    async with Supervisor(tmp_path / "supervisor", env=SystemEnv(), idle_seconds=0.05) as supervisor:
        handle = await supervisor.spawn(shell(tmp_path, f"read x < {fifo(tmp_path / 'gate')}"))
        server = server_of(handle)
    assert is_alive(server)
    await anyio.to_thread.run_sync((tmp_path / "gate").write_text, "go\n")
    await until_gone(server)


async def test_the_fork_server_is_nobodys_child(supervisor: Supervisor, tmp_path: Path) -> None:
    """It is not the agent's child, has a session of its own, and holds no folder."""
    handle = await supervisor.spawn(spec(tmp_path, "/bin/sleep", "1000"))
    server = look(server_of(handle))
    assert server is not None
    assert server.parent != os.getpid()
    assert server.session not in {os.getsid(0), server.pid}
    assert proc(server.pid, "cwd").resolve() == Path("/")
    await supervisor.stop(handle, signal="SIGKILL", grace_seconds=0)


@pytest.mark.parametrize("change", ["started", "boot"])
async def test_a_stranger_is_never_signalled(supervisor: Supervisor, tmp_path: Path, change: str) -> None:
    """Somebody else who got the pid of a task or helper from an earlier time is left alone."""
    stranger = await anyio.open_process(["/bin/sleep", "1000"])
    process = look(stranger.pid)
    assert process is not None
    attempt = tmp_path / "attempt"
    attempt.mkdir()
    record: dict[str, Any] = {
        "protocol": 1,
        "boot": "another" if change == "boot" else boot(),
        "helper_pid": stranger.pid,
        "helper_started": process.started - (change == "started"),
        "pid": stranger.pid,
        "started": process.started - (change == "started"),
        "started_at": 1.0,
        "outputs": [],
        "cgroups": [],
    }
    (attempt / "helper.json").write_text(json.dumps(record))
    handle = {"directory": str(attempt), **record}
    assert not await supervisor.reattach(handle)
    await supervisor.signal(handle, "SIGKILL")
    await supervisor.stop(handle, signal="SIGKILL", grace_seconds=0)
    assert (await supervisor.wait(handle)).code is None
    assert await supervisor.spawn(spec(tmp_path, "/bin/true")) == handle
    await supervisor.remove(str(attempt))
    assert is_alive(stranger.pid)
    stranger.kill()
    await stranger.wait()


async def test_a_restart_of_the_machine_ends_tasks(supervisor: Supervisor, tmp_path: Path) -> None:
    """A handle from before the machine was restarted is a task that did not survive, with a message."""
    handle = {
        "directory": str(tmp_path),
        "boot": "another",
        "helper_pid": 1,
        "helper_started": 1,
        "pid": 1,
        "started": 1,
    }
    ended = await supervisor.wait(handle)
    assert (ended.code, ended.signal) == (None, None)
    assert ended.message == "the machine was restarted, and the task did not survive it"


async def test_rubbish_on_the_socket_harms_nobody(supervisor: Supervisor, tmp_path: Path) -> None:
    """A connection that talks nonsense is closed, and others are served."""
    handle = await supervisor.spawn(spec(tmp_path / "1", "/bin/sleep", "1000"))
    path = tmp_path / "supervisor" / "v1" / "socket"
    for rubbish in (b"\n", b"[]\n", b'{"id": 1}\n', b'{"id": 1, "spawn": {}}\n', b"\xff\n", b"[" * 100_000 + b"\n"):
        stream = await anyio.connect_unix(path)
        await stream.send(rubbish)
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await stream.receive()
        await stream.aclose()
    with (tmp_path / "1" / "attempt" / "control").open("ab") as control:
        control.write(b'nonsense\n{"command": "stop"}\n[]\n{"command": "stop", "signal": 99999}\n')
    assert await supervisor.reattach(handle)
    assert (await supervisor.wait(await supervisor.spawn(spec(tmp_path / "2", "/bin/true")))).ok
    await supervisor.stop(handle, signal="SIGTERM", grace_seconds=10)
    assert (await supervisor.wait(handle)).signal == signal.SIGTERM


async def test_the_folder_is_private(supervisor: Supervisor, tmp_path: Path) -> None:
    """Nobody else can reach the fork server, a helper, or the output of a task."""
    handle = await supervisor.spawn(shell(tmp_path, f"echo hi; read x < {fifo(tmp_path / 'gate')}"))
    for folder in (tmp_path / "supervisor", tmp_path / "supervisor" / "v1", tmp_path / "attempt", tmp_path / "logs"):
        assert folder.stat().st_mode & 0o777 == 0o700
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path
    await supervisor.stop(handle, signal="SIGKILL", grace_seconds=0)
