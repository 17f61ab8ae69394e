"""A power cut of the control plane at each write of ten operations, one after the other."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest
from attrs import frozen

from khonsu.control import pruner
from khonsu.core.job import Job
from khonsu.core.retention import Retention
from khonsu.stores.schema import Migration, Schema
from khonsu.stores.sqlite import SQLiteStore
from khonsu.stores.tables import tables
from khonsu.testing import FakeConfig, World
from khonsu.testing.simulation import reached
from khonsu.testing.simulation.clock import true_time
from khonsu.testing.simulation.programs import CONTROL, DATABASE, sqlite_store
from khonsu.testing.simulation.stories import Step
from khonsu.testing.simulation.workload import Workload
from tests.effort import Effort

if TYPE_CHECKING:
    from collections.abc import Callable

    from khonsu.testing.simulation.env import SimEnv
    from khonsu.testing.simulation.host import Host
    from khonsu.testing.simulation.programs import MakeStore
    from khonsu.testing.simulation.workload import Insisting

AT: Final = 6.0
"""When the operation begins, in seconds; before it the jobs that are there come to rest."""
SECONDS: Final = 32.0
REACH: Final = 15.0
SAMPLED: Final = 2


@frozen(kw_only=True)
class Operation:
    """An operation and what is there before it.

    Args:
        jobs: What runs before it.
        steps: What is asked for then.
        script: What else is.
        begins: What happens to the control plane's host.
        agents: How many there are.
        at: When its writes begin to count.
        lasts: For how long they do.
        retention: What is kept.
        store: Makes the store.

    """

    jobs: tuple[Job, ...] = ()
    steps: tuple[Step, ...] = ()
    script: Callable[[Insisting], Any] | None = None
    begins: Callable[[Cut], None] | None = None
    agents: int = 2
    at: float = AT
    lasts: float = 1.5
    retention: Retention | None = None
    store: MakeStore = sqlite_store


class Cut(World):
    """A world in which the control plane loses power at one write of an operation."""

    def __init__(self, operation: Operation, cut_at: int | None) -> None:
        early = [(Step(at=0.5, verb="submit", job=job),) for job in operation.jobs]
        super().__init__(
            1,
            agents=operation.agents,
            jobs=Workload(
                submit_seconds=AT,
                seconds=SECONDS,
                stories=(*early, *((step,) for step in operation.steps)),
                scripts=() if operation.script is None else (operation.script,),
            ),
            seconds=SECONDS,
            faults=(),
            lively=False,
            retention=operation.retention,
            store=operation.store,
        )
        self.operation = operation
        self.cut_at = cut_at
        self.writes: list[str] = []

    def begin(self) -> None:
        """Count the writes from the start of the operation."""
        self.hosts[CONTROL].disk.databases.on_write = self._count
        if self.operation.begins is not None:
            self._group.start_soon(self._act)

    async def _act(self) -> None:
        await anyio.sleep(AT)
        assert self.operation.begins is not None
        self.operation.begins(self)

    def _count(self, what: str) -> None:
        if 0.0 <= true_time() - self.operation.at < self.operation.lasts:
            self.writes.append(what)
            if len(self.writes) - 1 == self.cut_at:
                self.hosts[CONTROL].power_cut()
                self._group.start_soon(self._switch_on)

    async def _switch_on(self) -> None:
        await anyio.sleep(1.0)
        self.start(self.hosts[CONTROL])


def service(name: str, count: int = 2) -> Job:
    """Return a service."""
    return Job.single(name, FakeConfig(), driver="fake", count=count)


def batch(name: str, seconds: float) -> Job:
    """Return a batch job whose copies end together."""
    return Job.single(name, FakeConfig(run_seconds=seconds), driver="fake", type="batch", count=4)


async def drain(asker: Insisting) -> None:
    """Drain a node, and give it work again."""
    await asker.env.sleep(AT)
    await asker.insist("node.drain", {"name": "agent-1", "deadline_seconds": 5.0}, "drain")
    await asker.env.sleep(3.0)
    await asker.insist("node.undrain", {"name": "agent-1"}, "undrain")


def restart(world: Cut) -> None:
    """Kill the control plane, and start it."""
    world.hosts[CONTROL].crash()
    world.start(world.hosts[CONTROL])


def add_and_drop(database: Any) -> None:
    """Change many pages on the way to a newer version."""
    database.execute_sql("CREATE TABLE notes (id INTEGER PRIMARY KEY, text BLOB)")
    for number in range(20):
        database.execute_sql("INSERT INTO notes VALUES (?, zeroblob(2000))", (number,))
    database.execute_sql("DROP TABLE notes")


def migrated(host: Host, env: SimEnv) -> SQLiteStore:
    """Return a store of the present version, or of the next one once the time has come."""
    version = 1 if true_time() < AT else 2
    schema = Schema(version, tables(), (Migration(2, add_and_drop),) if version > 1 else ())
    return SQLiteStore(DATABASE, env=env, database=host.disk.databases.database(), schema=schema)


WEB: Final = service("web")
OPERATIONS: Final[dict[str, Operation]] = {
    "submit": Operation(agents=1, steps=(Step(at=AT, verb="submit", job=service("late", 1)),), lasts=0.05),
    "plan": Operation(steps=(Step(at=AT, verb="submit", job=service("late", 6)),)),
    "status": Operation(jobs=(batch("short", AT - 0.5),), lasts=2.5),
    "registration": Operation(at=0.0, lasts=3.0, steps=(Step(at=AT, verb="submit", job=WEB),)),
    "drain": Operation(jobs=(WEB,), script=drain, lasts=4.0),
    "stop": Operation(jobs=(WEB,), steps=(Step(at=AT, verb="stop", job=WEB),)),
    "scale": Operation(jobs=(WEB,), steps=(Step(at=AT, verb="scale", job=WEB, count=5),)),
    "migration": Operation(jobs=(WEB,), begins=restart, store=migrated),
    "pruning": Operation(
        jobs=(WEB, batch("short", 1.0)), at=4.5, lasts=2.0, retention=Retention(evaluations="1s", events_max=5)
    ),
    "restart": Operation(jobs=(WEB,), begins=restart),
}


@cache
def writes(name: str) -> int:
    """Return how many writes an operation makes."""
    world = Cut(OPERATIONS[name], None)
    assert world.run().violation is None
    return len(world.writes)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prune soon, and expect what is wanted soon: nothing else goes wrong here."""
    monkeypatch.setattr(pruner, "INTERVAL_SECONDS", 5.0)
    monkeypatch.setattr(reached, "REACH_SECONDS", REACH)


@pytest.mark.costly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_power_cut_at_any_write_leaves_nothing_half_done(name: str, effort: Effort) -> None:
    """Whatever write it hits, nothing that was acknowledged is lost, and what is wanted is reached (D1 to D3, L1)."""
    count = writes(name)
    assert count >= SAMPLED
    step = 1 if effort is Effort.FULL else max(1, count // SAMPLED)
    for number in range(step // 2, count, step):
        world = Cut(OPERATIONS[name], number)
        assert world.run().violation is None, f"{name}, at write {number} of {count}: {world.violation}"
        assert len(world.writes) > number
