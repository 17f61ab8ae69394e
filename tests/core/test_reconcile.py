"""Reconciliation, one story at a time; what holds in all of them is in `test_reconcile_properties`."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from khonsu.core.ids import NodeId
from khonsu.core.job import Job
from khonsu.core.policies import Disconnect, Reschedule, Update
from khonsu.core.reconcile import Changes, reconcile
from khonsu.core.records import Allocation, Time
from khonsu.core.states import AllocationStatus, Desired, Eligibility, JobStatus
from khonsu.errors import InvalidTransition
from tests.core.rules_model import (
    LEASE_OVER_SECONDS,
    Model,
    make_allocation,
    make_group,
    make_job,
    make_node,
    make_record,
)

A = AllocationStatus


def cluster(spec: Job, nodes: int = 3) -> Model:
    """Return a cluster with a job that nobody has looked at."""
    made = [make_node(number) for number in range(nodes)]
    return Model(spec=spec, nodes={node.id: node for node in made})


def settled(spec: Job, nodes: int = 3) -> Model:
    """Return a cluster with a job as its user wants it."""
    model = cluster(spec, nodes)
    assert model.settle()
    return model


def where(model: Model) -> dict[int, str]:
    """Return the node of each copy that is to run."""
    return {slot: copies[-1].node_id for (_, slot), copies in sorted(model.to_run().items())}


def slots_of(changes: Changes) -> list[int]:
    """Return the slots that are placed."""
    return [place.slot for place in changes.place]


def stopped_slots(model: Model, changes: Changes) -> list[int]:
    """Return the slots of what is stopped."""
    return sorted(model.known[stop.allocation].slot for stop in changes.stop)


def step_and_act(model: Model, times: int = 1, seconds: float = 1.0) -> None:
    """Look, let every agent move, and let time pass."""
    for _ in range(times):
        model.step()
        for one in model.reachable():
            model.act(one.id)
        model.advance(seconds)


# First rollouts, scales and stops.


@pytest.mark.parametrize("job_type", ["service", "batch"])
def test_a_new_job_starts_all_copies_at_once(job_type: str) -> None:
    """A first rollout is not slowed down by the update policy."""
    changes = cluster(make_job(job_type, count=5)).look()
    assert slots_of(changes) == [0, 1, 2, 3, 4]
    assert changes.status is JobStatus.PENDING
    assert changes.rollout is None


def test_a_service_proves_itself() -> None:
    """A version is stable once all copies are healthy, and that is said once."""
    model = settled(make_job(count=2))
    assert model.record.stable_version == 1
    assert not model.look().stable
    assert model.record.status is JobStatus.RUNNING


def test_a_job_without_copies_is_running_and_proves_nothing() -> None:
    """A count of 0 is a wish like any other, but no version is stable for it."""
    changes = cluster(make_job(count=0)).look()
    assert (changes.status, changes.stable, changes.empty) == (JobStatus.RUNNING, False, True)


def test_scaling_down_stops_the_highest_slots() -> None:
    """The lowest slots stay, and no copy of them is touched."""
    model = settled(make_job(count=5))
    model.submit(make_job(count=2))
    changes = model.step()
    assert stopped_slots(model, changes) == [2, 3, 4]
    assert len(changes.adopt) == 2
    assert not changes.place


def test_scaling_up_starts_at_once_and_is_no_rollout() -> None:
    """New copies of unchanged work start together."""
    model = settled(make_job(count=1, update=Update(max_parallel=1)))
    model.submit(make_job(count=4, update=Update(max_parallel=1)))
    changes = model.step()
    assert slots_of(changes) == [1, 2, 3]
    assert changes.rollout is None


def test_a_group_that_is_gone_stops() -> None:
    """A new version without a group stops its copies and touches no other."""
    model = settled(make_job("service", make_group("a"), make_group("b")))
    model.submit(make_job("service", make_group("a")))
    changes = model.step()
    assert [model.known[stop.allocation].group for stop in changes.stop] == ["b"]
    assert len(changes.adopt) == 1


def test_a_stopped_job_stops_everything() -> None:
    """Nothing of a stopped job is to run, unknown copies included."""
    model = settled(make_job(count=3))
    model.lose(next(iter(model.nodes)))
    model.advance(LEASE_OVER_SECONDS)
    model.stop()
    changes = model.step()
    assert len(changes.stop) == 3
    assert not changes.place
    assert changes.status is JobStatus.STOPPED


def test_a_missing_spec_is_a_bug() -> None:
    """A job without the spec of its version is a broken belief, not a job without groups."""
    with pytest.raises(InvalidTransition):
        reconcile(make_record(make_job()), {}, (), {}, 0.0)


def test_a_stopped_copy_is_placed_again() -> None:
    """An operator's stop of one copy moves it, and costs no try."""
    model = settled(make_job(count=2))
    first = model.to_run()["main", 0][0]
    model.stop_allocation(first.id)
    changes = model.look()
    assert slots_of(changes) == [0]
    assert changes.place[0].reschedules == 0
    assert model.settle()


