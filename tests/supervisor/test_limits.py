"""What a task may use, on this machine's own cgroups; and leases that run out."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from khonsu.env import SystemEnv
from khonsu.errors import DriverError
from khonsu.supervisor.lease import Lease, read_lease
from khonsu.supervisor.processes import boottime, read_file
from tests.supervisor.tasks import boot, fifo, is_alive, output, python, server_of, shell, spec, until_gone, word

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from khonsu.drivers.supervisor import Supervisor

pytestmark = pytest.mark.anyio

MIB = 2**20
SHORT_SECONDS = 1.0  # a lease long enough to start a task under, on a busy machine, too
GLUTTON = "import os; os.write(1, b'hungry\\n'); x = bytearray(200 * 2**20); os.write(1, b'full\\n')"


@pytest.fixture
async def limiting(supervisor: Supervisor) -> AsyncIterator[Supervisor]:
    """Yield a supervisor that can limit memory."""
    if supervisor.cgroups.memory is None:
        pytest.skip(f"no cgroups can be made here: {supervisor.cgroups.message}")
    yield supervisor
    assert not supervisor.cgroups.memory.exists()


async def test_too_much_memory_ends_a_task(limiting: Supervisor, tmp_path: Path) -> None:
    """A task that takes more than its memory is killed, and that this was the reason is told apart."""
    ended = await limiting.wait(await limiting.spawn(python(tmp_path, GLUTTON, memory_bytes=64 * MIB)))
    assert (ended.code, ended.signal, ended.out_of_memory) == (None, signal.SIGKILL, True)
    assert output(tmp_path) == "hungry\n"


async def test_memory_max_is_what_counts(limiting: Supervisor, tmp_path: Path) -> None:
    """With a burst allowed, a task may take more than what is reserved for it."""
    limits = {"memory_bytes": 16 * MIB, "memory_max_bytes": 400 * MIB}
    ended = await limiting.wait(await limiting.spawn(python(tmp_path, GLUTTON, **limits)))
    assert (ended.code, ended.out_of_memory) == (0, False)


async def test_a_killed_task_did_not_run_out_of_memory(limiting: Supervisor, tmp_path: Path) -> None:
    """SIGKILL by somebody else is not taken for a lack of memory."""
    ended = await limiting.wait(await limiting.spawn(shell(tmp_path, "kill -KILL $$", memory_bytes=64 * MIB)))
    assert (ended.signal, ended.out_of_memory) == (signal.SIGKILL, False)


async def test_a_child_that_was_killed_for_memory_is_told(limiting: Supervisor, tmp_path: Path) -> None:
    """A task that fails because its child had no memory is out of memory; one that copes is not."""
    script = '"$PYTHON" -I -S -c "$GLUTTON"; exit $CODE'
    for code in (1, 0):
        env = {"PYTHON": sys.executable, "GLUTTON": GLUTTON, "CODE": str(code)}
        asked = shell(tmp_path / str(code), script, memory_bytes=64 * MIB, env=env)
        ended = await limiting.wait(await limiting.spawn(asked))
        assert (ended.code, ended.out_of_memory) == (code, code != 0)


async def test_little_memory_is_enough_for_little(limiting: Supervisor, tmp_path: Path) -> None:
    """What it takes to start a task is not counted as the task's own."""
    ended = await limiting.wait(await limiting.spawn(spec(tmp_path, "/bin/true", memory_bytes=MIB)))
    assert ended.ok


