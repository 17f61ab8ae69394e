"""The operations that are no requests: what the coverage is told of the life of tasks."""

from __future__ import annotations

from typing import ClassVar

from khonsu.core.records import Allocation
from khonsu.core.revision import Revision
from khonsu.core.states import Desired
from khonsu.testing.simulation.coverage import START, STOP
from khonsu.testing.simulation.oracle import Invariant, Moves, Oracle, Process


class TaskOperations(Invariant):
    """Promises nothing: tells the coverage how long a task is on its way up, and how long on its way down."""

    promise: ClassVar[str] = ""

    def __init__(self, world: Oracle) -> None:
        """Know of no task."""
        super().__init__(world)
        self._under_way: dict[tuple[str, str], None] = {}

    def restored(self, revision: Revision) -> None:
        """Begin anew with what is there."""
        for operation, allocation in list(self._under_way):
            self._end(operation, allocation)
        self.committed([(None, one) for one in self.oracle.allocations])

    def committed(self, moves: Moves) -> None:
        """Begin what is wanted, and end what has ended."""
        for before, after in moves:
            if isinstance(after, Allocation) and after.live:
                known = before if isinstance(before, Allocation) else None
                if known is None and after.desired is Desired.RUN:
                    self._begin(START, after.id)
                elif after.desired is Desired.STOP and (known is None or known.desired is Desired.RUN):
                    self._begin(STOP, after.id)
            elif isinstance(gone := after or before, Allocation):
                self._end(START, gone.id)
                self._end(STOP, gone.id)

    def started(self, process: Process) -> None:
        """Take note that a task is up."""
        self._end(START, process.allocation)

    def ended(self, process: Process, how: str) -> None:
        """Take note that a task is down."""
        self._end(STOP, process.allocation)

    def _begin(self, operation: str, allocation: str) -> None:
        if (operation, allocation) not in self._under_way:
            self._under_way[operation, allocation] = None
            self.oracle.sights.coverage.operation_began(operation)

    def _end(self, operation: str, allocation: str) -> None:
        if (operation, allocation) in self._under_way:
            del self._under_way[operation, allocation]
            self.oracle.sights.coverage.operation_ended(operation)