def test_a_copy_that_must_not_run_twice_waits_for_the_end_of_a_stopped_one() -> None:
    """With a static port the successor waits until the stopped copy has ended."""
    model = settled(make_job(count=1, ports={"http": 8080}))
    model.stop_allocation(model.to_run()["main", 0][0].id)
    assert not model.look().place
    for one in model.reachable():
        model.act(one.id)
    assert slots_of(model.look()) == [0]


# Updates.


def versions_running(model: Model) -> list[int]:
    """Return the versions of the copies that really run."""
    return sorted(model.known[key].version for key, process in model.running.items() if process.ended is None)


@pytest.mark.parametrize("start_first", [True, False])
@pytest.mark.parametrize("max_parallel", [1, 2, 3])
def test_an_update_replaces_so_many_at_a_time(start_first: bool, max_parallel: int) -> None:
    """All the while enough copies run, and never more than the allowed surplus."""
    policy = Update(max_parallel=max_parallel, start_first=start_first)
    model = settled(make_job(count=5, update=policy))
    model.submit(make_job(count=5, update=policy, work=2))
    for _ in range(100):
        step_and_act(model)
        running = len(versions_running(model))
        assert running <= (5 + max_parallel if start_first else 5)
        healthy = sum(one.health is True and one.status is A.RUNNING for one in model.live())
        assert healthy >= (5 if start_first else 5 - max_parallel)
    assert versions_running(model) == [2] * 5
    assert model.record.rollout is not None
    assert model.record.rollout.status == "successful"
    assert model.record.stable_version == 2


def test_without_room_a_single_copy_stops_first() -> None:
    """Where no new copy fits beside an old one, the old one makes room, one at a time."""
    policy = Update(start_first=True)
    model = settled(make_job(count=3, update=policy))
    model.room = 3
    model.submit(make_job(count=3, update=policy, work=2))
    for _ in range(100):
        step_and_act(model)
        assert len(versions_running(model)) >= 2
    assert versions_running(model) == [2, 2, 2]


def test_a_copy_that_is_not_healthy_is_replaced_first() -> None:
    """An update begins where it can only make things better."""
    policy = Update(start_first=False)
    model = settled(make_job(count=3, update=policy))
    model.submit(make_job(count=3, update=policy, work=2))
    sick = model.to_run()["main", 2][0]
    model.known[sick.id] = evolve(sick, health=None)
    assert stopped_slots(model, model.look()) == [2]


def test_an_unchanged_group_runs_on_under_the_new_version() -> None:
    """A change of what only the control plane acts on restarts nothing."""
    model = settled(make_job(count=2))
    before = set(model.to_run()["main", 0] + model.to_run()["main", 1])
    model.submit(make_job(count=2, update=Update(max_parallel=2), reschedule=Reschedule(attempts=5)))
    changes = model.step()
    assert set(changes.adopt) == {one.id for one in before}
    assert not changes.place
    assert not changes.stop
    assert {one.version for one in model.live()} == {2}
    assert model.record.stable_version == 2


def test_copies_of_a_version_that_was_left_again_are_kept() -> None:
    """Going back while a rollout has hardly begun replaces only what was already replaced."""
    model = settled(make_job(count=3))
    model.submit(make_job(count=3, work=2))
    step_and_act(model)
    model.submit(make_job(count=3))
    changes = model.step()
    assert len(changes.adopt) == 3
    assert len(changes.stop) == 1
    assert model.record.rollout is not None
    assert model.record.rollout.status == "cancelled"


def test_canaries_run_beside_the_old_copies_until_all_are_healthy() -> None:
    """Nothing stops before the canaries are healthy, and then the rollout goes on."""
    policy = Update(canary=2, max_parallel=1)
    model = settled(make_job(count=4, update=policy))
    model.submit(make_job(count=4, update=policy, work=2))
    changes = model.step()
    assert slots_of(changes) == [0, 1]
    assert all(place.canary and place.replaces for place in changes.place)
    first = min(one.id for one in model.live() if one.version == 2)
    for _ in range(10):
        # Only one of the canaries gets on.
        assert not model.step().stop
        model.act(first)
        model.advance(1.0)
    assert versions_running(model) == [1, 1, 1, 1, 2]
    assert model.settle()
    assert versions_running(model) == [2, 2, 2, 2]


def test_copies_that_run_on_do_not_date_a_rollout_back() -> None:
    """A rollout has all of its time, however long the copies of an unchanged group have been healthy."""
    model = settled(make_job("service", make_group("a"), make_group("b")))
    model.advance(3600)
    model.submit(make_job("service", make_group("a"), make_group("b", work=2)))
    model.step()
    changes = model.look()
    assert changes.rollout is not None
    assert (changes.rollout.status, changes.rollout.progressed_at) == ("running", model.now)


