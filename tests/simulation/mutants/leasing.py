"""Bugs of leases: who is given up, when, and what may run meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from khonsu.agent.sync import Sync as AgentSync
from khonsu.control.leases import Leases
from khonsu.control.reaper import Reaper
from khonsu.control.state import State
from khonsu.control.sync import Sync
from khonsu.core.leases import LeaseBook, Silence
from khonsu.testing.fake_driver import FakeProcess
from tests.simulation.mutants.planting import Mutant, Patch, always, harmless, mutant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from khonsu.abc.store import Store
    from khonsu.control.calls import Call
    from khonsu.core.ids import NodeId
    from khonsu.core.leases import LeaseTerms
    from khonsu.core.protocol import SyncResponse
    from khonsu.core.records import Node
    from khonsu.env import Env


@mutant
def lease_from_the_answer() -> Iterator[Patch]:
    """An agent counts its lease from when it heard the answer."""
    take = AgentSync._take

    def late(self: AgentSync, sent: float, response: SyncResponse) -> None:
        take(self, self._env.monotonic(), response)

    yield AgentSync, "_take", late


@mutant
def helper_minds_no_lease() -> Iterator[Patch]:
    """An exclusive task runs on when the lease has run out."""
    yield FakeProcess, "end", property(lambda self: self.own_end)


@mutant
def kill_timeout_is_forgotten() -> Iterator[Patch]:
    """The time that a task takes to stop is not waited for."""
    yield Silence, "_exclusive_seconds", lambda self, _: self.ttl_seconds + self.margin_seconds


@mutant
def exclusive_waits_for_nothing() -> Iterator[Patch]:
    """An exclusive slot is filled as soon as its node is down."""
    yield Silence, "exclusive_wait_seconds", always(0.0)


@mutant
def exclusive_waits_for_the_lease_of_today() -> Iterator[Patch]:
    """An exclusive slot is filled when half of a lease is over."""
    yield Silence, "_exclusive_seconds", lambda self, timeout: self.ttl_seconds / 2 + timeout


@mutant
def everybody_is_late_after_a_start() -> Iterator[Patch]:
    """A control plane that comes back gives nobody a lease."""
    begin = LeaseBook.__init__

    def without(self: LeaseBook, now: float, *, ready: Iterable[NodeId] = (), **fields: Any) -> None:
        begin(self, now, ready=ready, **fields)
        self._heard = dict.fromkeys(self._heard, now - 3600.0)

    yield LeaseBook, "__init__", without


@mutant
def deaf_time_counts() -> Iterator[Patch]:
    """Time in which the control plane could not listen counts against the nodes."""
    expire = LeaseBook.expire

    def strict(self: LeaseBook, now: float) -> tuple[NodeId, ...]:
        self._ticked_at = now
        return expire(self, now)

    yield LeaseBook, "expire", strict


@mutant
def renews_after_the_disk() -> Iterator[Patch]:
    """A lease is renewed when what was reported is on the disk."""
    renew, serve = Leases.renew, Sync.sync

    def not_yet(self: Leases, node: NodeId, received_at: float) -> LeaseTerms:
        return self.book.terms

    async def late(self: Sync, call: Call) -> Mapping[str, Any]:
        received = self._state.env.monotonic()
        answer = await serve(self, call)
        renew(self._leases, call.own_node(), received)
        return answer

    yield Leases, "renew", not_yet
    yield Sync, "sync", late


@mutant
def no_brake() -> Iterator[Patch]:
    """When most nodes vanish, everything is replaced."""
    yield Leases, "mass_loss", always(False)


@mutant
def nobody_is_down() -> Iterator[Patch]:
    """A node that is silent stays ready."""

    def silent(self: Reaper, now: float) -> list[Node]:
        return []

    yield Reaper, "_silent", silent


class _WallEnv:
    """An environment whose clocks are both the wall clock."""

    def __init__(self, env: Env) -> None:
        self._env = env

    def monotonic(self) -> float:
        return self._env.now()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)


@mutant
def leases_by_the_wall_clock() -> Iterator[Patch]:
    """The control plane counts leases on the wall clock."""
    begin = State.__init__

    def by_wall(self: State, store: Store, env: Any) -> None:
        begin(self, store, _WallEnv(env))  # type: ignore[arg-type]

    yield State, "__init__", by_wall


@harmless(
    "A slot is waited for from when a request was received, and the lease counts from when it was sent: clocks that "
    "differ by 500 ppm take less from that than a start takes."
)
def margin_is_nothing() -> Iterator[Patch]:
    """No margin for clocks that differ."""
    begin = LeaseBook.silence

    def bare(self: LeaseBook, now: float, **fields: Any) -> Silence:
        from attrs import evolve

        return evolve(begin(self, now, **fields), margin_seconds=0.0)

    yield LeaseBook, "silence", bare


@mutant
def a_set_clock_is_waited_for() -> Iterator[Patch]:
    """A slot waits until the day has come at which its node was marked down (it was so once)."""

    def marked(self: Silence, marked_seconds_ago: float) -> float:
        return min(marked_seconds_ago, self.up_seconds)

    yield Silence, "_marked_seconds", marked


MUTANTS: tuple[Mutant, ...] = (
    lease_from_the_answer,
    helper_minds_no_lease,
    kill_timeout_is_forgotten,
    exclusive_waits_for_nothing,
    exclusive_waits_for_the_lease_of_today,
    everybody_is_late_after_a_start,
    deaf_time_counts,
    renews_after_the_disk,
    no_brake,
    nobody_is_down,
    leases_by_the_wall_clock,
    margin_is_nothing,
    a_set_clock_is_waited_for,
)
