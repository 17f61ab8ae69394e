"""What was seen of the hosts, of the requests between them, and of what goes wrong: what the records do not tell.

Times are in seconds since the run began.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from khonsu.core.retention import Retention
from khonsu.testing.simulation.clock import START, HostClock, true_time
from khonsu.testing.simulation.coverage import Coverage

if TYPE_CHECKING:
    from khonsu.errors import KhonsuError
    from khonsu.testing.simulation.faults import Fault

SYNC: Final = "node.sync"
LEAVE: Final = "node.leave"
LEAVE_SECONDS: Final = 5.0
"""For how long after a goodbye a node may be marked down because of it."""
HEARD_MAX: Final = 64
"""How many syncs of a host are remembered."""
_NEVER: Final = float("-inf")


class Sights:
    """Takes note of what it is told; the invariants ask it.

    Args:
        coverage: Is told of faults and operations.
        now: The time.
        retention: What of the history the control plane keeps.

    """

    def __init__(
        self,
        coverage: Coverage | None = None,
        *,
        now: Callable[[], float] = true_time,
        retention: Retention | None = None,
    ) -> None:
        """Have seen nothing."""
        self.retention = retention if retention is not None else Retention()
        """What of the history the control plane keeps."""
        self.coverage = coverage if coverage is not None else Coverage()
        self.now = now
        self.opened_at = _NEVER
        """When the store of the control plane was opened last."""
        self.failed_at = _NEVER
        """When a write of the control plane failed last."""
        self.answered: Callable[[str, str, KhonsuError | None], None] = lambda *_: None
        """Is told of every answer."""
        self.faults: dict[int, Fault] = {}
        """What goes wrong now, by number."""
        self._hurt: dict[str, float] = {}
        self._heard: dict[str, deque[float]] = {}
        self._reached: dict[str, float] = {}
        self._left: dict[str, float] = {}
        self._agents: dict[str, float] = {}
        self._damaged: dict[str, float] = {}
        self.struck: set[str] = set()
        """The keys of processes that no program of ours has ended."""
        self.found_damage: dict[str, float] = {}
        """When agents started over a journal that was damaged, by host."""
        self._clock: HostClock | None = None
        self._epoch = self._offset = self._mono = 0.0

    # The control plane.

    def opened(self, clock: HostClock) -> None:
        """Take note that a control plane opens its store, on a host with these clocks."""
        self.opened_at = self.now()
        self._clock = clock
        self._mono, self._offset = clock.monotonic(), clock.wall_offset
        self._epoch = clock.wall() - self._mono

    def failed(self) -> None:
        """Take note that a write of the control plane failed."""
        self.failed_at = self.now()

    def true_time(self, at: float) -> float:
        """Return when something was that the present run of the control plane has written down with its own time."""
        drift = self._clock.drift if self._clock is not None else 0.0
        return self.opened_at + (at - (self._epoch or START) - self._mono) / (1.0 + drift)

    @property
    def stepped(self) -> bool:
        """Return whether somebody has set the wall clock of the control plane since it opened its store."""
        return self._clock is not None and self._clock.wall_offset != self._offset

    # The agents.

    def agent_started(self, host: str) -> None:
        """Take note that an agent starts."""
        if self.damaged_at(host) > self.agent_since(host):
            self.found_damage[host] = self.now()
        self._agents[host] = self.now()

    def agent_since(self, host: str) -> float:
        """Return when the agent of a host started last."""
        return self._agents.get(host, _NEVER)

    def damaged(self, host: str) -> None:
        """Take note that the journal of an agent is damaged."""
        self._damaged[host] = self.now()

    def damaged_at(self, host: str) -> float:
        """Return when the journal of a host was damaged last."""
        return self._damaged.get(host, _NEVER)

    # The requests.

    def request_began(self, source: str, operation: str) -> None:
        """Take note that a request leaves a host."""
        self.coverage.operation_began(operation)

    def request_waits(self, source: str, operation: str) -> None:
        """Take note that a request has come to a control plane that is paused."""
        if operation == SYNC:
            self._heard.setdefault(source, deque(maxlen=HEARD_MAX)).append(self.now())

    def request_arrived(self, source: str, operation: str) -> None:
        """Take note that a request arrives."""
        if operation == SYNC:
            self._reached[source] = self.now()
            self._heard.setdefault(source, deque(maxlen=HEARD_MAX)).append(self.now())
        elif operation == LEAVE:
            self._left[source] = self.now()

    def request_served(self, source: str, operation: str, arrived_at: float, error: KhonsuError | None) -> None:
        """Take note that a request was served that had arrived at a time, or came to an error."""
        self.answered(source, operation, error)
        heard = self._heard.get(source)
        if operation == SYNC and error is not None and heard and arrived_at in heard:
            heard.remove(arrived_at)

    def request_ended(self, source: str, operation: str) -> None:
        """Take note that nobody waits for the answer to a request any more."""
        self.coverage.operation_ended(operation)

    def heard_at(self, host: str, before: float = math.inf) -> float:
        """Return when the last sync of a host arrived before a time that was not refused."""
        return max((at for at in self._heard.get(host, ()) if at < before), default=_NEVER)

    def reached_at(self, host: str) -> float:
        """Return when the last sync of a host arrived, whatever came of it."""
        return self._reached.get(host, _NEVER)

    def left_at(self, host: str) -> float:
        """Return when a host last said goodbye."""
        return self._left.get(host, _NEVER)

    # What goes wrong.

    def fault_began(self, number: int, fault: Fault) -> None:
        """Take note that something goes wrong."""
        self.faults[number] = fault
        self.coverage.fault_began(type(fault).__name__)

    def fault_ended(self, number: int) -> None:
        """Take note that it is over."""
        fault = self.faults.pop(number)
        for host in fault.hosts:
            self._hurt[host] = self.now()
        self.coverage.fault_ended(type(fault).__name__)

    def hurt_at(self, host: str) -> float:
        """Return until when something was wrong with a host itself: now, if it still is."""
        if any(host in fault.hosts for fault in self.faults.values()):
            return self.now()
        return self._hurt.get(host, _NEVER)
