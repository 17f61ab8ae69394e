from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from attrs import evolve

from khonsu.abc.driver import TaskExit
from khonsu.core import leases
from khonsu.core.job import Job
from khonsu.core.policies import Disconnect
from khonsu.core.retention import Retention
from khonsu.core.states import AllocationStatus, Desired, JobStatus
from khonsu.errors import StoreDamaged
from khonsu.testing.fake_driver import FakeConfig
from khonsu.testing.simulation.durability import EachCommitIsWhole, FailuresLeaveNoTrace, StaysBounded
from khonsu.testing.simulation.invariants import (
    INVARIANTS,
    AcknowledgedStays,
    CapacityHolds,
    ExclusiveRunsOnce,
    StartsOnce,
    StatusGoesForward,
    SubmittedOnce,
)
from khonsu.testing.simulation.liveness import NothingIsTriedForEver, StaysThere
from khonsu.testing.simulation.oracle import Invariant
from khonsu.testing.simulation.reached import ReachesWhatIsWanted
from khonsu.testing.simulation.returning import (
    ActsOnWhatIsWanted,
    DamageIsTold,
    OneSurvives,
    ReturnsToItsTasks,
    TellsHowItEnded,
)
from khonsu.testing.simulation.silence import (
    BusyExpiresNobody,
    DeadIsMarkedDown,
    MassLossStopsReplacing,
    ReturnExpiresNobody,
    StepExpiresNobody,
)
from tests.simulation.histories import (
    JOB,
    History,
    allocation,
    at,
    down,
    ended,
    evaluation,
    event,
    job,
    node,
    task,
)

Tell = Callable[[History], None]

KILLED = "signal 15"
LONG: Final = 1000.0


def too_much(history: History) -> None:
    """Five copies with one CPU each, on a node with four."""
    history.submit()
    history.commit(node(), *(allocation(number, slot=number) for number in range(5)))


def a_port_twice(history: History) -> None:
    """Two copies with one port."""
    from khonsu.core.records import PortAssignment

    ports = (PortAssignment(name="http", host=8080, task=8080),)
    history.submit()
    history.commit(node(), allocation(1, ports=ports), allocation(2, slot=1, ports=ports))


def exclusive_twice(history: History) -> None:
    """An exclusive slot on two nodes."""
    history.start(allocation(1), epoch=1, lease=10.0)
    history.start(allocation(2, node="agent-2"), epoch=2, lease=10.0)


def started_twice(history: History) -> None:
    """One attempt, twice."""
    history.end(history.start(allocation()))
    history.start(allocation())


def an_older_epoch(history: History) -> None:
    """A second attempt with an older fencing token."""
    history.start(allocation(), attempt=1, epoch=9)
    history.start(allocation(), attempt=2, epoch=8)


def backwards(history: History) -> None:
    """A copy that runs again after its end."""
    history.submit()
    history.commit(allocation(status=AllocationStatus.FAILED))
    history.commit(allocation())


def moved(history: History) -> None:
    """A copy on another node."""
    history.submit()
    history.commit(allocation())
    history.commit(evolve(allocation(), node_id=node(2).id))


def killed_at_return(history: History) -> None:
    """An agent that has just come back ends what is to run."""
    history.submit()
    history.commit(node(), allocation())
    process = history.start(allocation())
    history.sights.agent_started("agent-1")
    history.now = 1.0
    history.end(process, KILLED)


def killed_later(history: History) -> None:
    """An agent ends what is to run."""
    history.submit()
    history.commit(node(), allocation())
    process = history.start(allocation())
    history.now = 60.0
    history.end(process, KILLED)


def unwritten(history: History) -> None:
    """Something starts that nobody has written down."""
    history.start(allocation())


def elsewhere(history: History) -> None:
    """A copy starts on a node that is not its own."""
    history.submit()
    history.commit(allocation(node="agent-2"))
    history.start(allocation())


def after_its_end(history: History) -> None:
    """A copy starts whose agent has told of its end."""
    history.submit()
    history.commit(allocation(status=AllocationStatus.STOPPED))
    history.start(allocation())


