"""The operations: every request that can be made, by name. One table for client, HTTP routes and OpenAPI.

A request's body is one JSON mapping. Over HTTP the parts named in the path go there, those of a read into the query,
the rest into the JSON body; the listener joins them again (`khonsu.transports.routing`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from attrs import field, frozen


class Role(StrEnum):
    """Who may ask."""

    OPERATOR = "operator"
    NODE = "node"
    JOIN = "join"
    ANYBODY = "anybody"


class Direction(StrEnum):
    """Whether an operation answers at once, streams to the caller, or takes a stream from it."""

    CALL = "call"
    DOWN = "down"
    UP = "up"


class Kind(StrEnum):
    """What a parameter of a query is. In a body, durations and times are seconds."""

    TEXT = "text"
    INTEGER = "integer"
    FLAG = "flag"
    DURATION = "duration"
    TIME = "time"


QUERY_KINDS: Mapping[str, Kind] = {
    "limit": Kind.INTEGER,
    "version": Kind.INTEGER,
    "run": Kind.INTEGER,
    "tail": Kind.INTEGER,
    "follow": Kind.FLAG,
    "wait": Kind.DURATION,
    "since": Kind.TIME,
}
"""The kinds of the parameters of queries; all others are text."""


@frozen
class Operation:
    """One operation.

    Args:
        name: For example `job.submit`.
        method: The HTTP method.
        path: The HTTP path below `/api/v1`, with `{parameter}` parts.
        summary: One line for the OpenAPI document.
        role: Who may ask.
        direction: How it answers.
        query: The names of its query parameters (reads), or none.
        watchable: Whether `after` (a revision) and `wait` turn it into a watch.
        once: Whether a repeat with the same idempotency key gets the first answer, and does nothing more.

    """

    name: str
    method: str
    path: str
    summary: str = field(kw_only=True)
    role: Role = field(default=Role.OPERATOR, kw_only=True)
    direction: Direction = field(default=Direction.CALL, kw_only=True)
    query: tuple[str, ...] = field(default=(), kw_only=True)
    watchable: bool = field(default=False, kw_only=True)
    once: bool = field(default=False, kw_only=True)

    @property
    def path_parameters(self) -> tuple[str, ...]:
        """Return the names of the parameters in the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    @property
    def reads(self) -> bool:
        """Return whether it only reads: whoever asked may go away, and then it ends."""
        return self.method == "GET"

    @property
    def interruptible(self) -> bool:
        """Return whether it may be cut at any moment: it only reads, or whoever makes it tells all of it again."""
        return self.reads or self.name == "node.sync"

    @property
    def query_parameters(self) -> tuple[str, ...]:
        """Return the names of all that may go into the query."""
        return (*self.query, "after", "wait") if self.watchable else self.query


_JOBS = "/namespaces/{namespace}/jobs"
_ALLOCATIONS = "/namespaces/{namespace}/allocations"
_PAGE = ("cursor", "limit")
_LOGS = ("task", "follow", "stream", "tail", "since")

OPERATIONS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("job.submit", "POST", _JOBS, summary="Submit a job", once=True),
        Operation("job.plan", "POST", "/namespaces/{namespace}/plan", summary="Show what a job would change"),
        Operation("job.list", "GET", _JOBS, summary="List jobs", query=_PAGE, watchable=True),
        Operation("job.get", "GET", _JOBS + "/{name}", summary="Show a job", watchable=True),
        Operation("job.result", "GET", _JOBS + "/{name}/result", summary="Show how a job's run stands", query=("version", "run", "until"), watchable=True),
        Operation("job.history", "GET", _JOBS + "/{name}/versions", summary="List a job's versions"),
        Operation("job.explain", "GET", _JOBS + "/{name}/explanation", summary="Explain a job's placement"),
        Operation("job.revert", "POST", _JOBS + "/{name}/revert", summary="Go back to an earlier version", once=True),
        Operation("job.scale", "POST", _JOBS + "/{name}/scale", summary="Change the count of a group", once=True),
        Operation("job.stop", "POST", _JOBS + "/{name}/stop", summary="Stop a job", once=True),
        Operation("allocation.list", "GET", _ALLOCATIONS, summary="List allocations", query=("job", "node", *_PAGE), watchable=True),
        Operation("allocation.get", "GET", _ALLOCATIONS + "/{id}", summary="Show an allocation", watchable=True),
        Operation("allocation.stop", "POST", _ALLOCATIONS + "/{id}/stop", summary="Stop an allocation; its slot is placed again", once=True),
        Operation("allocation.logs", "GET", _ALLOCATIONS + "/{id}/logs", summary="Stream the logs of an allocation", direction=Direction.DOWN, query=_LOGS),
        Operation("job.logs", "GET", _JOBS + "/{name}/logs", summary="Stream the logs of a job", direction=Direction.DOWN, query=_LOGS),
        Operation("event.stream", "GET", "/events", summary="Stream events", direction=Direction.DOWN, query=("after", "namespace", "job", "node", "types", "follow")),
        Operation("node.list", "GET", "/nodes", summary="List nodes", query=_PAGE, watchable=True),
        Operation("node.get", "GET", "/nodes/{name}", summary="Show a node", watchable=True),
        Operation("node.drain", "POST", "/nodes/{name}/drain", summary="Move all work off a node", once=True),
        Operation("node.undrain", "POST", "/nodes/{name}/undrain", summary="Give a node work again", once=True),
        Operation("node.remove", "DELETE", "/nodes/{name}", summary="Forget a node that is down", once=True),
        Operation("node.invite", "POST", "/nodes/invite", summary="Make a join token"),
        Operation("node.join", "POST", "/nodes/join", summary="Become a node", role=Role.JOIN),
        Operation("node.sync", "POST", "/nodes/{node}/sync", summary="Renew the lease, report, and ask for changes", role=Role.NODE),
        Operation("node.stream", "POST", "/nodes/{node}/streams/{id}", summary="Answer a request of the control plane", role=Role.NODE, direction=Direction.UP),
        Operation("node.leave", "POST", "/nodes/{node}/leave", summary="Say that the agent goes away", role=Role.NODE),
        Operation("system.status", "GET", "/status", summary="Show the control plane", query=()),
    )
}  # fmt: skip