def test_a_stopped_job_is_looked_at_again_when_a_silent_copy_is_given_up() -> None:
    """Its copy on a silent node is lost once `stop_after` has passed, though nothing else happens to the job."""
    model = settled(make_job(count=1, disconnect=Disconnect(stop_after="60s")), nodes=1)
    model.lose(NodeId("n0"))
    model.advance(15)
    model.stop()
    wake_at = model.look().wake_at
    assert wake_at is not None
    model.advance(wake_at - model.now)
    assert len(model.look().mark_lost) == 1


def test_an_exclusive_group_has_no_canary() -> None:
    """A canary would be a second instance of its slot."""
    policy = Update(canary=1)
    model = settled(make_job(count=2, exclusive=True, update=policy))
    model.submit(make_job(count=2, exclusive=True, update=policy, work=2))
    changes = model.look()
    assert not changes.place
    assert len(changes.stop) == 1


def test_a_failed_rollout_goes_back() -> None:
    """The first new copy that fails ends the rollout, and the last stable version comes back as a new one."""
    model = settled(make_job(count=3))
    model.submit(make_job(count=3, work=2))
    model.broken_versions.add(2)
    step_and_act(model, 3)
    assert model.record.version == 3
    assert model.specs[3] == model.specs[1]
    assert model.settle()
    assert versions_running(model) == [3, 3, 3]
    assert model.record.stable_version == 3
    assert len([one for one in model.known.values() if one.version == 2]) == 1


def test_the_verdict_says_why() -> None:
    """The rollout's message names the copy and what became of it."""
    model = settled(make_job(count=3))
    model.submit(make_job(count=3, work=2))
    model.step()
    model.fail(next(one.id for one in model.live() if one.version == 2))
    changes = model.look()
    assert changes.revert_to == 1
    assert changes.rollout is not None
    assert (changes.rollout.status, changes.rollout.message) == (
        "failed",
        "main/0 of version 2 failed with exit code 1",
    )
    assert not changes.place


@pytest.mark.parametrize(("policy", "seconds"), [(Update(healthy_within=60), 60.0), (Update(progress_within=40), 40.0)])
def test_a_rollout_that_hangs_fails_in_time(policy: Update, seconds: float) -> None:
    """A copy that is never healthy ends the rollout at the deadline, which is announced."""
    model = settled(make_job(count=2, update=policy))
    model.submit(make_job(count=2, update=policy, work=2))
    model.step()
    new = next(one.id for one in model.live() if one.version == 2)
    model.act(new)
    changes = model.look()
    assert changes.wake_at == pytest.approx(model.now + seconds)
    model.advance(seconds - 1.0)
    assert model.look().revert_to is None
    model.advance(1.0)
    assert model.look().revert_to == 1


def test_time_without_a_control_plane_does_not_count_against_a_rollout() -> None:
    """After a long absence the copies get their time again, since nobody could report."""
    model = settled(make_job(count=2))
    model.submit(make_job(count=2, work=2))
    model.step()
    model.now += 5000.0
    silence = evolve(model.book.silence(model.now), up_seconds=1.0)
    allocations = list(model.known.values())
    changes = reconcile(model.record, model.specs, allocations, model.nodes, model.now, silence=silence)
    assert changes.revert_to is None
    assert changes.wake_at == pytest.approx(model.now - 1.0 + 300.0)


def test_without_a_stable_version_the_rollout_stands_still() -> None:
    """The new copy stops, the old ones run on, and the job has failed until somebody acts."""
    model = cluster(make_job(count=2))
    step_and_act(model, 2)  # they run, and are not healthy yet
    model.submit(make_job(count=2, work=2))
    step_and_act(model)
    new = next(one.id for one in model.live() if one.version == 2)
    model.report(evolve(model.known[new], health=None), A.RUNNING, health=False)
    changes = model.step()
    assert [stop.allocation for stop in changes.stop] == [new]
    assert changes.status is JobStatus.FAILED
    assert "main/0 of version 2 did not become healthy in time" in changes.message
    assert model.settle()
    assert versions_running(model) == [1, 1]
    model.submit(make_job(count=2, work=3))
    assert model.settle()
    assert versions_running(model) == [3, 3]


def test_a_user_may_forbid_the_revert() -> None:
    """With `auto_revert` off a failed rollout stands still, stable version or not."""
    policy = Update(auto_revert=False)
    model = settled(make_job(count=2, update=policy))
    model.submit(make_job(count=2, update=policy, work=2))
    model.step()
    model.fail(next(one.id for one in model.live() if one.version == 2))
    changes = model.step()
    assert changes.revert_to is None
    assert changes.status is JobStatus.FAILED
    assert model.look().empty