def another_code(history: History) -> None:
    """A task is said to have ended otherwise than it has."""
    history.submit()
    history.commit(allocation())
    history.end(history.start(allocation()), exit_=TaskExit(code=1))
    history.commit(allocation(status=AllocationStatus.FAILED, tasks=(task(1, 0),)))


def complete_without_an_end(history: History) -> None:
    """A copy is complete, and nothing of it has ended well."""
    history.submit()
    history.commit(allocation(status=AllocationStatus.COMPLETE))


def too_soon_after_a_start(history: History) -> None:
    """A node is down three seconds after the control plane came back."""
    history.commit(node())
    history.now = 100.0
    history.open()
    history.now = 103.0
    history.commit(down(1, 103.0))


def too_soon_after_a_step(history: History) -> None:
    """A node is down right after the clock was set."""
    history.commit(node())
    history.now = 100.0
    history.call("agent-1")
    history.clock.wall_offset = 86400.0
    history.now = 101.0
    history.commit(down(1, 101.0))


def too_soon(history: History) -> None:
    """A node is down that has called."""
    history.commit(node())
    history.now = 100.0
    history.call("agent-1")
    history.now = 105.0
    history.commit(down(1, 105.0))


def never_down(history: History) -> None:
    """A node is ready of which nothing was heard for a minute."""
    history.commit(node())
    history.call("agent-1")
    history.now = 60.0
    history.commit(node(2))


def replaced_in_spite_of_all(history: History) -> None:
    """Three of four nodes vanish, and a copy is replaced."""
    history.submit()
    silent = allocation(status=AllocationStatus.UNKNOWN)
    history.commit(*(node(number) for number in range(1, 5)), silent)
    history.commit(*(down(number, 100.0) for number in range(1, 4)))
    history.now = 120.0
    history.commit(allocation(2, node="agent-4", status=AllocationStatus.PENDING))


def forgotten(history: History) -> None:
    """A job is gone that was acknowledged."""
    history.submit()
    history.commit(forget=job())
    history.oracle.finished()


def set_back(history: History) -> None:
    """A store is opened that lacks a commit."""
    history.submit()
    history.commit(node())
    history.open(revision=history.number - 1)


def submitted_twice(history: History) -> None:
    """One submission, two versions."""
    history.submit()
    history.commit(*job(version=2), evaluation(2))


def run_twice(history: History) -> None:
    """One submission, two runs."""
    history.submit()
    history.commit(job(run=2)[0], evaluation(2))


def submitted_again(history: History) -> None:
    """A submission comes late, and again, after something else was asked for."""
    history.submit()
    history.oracle.submitting(JOB)
    history.oracle.submitting(JOB)
    history.oracle.acknowledged(JOB)
    history.commit(*job(version=2), evaluation(2))
    history.oracle.finished()


def stopped_again(history: History) -> None:
    """A stop comes late, and again."""
    history.submit()
    history.commit(job(stopped=True)[0], evaluation(2))
    history.oracle.finished()


def nobody_looks(history: History) -> None:
    """A job is written down, and nobody will look at it."""
    history.commit(*job())


def nobody_looks_at_an_end(history: History) -> None:
    """A copy ends, and nobody will look at its job."""
    history.submit()
    history.commit(ended(), allocation())
    history.commit(allocation(status=AllocationStatus.FAILED))


def no_version(history: History) -> None:
    """A copy of a version that is not there."""
    history.submit()
    history.commit(allocation(version=7))


def half_done(history: History) -> None:
    """A store holds something that was not committed."""
    history.commit(node())
    history.open(records=[node(), node(2)])


def a_gap(history: History) -> None:
    """A revision is left out: a write that failed has left something."""
    history.commit(node())
    history.commit(node(2), skip=1)


def refused_for_good(history: History) -> None:
    """A disk fails, and the client is told that it is in vain."""
    history.sights.request_served("client", "job.submit", 0.0, StoreDamaged("it is damaged"))


def looks_pile_up(history: History) -> None:
    """Four looks at one job wait."""
    history.submit()
    history.commit(*(evaluation(number) for number in range(1, 5)))


