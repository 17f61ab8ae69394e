"""When there are no descriptors left: nothing is leaked, nothing spins, nothing is lost."""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from khonsu.drivers import forkserver
from khonsu.drivers.forkserver import ForkServerClient
from khonsu.drivers.supervisor import Supervisor
from khonsu.env import SystemEnv
from khonsu.errors import DriverError
from khonsu.supervisor import records
from khonsu.supervisor.attempt import Attempt, StartError
from khonsu.supervisor.forkserver import ForkServer
from khonsu.supervisor.processes import boot_id, look
from tests.supervisor.tasks import bare_spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Allow so many more descriptors."""
    held: list[int] = []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd"))) + 1
    while (filler := os.open("/dev/null", os.O_RDONLY)) < highest:
        held.append(filler)
    os.close(filler)
    resource.setrlimit(resource.RLIMIT_NOFILE, (filler + count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in held:
            os.close(each)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_an_attempt_that_cannot_be_prepared_leaks_nothing(tmp_path: Path) -> None:
    """Wherever the descriptors run out, those that were had are closed; with enough of them it succeeds."""
    steps = []
    for count in range(15):
        before = os.listdir("/proc/self/fd")
        attempt = Attempt(1, bare_spec(tmp_path))
        try:
            with descriptors_left(count):
                attempt.claim()
                attempt.prepare()
        except StartError as error:
            steps.append(error.facts[:2])
            attempt.abandon()
        attempt.hand_over()
        attempt.close_go()
        assert len(os.listdir("/proc/self/fd")) == len(before)
    assert steps == [*[["directory", errno.EMFILE]] * 3, *[["pipe", errno.EMFILE]] * 10]


def test_a_server_without_descriptors_does_not_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot be let in for want of a descriptor is let in later, and is not asked for without a pause."""
    pauses: list[float] = []
    monkeypatch.setattr("khonsu.supervisor.forkserver.time.sleep", pauses.append)
    ours, theirs = socket.socketpair()
    reports, reports_end = os.pipe()
    with ours, theirs, socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as agent:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listener.setblocking(False)
        server = ForkServer(listener, ours, reports, 1.0)
        agent.connect(str(tmp_path / "socket"))
        with descriptors_left(0):
            server._accept()
        assert len(pauses) == 1
        server._accept()
        (accepted,) = server._connections.values()
        accepted.socket.close()
    os.close(reports)
    os.close(reports_end)


def test_an_end_is_recorded_once_there_is_a_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper waits for a descriptor rather than lose how its task ended."""
    records.reserve(str(tmp_path), records.ENDED)
    for_real, tries = os.open, [errno.ENFILE, errno.EMFILE]

    def scarce(path: str, *arguments: int) -> int:
        if tries:
            raise OSError(tries.pop(), "none left")
        return for_real(path, *arguments)

    pauses: list[float] = []
    monkeypatch.setattr("khonsu.supervisor.records.time.sleep", pauses.append)
    with monkeypatch.context() as patched:
        patched.setattr("khonsu.supervisor.records.os.open", scarce)
        records.fill(str(tmp_path), records.ENDED, b'{"code": 0}')
    assert records.read_record(str(tmp_path), records.ENDED) == {"code": 0}
    assert len(pauses) == 2


@pytest.mark.anyio
async def test_a_server_that_does_not_start_in_time_may_do_so_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is too busy, or has no descriptor for us, may be less so at the next try."""
    client = ForkServerClient(tmp_path / "folder", env=SystemEnv())
    with monkeypatch.context() as patched:
        patched.setattr(forkserver, "_START_SECONDS_MAX", 0.0001)
        with pytest.raises(DriverError, match=r"does not start: .*timed out") as caught:
            await client.spawn({})
    assert caught.value.retryable
    with pytest.raises(DriverError, match=r"cannot be reached: .*Too many open files") as caught, descriptors_left(0):
        await client.spawn({})
    assert caught.value.retryable


@pytest.mark.anyio
async def test_the_end_of_a_task_is_not_lost_without_descriptors(tmp_path: Path) -> None:
    """What cannot be read for now is read later, and is not taken for something that is not there."""

    class Freeing(SystemEnv):
        async def sleep(self, seconds: float) -> None:
            scarce.close()
            await super().sleep(0.0)

    end = {"code": 7, "signal": None, "out_of_memory": False, "finished_at": 1.0, "lease_expired": False}
    records.write_record(str(tmp_path), records.ENDED, end)
    supervisor = Supervisor(tmp_path / "supervisor", env=Freeing())
    handle = {"directory": str(tmp_path), "boot": "another"}
    await SystemEnv().run_blocking(int)  # the thread is there before the descriptors run out
    with ExitStack() as scarce:
        scarce.enter_context(descriptors_left(0))
        assert await supervisor.reattach(handle)
    with ExitStack() as scarce:
        scarce.enter_context(descriptors_left(0))
        assert (await supervisor.wait(handle)).code == 7


@pytest.mark.anyio
@pytest.mark.parametrize("count", [0, 1])
async def test_a_task_that_cannot_be_looked_at_runs_on(tmp_path: Path, count: int) -> None:
    """Without descriptors a helper is not taken for dead, its task is not killed, and it is found again."""

    class Freeing(SystemEnv):
        async def sleep(self, seconds: float) -> None:
            scarce.close()
            await super().sleep(0.0)

    supervisor = Supervisor(tmp_path / "supervisor", env=Freeing())
    await SystemEnv().run_blocking(int)
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as helper:  # noqa: ASYNC220
        found = look(helper.pid)
        assert found is not None
        handle = {
            "directory": str(tmp_path), "boot": boot_id(), "helper_pid": helper.pid, "helper_started": found.started,
            "pid": helper.pid, "started": found.started,
        }  # fmt: skip
        with ExitStack() as scarce:
            scarce.enter_context(descriptors_left(count))
            assert await supervisor.reattach(handle)
            with anyio.move_on_after(0.1) as patience:
                await supervisor.wait(handle)
        assert patience.cancelled_caught
        helper.kill()


@pytest.mark.anyio
async def test_a_task_is_stopped_once_there_is_a_descriptor(tmp_path: Path) -> None:
    """What a helper is told, and what is to be removed, waits for a descriptor and is not given up."""

    class Freeing(SystemEnv):
        async def sleep(self, seconds: float) -> None:
            scarce.close()
            await super().sleep(0.0)

    supervisor = Supervisor(tmp_path / "supervisor", env=Freeing())
    attempt = tmp_path / "attempt"
    attempt.mkdir()
    os.mkfifo(attempt / records.CONTROL)
    helper = os.open(attempt / records.CONTROL, os.O_RDWR | os.O_NONBLOCK)
    await SystemEnv().run_blocking(int)
    with ExitStack() as scarce:
        scarce.enter_context(descriptors_left(0))
        await supervisor.signal({"directory": str(attempt)}, "SIGHUP")
    assert b'"signal": 1' in os.read(helper, 100)
    os.close(helper)
    with ExitStack() as scarce:
        scarce.enter_context(descriptors_left(0))
        await supervisor.remove(str(attempt))
    assert not attempt.exists()
