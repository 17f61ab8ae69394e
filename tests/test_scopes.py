from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import anyio
import pytest
from anyio.abc import TaskStatus

from khonsu.errors import InvalidTransition
from khonsu.scopes import Lifetime, bare_task_group, first, run_in_order

pytestmark = pytest.mark.anyio


class Fault(Exception):
    """What the things of these tests fail with."""


class Thing(Lifetime):
    """Runs until cancelled, unless it is told to fail."""

    def __init__(self, *, at_start: bool = False, at_end: bool = False, failing: int = 1) -> None:
        super().__init__()
        self.fail = anyio.Event()
        self.at_start = at_start
        self.at_end = at_end
        self.failing = failing
        self.ended = False

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        try:
            if self.at_start:
                raise Fault("start")
            async with anyio.create_task_group() as group:
                for number in range(self.failing):
                    group.start_soon(self.fail_when_told, number)
                task_status.started()
        finally:
            self.ended = True
            if self.at_end:
                raise Fault("end")

    async def fail_when_told(self, number: int) -> None:
        # The first fails when it is told, the others when that cancels them.
        try:
            await (anyio.sleep_forever() if number else self.fail.wait())
        finally:
            if self.fail.is_set():
                raise Fault(f"background {number}")


async def fail_inside(thing: Thing, inner: Thing | None = None) -> None:
    """Be in the block of a thing when it fails in the background."""
    async with thing, inner if inner is not None else nullcontext():
        thing.fail.set()
        await anyio.sleep_forever()


async def test_the_block_is_entered_when_it_has_started_and_it_ends_with_the_block() -> None:
    """Entering waits for the start; leaving waits for the end."""
    thing = Thing()
    async with thing as entered:
        assert entered is thing
        assert not thing.ended
    assert thing.ended


async def test_it_can_run_again_but_not_twice_at_once() -> None:
    """One object runs once at a time, and again after that."""
    thing = Thing()
    async with thing:
        with pytest.raises(InvalidTransition):
            await thing.__aenter__()
    async with thing:
        pass


async def test_an_error_of_the_block_leaves_it_bare() -> None:
    """What the block raises is what arrives, the same object, not in a group."""
    thing = Thing()
    fault = Fault("block")
    with pytest.raises(Fault) as caught:
        async with thing:
            raise fault
    assert caught.value is fault
    assert thing.ended


async def test_an_error_of_the_start_leaves_it_bare() -> None:
    """What keeps it from starting is raised as it is by the entry."""
    with pytest.raises(Fault, match="start"):
        async with Thing(at_start=True):
            pytest.fail("entered")


async def test_one_failure_in_the_background_ends_the_block_and_is_bare() -> None:
    """A failure in the background cancels the block and arrives as it is."""
    with pytest.raises(Fault, match="background 0"):
        await fail_inside(Thing())


async def test_two_failures_in_the_background_make_a_group() -> None:
    """Two failures at once are shown both."""
    with pytest.raises(ExceptionGroup) as caught:
        await fail_inside(Thing(failing=2))
    assert {str(error) for error in caught.value.exceptions} == {"background 0", "background 1"}


async def test_an_error_of_the_end_is_raised_by_the_exit() -> None:
    """What fails while it ends is not lost."""
    with pytest.raises(Fault, match="end"):
        async with Thing(at_end=True):
            pass


async def test_an_error_of_the_end_is_noted_on_that_of_the_block() -> None:
    """When both fail, the block's error arrives, and carries the other as a note."""
    with pytest.raises(Fault, match="block") as caught:
        async with Thing(at_end=True):
            raise Fault("block")
    assert any("Fault: end" in note for note in caught.value.__notes__)


async def test_a_cancellation_from_outside_passes_through() -> None:
    """A time limit around the block works as around any other."""
    thing = Thing()
    with anyio.move_on_after(0) as scope:
        async with thing:
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    outer = Thing()
    async with outer, thing:
        with anyio.CancelScope() as inner:
            inner.cancel()
            await anyio.sleep_forever()
    assert thing.ended


async def test_a_failure_of_the_outer_one_ends_the_inner_one() -> None:
    """Of two nested ones the failure of the outer ends both, bare."""
    outer, inner = Thing(), Thing()
    with pytest.raises(Fault, match="background 0"):
        await fail_inside(outer, inner)
    assert inner.ended


async def test_a_task_group_with_one_failure_is_bare() -> None:
    """A single failure is not wrapped, however deep the groups are nested."""

    async def fail() -> None:
        raise Fault("one")

    async def nest() -> None:
        async with bare_task_group() as group, bare_task_group() as inner:
            group.start_soon(anyio.sleep_forever)
            inner.start_soon(fail)

    with pytest.raises(Fault, match="one"):
        await nest()


class Orderly(Lifetime):
    """Takes its time to end."""

    def __init__(self, *, stuck: bool = False) -> None:
        super().__init__()
        self.stuck = stuck
        self.said: list[str] = []

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        await run_in_order(self.serve, task_status)

    async def serve(self, started: Callable[[], None], stopping: anyio.Event, /) -> None:
        try:
            if self.stuck:
                await anyio.sleep_forever()
            started()
            await stopping.wait()
            await anyio.lowlevel.checkpoint()
            self.said.append("ended in order")
        except anyio.get_cancelled_exc_class():
            self.said.append("cancelled")
            raise


async def test_an_orderly_end_is_not_cut_off() -> None:
    """Being cancelled after the start is told, and what is done about it is waited for."""
    thing = Orderly()
    async with thing:
        pass
    assert thing.said == ["ended in order"]
    with anyio.CancelScope() as scope:
        async with thing:
            scope.cancel()
            await anyio.sleep_forever()
    assert thing.said == ["ended in order", "ended in order"]


async def test_a_start_is_cut_off() -> None:
    """Before the start there is nothing to end in order."""
    thing = Orderly(stuck=True)
    with anyio.move_on_after(0.01) as scope:
        async with thing:
            pytest.fail("entered")
    assert scope.cancelled_caught
    assert thing.said == ["cancelled"]


async def test_an_event_or_a_pause() -> None:
    """Whichever comes first ends the wait, and it is told which."""
    event = anyio.Event()
    assert not await first(event, anyio.sleep, 0.0)
    event.set()
    assert await first(event, anyio.sleep, 1000.0)