def history_piles_up(history: History) -> None:
    """What has ended long ago is still there."""
    history.sights.retention = Retention(evaluations="5s")
    history.commit(ended())
    history.now = LONG
    history.oracle.finished()


def events_pile_up(history: History) -> None:
    """More events are kept than the policy says."""
    history.sights.retention = Retention(events_max=2)
    history.commit(*(event(number, 0.0) for number in range(3)))
    history.now = LONG
    history.oracle.finished()


def old_events_pile_up(history: History) -> None:
    """Events are kept that are too old."""
    history.sights.retention = Retention(events="5s")
    history.commit(event(1, 0.0))
    history.now = LONG
    history.oracle.finished()


def refused_again_and_again(history: History) -> None:
    """A plan is refused eleven times."""
    history.submit()
    history.commit(evaluation(attempts=11))


def looked_at_again_and_again(history: History) -> None:
    """A job is looked at hundreds of times in a moment."""
    history.submit()
    for number in range(300):
        history.commit(ended(number))


def called_again_and_again(history: History) -> None:
    """An agent calls hundreds of times in a moment."""
    for _ in range(300):
        history.call("agent-1")


def damage_in_silence(history: History) -> None:
    """An agent found its journal damaged, and never said so."""
    history.now = 10.0
    history.sights.damaged("agent-1")
    history.now = 11.0
    history.sights.agent_started("agent-1")
    history.now = 20.0
    history.call("agent-1")
    history.commit(node())
    history.oracle.finished()


def two_survive(history: History) -> None:
    """Two copies of one slot are to run."""
    history.submit()
    history.commit(allocation(1), allocation(2, node="agent-2"))
    history.now = LONG
    history.oracle.finished()


def none_survives(history: History) -> None:
    """Both copies of a slot are told to stop."""
    history.submit()
    copies = allocation(1), allocation(2, node_id=node(2).id, node="agent-2")
    history.commit(node(1), node(2), *copies)
    history.commit(*(evolve(one, desired=Desired.STOP) for one in copies))


def nothing_runs(history: History) -> None:
    """A service is wanted, and nothing runs, though there is room."""
    history.commit(node())
    history.submit()
    history.now = LONG
    history.oracle.finished()


def not_done(history: History) -> None:
    """A batch job is not done."""
    history.submit(Job.single("web", FakeConfig(run_seconds=1.0), type="batch"))
    history.now = LONG
    history.oracle.finished()


def restless(history: History) -> None:
    """A service starts in the last second."""
    history.submit()
    history.commit(allocation())
    history.now = LONG
    history.start(allocation())
    history.oracle.finished()


HISTORIES: tuple[tuple[type[Invariant], Tell], ...] = (
    (CapacityHolds, too_much),
    (CapacityHolds, a_port_twice),
    (ExclusiveRunsOnce, exclusive_twice),
    (StartsOnce, started_twice),
    (StartsOnce, an_older_epoch),
    (StatusGoesForward, backwards),
    (StatusGoesForward, moved),
    (ReturnsToItsTasks, killed_at_return),
    (TellsHowItEnded, another_code),
    (TellsHowItEnded, complete_without_an_end),
    (ActsOnWhatIsWanted, killed_later),
    (ActsOnWhatIsWanted, unwritten),
    (ActsOnWhatIsWanted, elsewhere),
    (ActsOnWhatIsWanted, after_its_end),
    (ReturnExpiresNobody, too_soon_after_a_start),
    (MassLossStopsReplacing, replaced_in_spite_of_all),
    (StepExpiresNobody, too_soon_after_a_step),
    (BusyExpiresNobody, too_soon),
    (DeadIsMarkedDown, never_down),
    (AcknowledgedStays, forgotten),
    (AcknowledgedStays, set_back),
    (SubmittedOnce, submitted_twice),
    (SubmittedOnce, run_twice),
    (SubmittedOnce, submitted_again),
    (SubmittedOnce, stopped_again),
    (EachCommitIsWhole, nobody_looks),
    (EachCommitIsWhole, nobody_looks_at_an_end),
    (EachCommitIsWhole, no_version),
    (FailuresLeaveNoTrace, half_done),
    (FailuresLeaveNoTrace, a_gap),
    (FailuresLeaveNoTrace, refused_for_good),
    (StaysBounded, looks_pile_up),
    (StaysBounded, history_piles_up),
    (StaysBounded, events_pile_up),
    (StaysBounded, old_events_pile_up),
    (NothingIsTriedForEver, refused_again_and_again),
    (NothingIsTriedForEver, looked_at_again_and_again),
    (NothingIsTriedForEver, called_again_and_again),
    (DamageIsTold, damage_in_silence),
    (OneSurvives, two_survive),
    (OneSurvives, none_survives),
    (ReachesWhatIsWanted, nothing_runs),
    (ReachesWhatIsWanted, not_done),
    (StaysThere, restless),
)


