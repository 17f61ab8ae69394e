"""Reconciliation: what has to change so that a job becomes what its user wants. Pure, and at rest once it is so.

A look goes from the outside in: what is certainly too much stops (`survivors`), the rollout is judged (`rollout`), and
each slot that lacks a copy of the present work gets one as soon as nothing is in the way (`fills`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from attrs import define, evolve, field

from khonsu.core.changes import Changes, Place, Stop
from khonsu.core.drain import Leave
from khonsu.core.fills import UNTIL_TOLD, Fill, fill, place
from khonsu.core.ids import AllocationId, NodeId
from khonsu.core.job import Group, Job
from khonsu.core.leases import Silence
from khonsu.core.records import Allocation, JobRecord, Node, Time
from khonsu.core.rollout import Verdict, judge
from khonsu.core.slots import Look, Slot, View, everywhere, same_work
from khonsu.core.states import JOB, AllocationStatus, Desired, JobStatus, JobType
from khonsu.core.status import FINISHED, Tally, job_status
from khonsu.core.survivors import Scene, Stand, stand
from khonsu.errors import ensure

__all__ = ["Changes", "Place", "Stop", "reconcile"]


@define
class _Draft:
    """Changes in the making; for one group, or for all that is none of a group's."""

    place: list[Place] = field(factory=list)
    stop: list[Stop] = field(factory=list)
    wake_at: float = math.inf
    given_up: list[Stand] = field(factory=list)


def reconcile(
    record: JobRecord,
    specs: Mapping[int, Job],
    allocations: Sequence[Allocation],
    nodes: Mapping[NodeId, Node],
    now: float,
    *,
    silence: Silence | None = None,
    origin: str = "submit",
    no_room: AbstractSet[tuple[str, int]] = frozenset(),
    paused: bool = False,
    emptied: AbstractSet[NodeId] = frozenset(),
    suits: Callable[[Job, Group, Node], bool] = everywhere,
) -> Changes:
    """Return what a job needs now.

    Args:
        record: The job.
        specs: Its versions: the current one, and those of its live copies and of the last stable version.
        allocations: All that are known of it, ended ones too: they hold the tries and, for batch jobs, what is done.
        nodes: The nodes by id; a copy on any other is lost.
        now: The time; it should not step.
        silence: How long nodes have been silent, by the lease book; without it the records' times have to do.
        origin: Where the current version comes from: a `revert` is never reverted.
        no_room: Slots for whose new copy there is no room beside the old one: there the old one stops first.
        paused: Whether so many nodes are silent that their copies are not replaced.
        emptied: The draining nodes where only copies of system jobs are left.
        suits: Whether a node could ever have a copy of a group; asked for jobs on every node only.

    """
    spec = specs.get(record.version)
    if spec is None:
        ensure(condition=False, belief=f"the current version {record.version} of {record.key} has a spec")
        raise AssertionError
    look = Look(
        record=record,
        spec=spec,
        specs=specs,
        nodes=nodes,
        now=now,
        silence=silence if silence is not None else Silence(),
        origin=origin,
        no_room=no_room,
        paused=paused,
        emptied=emptied,
        suits=suits,
    )
    lost, wake_at = _lost(look, allocations)
    known = [_as_lost(one, now) if one.id in lost else one for one in allocations]
    if _reopened(look, known):
        record = evolve(record, status=JOB.step(record.status, "reopen"))
        look = evolve(look, record=record)
    stops = _unwanted(look, known)
    if record.stopped or (not spec.type.keeps_running and record.status in FINISHED):
        return Changes(
            version=record.version,
            stop=stops,
            mark_lost=lost,
            wake_at=_first([wake_at]),
            status=record.status,
            rollout=record.rollout,
        )
    scenes = _scenes(look, known)
    verdict = judge(look, scenes)
    drafts = [_decide(scene, verdict) for scene in scenes]
    tally = sum((_tally(scene, draft) for scene, draft in zip(scenes, drafts, strict=True)), Tally())
    failed = verdict.halted and verdict.revert_to is None
    status = job_status(record.status, spec.type, tally, halted=failed)
    stops = (*stops, *(one for draft in drafts for one in draft.stop))
    if not spec.type.keeps_running and status in FINISHED:
        stops = (*stops, *_left_over(scenes, status, {one.allocation for one in stops}))
    return Changes(
        version=record.version,
        place=tuple(one for draft in drafts for one in draft.place),
        stop=stops,
        adopt=_adopted(look, scenes, {one.allocation for one in stops}),
        mark_lost=lost,
        wake_at=_first([wake_at, verdict.wake_at, *_drain_deadlines(look, known), *(one.wake_at for one in drafts)]),
        status=status,
        rollout=verdict.rollout,
        stable=_stable(look, scenes, tally),
        revert_to=verdict.revert_to,
        message=_message(verdict, drafts) if status is JobStatus.FAILED else "",
    )


