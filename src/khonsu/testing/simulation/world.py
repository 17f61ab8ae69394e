"""A world: hosts, a workload, a nemesis and an oracle, on one seed."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup
from attrs import field, frozen

from khonsu.abc.scheduler import Scheduler
from khonsu.core.job import Job
from khonsu.core.retention import Retention
from khonsu.core.revision import ZERO
from khonsu.testing.fake_driver import FakeDriver
from khonsu.testing.simulation.clock import true_time
from khonsu.testing.simulation.coverage import Pair
from khonsu.testing.simulation.env import SimEnv
from khonsu.testing.simulation.faults import FAULTS, Fault
from khonsu.testing.simulation.host import Copy, Host
from khonsu.testing.simulation.invariants import INVARIANTS
from khonsu.testing.simulation.nemesis import Nemesis
from khonsu.testing.simulation.network import CallWatchers, Network
from khonsu.testing.simulation.operations import TaskOperations
from khonsu.testing.simulation.oracle import Invariant, Oracle, Process, Violation
from khonsu.testing.simulation.processes import Watchers
from khonsu.testing.simulation.programs import (
    CLIENT,
    CONTROL,
    MakeDrivers,
    MakeStore,
    run_agent,
    run_control_plane,
    sqlite_store,
)
from khonsu.testing.simulation.runners import RUNNERS, RunnerName
from khonsu.testing.simulation.sights import Sights
from khonsu.testing.simulation.stories import ZONES, sample_stories
from khonsu.testing.simulation.timers import drawn
from khonsu.testing.simulation.trace import Trace
from khonsu.testing.simulation.workload import Workload, run_client, sample_jobs

SECONDS: Final = 120.0
FAULT_SHARE: Final = 0.5
"""The share of a run in which faults happen; the rest is for what is wanted to be reached."""
SUBMIT_SHARE: Final = 0.7
"""The share of that in which jobs are submitted; what comes after it is done to them."""
DRIFT_MAX: Final = 0.0005
MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - only for folders of our own with a private mode


@frozen(kw_only=True)
class Outcome:
    """How a run went."""

    seed: int
    runner: RunnerName
    seconds: float
    """How long it was, on the virtual clock."""
    digest: str
    """The same for two runs that went the same way."""
    events: int
    violation: Violation | None = None
    faults: tuple[str, ...] = ()
    """The kinds of faults that this seed had."""
    happened: tuple[int, ...] = ()
    """The numbers of the faults that happened."""
    pairs: Counter[Pair] = field(factory=Counter)
    """How often each fault met each operation."""
    operations: Counter[str] = field(factory=Counter)
    """How often each operation happened."""
    asked_seconds: float = SECONDS
    """How long it would have been."""
    only: tuple[int, ...] | None = None
    """The numbers of the faults that it was left with, where some were left out."""

    @property
    def command(self) -> str:
        """Return the command that does it again."""
        parts = ["python -m khonsu.testing.simulation", f"--seed {self.seed}", f"--runner {self.runner}"]
        if self.asked_seconds != SECONDS:
            parts.append(f"--seconds {self.asked_seconds:g}")
        if self.only is not None:
            parts.append(f"--faults {','.join(map(str, self.only)) or 'none'}")
        return " ".join([*parts, "--trace"])


def _fake_drivers(host: Host) -> Sequence[FakeDriver]:
    return [FakeDriver(host.table)]


class World:
    """A control plane, agents and a client on hosts that fail, for some minutes of virtual time.

    Args:
        seed: Decides everything that is left to chance.
        runner: The event loop.
        control_planes: How many hosts there are for one; the first runs it, and the second is where an old one comes
            back.
        agents: How many agents there are.
        jobs: The workload: so many sample jobs, these, or all that is asked for. All of it must be possible.
        seconds: How long a run is.
        faulty_seconds: How long something may go wrong; by default half of it.
        faults: What may go wrong.
        invariants: What must hold.
        store: Makes the store of a control plane.
        drivers: Makes the drivers of an agent, over the processes of its host (`host.table`).
        schedulers: Makes schedulers beside the built-in ones.
        trace: Takes note of what happens.
        only: The numbers of the faults that happen; by default all that the seed has.
        retention: What of the history is kept; drawn, where the timers are.
        lively: Whether more happens than that jobs are submitted: they are changed, scaled, stopped and reverted, nodes
            are drained and removed, and the timers are those of the seed. Jobs that are given are only submitted.

    """

    def __init__(
        self,
        seed: int,
        *,
        runner: RunnerName = "trio",
        control_planes: int = 2,
        agents: int = 4,
        jobs: int | Sequence[Job] | Workload = 20,
        seconds: float = SECONDS,
        faulty_seconds: float | None = None,
        faults: Sequence[type[Fault]] = FAULTS,
        invariants: Sequence[type[Invariant]] = INVARIANTS,
        store: MakeStore = sqlite_store,
        drivers: MakeDrivers = _fake_drivers,
        schedulers: Callable[[], Iterable[Scheduler]] = tuple,
        trace: Trace | None = None,
        only: Collection[int] | None = None,
        retention: Retention | None = None,
        lively: bool = True,
    ) -> None:
        """Draw what is drawn before the run."""
        self.seed = seed
        self.runner: RunnerName = runner
        self.trace = trace if trace is not None else Trace()
        self.hosts: dict[str, Host] = {}
        """By name; "control" is the control plane's, "client" the client's."""
        self.agents: list[Host] = []
        self.network: Network
        self.violation: Violation | None = None
        self.excused: frozenset[str] = frozenset()
        """The promises that do not hold any more, after a fault that nobody can do anything about."""
        self.term = 0
        """The last term that was begun."""
        self.sights = Sights()
        self.oracle = Oracle(
            (*invariants, TaskOperations),
            note=self.note,
            report=self.broken,
            processes=self._processes,
            sights=self.sights,
        )
        self._only = only
        self._names = [CONTROL, *(f"{CONTROL}-{number}" for number in range(2, control_planes + 1))]
        self._agent_names = [f"agent-{number}" for number in range(1, agents + 1)]
        self._seconds = seconds
        self._faulty_seconds = seconds * FAULT_SHARE if faulty_seconds is None else faulty_seconds
        self._lively = lively
        self._retention = retention
        self._workload = self._draw(jobs)
        self._faults = faults
        self._store = store
        self._drivers = drivers
        self._schedulers = schedulers
        self._group: TaskGroup
        self._nemesis: Nemesis

    def _draw(self, jobs: int | Sequence[Job] | Workload) -> Workload:
        """Draw what a client asks for."""
        if isinstance(jobs, Workload):
            return jobs
        seconds = self._faulty_seconds
        submit_seconds = seconds * SUBMIT_SHARE
        make = partial(Workload, submit_seconds=submit_seconds, seconds=seconds, lively=self._lively)
        if not isinstance(jobs, int):
            return make(jobs=tuple(jobs))
        if not self._lively:
            return make(jobs=sample_jobs(jobs, self.chance("jobs")))
        stories = sample_stories(jobs, self.chance("jobs"), submit_seconds=submit_seconds, seconds=seconds)
        return make(stories=stories)

    def chance(self, name: str) -> random.Random:
        """Return a stream of chance of its own: what one part draws moves nothing in another."""
        return random.Random(f"{self.seed}/{name}")

    def note(self, who: str, what: str) -> None:
        """Take note of an event."""
        self.trace.note(true_time(), who, what)

    def broken(self, promise: str, what: str) -> None:
        """Take note that a promise is broken; the first one ends the run, unless it is excused."""
        if promise in self.excused:
            self.note("oracle", f"{promise} does not hold, and is excused")
        elif self.violation is None:
            self.violation = Violation(promise, what, at=true_time())
            self.note("oracle", f"{promise} IS BROKEN: {what}")
            self._group.cancel_scope.cancel()

    @property
    def reigning(self) -> bool:
        """Return whether there is a control plane with something to remember."""
        return self.oracle.revision > ZERO

    def put_back(self, copy: Copy) -> None:
        """Have the control plane go on from a copy, in a new term, and be told nothing of what it was asked before."""
        control = self.hosts[CONTROL]
        control.crash()
        self.network.move(CONTROL)
        self.term += 1
        control.put_back(copy, term=self.term)
        self.start(control)

    def begin(self) -> None:
        """Do what is to be done when all hosts are made, and before any is switched on: nothing, unless overridden."""

    def start(self, host: Host) -> None:
        """Switch a host on, or start its program."""
        host.start(self._group)

    def run(self) -> Outcome:
        """Run it, and say how it went."""
        parent = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
        root = Path(tempfile.mkdtemp(prefix="khonsu-simulation-", dir=parent))
        try:
            with drawn(self.chance("timers")) if self._lively else nullcontext(self._retention) as self._retention:
                seconds = RUNNERS[self.runner](str(self.seed), partial(self._main, root))
        finally:
            shutil.rmtree(root, ignore_errors=True)
        return Outcome(
            seed=self.seed,
            runner=self.runner,
            seconds=seconds,
            digest=self.trace.digest,
            events=self.trace.count,
            violation=self.violation,
            faults=tuple(fault.__name__ for fault in self._nemesis.faults),
            happened=tuple(self._nemesis.happened),
            pairs=self.sights.coverage.pairs,
            operations=self.sights.coverage.operations,
            asked_seconds=self._seconds,
            only=None if self._only is None else tuple(sorted(self._only)),
        )

    async def _main(self, root: Path) -> float:
        # The messages outlive the hosts: these end before the network does.
        async with anyio.create_task_group() as wires:
            self.network = Network(self.chance("network"), wires, self.note, self._watch_calls())
            async with anyio.create_task_group() as self._group:
                self._make_hosts(root)
                self.begin()
                await self._live()
                self._group.cancel_scope.cancel()
            wires.cancel_scope.cancel()
        return true_time()

    def _make_hosts(self, root: Path) -> None:
        control = partial(
            run_control_plane,
            oracle=self.oracle,
            store=self._store,
            schedulers=self._schedulers,
            retention=lambda: self._retention,
        )
        for name in self._names:
            self._make_host(name, root, control)
        first = self.hosts[CONTROL]
        agent = partial(run_agent, control=first, drivers=self._drivers, oracle=self.oracle)
        for number, name in enumerate(self._agent_names):
            host = self._make_host(name, root, agent)
            host.labels["zone"] = ZONES[number % len(ZONES)]
            self.agents.append(host)
        client = partial(run_client, workload=self._workload, control=first, oracle=self.oracle)
        self._make_host(CLIENT, root, client)

    def _make_host(self, name: str, root: Path, program: Callable[[Host, SimEnv], Awaitable[None]]) -> Host:
        def chance(stream: str) -> random.Random:
            return self.chance(f"{name}/{stream}")

        host = self.hosts[name] = Host(
            name,
            program,
            root=root / name,
            network=self.network,
            chance=chance,
            watchers=Watchers(started=self.oracle.started, ended=self.oracle.ended),
            note=self.note,
            failed=self._failed,
        )
        host.clock.drift = self.chance(f"{name}/drift").uniform(-DRIFT_MAX, DRIFT_MAX)
        self._group.start_soon(host.table.run)
        return host

    async def _live(self) -> None:
        """Let faults happen, then look whether what is wanted is reached."""
        for name, host in self.hosts.items():
            if name not in self._names[1:]:
                self.start(host)
        self._nemesis = Nemesis(self, self._faults, self.chance("nemesis"), self._only)
        await self._nemesis.run(self._faulty_seconds)
        self.note("nemesis", "all faults are over")
        await anyio.sleep(max(0.0, self._seconds - true_time()))
        self.oracle.finished()

    def _watch_calls(self) -> CallWatchers:
        sights = self.sights
        return CallWatchers(
            began=sights.request_began,
            waits=sights.request_waits,
            arrived=sights.request_arrived,
            served=sights.request_served,
            ended=sights.request_ended,
        )

    def _processes(self) -> Sequence[Process]:
        return [Process(host.name, process) for host in self.agents for process in host.table.alive]

    def _failed(self, host: str, error: BaseException) -> None:
        self.note(host, f"fails: {type(error).__name__}: {error}")
        self.failure = error
        self.broken("P0", f"the program on {host} failed: {type(error).__name__}: {error}")
