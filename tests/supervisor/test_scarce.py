"""When there are no descriptors left: nothing is leaked, nothing spins, nothing is lost."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from khonsu.drivers import forkserver
from khonsu.drivers.forkserver import ForkServerClient
from khonsu.drivers.supervisor import Supervisor
from khonsu.env import SystemEnv
from khonsu.errors import DriverError
from khonsu.supervisor import records
from khonsu.supervisor.attempt import Attempt, StartError
from khonsu.supervisor.forkserver import ForkServer
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
