"""Rollouts: when the copies of an earlier version are replaced, and when that has failed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from attrs import evolve, frozen

from khonsu.core.records import Allocation, Rollout, Time
from khonsu.core.slots import Look, same_work
from khonsu.core.states import AllocationStatus, Desired
from khonsu.core.survivors import Scene


@frozen(kw_only=True)
class Verdict:
    """What has become of a rollout.

    Args:
        rollout: As it is to be recorded; None where there never was one.
        fault: Why it failed just now, or an empty text.
        halted: Whether nothing is replaced any more.
        revert_to: The version to go back to.
        wake_at: When one of its deadlines passes, or infinity.

    """

    rollout: Rollout | None
    fault: str = ""
    halted: bool = False
    revert_to: int | None = None
    wake_at: float = math.inf


def judge(look: Look, scenes: Sequence[Scene]) -> Verdict:
    """Return what has become of the rollout of the current version.

    It begins when a copy of an earlier version is to be replaced, and is successful when there is none left and no new
    copy is still on its way. It fails when a new copy fails or is not healthy in time, or when nothing gets on for too
    long; then the job goes back to its last stable version, or stands still where there is none to go back to. A revert
    has nothing behind it: it is never reverted, and goes on trying.
    """
    now = Time(look.now)
    version = look.record.version
    rollout = look.record.rollout
    replacing = any(scene.replacing for scene in scenes) and look.keeps_running
    if rollout is None or rollout.version != version or rollout.status in ("successful", "cancelled"):
        if replacing:
            return Verdict(rollout=Rollout(version=version, started_at=now, progressed_at=now))
        ended = rollout is not None and rollout.version != version and rollout.status == "running"
        return Verdict(rollout=evolve(rollout, status="cancelled") if rollout and ended else rollout)
    final = look.origin == "revert" or look.record.stable_version == version
    if rollout.status == "failed" and not final:
        return Verdict(rollout=rollout, halted=True, revert_to=_revert_to(look, scenes))
    rollout = evolve(rollout, progressed_at=_progress(rollout, scenes))
    if not replacing and not any(scene.in_flight for scene in scenes):
        return Verdict(rollout=evolve(rollout, status="successful", message=""))
    faults = [fault for scene in scenes for fault in _faults(scene, rollout)]
    fault = next((text for at, text in faults if at <= now), "")
    wake_at = min((at for at, _ in faults if at > now), default=math.inf)
    if not fault:
        return Verdict(rollout=rollout, wake_at=wake_at)
    if final:
        return Verdict(rollout=evolve(rollout, message=f"goes on trying: {fault}"), wake_at=wake_at)
    failed = evolve(rollout, status="failed", message=fault)
    return Verdict(rollout=failed, fault=fault, halted=True, revert_to=_revert_to(look, scenes))


def _revert_to(look: Look, scenes: Iterable[Scene]) -> int | None:
    """Return the version to go back to; none where that would change nothing, or is not wanted."""
    stable = look.record.stable_version
    spec = look.specs.get(stable) if stable is not None else None
    wanted = any(scene.view.group.update.auto_revert for scene in scenes)
    if spec is None or not wanted:
        return None
    same = {group.name for group in spec.groups} == {group.name for group in look.spec.groups}
    if same and all(same_work(spec, look.spec, group.name) for group in look.spec.groups):
        return None
    return stable


def _progress(rollout: Rollout, scenes: Iterable[Scene]) -> Time:
    """Return when a copy of the version last became healthy; never before the rollout began."""
    ours = (one for scene in scenes for one in scene.allocations if one.version == rollout.version)
    # Copies of an unchanged group run on under the new version, and may have been healthy for days.
    return max([rollout.progressed_at, *(one.healthy_at for one in ours if one.healthy_at is not None)])


def _faults(scene: Scene, rollout: Rollout) -> Iterator[tuple[float, str]]:
    """Yield what speaks against a rollout of one group, and from when on."""
    look, update, name = scene.view.look, scene.view.group.update, scene.view.group.name
    for one in scene.allocations:
        ours = one.version == rollout.version and one.created_at >= rollout.started_at
        if not ours or one.desired is not Desired.RUN or one.health is True:
            continue
        copy = f"{name}/{one.slot} of version {one.version}"
        if one.status is AllocationStatus.FAILED:
            yield -math.inf, f"{copy} failed{_why(one)}"
        elif one.live and one.health is False:
            yield -math.inf, f"{copy} did not become healthy in time{_why(one)}"
        elif one.live and one.status is not AllocationStatus.UNKNOWN:
            yield _deadline(look, one.created_at, update.healthy_within_seconds), f"{copy} was not healthy in time"
    if scene.in_flight or scene.replacing:
        yield _deadline(look, rollout.progressed_at, update.progress_within_seconds), f"group {name} got no further"


def _why(allocation: Allocation) -> str:
    if allocation.message:
        return f": {allocation.message}"
    return f" with exit code {allocation.exit_code}" if allocation.exit_code is not None else ""


def _deadline(look: Look, since: float, limit: float) -> float:
    """Return when a limit is over; the time in which no control plane ran does not count."""
    return max(since, look.now - look.silence.up_seconds) + limit