def _reopened(look: Look, allocations: Iterable[Allocation]) -> bool:
    """Return whether a job that runs once on every node was done, and now there is a node that has not run it."""
    if look.spec.type is not JobType.SYSBATCH or look.record.stopped or look.record.status is not JobStatus.COMPLETE:
        return False
    return any(
        one.slot.wanted and not one.slot.complete for scene in _scenes(look, allocations) for one in scene.stands
    )


def _left_over(scenes: Iterable[Scene], status: JobStatus, stopped: AbstractSet[AllocationId]) -> Iterator[Stop]:
    """Yield the stops of what may still run somewhere when a job has just ended without it."""
    for scene in scenes:
        for stands in scene.stands:
            for copy in stands.copies:
                if copy.id not in stopped:
                    yield Stop(allocation=copy.id, reason=f"the job is {status}")


# What no group decides.


def _lost(look: Look, allocations: Iterable[Allocation]) -> tuple[tuple[AllocationId, ...], float]:
    """Return the copies that are given up for good, and when the next one will be."""
    lost: list[AllocationId] = []
    wake_at = math.inf
    for one in allocations:
        if not one.live:
            continue
        if one.node_id not in look.nodes:
            lost.append(one.id)
        elif look.silent(one) and (limit := _stop_after_seconds(look, one)) is not None:
            wait = limit - look.away_seconds(one)
            if wait <= 0:
                lost.append(one.id)
            wake_at = min(wake_at, look.now + wait if wait > 0 else math.inf)
    return tuple(lost), wake_at


def _drain_deadlines(look: Look, allocations: Iterable[Allocation]) -> Iterator[float]:
    """Yield when the copies on draining nodes have to be gone, where that is still to come."""
    for one in allocations:
        deadline = look.nodes[one.node_id].drain_deadline_at if one.live else None
        if deadline is not None and deadline > look.now:
            yield deadline


def _stop_after_seconds(look: Look, allocation: Allocation) -> float | None:
    spec = look.specs.get(allocation.version)
    group = spec.group(allocation.group) if spec else None
    return group.disconnect.stop_after_seconds if group else None


def _as_lost(allocation: Allocation, now: float) -> Allocation:
    return evolve(allocation, status=AllocationStatus.LOST, changed_at=Time(now))


def _unwanted(look: Look, allocations: Iterable[Allocation]) -> tuple[Stop, ...]:
    """Return the stops of what no slot of the job wants: all of a stopped job, earlier runs, groups that are gone."""
    groups = {group.name for group in look.spec.groups}
    over = not look.keeps_running and look.record.status in FINISHED

    def reason(one: Allocation) -> str:
        if look.record.stopped:
            return "the job was stopped"
        if one.run != look.record.run:
            return "the job runs anew"
        if one.group not in groups:
            return "its group is gone"
        return f"the job is {look.record.status}" if over else ""

    wanting = [(one, reason(one)) for one in allocations if one.live and one.desired is Desired.RUN]
    return tuple(Stop(allocation=one.id, reason=text) for one, text in wanting if text)


