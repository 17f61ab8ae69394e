from __future__ import annotations

import threading
from typing import cast

import anyio
import numpy as np
import pytest

from khonsu.abc.scheduler import Scheduler, scheduler
from khonsu.control import forecasts, planner, schedulers
from khonsu.core.arrays import FloatArray
from khonsu.core.ask import Ask
from khonsu.core.changes import Changes
from khonsu.core.fleet import Fleet
from khonsu.core.plan import Outcome, Plan, Snapshot
from khonsu.core.records import Evaluation
from khonsu.core.states import AllocationStatus
from khonsu.errors import PluginError
from tests.control.cluster import cluster, nodes_of, service

pytestmark = pytest.mark.anyio

A = AllocationStatus


class Last(Scheduler):
    """The last node by name, and a memory of outcomes."""

    name = "last"

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.told = threading.Event()

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        """Return the rank of the names."""
        return np.argsort(np.argsort(np.array(list(fleet.ids)))).astype(np.float64)

    def observe(self, outcome: Outcome, /) -> None:
        """Remember."""
        self.outcomes.append(outcome)
        self.told.set()


@scheduler("nan")
def nan(ask: Ask, fleet: Fleet) -> FloatArray:
    """Return no numbers."""
    return np.full(len(fleet), np.nan)


@scheduler("broken")
def broken(ask: Ask, fleet: Fleet) -> FloatArray:
    """Fail."""
    raise ZeroDivisionError("a stranger's mistake")


@scheduler("leaves")
def leaves(ask: Ask, fleet: Fleet) -> FloatArray:
    """Go away."""
    raise SystemExit(3)


class Planless(Last):
    """Makes no plan."""

    name = "planless"

    def schedule(self, evaluation: Evaluation, snapshot: Snapshot, changes: Changes, /) -> Plan:
        """Return nothing."""
        return cast("Plan", None)


async def test_a_job_may_name_a_scheduler_of_the_user() -> None:
    """It chooses the nodes, and is told what became of its plans."""
    last = Last()
    async with cluster(schedulers=[last]) as home:
        nodes = await home.running("a", "b", "c")
        await home.client.wait(await home.client.submit(service(count=3, scheduler="last")))
        best = max(nodes, key=lambda node: node.id)
        assert nodes_of(home.copies()) == [best.name] * 3
        await anyio.to_thread.run_sync(last.told.wait, 10.0)
        assert [(one.accepted, one.rejected) for one in last.outcomes] == [(3, 0)]


async def test_what_a_scheduler_of_the_user_does_wrong_is_told_to_who_asks_for_a_plan() -> None:
    """Its mistake is named, and is none of the control plane's."""
    async with cluster(schedulers=[broken, Planless()]) as home:
        await home.node("a")
        with pytest.raises(PluginError, match="scheduler broken: ZeroDivisionError: a stranger's mistake"):
            await home.client.plan(service(scheduler="broken"))
        with pytest.raises(PluginError, match="scheduler planless: AttributeError"):
            await home.client.plan(service(scheduler="planless"))


@pytest.mark.parametrize(
    ("made", "words"),
    [(nan, "scheduler nan"), (broken, "ZeroDivisionError: a stranger"), (leaves, "scheduler leaves: SystemExit: 3")],
)
async def test_a_broken_scheduler_is_told_and_hurts_nobody(made: Scheduler, words: str) -> None:
    """The evaluation fails with a message, is tried again later, and other jobs go on."""
    async with cluster(schedulers=[made]) as home:
        await home.running("a")
        await home.client.submit(service("bad", scheduler=made.name))
        await home.until(lambda: home.tables.jobs["default/bad"].message)
        assert words in (await home.client.job("bad")).message
        assert len(await home.events("evaluation-failed")) == 1
        assert [one.trigger for one in home.tables.evaluations.values()] == ["retry"]
        assert (await home.client.wait(await home.client.submit(service()))).status == "healthy"
        await home.client.submit(service("bad", scheduler="binpack"))
        assert (await home.client.wait("bad")).status == "healthy"


class Hanging(Scheduler):
    """Does not come back until it is let go."""

    name = "hanging"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.free = threading.Event()
        self.asked = 0

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        """Wait."""
        self.asked += 1
        self.begun.set()
        self.free.wait(30.0)
        return np.zeros(len(fleet))


async def test_a_scheduler_that_does_not_come_back_is_left_and_asked_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its job says so and others are placed; it is asked again when it has come back."""
    monkeypatch.setattr(schedulers, "ANSWER_SECONDS_MAX", 0.1)
    monkeypatch.setattr(planner, "RETRY_SECONDS", 0.05)
    hanging = Hanging()
    async with cluster(schedulers=[hanging]) as home:
        await home.running("a")
        await home.client.submit(service("bad", scheduler="hanging"))
        await home.until(lambda: "scheduler hanging has not come back" in home.tables.jobs["default/bad"].message)
        with pytest.raises(PluginError, match="has not come back"):
            await home.client.plan(service("worse", scheduler="hanging"))
        assert hanging.asked == 1
        assert [text for text in (await home.client.status()).warnings if "hanging has not come back" in text]
        for name in ("one", "two", "three"):
            assert (await home.client.wait(await home.client.submit(service(name, cpu=10)))).status == "healthy"
        hanging.free.set()
        assert (await home.client.wait("bad")).status == "healthy"
        assert (await home.client.status()).warnings == home.plane.parts.schedulers.warnings == ()


async def test_many_who_ask_for_a_plan_take_few_threads() -> None:
    """A scheduler that is slow, or never comes back, is asked for so many forecasts at a time."""
    hanging = Hanging()
    async with cluster(schedulers=[hanging]) as home:
        await home.running("a")
        async with anyio.create_task_group() as group:
            for _ in range(3 * forecasts.AT_ONCE_MAX):
                group.start_soon(home.client.plan, service(scheduler="hanging"))
            await anyio.to_thread.run_sync(hanging.begun.wait)
            await anyio.wait_all_tasks_blocked()
            assert sum(one.name == "khonsu-forecast" for one in threading.enumerate()) <= forecasts.AT_ONCE_MAX
            hanging.free.set()


async def test_a_control_plane_does_not_wait_for_a_scheduler_at_its_end() -> None:
    """What hangs there hangs alone."""
    hanging = Hanging()
    with anyio.fail_after(10.0):
        async with cluster(schedulers=[hanging]) as home:
            await home.running("a")
            await home.client.submit(service("bad", scheduler="hanging"))
            await anyio.to_thread.run_sync(hanging.begun.wait)
    hanging.free.set()


async def test_two_workers_never_take_more_than_there_is() -> None:
    """Many jobs at once fill a small fleet exactly; what has no room waits."""
    async with cluster() as home:
        nodes = await home.running("a", "b")
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(home.client.submit, service(f"job{number}"))
        await home.until(lambda: sum(one.live for one in home.tables.allocations.values()) == 8)
        await home.until(lambda: sum(e.status == "blocked" for e in home.tables.evaluations.values()) == 4)
        for node in nodes:
            assert sum(one.live for one in home.tables.allocations_on(node.id)) == 4