def half_replaced(**fields: Any) -> Model:
    """Return a cluster where one copy of version 2 is healthy and the other has just failed."""
    policy = Update(max_parallel=2)
    model = settled(make_job(count=2, update=policy, **fields))
    model.submit(make_job(count=2, update=policy, work=2, **fields))
    model.step()
    first, second = sorted(one.id for one in model.live() if one.version == 2)
    for _ in range(7):
        model.act(first)
        model.advance(1.0)
    model.step()
    model.fail(second)
    return model


def test_a_revert_is_never_reverted_and_goes_on_trying() -> None:
    """When even the stable version fails there is nothing better to go back to."""
    model = half_replaced()
    model.step()
    assert (model.record.version, model.origins[3]) == (3, "revert")
    model.broken_versions.add(3)
    step_and_act(model, 30)
    assert model.record.version == 3
    assert model.record.status is JobStatus.RUNNING
    assert model.record.rollout is not None
    assert (model.record.rollout.status, model.record.rollout.message[:16]) == ("running", "goes on trying: ")
    model.broken_versions.clear()
    assert model.settle()
    assert versions_running(model) == [3, 3]


def test_going_back_to_what_is_there_already_is_no_way_out() -> None:
    """A scale of the stable version that fails stands still: its spec would only fail again."""
    model = half_replaced()
    model.step()
    model.submit(make_job(count=3, update=Update(max_parallel=2)), "scale")
    model.step()
    for one in [one for one in model.live() if one.version == 4 and one.status is A.PENDING]:
        model.fail(one.id)
    changes = model.look()
    assert changes.revert_to is None
    assert changes.status is JobStatus.FAILED


def test_what_an_operator_stopped_has_not_failed() -> None:
    """However the copy ended, it was not the new version's fault."""
    model = settled(make_job(count=2))
    model.submit(make_job(count=2, work=2))
    model.step()
    new = next(one.id for one in model.live() if one.version == 2)
    model.stop_allocation(new)
    model.fail(new)
    assert model.look().revert_to is None


def test_a_copy_that_was_healthy_has_not_failed_its_rollout() -> None:
    """It is tried again like any other, and the rollout waits for it."""
    model = half_replaced()
    first = min(one.id for one in model.live() if one.version == 2)
    model.known = {key: one for key, one in model.known.items() if one.status is not A.FAILED}
    model.fail(first)
    changes = model.look()
    assert changes.revert_to is None
    assert changes.rollout is not None
    assert changes.rollout.status == "running"


def test_a_new_copy_on_a_silent_node_has_not_failed_its_rollout() -> None:
    """Nobody can know whether it is healthy; it is replaced instead."""
    policy = Update(healthy_within=30)
    model = settled(make_job(count=2, update=policy))
    model.submit(make_job(count=2, update=policy, work=2))
    model.step()
    new = next(one for one in model.live() if one.version == 2)
    model.lose(new.node_id)
    model.advance(31.0)
    changes = model.look()
    assert changes.revert_to is None
    assert new.slot in slots_of(changes)


def test_what_failed_before_a_rollout_does_not_count_against_it() -> None:
    """A rollout that begins late, as a node with an old copy comes back, begins without faults."""
    specs = {1: make_job(count=2), 2: make_job(count=2, work=2)}
    record = make_record(specs[2], version=2)
    nodes = {node.id: node for node in map(make_node, range(2))}
    failed = make_allocation(1, version=2, status=A.FAILED, health=None, changed_at=Time(5.0))
    copies = [failed, make_allocation(0), make_allocation(2, 1, slot=1, version=2, generation=2, health=None)]
    changes = reconcile(record, specs, copies, nodes, 100.0)
    record = evolve(record, rollout=changes.rollout)
    assert record.rollout is not None
    assert reconcile(record, specs, copies, nodes, 101.0).revert_to is None


def test_a_scale_of_a_broken_rollout_is_not_held_up_by_its_own_lack_of_room() -> None:
    """A slot that never had a copy waits for room, and neither slows nor fails the rollout."""
    policy = Update(start_first=False)
    model = settled(make_job(count=2, update=policy))
    model.room = 2
    model.submit(make_job(count=4, update=policy, work=2))
    step_and_act(model, 60)
    assert versions_running(model) == [2, 2]
    assert model.record.rollout is not None
    assert model.record.rollout.status == "successful"
    assert model.record.stable_version == 1


# Failures.


def test_a_failed_copy_is_tried_again_after_a_delay_that_doubles() -> None:
    """The delay is announced, doubles, and the nodes where it failed are to be avoided."""
    model = cluster(make_job(count=1))
    model.broken_versions.add(1)
    for tried, delay in enumerate((5.0, 10.0, 20.0)):
        model.step()
        (one,) = model.live()
        assert one.reschedules == tried
        model.fail(one.id)
        changes = model.look()
        assert not changes.place
        assert changes.wake_at == pytest.approx(model.now + delay)
        assert changes.status is JobStatus.PENDING
        model.advance(delay)
        place = model.look().place[0]
        assert place.avoid[0] == one.node_id
        assert place.previous is not None
        assert place.previous.id == one.id


