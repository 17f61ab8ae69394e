"""The check of drivers finds the promise that a driver breaks, and says which."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import anyio
import pytest
from attrs import evolve

from khonsu.abc.driver import Handle, TaskContext, TaskExit
from khonsu.testing import DriverCheckFailed, FakeConfig, FakeDriver, FakeMachine, check_driver

pytestmark = pytest.mark.anyio

EXITS = {code: FakeConfig(run_seconds=0.01, exit_code=code) for code in (0, 3)}
STUBBORN = FakeConfig(stop_seconds=1000.0)


@pytest.fixture
def anyio_backend() -> str:
    """Run each test on one event loop: the check runs on both elsewhere."""
    return "asyncio"


class Codeless(FakeDriver):
    """Never tells how a task ended."""

    async def wait(self, handle: Handle, /) -> TaskExit:
        return evolve(await super().wait(handle), code=None, signal=None)


class AlwaysFine(FakeDriver):
    """Says of every task that it ended well."""

    async def wait(self, handle: Handle, /) -> TaskExit:
        return evolve(await super().wait(handle), code=0, signal=None)


class Deaf(FakeDriver):
    """Hears of no end."""

    async def wait(self, handle: Handle, /) -> TaskExit:
        await anyio.sleep_forever()
        raise AssertionError


class Once(FakeDriver):
    """Tells of an end once."""

    async def wait(self, handle: Handle, /) -> TaskExit:
        found = await super().wait(handle)
        self.machine.processes.pop(str(handle["process"]), None)
        return found


class Brutal(FakeDriver):
    """Stops tasks by force, whatever the grace."""

    async def stop(self, handle: Handle, /, *, signal: str, grace_seconds: float) -> None:
        await super().stop(handle, signal="SIGKILL", grace_seconds=0.0)


class Gentle(FakeDriver):
    """Never uses force."""

    async def stop(self, handle: Handle, /, *, signal: str, grace_seconds: float) -> None:
        await super().stop(handle, signal=signal, grace_seconds=math.inf)


class Hasty(FakeDriver):
    """Comes back from a stop before the task has ended."""

    async def stop(self, handle: Handle, /, *, signal: str, grace_seconds: float) -> None:
        with anyio.move_on_after(0.01):
            await super().stop(handle, signal=signal, grace_seconds=grace_seconds)


class Murderous(FakeDriver):
    """Ends a task when nobody waits for it any more."""

    async def wait(self, handle: Handle, /) -> TaskExit:
        try:
            return await super().wait(handle)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await super().stop(handle, signal="SIGTERM", grace_seconds=1.0)
            raise


class Finding(FakeDriver):
    """Finds everything again."""

    async def reattach(self, handle: Handle, /) -> bool:
        return True


class Losing(FakeDriver):
    """Finds nothing again."""

    async def reattach(self, handle: Handle, /) -> bool:
        return False


class Leaving(FakeDriver):
    """Removes nothing."""

    async def remove(self, task: TaskContext[Any], /) -> None:
        return


class Forgetting(FakeDriver):
    """Forgets a task that it should remove, and leaves it running."""

    async def remove(self, task: TaskContext[Any], /) -> None:
        self.machine.processes.pop(f"{task.allocation}/{task.task}/{task.attempt}", None)


class Strict(FakeDriver):
    """Removes only what is there."""

    async def remove(self, task: TaskContext[Any], /) -> None:
        del self.machine.processes[f"{task.allocation}/{task.task}/{task.attempt}"]


class Repeating(FakeDriver):
    """Starts the same attempt again."""

    async def start(self, task: TaskContext[Any], /) -> Handle:
        self.machine.processes.pop(f"{task.allocation}/{task.task}/{task.attempt}", None)
        return await super().start(task)


class Alike(FakeDriver):
    """Takes all attempts of a task for one."""

    async def start(self, task: TaskContext[Any], /) -> Handle:
        return await super().start(evolve(task, attempt=1))


class Opaque(FakeDriver):
    """Gives handles that no disk can keep."""

    async def start(self, task: TaskContext[Any], /) -> Handle:
        return {**await super().start(task), "object": object()}


class Ill(FakeDriver):
    """Does not say that it can run."""

    async def fingerprint(self) -> Any:
        return evolve(await super().fingerprint(), healthy=False, message="no daemon")


WRONG: dict[type[FakeDriver], str] = {
    Codeless: "ends by a code or a signal",
    AlwaysFine: "tells its code",
    Deaf: "It waits for something that does not happen",
    Once: "an attempt that ended is not started again",
    Brutal: "ends by the signal",
    Gentle: "by force after the grace.* It waits for something that does not happen",
    Hasty: "has its whole grace, and has ended when a stop returns",
    Murderous: "a cancelled wait changes nothing",
    Finding: "what was removed is not found",
    Losing: "a running task is found again",
    Leaving: "what was removed is not found",
    Forgetting: "whoever waits for it is told",
    Repeating: "the same attempt has the same handle",
    Alike: "another attempt has another handle",
    Opaque: "a handle is JSON",
    Ill: "can run here .no daemon",
}


@pytest.mark.parametrize("wrong", list(WRONG))
async def test_a_wrong_driver_is_found(wrong: type[FakeDriver], monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that breaks one promise does not pass, and is told which."""
    monkeypatch.setattr("khonsu.testing.drivers.TIME_SECONDS_MAX", 1.0)
    machine = FakeMachine()
    with pytest.raises(DriverCheckFailed, match=WRONG[wrong]):
        await check_driver(partial(wrong, machine), config=FakeConfig(), exits=EXITS, stubborn=STUBBORN)


async def test_what_a_driver_raises_is_named() -> None:
    """An error of the driver leaves the check as it is, with what was being checked."""
    with pytest.raises(KeyError) as caught:
        await check_driver(partial(Strict, FakeMachine()), config=FakeConfig())
    assert "what is not there is passed over" in caught.value.__notes__[0]


async def test_a_stubborn_task_has_to_be_one() -> None:
    """A task that obeys says nothing of what happens to one that does not."""
    with pytest.raises(DriverCheckFailed, match="it did"):
        await check_driver(partial(FakeDriver, FakeMachine()), config=FakeConfig(), stubborn=FakeConfig())