async def test_a_share_of_the_cpu_is_a_weight(limiting: Supervisor, tmp_path: Path) -> None:
    """A task has the weight of its reservation, and a quota only where one is asked for."""
    if limiting.cgroups.version != 1 or limiting.cgroups.cpu is None:
        pytest.skip("this machine's cpu controller is not of version 1")
    for name, quota in (("a", None), ("b", 1500)):
        asked = spec(tmp_path / name, "/bin/sleep", "1000", cpu_millis=500, cpu_max_millis=quota)
        handle = await limiting.spawn(asked)
        pid = int(str(handle["pid"]))
        [group] = [path for path in limiting.cgroups.cpu.iterdir() if path.is_dir()]
        assert (group / "cgroup.procs").read_text().split() == [str(pid)]
        assert (group / "cpu.shares").read_text() == "512\n"
        assert (group / "cpu.cfs_quota_us").read_text() == ("-1\n" if quota is None else "150000\n")
        await limiting.stop(handle, signal="SIGKILL", grace_seconds=0)


async def test_the_cgroup_goes_with_a_helper_that_was_killed(limiting: Supervisor, tmp_path: Path) -> None:
    """A dead helper leaves no cgroup and nobody in it, also if the fork server is dead, too."""
    for name in ("alone", "with its server"):
        folder = tmp_path / name
        folder.mkdir()
        ready = fifo(folder / "ready")
        handle = await limiting.spawn(
            shell(folder, f"setsid sleep 1000 & echo $! > {ready}; wait", memory_bytes=64 * MIB)
        )
        child, helper = int(await word(folder / "ready")), int(str(handle["helper_pid"]))
        if name != "alone":
            parent = server_of(handle)
            os.kill(parent, signal.SIGKILL)
            await until_gone(parent)
        os.kill(helper, signal.SIGKILL)
        await limiting.wait(handle)
        assert not is_alive(child)
        assert not is_alive(int(str(handle["pid"])))


async def test_nothing_is_left_among_the_cgroups(limiting: Supervisor, tmp_path: Path) -> None:
    """The group for all tasks is there while one runs, also without an agent; the last one takes it along."""
    bases = [base for base in (limiting.cgroups.memory, limiting.cgroups.cpu) if base]
    assert not any(base.exists() for base in bases)
    handle = await limiting.spawn(spec(tmp_path, "/bin/sleep", "1000"))
    assert all(base.exists() for base in bases)
    await limiting.stop(handle, signal="SIGTERM", grace_seconds=10)
    assert not any(base.exists() for base in bases)


async def test_without_a_lease_nothing_exclusive_starts(supervisor: Supervisor, tmp_path: Path) -> None:
    """An exclusive task is refused while the node has no lease, one that has run out, or one from before a restart."""
    asked = spec(tmp_path, "/bin/true", exclusive=True)
    now = SystemEnv().monotonic()
    lease = tmp_path / "supervisor" / "lease"
    for text in (None, "", f"{now - 1} {boot()}", f"{now + 1000} another-boot", "nonsense"):
        if text is not None:
            lease.write_text(text)
        with pytest.raises(DriverError, match="the node's lease has run out") as caught:
            await supervisor.spawn(asked)
        assert caught.value.retryable
    await supervisor.set_lease(now + 1000)
    ended = await supervisor.wait(await supervisor.spawn(asked))
    assert (ended.code, ended.lease_expired) == (0, False)


async def test_a_task_is_stopped_when_the_lease_runs_out(supervisor: Supervisor, tmp_path: Path) -> None:
    """At the end of the lease an exclusive task gets SIGTERM, without any agent, and it is said that this was why."""
    ready = fifo(tmp_path / "ready")
    lease = SystemEnv().monotonic() + SHORT_SECONDS
    await supervisor.set_lease(lease)
    script = f"trap 'cut -d\" \" -f1 /proc/uptime; exit 3' TERM; echo up > {ready}; while :; do sleep 0.01; done"
    handle = await supervisor.spawn(shell(tmp_path, script, exclusive=True, kill_timeout_seconds=20.0))
    await word(tmp_path / "ready")
    ended = await supervisor.wait(handle)
    assert (ended.code, ended.lease_expired) == (3, True)
    assert float(output(tmp_path)) >= lease - 0.01