@pytest.mark.parametrize(
    ("invariant", "tell"), HISTORIES, ids=[f"{one.promise}-{tell.__name__}" for one, tell in HISTORIES]
)
def test_an_invariant_can_fail(invariant: type[Invariant], tell: Tell) -> None:
    """A history that breaks a promise is told by its name."""
    history = History(invariant)
    tell(history)
    assert [what.partition(":")[0] for what in history.broken[:1]] == [invariant.promise]


def test_each_invariant_is_shown_to_fail() -> None:
    """There is a history for every one of them."""
    assert {invariant for invariant, _ in HISTORIES} == set(INVARIANTS)


def test_a_history_as_it_should_be_breaks_nothing() -> None:
    """A copy that is placed, runs, is stopped, moved from a silent node, and pruned."""
    history = History(*INVARIANTS)
    service = Job.single("web", FakeConfig(), disconnect=Disconnect(replace_after=0.0))
    history.commit(node(1), node(2), node(3))
    for host in ("agent-1", "agent-2", "agent-3"):
        history.call(host)
    history.submit(service)
    first = allocation(1, status=AllocationStatus.PENDING)
    history.commit(first, ended())
    process = history.start(first)
    returned = evolve(first, status=AllocationStatus.RUNNING)
    history.commit(returned)
    history.now = leases.TTL_SECONDS + leases.GRACE_SECONDS + 0.1
    history.call("agent-2")
    history.call("agent-3")
    history.commit(down(1, history.now), evolve(first, status=AllocationStatus.UNKNOWN), evaluation(2))
    second = allocation(2, node_id="n2", node="agent-2", status=AllocationStatus.PENDING)
    history.commit(second, ended(2))
    history.start(second)
    history.commit(evolve(second, status=AllocationStatus.RUNNING))
    history.call("agent-1")
    history.commit(node(1, status_at=at(history.now)), returned, evaluation(3))
    history.commit(evolve(returned, desired=Desired.STOP), ended(3))
    history.end(process, KILLED, TaskExit(signal=15))
    history.commit(evolve(first, status=AllocationStatus.STOPPED), evaluation(4))
    history.commit(ended(4), job(service, status=JobStatus.RUNNING)[0])
    history.commit(forget=[first])
    for _ in range(100):
        history.now += 1.0
        for host in ("agent-1", "agent-2", "agent-3"):
            history.call(host)
    history.open()
    history.oracle.finished()
    assert history.broken == []
    assert history.oracle.jobs[JOB].status is JobStatus.RUNNING


def test_what_an_agent_may_end_is_no_violation() -> None:
    """An end that was asked for, or that came with a damaged journal, breaks nothing."""
    history = History(ReturnsToItsTasks, ActsOnWhatIsWanted)
    history.submit()
    history.commit(allocation(1, desired=Desired.STOP), allocation(2, slot=1))
    history.end(history.start(allocation(1)), KILLED)
    process = history.start(allocation(2, slot=1))
    history.now = 1.0
    history.sights.damaged("agent-1")
    history.sights.agent_started("agent-1")
    history.now = 2.0
    history.end(process, KILLED)
    assert history.broken == []
