from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from khonsu.abc.scheduler import Scheduler, scheduler
from khonsu.core.arrays import BoolArray, FloatArray, IntArray
from khonsu.core.ask import Ask
from khonsu.core.conditions import Spread
from khonsu.core.feasible import feasible
from khonsu.core.fleet import Fleet
from khonsu.errors import PluginError
from khonsu.testing.fleets import ask, fleet, fleet_state
from khonsu.testing.schedulers import SchedulerCheckFailed, check_scheduler


class RoomiestFirst(Scheduler):
    """Prefer the node whose memory is the least used after the placement."""

    name = "roomiest"

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        """Return the free share of the memory."""
        return 1.0 - fleet.after(ask).share("memory")


class RoomiestAtOnce(RoomiestFirst):
    """The same, with the promise that makes it fast."""

    independent = True


class Random(Scheduler):
    """Any node."""

    name = "random"

    def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
        """Return chance."""
        return fleet.rng().random(len(fleet))


class Wishes(Scheduler):
    """Only what the base class does: the job's own wishes."""

    name = "wishes"


class EmptyNodesOnly(Scheduler):
    """Refuse nodes that have anything on them, by a filter that changes with each copy."""

    name = "empty"
    independent = True

    def filters(self, ask: Ask, fleet: Fleet, /) -> Mapping[str, BoolArray]:
        """Keep nodes of which nothing is used."""
        return {"only empty nodes": fleet.used["cpu"] == 0}

    def score(self, ask: Ask, fleet: Fleet, /) -> Mapping[str, FloatArray]:
        """Return two terms."""
        return {"cores": fleet.total["cpu"] / 1000, "free": fleet.free["memory"] / 2**30}


class FirstFit(Scheduler):
    """Fill the nodes row by row, with a `place` of its own."""

    name = "first-fit"

    def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
        """Return the first rows that have room."""
        rows = np.repeat(np.arange(len(fleet)), np.minimum(fleet.fits(ask), ask.count))[: ask.count]
        return np.append(rows, np.full(ask.count - len(rows), -1))


@pytest.mark.parametrize("make", [RoomiestFirst, RoomiestAtOnce, Random, Wishes, EmptyNodesOnly])
def test_small_schedulers_keep_the_promises(make: type[Scheduler]) -> None:
    """A score is enough; with filters, terms and promises too."""
    check_scheduler(make)


def test_a_true_promise_changes_nothing_but_the_work() -> None:
    """Placed at once or one after the other, the nodes are the same."""
    everything, wanted = fleet(60, seed=2), ask(cpu=0.25, count=80)
    assert RoomiestFirst().place(wanted, everything).tolist() == RoomiestAtOnce().place(wanted, everything).tolist()


def test_a_false_promise_is_found() -> None:
    """Chance depends on more than a node's own row."""

    class Liar(Random):
        independent = True

    with pytest.raises(SchedulerCheckFailed, match=r"not so: .*(best node|depend on)"):
        check_scheduler(Liar)


def test_a_scheduler_without_a_name_is_found() -> None:
    """Nobody could ask for it."""
    with pytest.raises(SchedulerCheckFailed, match="not so: it has a name"):
        check_scheduler(Scheduler)


def test_one_that_remembers_is_found() -> None:
    """Two calls with the same fleet have to give the same."""

    class Counter(Scheduler):
        name = "counter"
        calls = 0

        def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
            self.calls += 1
            return np.roll(np.arange(len(fleet), dtype=np.float64), self.calls)

    with pytest.raises(SchedulerCheckFailed, match="not so: it is pure"):
        check_scheduler(Counter)


def test_one_that_overcommits_is_found() -> None:
    """All copies on the first node is more than it has room for."""

    class Heap(Scheduler):
        name = "heap"

        def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
            return np.zeros(ask.count, np.int64) if len(fleet) else np.full(ask.count, -1)

    with pytest.raises(SchedulerCheckFailed, match="not so: no node gets more copies than fit"):
        check_scheduler(Heap)


def test_place_may_be_overridden() -> None:
    """Its rows are taken as they are, without scores."""
    everything, wanted = fleet(5, seed=1), ask(cpu=1, count=100)
    picks = FirstFit().picks(wanted, everything)
    placed = picks.rows[picks.rows >= 0]
    assert feasible(wanted, everything).fits.tolist() == np.bincount(placed, minlength=5).tolist()
    assert not picks.scores.any()


