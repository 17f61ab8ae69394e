"""A call: a request whose caller is known, with its parameters read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import frozen

from khonsu.abc.transport import Request
from khonsu.control.batch import Batch
from khonsu.core.codec import to_json
from khonsu.core.ids import NodeId
from khonsu.core.mistakes import found
from khonsu.core.operations import Role
from khonsu.core.records import IdempotencyKey, job_key
from khonsu.core.revision import Revision
from khonsu.errors import HistoryGone, InvalidRequest, NotAllowed

WAIT_SECONDS_MAX = 60.0
NAME_LENGTH_MAX = 253
SECONDS_MAX = 1e11
"""Of a duration or a time in seconds: the year 5138."""


@frozen(kw_only=True)
class Caller:
    """Who asks: a role, and which node it is."""

    role: Role
    credential: str
    node: NodeId | None = None
    join_token: str | None = None


@frozen(kw_only=True)
class Call:
    """A request of a caller."""

    request: Request
    caller: Caller

    @property
    def body(self) -> Mapping[str, Any]:
        """Return the parameters."""
        return self.request.body

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text parameter.

        Raises:
            InvalidRequest: It is missing, too long, or no text.

        """
        value = self.body.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value or len(value) > NAME_LENGTH_MAX:
            raise InvalidRequest(f"{name}: found {found(value)}, expected a text of at most {NAME_LENGTH_MAX} letters")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text parameter, or None."""
        return None if self.body.get(name) is None else self.text(name)

    def integer(self, name: str, default: int | None = None, *, least: int = 0, most: int = 2**31) -> int:
        """Return a whole number.

        Raises:
            InvalidRequest: It is missing, no whole number, or out of range.

        """
        value = self.body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InvalidRequest(f"{name}: found {found(value)}, expected a whole number from {least} to {most}")
        return value

    def optional_integer(self, name: str, *, least: int = 0) -> int | None:
        """Return a whole number, or None."""
        return None if self.body.get(name) is None else self.integer(name, least=least)

    def number(self, name: str, default: float = 0.0) -> float:
        """Return a number of seconds that is not negative, and small enough to be added to a time.

        Raises:
            InvalidRequest: It is something else.

        """
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= SECONDS_MAX:
            raise InvalidRequest(f"{name}: found {found(value)}, expected a number from 0 to {SECONDS_MAX:.0f}")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a switch; off where it is not given.

        Raises:
            InvalidRequest: It is no truth value.

        """
        value = self.body.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise InvalidRequest(f"{name}: found {found(value)}, expected true or false")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Return a mapping.

        Raises:
            InvalidRequest: It is something else.

        """
        value = self.body.get(name)
        if not isinstance(value, Mapping):
            raise InvalidRequest(f"{name}: found {found(value)}, expected an object")
        return value

    @property
    def namespace(self) -> str:
        """Return the namespace that the call is about."""
        return self.text("namespace", "default")

    @property
    def job(self) -> str:
        """Return the key of the job that the call is about."""
        return job_key(self.namespace, self.text("name"))

    def after(self, durable: Revision) -> Revision | None:
        """Return the revision that a watch has seen, or None for a plain read.

        Raises:
            InvalidRequest: It is no revision.
            HistoryGone: It belongs to an ended term beyond its end, or is ahead of the state.

        """
        text = self.optional_text("after")
        if text is None:
            return None
        try:
            revision = Revision.parse(text)
        except ValueError as error:
            raise InvalidRequest(f"after: {error}") from None
        if revision > durable:
            raise HistoryGone(
                f"revision {revision} is not of this history, which is at {durable}",
                hint="Leave it out, and read what is there first",
            )
        return revision

    @property
    def wait_seconds(self) -> float:
        """Return how long a watch may be held."""
        return min(self.number("wait", 0.0), WAIT_SECONDS_MAX)

    def own_node(self, name: str = "node") -> NodeId:
        """Return the node that the call is about, which must be the caller itself.

        Raises:
            NotAllowed: It is another node.

        """
        node = self.text(name)
        if self.caller.node != node:
            raise NotAllowed("a node may speak only for itself")
        return NodeId(node)

    @property
    def digest(self) -> str:
        """Return what tells two requests apart: the hash of the operation and its parameters."""
        text = json.dumps([self.request.operation, self.request.body], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def idempotency_key(self) -> str | None:
        """Return the key of the request, apart from those of other callers."""
        key = self.request.idempotency_key
        return f"{self.caller.credential}/{key}" if key else None

    def answer(self, batch: Batch, value: object) -> Mapping[str, Any]:
        """Return a value as the answer, and have the batch remember it for a repeat of the request."""
        answer: Mapping[str, Any] = to_json(value)
        if self.idempotency_key is not None:
            batch.put(IdempotencyKey(key=self.idempotency_key, digest=self.digest, answer=answer, created_at=batch.now))
        return answer


Operate = Callable[[Call], Awaitable[Mapping[str, Any]]]
"""The implementation of an operation: its answer as JSON values."""