def test_a_batch_job_fails_when_a_slot_is_given_up_and_the_others_are_done() -> None:
    """One more try by default; the others run to their end first."""
    model = cluster(make_job("batch", count=2))
    model.step()
    bad, good = sorted(model.live(), key=lambda one: one.slot)
    model.act(good.id)
    model.fail(bad.id)
    model.advance(10.0)
    assert slots_of(model.step()) == [0]
    model.fail(next(one.id for one in model.live() if one.slot == 0))
    model.advance(100.0)
    assert model.step().status is JobStatus.RUNNING
    model.act(good.id)
    changes = model.step()
    assert changes.status is JobStatus.FAILED
    assert changes.message == "main/0 was given up after 2 tries: exit code 1"
    assert model.look().empty


def test_a_batch_job_is_complete_when_every_slot_is() -> None:
    """A slot that has done its work is left alone."""
    model = cluster(make_job("batch", count=3))
    assert model.settle()
    assert model.record.status is JobStatus.COMPLETE
    assert len(model.known) == 3
    assert model.look().empty


def test_a_batch_job_that_runs_anew_does_everything_again() -> None:
    """What an earlier run has done, or tried in vain, does not count."""
    model = cluster(make_job("batch", count=2, reschedule=Reschedule(attempts=0)))
    model.step()
    for one in model.live():
        if one.slot == 0:
            model.fail(one.id)
        else:
            model.act(one.id)
            model.act(one.id)
    assert model.step().status is JobStatus.FAILED
    model.record = evolve(model.record, run=2, status=JobStatus.PENDING)
    assert slots_of(model.step()) == [0, 1]


def test_what_a_batch_job_has_done_stays_done_when_it_is_scaled() -> None:
    """Even if the version that did it is forgotten."""
    model = cluster(make_job("batch", count=1))
    assert model.settle()
    model.specs = {2: make_job("batch", count=2)}
    model.record = evolve(model.record, version=2, status=JobStatus.PENDING)
    model.origins[2] = "scale"
    assert slots_of(model.step()) == [1]


def test_a_lost_batch_copy_costs_no_try() -> None:
    """A node that is gone is not the copy's fault."""
    model = cluster(make_job("batch", count=1), nodes=2)
    for _ in range(3):
        model.step()
        (one,) = model.live()
        model.act(one.id)
        model.known[one.id] = evolve(model.known[one.id], status=A.LOST)
        place = model.look().place[0]
        assert place.reschedules == 0


def test_a_new_version_of_a_batch_job_is_a_new_run() -> None:
    """The old copies stop, and each slot starts anew when its old copy has ended."""
    model = cluster(make_job("batch", count=2))
    step_and_act(model)
    model.submit(make_job("batch", count=2, work=2))
    changes = model.step()
    assert len(changes.stop) == 2
    assert not changes.place
    for one in model.reachable():
        model.act(one.id)
    assert slots_of(model.step()) == [0, 1]


def test_a_service_with_limited_tries_fails_when_nothing_is_left_to_come() -> None:
    """A slot that is given up fails the job once the others are healthy, and they run on."""
    model = settled(make_job(count=2, reschedule=Reschedule(attempts=0)))
    model.fail(model.to_run()["main", 1][0].id)
    changes = model.step()
    assert changes.status is JobStatus.FAILED
    assert not changes.place
    assert not changes.stop
    # A node that dies is another matter: the slot that was healthy is placed again.
    model.lose(model.to_run()["main", 0][0].node_id)
    model.advance(LEASE_OVER_SECONDS)
    assert slots_of(model.look()) == [0]


# Silent nodes.


def silent(spec: Job) -> tuple[Model, Allocation]:
    """Return a cluster in which the node of the first slot has just been marked down, and the unknown copy."""
    model = settled(spec)
    one = model.to_run()["main", 0][0]
    model.lose(one.node_id)
    model.advance(LEASE_OVER_SECONDS)
    return model, model.known[one.id]


def test_the_copies_of_a_silent_node_are_replaced_at_once() -> None:
    """An unknown copy is not stopped, and its replacement says what it replaces."""
    model, one = silent(make_job(count=3))
    changes = model.step()
    assert [(place.slot, place.replaces, place.reason) for place in changes.place] == [(0, True, "its node is silent")]
    assert changes.place[0].previous == one
    assert not changes.stop
    assert model.look().empty