def _scenes(look: Look, allocations: Iterable[Allocation]) -> list[Scene]:
    """Return the groups of the job with their slots as they stand."""
    by_group: defaultdict[str, list[Allocation]] = defaultdict(list)
    for one in allocations:
        by_group[one.group].append(one)
    scenes = []
    for group in look.spec.groups:
        copies = by_group[group.name]
        versions = {one.version for one in copies} - {look.record.version}
        same = {
            version
            for version in versions
            if (spec := look.specs.get(version)) is not None and same_work(spec, look.spec, group.name)
        }
        view = View(look=look, group=group, fresh_versions=frozenset({look.record.version, *same}))
        blank = view.blank(copies)
        stands = tuple(stand(view, slot) for slot in view.slots(copies, blank))
        ours = tuple(one for one in copies if one.run == look.record.run)
        scenes.append(Scene(view=view, stands=stands, blank=blank, allocations=ours))
    return scenes


# What a group decides.


def _decide(scene: Scene, verdict: Verdict) -> _Draft:
    """Return the changes of one group."""
    draft = _Draft(stop=[stop for one in scene.stands for stop in one.stops])
    canaries = _canaries(scene)
    gate_open = canaries.isdisjoint(scene.blank) and all(one.up for one in scene.stands if one.slot.index in canaries)
    for one in scene.stands:
        hold = not gate_open and one.slot.index in canaries and scene.stale(one)
        draft.stop += _retired(scene, one, hold=hold)
    if verdict.halted:
        _halt(scene, verdict, draft)
        return draft
    updates = []
    for one in scene.stands:
        if not one.wanted or one.keeper is not None:
            continue
        if one.retiring is None or scene.view.look.leave(one.retiring) is Leave.MOVE:
            _renew(scene, one, draft)
        elif scene.stale(one):
            updates.append(one)
    _begin(scene, draft)
    _update(scene, updates, draft, canaries=frozenset() if gate_open else canaries)
    return draft


def _canaries(scene: Scene) -> frozenset[int]:
    """Return the slots that lead a rollout: the first ones, while there is something left to replace."""
    group = scene.view.group
    if group.exclusive or not scene.view.look.keeps_running or not any(map(scene.stale, scene.stands)):
        return frozenset()
    wanted = sorted([*scene.blank, *(one.slot.index for one in scene.stands if one.wanted)])
    return frozenset(wanted[: group.update.canary])


def _retired(scene: Scene, one: Stand, *, hold: bool) -> Iterator[Stop]:
    """Yield the stops of what a keeper has replaced, now that it is up."""
    if not one.up or hold:
        return
    look = scene.view.look
    for copy in (one.retiring, *one.unknown):
        if copy is None or (copy in one.unknown and scene.view.fresh(copy)):
            continue
        stale = not scene.view.fresh(copy)
        reason = f"replaced by version {look.record.version}" if stale else "moved to another node"
        yield Stop(allocation=copy.id, reason=reason)


def _renew(scene: Scene, one: Stand, draft: _Draft) -> None:
    """Fill a slot that has no copy, or whose copy must leave its node: at once, whatever the rollout does."""
    turn = _turn(scene, one, draft)
    if not turn.due:
        return
    if scene.view.group.exclusive and one.unknown and one.retiring is None:
        # A copy that has not begun yet would do so when its node comes back. It has to be told not to before another
        # is placed: only what is recorded already reaches its agent in time.
        draft.stop += [Stop(allocation=copy.id, reason="it could not run twice") for copy in one.unknown]
        draft.wake_at = scene.view.look.now
    elif one.retiring is None:
        draft.place.append(place(scene.view, one, turn.turn))
    elif scene.view.starts_first:
        draft.place.append(place(scene.view, one, turn.turn, reason="its node is drained"))
    else:
        draft.stop.append(Stop(allocation=one.retiring.id, reason="its node is drained"))


def _begin(scene: Scene, draft: _Draft) -> None:
    """Fill the slots that never had a copy: what is found for one of them is so for all."""
    if not scene.blank:
        return
    first = Stand(slot=Slot(index=scene.blank[0]))
    turn = _turn(scene, first, draft)
    if turn.due:
        one = place(scene.view, first, turn.turn)
        new = [Place(group=one.group, slot=n, reschedules=one.reschedules, reason=one.reason) for n in scene.blank]
        draft.place = sorted([*draft.place, *new], key=lambda place: place.slot) if draft.place else new