async def test_a_task_that_does_not_listen_is_killed_after_the_lease(supervisor: Supervisor, tmp_path: Path) -> None:
    """At the end of the lease and the kill timeout everything of the task is killed, also during a longer stop."""
    ready = fifo(tmp_path / "ready")
    await supervisor.set_lease(SystemEnv().monotonic() + SHORT_SECONDS)
    script = f"trap '' TERM; setsid sleep 1000 & echo $! > {ready}; while :; do wait; done"
    handle = await supervisor.spawn(shell(tmp_path, script, exclusive=True, kill_timeout_seconds=0.1))
    child = int(await word(tmp_path / "ready"))
    await supervisor.stop(handle, signal="SIGTERM", grace_seconds=10_000)
    ended = await supervisor.wait(handle)
    assert (ended.signal, ended.lease_expired) == (signal.SIGKILL, True)
    assert not is_alive(child)


async def test_leases_are_told_one_after_the_other(supervisor: Supervisor, tmp_path: Path) -> None:
    """Of leases that are told at the same time the latest stays, and each is told whole."""
    now = SystemEnv().monotonic()
    async with anyio.create_task_group() as group:
        for step in (5, 9, 2, 8, 1):
            group.start_soon(supervisor.set_lease, now + 1000 + step)
    await supervisor.set_lease(now + 1000)
    assert (tmp_path / "supervisor" / "lease").read_text() == f"{now + 1009!r} {boot()}"


async def test_a_renewed_lease_lets_a_task_go_on(supervisor: Supervisor, tmp_path: Path) -> None:
    """A task whose lease was renewed before its end goes on after that; an earlier deadline comes too late."""
    clock = SystemEnv()
    first = clock.monotonic() + SHORT_SECONDS
    await supervisor.set_lease(first)
    handle = await supervisor.spawn(spec(tmp_path, "/bin/sleep", "1000", exclusive=True))
    await supervisor.set_lease(clock.monotonic() + 1000)
    await anyio.sleep(first - clock.monotonic() + 0.1)
    assert is_alive(int(str(handle["pid"])))
    await supervisor.stop(handle, signal="SIGTERM", grace_seconds=10)
    assert not (await supervisor.wait(handle)).lease_expired


async def test_a_task_that_is_not_exclusive_has_no_lease(supervisor: Supervisor, tmp_path: Path) -> None:
    """The end of a lease is nothing to other tasks."""
    await supervisor.set_lease(SystemEnv().monotonic() + SHORT_SECONDS)
    exclusive = await supervisor.spawn(spec(tmp_path / "a", "/bin/sleep", "1000", exclusive=True))
    other = await supervisor.spawn(spec(tmp_path / "b", "/bin/sleep", "1000"))
    assert (await supervisor.wait(exclusive)).lease_expired
    assert is_alive(int(str(other["pid"])))
    await supervisor.stop(other, signal="SIGKILL", grace_seconds=0)


def test_a_lease_that_cannot_be_read_has_run_out(tmp_path: Path) -> None:
    """No file is no lease."""
    assert read_lease(str(tmp_path / "lease")) == float("-inf")


def test_patience_begins_when_a_lease_was_never_read(tmp_path: Path) -> None:
    """A helper that cannot read its lease, not even once, stops its task like any other: with its time to end."""
    lease = Lease(str(tmp_path / "lease"), 5.0)
    before = boottime()
    assert lease.expired()
    assert before + 5.0 <= lease.kill_at() <= boottime() + 5.0
    lease.wake_at(lease.kill_at())
    assert lease.expired()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
async def test_a_helper_shares_most_of_its_memory(supervisor: Supervisor, tmp_path: Path) -> None:
    """What a helper does not share with its forker stays below 640 KiB."""
    handle = await supervisor.spawn(spec(tmp_path, "/bin/sleep", "60"))
    rollup = read_file(f"/proc/{handle['helper_pid']}/smaps_rollup").decode().splitlines()
    own_kib = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
    await supervisor.stop(handle, signal="SIGKILL", grace_seconds=0)
    await supervisor.wait(handle)
    assert own_kib < 640