def test_a_replacement_inherits_the_tries_of_its_predecessor() -> None:
    """Moving costs none and gives none back, and an older failure is not paid for twice."""
    model = settled(make_job(count=1))
    one = model.to_run()["main", 0][0]
    failed = make_allocation(9, 2, slot=0, status=A.FAILED, generation=0, reschedules=3)
    model.known = {failed.id: failed, one.id: evolve(one, reschedules=4)}
    model.drain(one.node_id)
    (move,) = model.look().place
    model.undrain(one.node_id)
    model.lose(one.node_id)
    model.advance(LEASE_OVER_SECONDS)
    (replacement,) = model.look().place
    assert (move.reschedules, replacement.reschedules) == (4, 4)


def test_a_copy_that_its_agent_has_not_spoken_of_yet_is_waited_for() -> None:
    """Its node is back, so that the word of it comes any moment."""
    model, one = silent(make_job(count=1))
    model.bring_back(one.node_id)
    assert model.look().empty


def test_replacement_waits_as_long_as_the_job_says() -> None:
    """`replace_after` counts from the end of the lease, and the wait is announced."""
    model, _ = silent(make_job(count=3, disconnect=Disconnect(replace_after=60)))
    changes = model.look()
    assert not changes.place
    assert changes.wake_at is not None
    model.advance(changes.wake_at - model.now)
    assert slots_of(model.look()) == [0]


def test_nothing_is_replaced_while_most_nodes_are_silent() -> None:
    """The brake holds back the replacement of unknown copies, and nothing else."""
    model, _ = silent(make_job(count=3))
    allocations = list(model.known.values())
    silence = model.book.silence(model.now)

    def look(job: Any = model.record, **options: Any) -> Changes:
        return reconcile(job, model.specs, allocations, model.nodes, model.now, silence=silence, **options)

    assert look(paused=True).empty
    assert slots_of(look(paused=False)) == [0]


@pytest.mark.parametrize(
    ("keep", "healthy", "survivor"),
    [
        ("replacement", True, "new"),
        ("replacement", False, "old"),
        ("original", True, "old"),
        ("original", False, "old"),
    ],
)
def test_exactly_one_survives_the_return_of_a_node(keep: Any, healthy: bool, survivor: str) -> None:
    """The policy says which, and the other is stopped at once."""
    model, old = silent(make_job(count=3, disconnect=Disconnect(keep=keep)))
    model.step()
    new = next(one for one in model.live() if one.status is A.PENDING)
    for _ in range(7 if healthy else 1):
        model.act(new.id)
        model.step()
        model.advance(1.0)
    model.bring_back(old.node_id)
    assert model.step().empty, "decided before the node has spoken of its copy"
    model.act(old.id)
    assert model.known[old.id].status is A.RUNNING
    changes = model.step()
    assert [stop.allocation for stop in changes.stop] == [new.id if survivor == "old" else old.id]
    assert model.settle()
    assert versions_running(model) == [1, 1, 1]


def test_a_copy_that_ended_while_its_node_was_silent_leaves_the_slot_to_the_other() -> None:
    """There is nothing to decide between a copy and an end."""
    model, old = silent(make_job(count=1))
    model.step()
    model.running[old.id].ended = A.FAILED
    model.bring_back(old.node_id)
    model.act(old.id)
    assert model.known[old.id].status is A.FAILED
    assert model.look().empty


def test_an_unknown_copy_is_given_up_when_its_job_says_so() -> None:
    """After `stop_after` its agent has stopped it, so that it is lost and placed anew."""
    model, one = silent(make_job(count=1, disconnect=Disconnect(replace_after=1000, stop_after=60)))
    changes = model.look()
    assert not changes.mark_lost
    assert changes.wake_at is not None
    model.advance(changes.wake_at - model.now)
    changes = model.look()
    assert changes.mark_lost == (one.id,)
    assert slots_of(changes) == [0]


def test_the_copies_of_a_removed_node_are_lost() -> None:
    """A node that is no longer known has no copies."""
    model, one = silent(make_job(count=1, disconnect=Disconnect(replace_after=1000)))
    model.remove(one.node_id)
    changes = model.step()
    assert changes.mark_lost == (one.id,)
    assert slots_of(changes) == [0]


def test_an_exclusive_slot_waits_until_its_instance_cannot_run_any_more() -> None:
    """TTL, margin and kill time-out have to pass since the node was last heard of."""
    model, one = silent(make_job(count=1, exclusive=True))
    changes = model.look()
    assert not changes.place
    assert changes.wake_at == pytest.approx(model.heard[one.node_id] + 10.0 + 2.0 + 10.0)
    model.advance(11.0)
    changes = model.step()
    assert [stop.allocation for stop in changes.stop] == [one.id]
    assert not changes.place
    assert changes.wake_at == model.now
    assert slots_of(model.step()) == [0]


def test_an_exclusive_copy_that_never_began_does_not_begin_late() -> None:
    """A copy that its agent has not heard of yet is called off before another is placed."""
    model = cluster(make_job(count=1, exclusive=True))
    model.step()
    (one,) = model.live()
    model.lose(one.node_id)
    model.advance(30.0)
    model.step()
    model.bring_back(one.node_id)
    assert not model.step().place
    model.act(one.id)
    assert model.known[one.id].status is A.STOPPED
    assert slots_of(model.step()) == [0]


