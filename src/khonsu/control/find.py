"""Finding things by the names and ids that people write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from khonsu.control.state import State
from khonsu.core.names import nearest
from khonsu.core.records import Allocation, JobRecord, Node, job_key
from khonsu.errors import Conflict, NotFound

T = TypeVar("T", Allocation, Node)

PREFIX_LETTERS_MIN = 2


def find_job(state: State, namespace: str, name: str) -> JobRecord:
    """Return a job.

    Raises:
        NotFound: There is none of that name in the namespace; names the nearest.

    """
    job = state.tables.jobs.get(job_key(namespace, name))
    if job is None:
        known = [record.name for record in state.tables.jobs.values() if record.namespace == namespace]
        raise NotFound("job", name, nearest=nearest(name, known))
    return job


def find_allocation(state: State, namespace: str, prefix: str) -> Allocation:
    """Return an allocation by its id, or by a prefix that no other of the namespace has.

    Raises:
        NotFound: There is none.
        Conflict: There are several.

    """
    found = state.tables.allocations.get(prefix)
    if found is not None and found.namespace == namespace:
        return found
    known = state.tables.allocations
    beginning = [known[key] for key in known if key.startswith(prefix.lower())]
    matches = [allocation for allocation in beginning if allocation.namespace == namespace]
    return only_one("allocation", prefix, matches)


def only_one(kind: str, prefix: str, matches: Sequence[T], *, nearest: str | None = None) -> T:
    """Return the only thing whose id begins with what somebody wrote.

    Raises:
        NotFound: There is none, or so few letters name nothing.
        Conflict: There are several; names some of them.

    """
    if len(prefix) < PREFIX_LETTERS_MIN or not matches:
        raise NotFound(kind, prefix, nearest=nearest)
    if len(matches) > 1:
        some = ", ".join(sorted(match.id for match in matches[:5]))
        raise Conflict(f"{len(matches)} {kind}s begin with {prefix}: {some}", hint="write more letters of the id")
    return matches[0]
