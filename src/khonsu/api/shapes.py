"""What each operation takes and gives, as types of the model: for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from khonsu.core.job import Job
from khonsu.core.protocol import JoinRequest, JoinResponse, LogLine, SyncRequest, SyncResponse
from khonsu.core.records import Allocation, Event, JobVersion, Node
from khonsu.core.results import Explanation, Invitation, JobInfo, JobPlan, JobResult, Submission, SystemStatus


@frozen
class Shape:
    """The types of one operation.

    Args:
        result: What it answers; of a list, the items; of a stream, what one line holds.
        takes: The fields of its JSON body by name, or a class that has them.
        required: The fields without which it is refused.
        pages: Whether it answers with a page of items.

    """

    result: Any
    takes: Any = field(factory=dict)
    required: tuple[str, ...] = field(default=(), kw_only=True)
    pages: bool = field(default=False, kw_only=True)


Nothing: Final[Any] = Mapping[str, Any]
"""An object that has nothing in it yet."""

SHAPES: Final[Mapping[str, Shape]] = {
    "job.submit": Shape(Submission, {"job": Job, "rerun": bool, "expect_version": int | None}, required=("job",)),
    "job.plan": Shape(JobPlan, {"job": Job}, required=("job",)),
    "job.list": Shape(JobInfo, pages=True),
    "job.get": Shape(JobInfo),
    "job.result": Shape(JobResult),
    "job.history": Shape(JobVersion, pages=True),
    "job.explain": Shape(Explanation),
    "job.revert": Shape(Submission, {"version": int}, required=("version",)),
    "job.scale": Shape(Submission, {"count": int, "group": str | None}, required=("count",)),
    "job.stop": Shape(JobInfo, {"purge": bool}),
    "allocation.list": Shape(Allocation, pages=True),
    "allocation.get": Shape(Allocation),
    "allocation.stop": Shape(Allocation),
    "allocation.logs": Shape(LogLine),
    "job.logs": Shape(LogLine),
    "event.stream": Shape(Event),
    "node.list": Shape(Node, pages=True),
    "node.get": Shape(Node),
    "node.drain": Shape(Node, {"deadline_seconds": float}),
    "node.undrain": Shape(Node),
    "node.remove": Shape(Node),
    "node.invite": Shape(Invitation, {"node_name": str | None, "labels": Mapping[str, str], "valid_seconds": float}),
    "node.join": Shape(JoinResponse, JoinRequest),
    "node.sync": Shape(SyncResponse, SyncRequest),
    "node.stream": Shape(Nothing),
    "node.leave": Shape(Nothing, {"drain": bool, "session": str}),
    "system.status": Shape(SystemStatus),
}