def test_a_function_makes_a_scheduler() -> None:
    """By the decorator, with its name and its docstring."""

    @scheduler("fullest", independent=True)
    def fullest(ask: Ask, fleet: Fleet) -> FloatArray:
        """Prefer full nodes."""
        return fleet.after(ask).share("cpu")

    assert (fullest.name, fullest.independent, fullest.__doc__) == ("fullest", True, "Prefer full nodes.")
    check_scheduler(lambda: fullest)


def test_the_base_class_honours_the_jobs_wishes() -> None:
    """A scheduler without a score spreads as the job asks."""
    everything = fleet(64, seed=3)
    wanted = ask(cpu=0.1, count=8, spreads=[Spread("label.rack")])
    racks = everything.attribute("label.rack")
    assert len({racks.text(int(row)) for row in Wishes().place(wanted, everything)}) == 8


def score_of(answer: object) -> Scheduler:
    """Return a scheduler whose score is this."""

    class Odd(Scheduler):
        name = "odd"

        def score(self, ask: Ask, fleet: Fleet, /) -> FloatArray:
            return answer  # type: ignore[return-value]

    return Odd()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            np.zeros(3),
            r"score is an array of float64 with shape \(3,\), not an array with a number for each",
        ),
        (np.zeros((5, 1)), r"with shape \(5, 1\)"),
        (np.zeros(5, np.complex128), "of complex128"),
        (np.zeros(5, np.bool_), "of bool"),
        ([0.0] * 5, "score is a list"),
        (1.0, "score is a float"),
        (None, "score is a NoneType"),
        ({"good": np.zeros(5), "bad": np.zeros(4)}, "score 'bad' is an array"),
        (np.array([np.nan] * 5), "the score of node node-. is nan, no finite number"),
        (np.array([np.inf] * 5), "is inf, no finite number"),
    ],
)
def test_a_score_of_another_form_is_refused(answer: object, words: str) -> None:
    """The error names the scheduler, the term or the node, and what should have been there."""
    with pytest.raises(PluginError, match=f"scheduler odd: .*{words}"):
        score_of(answer).place(ask(cpu=0.1), fleet(5, seed=9))


def test_whole_numbers_are_numbers() -> None:
    """A score may count something."""
    assert -1 not in score_of(np.arange(5)).place(ask(cpu=0.1, count=1), fleet(5, seed=9))


@pytest.mark.parametrize(
    ("answer", "words"), [(np.zeros(5), "filter 'why' is an array of float64"), (True, "filter 'why' is a bool")]
)
def test_a_filter_of_another_form_is_refused(answer: object, words: str) -> None:
    """Only an array of True and False keeps nodes."""

    class Odd(Scheduler):
        name = "odd"

        def filters(self, ask: Ask, fleet: Fleet, /) -> Mapping[str, BoolArray]:
            return {"why": answer}  # type: ignore[dict-item]

    with pytest.raises(PluginError, match=f"scheduler odd: {words}"):
        Odd().place(ask(cpu=0.1), fleet(5, seed=9))


@pytest.mark.parametrize("answer", [[0, 1], [0, 1, 5], [0, 1, -2], [0.0, 1.0, 2.0], "web"])
def test_a_place_of_another_form_is_refused(answer: object) -> None:
    """One row for each copy, of the fleet, or -1."""

    class Odd(Scheduler):
        name = "odd"

        def place(self, ask: Ask, fleet: Fleet, /) -> IntArray:
            return answer  # type: ignore[return-value]

    with pytest.raises(PluginError, match=r"scheduler odd: place returned .*, not 3 positions below 5, or -1"):
        Odd().picks(ask(), fleet(5, seed=9))


def test_made_fleets_are_the_same_for_the_same_seed() -> None:
    """What a test of a scheduler is given does not change from run to run."""
    first, second, other = fleet(30, seed=1), fleet(30, seed=1), fleet(30, seed=2)
    assert first.free["cpu"].tolist() == second.free["cpu"].tolist() != other.free["cpu"].tolist()
    assert (len(first), len(fleet_state(30, 1))) == (30, 30)
