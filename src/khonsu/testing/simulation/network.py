"""The network between hosts: how long a message takes, and whether it arrives."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from khonsu.abc.transport import Handler
from khonsu.errors import KhonsuError
from khonsu.testing.simulation.env import SimEnv
from khonsu.transports.inprocess import InProcessTransport

DELAY_SECONDS = 0.002
HEAVY_SHARE = 0.02
HEAVY_FACTOR = 50.0
"""Some messages take many times as long: delays have a heavy tail."""


@define(eq=False)
class Endpoint:
    """Somebody who listens at an address: requests are served in tasks of their own."""

    handler: Handler
    group: TaskGroup
    env: SimEnv
    transport: InProcessTransport = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the last step of the way."""
        self.transport = InProcessTransport(self.handler, task_group=self.group)


@define(eq=False, kw_only=True)
class CallWatchers:
    """Who is told of requests: the host that makes one, and its operation; then when it had arrived, and its error.

    One `waits` that comes to a server that is paused.
    """

    began: Callable[[str, str], None] = lambda *_: None
    waits: Callable[[str, str], None] = lambda *_: None
    arrived: Callable[[str, str], None] = lambda *_: None
    served: Callable[[str, str, float, KhonsuError | None], None] = lambda *_: None
    ended: Callable[[str, str], None] = lambda *_: None


@define(eq=False)
class Network:
    """What carries messages. Its fields are set by faults.

    Args:
        chance: Delays and losses.
        group: Where messages are on their way; they outlive who sent them.
        note: Is told of what is lost or doubled: who sent it, and what became of it.
        calls: Are told of requests.

    """

    chance: random.Random
    group: TaskGroup
    note: Callable[[str, str], None]
    calls: CallWatchers = field(factory=CallWatchers)
    delay_seconds: float = DELAY_SECONDS
    """How long a message takes on average, one way."""
    lost_requests: float = 0.0
    """The share of requests that do not arrive."""
    lost_answers: float = 0.0
    """The share of answers that do not arrive: what was asked for is done, and nobody is told."""
    doubled: float = 0.0
    """The share of requests that arrive twice."""
    echo_seconds: float = 0.0
    """By how much the second of them is later, at most."""
    cuts: dict[tuple[str, str], int] = field(factory=dict)
    """How many faults cut the way from one host to another."""
    dark: set[str] = field(factory=set)
    """Hosts without power: they do not even refuse."""
    endpoints: dict[str, Endpoint] = field(factory=dict)
    moves: Counter[str] = field(factory=Counter)
    """How often the address of each host has changed: what is on its way then does not arrive."""
    strays: dict[str, str] = field(factory=dict)
    """Hosts that take another one for the control plane, once they have heard of `stray_term`."""
    stray_term: int = 0
    terms: dict[str, int] = field(factory=dict)
    """The last term that each host has heard of."""
    _numbers: Iterator[int] = field(factory=count)

    def next_number(self) -> int:
        """Return the number of the next request."""
        return next(self._numbers)

    def target(self, source: str, address: str) -> str:
        """Return the host that an address leads to, from a host."""
        stray = self.strays.get(source)
        return stray if stray is not None and self.terms.get(source, 0) >= self.stray_term else address

    def move(self, host: str) -> None:
        """Give a host another address: nobody who spoke with it is heard any more, and hears anything."""
        self.moves[host] += 1

    def moved(self, source: str, target: str) -> tuple[int, int]:
        """Return how often the addresses of two hosts have changed."""
        return self.moves[source], self.moves[target]

    def heard_of(self, source: str, term: int) -> None:
        """Take note that a host was told of a term."""
        self.terms[source] = max(term, self.terms.get(source, 0))

    def cut(self, source: str, target: str) -> None:
        """Let nothing through in one direction."""
        self.cuts[source, target] = self.cuts.get((source, target), 0) + 1

    def heal(self, source: str, target: str) -> None:
        """Undo one `cut`."""
        left = self.cuts.pop((source, target), 0) - 1
        if left > 0:
            self.cuts[source, target] = left

    def listen(self, address: str, endpoint: Endpoint) -> None:
        """Have requests to an address served."""
        self.endpoints[address] = endpoint

    def leave(self, address: str, endpoint: Endpoint) -> None:
        """Serve them no more."""
        if self.endpoints.get(address) is endpoint:
            del self.endpoints[address]

    def passes(self, source: str, target: str) -> bool:
        """Return whether a message gets through now."""
        return (source, target) not in self.cuts

    def happens(self, share: float) -> bool:
        """Return whether something happens that happens with this share."""
        return share > 0.0 and self.chance.random() < share

    async def travel(self) -> None:
        """Take as long as a message does. Messages overtake each other."""
        seconds = self.chance.expovariate(1.0 / self.delay_seconds)
        if self.chance.random() < HEAVY_SHARE:
            seconds *= HEAVY_FACTOR
        await anyio.sleep(seconds)
