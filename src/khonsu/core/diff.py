"""What differs between two versions of a job, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import attrs

from khonsu.core.codec import to_json
from khonsu.core.job import JSON, Group, Job, Port, Task
from khonsu.core.results import FieldChange

_ABSENT: Final = object()
_NAMED: Final = frozenset({("job", "groups"), ("groups", "tasks"), ("groups", "ports")})
"""Lists whose items are told by their names, wherever they stand, by what they are in."""


def diff_jobs(before: Job | None, after: Job | None) -> tuple[FieldChange, ...]:
    """Return the changes from one version of a job to another; None is no job.

    Paths are those of the model's JSON, with units in the names; groups, tasks and ports are told by their names, not
    their places (`groups[web].tasks[server].resources.memory_bytes`). What is new has None before, what is gone None
    after; of it, only what differs from the defaults is told.
    """
    return tuple(_changes(_canonical(before), _canonical(after), "", "job"))


def same_spec(one: Job, other: Job) -> bool:
    """Return whether two jobs ask for the same; the order of ports and of keys in tables does not matter."""
    return one == other or _canonical(one) == _canonical(other)


def _canonical(job: Job | None) -> JSON:
    """Return a job's JSON with what is named in tables by name; groups and tasks keep their order."""
    if job is None:
        return _ABSENT
    table = to_json(job)
    for group in table["groups"]:
        group["ports"].sort(key=lambda port: str(port["name"]))
    return table


def _changes(before: JSON, after: JSON, path: str, kind: str) -> Iterator[FieldChange]:
    if before == after and type(before) is type(after):
        return
    if before is _ABSENT or after is _ABSENT:
        yield from _whole(before, after, path, kind)
        return
    left, right = _parts(before, kind), _parts(after, kind)
    if left is None or right is None:
        yield FieldChange(path=path, before=before, after=after)
        return
    for key in dict.fromkeys((*left, *right)):
        inner = kind if key.startswith("[") else key if (kind, key) in _NAMED else ""
        yield from _changes(left.get(key, _ABSENT), right.get(key, _ABSENT), _join(path, key), inner)


def _whole(before: JSON, after: JSON, path: str, kind: str) -> Iterator[FieldChange]:
    """Yield what is new or gone: of a job, group, task or port, each field that is not as it is by default."""
    there = after if before is _ABSENT else before
    if kind in _bare() and isinstance(there, Mapping):
        changes = _changes(_bare()[kind], there, path, kind)
        found = [attrs.evolve(change, before=None) for change in changes]
    else:
        found = [FieldChange(path=path, after=there)]
    yield from found if before is _ABSENT else (attrs.evolve(each, before=each.after, after=None) for each in found)


@cache
def _bare() -> Mapping[str, JSON]:
    """Return a job, group, task and port with nothing said about them."""
    group, task = Group("", tasks=()), Task("", {}, driver="")
    return {
        "job": to_json(Job("", groups=())),
        "groups": to_json(group),
        "tasks": to_json(task),
        "ports": to_json(Port("")),
    }


def _parts(value: JSON, kind: str) -> Mapping[str, Any] | None:
    """Return what a value is made of by the key that its path has, or None for what is told as a whole."""
    if isinstance(value, Mapping):
        return value
    if kind and isinstance(value, list):
        named = {f"[{item['name']}]": item for item in value}
        return named if len(named) == len(value) else None
    return None


def _join(path: str, key: str) -> str:
    return f"{path}{key}" if key.startswith("[") or not path else f"{path}.{key}"
