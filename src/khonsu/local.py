"""A cluster of your own: a control plane and agents in this process, for scripts and notebooks."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from khonsu.abc.driver import AnyDriver
from khonsu.abc.scheduler import Scheduler
from khonsu.abc.transport import Listener
from khonsu.agent.agent import Agent
from khonsu.client.portal import Portal
from khonsu.client.sync import SyncClient
from khonsu.control.plane import ControlPlane
from khonsu.core.job import Resources
from khonsu.drivers.binary import BinaryDriver
from khonsu.errors import InvalidRequest
from khonsu.scopes import bare_task_group
from khonsu.stores.memory import MemoryStore
from khonsu.stores.sqlite import SQLiteStore

NODES_MAX: Final = 100
THREAD: Final = "khonsu-cluster"


class LocalCluster:
    """A control plane and agents on a thread of this process, which run real tasks on this machine.

    It serves from its construction to `close`, to the end of its `with` block, or to the end of the interpreter; then
    its tasks are stopped. Those of a process that is killed run on: give a cluster a `data_dir` whose tasks are to be
    found again.

    Args:
        nodes: How many agents there are, named `node-0`, `node-1`, ...
        data_dir: Where state, keys and the agents' data are kept, for the next cluster on it. Without one, in a
            temporary directory that goes with the cluster.
        drivers: How tasks can run; makes new drivers for each agent. Without one, as programs.
        schedulers: Schedulers of your own, beside the built-in ones.
        listeners: How the control plane is reached from other processes, if at all.
        labels: Of each agent, by its number; or the same for all.
        resources: What tasks may reserve of each agent; without them all of them believe that the machine is theirs.

    Raises:
        InvalidRequest: Something of it cannot be.

    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        data_dir: Path | str | None = None,
        drivers: Iterable[Callable[[], AnyDriver]] = (BinaryDriver,),
        schedulers: Sequence[Scheduler] = (),
        listeners: Sequence[Listener] = (),
        labels: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        resources: Resources | None = None,
    ) -> None:
        """Start it; returns when every node is registered."""
        if not 0 <= nodes <= NODES_MAX:
            raise InvalidRequest(f"nodes: found {nodes}, expected a number from 0 to {NODES_MAX}")
        labels = labels if labels is not None else {}
        self._labels = [labels] * nodes if isinstance(labels, Mapping) else list(labels)
        if len(self._labels) != nodes:
            raise InvalidRequest(f"labels: found those of {len(self._labels)} nodes, expected those of {nodes}")
        self._drivers = tuple(drivers)
        self._resources = resources
        self._schedulers = schedulers
        self._listeners = listeners
        self._data_dir = None if data_dir is None else Path(data_dir).absolute()
        self._stack = ExitStack()
        self._portal = Portal(THREAD)
        atexit.register(self.close)
        try:
            self._control = self._start()
        except BaseException:
            self.close()
            raise
        self.client = SyncClient.on(self._portal, self._control.client())
        """What its jobs are run and seen with."""

    def __enter__(self) -> Self:
        """Return itself: it runs already."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop its tasks, and end it."""
        self.close()

    def close(self) -> None:
        """Stop its tasks, and end it; does nothing the second time, and in a child that the process forks."""
        atexit.unregister(self.close)
        if not self._portal.is_foreign:
            with self._stack:
                self._portal.close()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return where its listeners serve."""
        return self._control.addresses

    def _start(self) -> ControlPlane:
        directory = self._data_dir
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="khonsu-"))
            self._stack.callback(_remove, directory)  # when the agents are gone
        directory.mkdir(parents=True, exist_ok=True)
        return self._portal.enter(self._running(directory, keep=self._data_dir is not None))

    @asynccontextmanager
    async def _running(self, directory: Path, *, keep: bool) -> AsyncGenerator[ControlPlane, None]:
        """Run it for the length of the block."""
        control = ControlPlane(
            store=SQLiteStore(directory / "state.db") if keep else MemoryStore(),
            listeners=self._listeners,
            schedulers=self._schedulers,
            data_dir=directory if keep else None,
        )
        async with control, bare_task_group() as group:
            async with bare_task_group() as starting:
                for number in range(len(self._labels)):
                    starting.start_soon(group.start, self._agent(control, directory, number).run)
            yield control
            group.cancel_scope.cancel()

    def _agent(self, control: ControlPlane, directory: Path, number: int) -> Agent:
        name = f"node-{number}"
        return Agent(
            name,
            transport=control.transport(),
            drivers=[make() for make in self._drivers],
            data_dir=directory / name,
            labels=self._labels[number],
            resources=self._resources,
            on_exit="stop",
        )


def _remove(directory: Path) -> None:
    """Remove a directory with all that tasks may have left in it."""
    # A `TemporaryDirectory` for its whole life would also be removed by the end of a child that the process forks.
    with tempfile.TemporaryDirectory(prefix="khonsu-", dir=directory.parent) as grave:
        directory.rename(Path(grave) / "left")