def test_an_exclusive_copy_that_is_told_to_stop_on_a_silent_node_is_waited_for() -> None:
    """Nobody has told it."""
    model, one = silent(make_job(count=1, exclusive=True))
    model.stop_allocation(one.id)
    assert not model.look().place
    model.advance(12.0)
    assert slots_of(model.look()) == [0]


def test_removing_a_node_does_not_free_its_exclusive_slots_early() -> None:
    """A machine that was removed may still run for a while."""
    model, one = silent(make_job(count=1, exclusive=True))
    model.remove(one.node_id)
    changes = model.step()
    assert changes.mark_lost == (one.id,)
    assert not changes.place
    assert changes.wake_at == pytest.approx(model.heard[one.node_id] + 22.0)


def test_a_young_term_places_no_exclusive_slot() -> None:
    """Before every instance of an earlier term has ended for certain, none is started."""
    spec = make_job(count=1, exclusive=True)
    model = cluster(spec)
    silence = model.book.silence(model.now, term_seconds=3.0)
    changes = reconcile(model.record, model.specs, (), model.nodes, model.now, silence=silence)
    assert not changes.place
    assert changes.wake_at == pytest.approx(model.now + 10.0 + 2.0 + 10.0 - 3.0)


# Drains.


def test_a_drained_service_moves_at_once_and_starts_first() -> None:
    """All copies get a successor elsewhere, and stop when it is healthy."""
    model = settled(make_job(count=4, update=Update(max_parallel=1)), nodes=2)
    key = model.to_run()["main", 0][0].node_id
    mine = [slot for slot, node in where(model).items() if node == key]
    model.drain(key)
    changes = model.step()
    assert slots_of(changes) == mine
    assert not changes.stop
    assert model.settle()
    assert key not in where(model).values()
    assert model.record.rollout is None


def test_a_service_that_must_not_run_twice_stops_before_it_moves() -> None:
    """With a static port the copy stops first, and is placed when it has ended."""
    model = settled(make_job(count=1, ports={"http": 8080}))
    model.drain(where(model)[0])  # type: ignore[arg-type]
    changes = model.step()
    assert len(changes.stop) == 1
    assert not changes.place
    for one in model.reachable():
        model.act(one.id)
    assert slots_of(model.step()) == [0]


def test_a_drain_without_room_elsewhere_waits_for_its_deadline() -> None:
    """Until the deadline the copy runs on; then it stops."""
    model = settled(make_job(count=1))
    model.room = 1
    one = model.to_run()["main", 0][0]
    model.drain(one.node_id, model.now + 60.0)
    changes = model.step()
    assert not changes.stop
    assert changes.wake_at == pytest.approx(model.now + 60.0)
    model.advance(60.0)
    assert [stop.allocation for stop in model.step().stop] == [one.id]


def test_a_drain_that_is_called_off_leaves_one_copy() -> None:
    """The old copy stays where its successor is not healthy yet."""
    model = settled(make_job(count=1))
    one = model.to_run()["main", 0][0]
    model.drain(one.node_id)
    model.step()
    model.undrain(one.node_id)
    changes = model.step()
    assert len(changes.stop) == 1
    assert changes.stop[0].allocation != one.id


def test_a_batch_copy_runs_on_until_the_deadline_of_a_drain() -> None:
    """What may finish by itself is not disturbed early; what is moved costs no try."""
    model = cluster(make_job("batch", count=1))
    step_and_act(model)
    one = model.to_run()["main", 0][0]
    model.drain(one.node_id, model.now + 60.0)
    assert model.step().empty
    model.advance(60.0)
    assert [stop.allocation for stop in model.step().stop] == [one.id]
    model.act(one.id)
    changes = model.step()
    assert slots_of(changes) == [0]
    assert changes.place[0].reschedules == 0


def test_system_copies_leave_a_drained_node_last() -> None:
    """They serve the others, so they stop when those are gone."""
    model = settled(make_job("system"), nodes=2)
    key = next(iter(model.nodes))
    model.drain(key, model.now + 600.0)
    assert model.look().empty
    allocations = list(model.known.values())
    changes = reconcile(model.record, model.specs, allocations, model.nodes, model.now, emptied=frozenset({key}))
    assert [model.known[stop.allocation].node_id for stop in changes.stop] == [key]
    assert not changes.place


# One copy on every node.


def test_a_system_job_runs_on_every_node_that_suits() -> None:
    """Each place names its node, and a node keeps its slot number."""
    model = cluster(make_job("system"))
    changes = reconcile(
        model.record, model.specs, (), model.nodes, model.now, suits=lambda _job, _group, node: node.name != "node-1"
    )
    assert [(place.slot, place.node) for place in changes.place] == [(0, "n0"), (1, "n2")]
    assert model.settle()
    node = make_node(9)
    model.nodes[node.id] = node
    changes = model.look()
    assert [(place.slot, place.node) for place in changes.place] == [(3, "n9")]


