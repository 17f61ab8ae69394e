"""Targets: what may stand for a job, an allocation or a node, and how a request names it."""

from __future__ import annotations

from typing import Any, TypeAlias

from attrs import evolve

from khonsu.core.job import Job
from khonsu.core.records import Allocation, Node
from khonsu.core.results import JobInfo, JobResult, Submission

JobLike: TypeAlias = Job | JobInfo | Submission | JobResult | str
"""A job, what stands for one of its runs, or its name."""
AllocationLike: TypeAlias = Allocation | str
"""An allocation, its id, or a prefix of the id that no other has."""
NodeLike: TypeAlias = Node | str
"""A node, its name, its id, or a prefix of the id that no other has."""

DEFAULT_NAMESPACE = "default"


def placed_in(job: Job, namespace: str) -> Job:
    """Return a job in the namespace that it names, or, if it names none but the default, in a client's own."""
    wanted = _own(job, namespace)
    return job if job.namespace == wanted else evolve(job, namespace=wanted)


def _own(job: Job, namespace: str) -> str:
    return namespace if job.namespace == DEFAULT_NAMESPACE else job.namespace


def named_job(target: JobLike, namespace: str) -> dict[str, Any]:
    """Return the parameters that name a job; a text is a name in a client's own namespace."""
    match target:
        case str():
            return {"namespace": namespace, "name": target}
        case Job():
            return {"namespace": _own(target, namespace), "name": target.name}
        case JobInfo():
            return {"namespace": target.namespace, "name": target.name}
        case _:
            return {"namespace": target.namespace, "name": target.job}


def named_run(target: JobLike, namespace: str) -> dict[str, Any]:
    """Return the parameters that name a run of a job: the one that a value stands for, else the present one."""
    named = named_job(target, namespace)
    if isinstance(target, (Submission, JobInfo, JobResult)):
        named |= {"version": target.version, "run": target.run}
    return named


def named_allocation(target: AllocationLike, namespace: str) -> dict[str, Any]:
    """Return the parameters that name an allocation."""
    if isinstance(target, Allocation):
        return {"namespace": target.namespace, "id": target.id}
    return {"namespace": namespace, "id": target}


def named_node(target: NodeLike) -> str:
    """Return the text that names a node."""
    return target if isinstance(target, str) else target.name