def _update(scene: Scene, stands: Sequence[Stand], draft: _Draft, *, canaries: AbstractSet[int]) -> None:
    """Replace copies of other work, so many at a time as the policy allows; those that are not up go first.

    While there are canaries to wait for, only they are started, all of them and beside the old copies.
    """
    view = scene.view
    version = view.look.record.version
    room = max(1, view.group.update.max_parallel) - scene.in_flight
    if not view.look.keeps_running:
        room = len(stands)
    for one in sorted(
        stands, key=lambda one: (one.retiring is not None and view.look.up(one.retiring), one.slot.index)
    ):
        canary = one.slot.index in canaries
        if not canary and (canaries or room <= 0):
            continue
        turn = _turn(scene, one, draft)
        if not turn.due or one.retiring is None:
            continue
        room -= 1
        beside = (canary or view.starts_first) and (view.group.name, one.slot.index) not in view.look.no_room
        if beside:
            reason = f"{'canary of' if canary else 'update to'} version {version}"
            draft.place.append(place(view, one, turn.turn, reason=reason, canary=canary))
        else:
            draft.stop.append(Stop(allocation=one.retiring.id, reason=f"update to version {version}"))


def _turn(scene: Scene, one: Stand, draft: _Draft) -> Fill:
    """Return when a slot may be filled, and note what that means for the job."""
    turn = fill(scene.view, one)
    if turn.turn.given_up:
        draft.given_up.append(one)
    elif not turn.due and turn.due_at != UNTIL_TOLD:
        draft.wake_at = min(draft.wake_at, turn.due_at)
    return turn


def _halt(scene: Scene, verdict: Verdict, draft: _Draft) -> None:
    """Stop the new copies of a failed rollout that never proved themselves, where there is nothing to go back to."""
    if verdict.revert_to is not None:
        return
    version = scene.view.look.record.version
    draft.stop += [
        Stop(allocation=one.keeper.id, reason="its rollout failed")
        for one in scene.stands
        if one.keeper is not None and not one.up and one.keeper.version == version
    ]


# What the job makes of it.


def _adopted(look: Look, scenes: Iterable[Scene], stopped: AbstractSet[AllocationId]) -> tuple[AllocationId, ...]:
    """Return the copies of earlier versions that do the present work and run on."""
    version = look.record.version
    return tuple(
        one.id
        for scene in scenes
        for one in scene.allocations
        if one.version != version and one.live and one.desired is Desired.RUN and one.id not in stopped
        if scene.view.fresh(one)
    )


def _tally(scene: Scene, draft: _Draft) -> Tally:
    live = [copy for one in scene.stands for copy in one.copies]
    begun = [copy for copy in live if copy.status is not AllocationStatus.PENDING]
    return Tally(
        wanted=len(scene.blank) + sum(one.wanted or one.done for one in scene.stands),
        up=sum(one.up for one in scene.stands if one.wanted),
        done=sum(one.done for one in scene.stands),
        given_up=len(draft.given_up),
        live=len(live),
        started=len(begun),
    )


def _stable(look: Look, scenes: Iterable[Scene], tally: Tally) -> bool:
    """Return whether the version has proved itself only now: every copy is there and healthy, and no other is left."""
    news = look.keeps_running and look.record.stable_version != look.record.version
    return (
        news and 0 < tally.wanted == tally.up and not any(scene.stale(one) for scene in scenes for one in scene.stands)
    )


def _message(verdict: Verdict, drafts: Iterable[_Draft]) -> str:
    if verdict.halted and verdict.rollout is not None:
        return f"the rollout failed: {verdict.rollout.message}"
    for draft in drafts:
        for one in draft.given_up:
            last = one.slot.ended[0]
            why = last.message or (f"exit code {last.exit_code}" if last.exit_code is not None else "it failed")
            tries = "1 try" if not last.reschedules else f"{last.reschedules + 1} tries"
            return f"{last.group}/{last.slot} was given up after {tries}: {why}"
    return ""


def _first(times: Iterable[float]) -> Time | None:
    """Return the first of some times, or None where there is none."""
    at = min(times, default=math.inf)
    return Time(at) if at < math.inf else None
