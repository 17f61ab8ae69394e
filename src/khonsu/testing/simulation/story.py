"""The story of a run in words: what a commit means to somebody who reads the trace."""

from __future__ import annotations

from khonsu.core.records import Allocation, JobRecord, Node, Record
from khonsu.core.states import Desired


def told(before: Record | None, after: Record | None) -> str:
    """Return what a change of a record is, in words; an empty text for what is no news."""
    match before, after:
        case (_, Allocation() as copy):
            return _copy(before if isinstance(before, Allocation) else None, copy)
        case (_, Node() as node):
            return _node(before if isinstance(before, Node) else None, node)
        case (_, JobRecord() as job):
            return _job(before if isinstance(before, JobRecord) else None, job)
        case (Node() as node, None):
            return f"{node.name} is removed"
        case (JobRecord() as job, None):
            return f"{job.key} is forgotten"
        case _:
            return ""


def _copy(before: Allocation | None, after: Allocation) -> str:
    name = f"{after.job}/{after.slot} ({after.id}, version {after.version})"
    why = f": {after.message}" if after.message else ""
    if before is None:
        return f"{name} is placed on {after.node}{why}"
    if after.desired is Desired.STOP and before.desired is Desired.RUN:
        return f"{name} is to stop on {after.node}{why}"
    if after.status is not before.status:
        return f"{name} is {after.status} on {after.node}, was {before.status}{why}"
    if after.health is not before.health:
        return f"{name} is {'healthy' if after.health else 'not healthy'} on {after.node}{why}"
    return ""


def _node(before: Node | None, after: Node) -> str:
    if before is None:
        return f"{after.name} joins as {after.id}"
    if after.status is not before.status:
        return f"{after.name} is {after.status}"
    if after.eligibility is not before.eligibility:
        return f"{after.name} is {after.eligibility}"
    return ""


def _job(before: JobRecord | None, after: JobRecord) -> str:
    why = f": {after.message}" if after.message else ""
    if before is None:
        return f"{after.key} is written down, version {after.version}"
    if (after.version, after.run) != (before.version, before.run):
        return f"{after.key} is version {after.version} now, run {after.run}"
    if after.status is not before.status:
        return f"{after.key} is {after.status}, was {before.status}{why}"
    return ""