def test_a_system_copy_is_not_moved_off_a_silent_node() -> None:
    """Its node is the only place for it; when the node is back, it runs on."""
    model, one = silent(make_job("system"))
    assert model.look().empty
    model.bring_back(one.node_id)
    model.act(one.id)
    assert model.look().empty
    assert model.settle()


def test_a_node_without_eligibility_keeps_its_system_copy() -> None:
    """It gets no new work, and what runs there runs on."""
    model = settled(make_job("system"), nodes=2)
    key = next(iter(model.nodes))
    model.nodes[key] = evolve(model.nodes[key], eligibility=Eligibility.INELIGIBLE)
    assert model.look().empty
    model.submit(make_job("system", work=2))
    assert model.settle()
    assert versions_running(model) == [1, 2]


def test_a_system_job_that_no_longer_wants_a_node_leaves_it() -> None:
    """A new version that does not suit a node stops its copy there."""
    model = settled(make_job("system"), nodes=2)
    model.submit(make_job("system", work=2))
    allocations = list(model.known.values())
    changes = reconcile(
        model.record,
        model.specs,
        allocations,
        model.nodes,
        model.now,
        suits=lambda _job, _group, node: node.name != "node-0",
    )
    reasons = {model.known[stop.allocation].node: stop.reason for stop in changes.stop}
    assert reasons["node-0"] == "not wanted on this node any more"


def test_a_sysbatch_job_waits_for_the_copy_on_a_silent_node() -> None:
    """It is complete when the last copy has ended or its node is removed."""
    model = cluster(make_job("sysbatch"), nodes=2)
    step_and_act(model)
    key = next(iter(model.nodes))
    model.lose(key)
    model.advance(LEASE_OVER_SECONDS)
    step_and_act(model, 3)
    assert model.step().status is JobStatus.RUNNING
    model.remove(key)
    assert model.step().status is JobStatus.COMPLETE


def test_a_sysbatch_job_without_nodes_waits_for_one() -> None:
    """Nothing done on no node is not success."""
    assert cluster(make_job("sysbatch"), nodes=0).look().status is JobStatus.PENDING


def test_a_sysbatch_job_runs_on_a_node_that_joins_when_it_was_done() -> None:
    """It is complete again when that node has run it too, and the others do not run it twice."""
    model = settled(make_job("sysbatch"), nodes=2)
    assert model.record.status is JobStatus.COMPLETE
    late = make_node(9)
    model.join(late)
    assert [place.node for place in model.step().place] == [late.id]
    assert model.record.status is not JobStatus.COMPLETE
    step_and_act(model, 3)
    assert model.record.status is JobStatus.COMPLETE
    assert len(model.known) == 3


def test_a_stopped_sysbatch_job_runs_nowhere_again() -> None:
    """A node that joins gets nothing of a job that nobody wants any more."""
    model = settled(make_job("sysbatch"), nodes=1)
    model.stop()
    model.join(make_node(9))
    assert not model.step().place


# Too many copies.


def test_of_two_copies_of_a_slot_one_is_stopped() -> None:
    """However it came to that, the slot has one copy after the next look."""
    record = make_record(make_job(), stable_version=1, status=JobStatus.RUNNING)
    both = [make_allocation(0), make_allocation(1, 1, slot=0, generation=2)]
    nodes = {node.id: node for node in (make_node(0), make_node(1))}
    changes = reconcile(record, {1: make_job()}, both, nodes, 10.0)
    assert [stop.allocation for stop in changes.stop] == ["a0000"]


def test_of_two_copies_of_an_exclusive_slot_the_one_with_the_newer_token_stays() -> None:
    """The older one holds an outdated fencing token, whatever its state is."""
    spec = make_job(exclusive=True, disconnect=Disconnect(keep="original"))
    record = make_record(spec, stable_version=1, status=JobStatus.RUNNING)
    both = [make_allocation(0), make_allocation(1, 1, slot=0, generation=2, status=A.PENDING, health=None)]
    nodes = {node.id: node for node in (make_node(0), make_node(1))}
    changes = reconcile(record, {1: spec}, both, nodes, 10.0)
    assert [stop.allocation for stop in changes.stop] == ["a0000"]


def test_a_clock_that_was_set_back_delays_no_try() -> None:
    """An end that lies in the future was written by another clock."""
    spec = make_job(count=1)
    failed = make_allocation(0, status=A.FAILED, changed_at=Time(90_000.0), desired=Desired.RUN)
    changes = reconcile(make_record(spec), {1: spec}, [failed], {make_node(0).id: make_node(0)}, 100.0)
    assert slots_of(changes) == [0]
