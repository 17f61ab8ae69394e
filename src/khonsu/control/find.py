"""Finding things by the names and ids that people write."""

from __future__ import annotations

from collections.abc import Sequence

from khonsu.control.state import State
from khonsu.core.names import nearest
from khonsu.core.records import Allocation, JobRecord, job_key
from khonsu.errors import Conflict, NotFound

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
    if len(prefix) < PREFIX_LETTERS_MIN or not matches:
        raise NotFound("allocation", prefix)
    check_one("allocations", prefix, [allocation.id for allocation in matches])
    return matches[0]


def check_one(things: str, prefix: str, matches: Sequence[str]) -> None:
    """Check that not several ids begin with what somebody wrote.

    Raises:
        Conflict: They do; names some of them.

    """
    if len(matches) > 1:
        some = ", ".join(sorted(matches[:5]))
        raise Conflict(f"{len(matches)} {things} begin with {prefix}: {some}", hint="write more letters of the id")
