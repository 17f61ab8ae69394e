from __future__ import annotations

from collections.abc import Callable

import pytest

from khonsu.abc.scheduler import Scheduler
from khonsu.core.explain import total_of
from khonsu.schedulers.fit import BinPack, SpreadOut
from khonsu.testing.fleets import ask, fleet
from khonsu.testing.schedulers import check_scheduler

SHIPPED = [BinPack, SpreadOut]


@pytest.mark.parametrize("make", SHIPPED)
def test_shipped_schedulers_keep_the_promises(make: Callable[[], Scheduler]) -> None:
    """Each passes the check that strangers' schedulers are to pass."""
    check_scheduler(make)


@pytest.mark.parametrize("make", SHIPPED)
def test_all_feasible_nodes_are_looked_at(make: Callable[[], Scheduler]) -> None:
    """A better node is found wherever it is: no node with room has a higher score than the first that was chosen."""
    everything, wanted = fleet(500, seed=4), ask(cpu=0.5, count=1)
    scheduler = make()
    row = int(scheduler.place(wanted, everything)[0])
    room = everything.fits(wanted) > 0
    scores = total_of(scheduler.terms(wanted, everything), everything)
    assert scores[row] == max(scores[room])
    assert everything.rank[row] == min(everything.rank[room & (scores == scores[row])])


def test_the_two_go_opposite_ways() -> None:
    """What one finds best the other finds worst."""
    everything, wanted = fleet(50, seed=1), ask(count=1)
    best, worst = BinPack().fit(wanted, everything), SpreadOut().fit(wanted, everything)
    assert (best + worst == 1.0).all()
