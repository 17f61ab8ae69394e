"""The error tree. Codes are stable: they are the problem types of the HTTP API and part of the interface.

KhonsuError
├ InvalidJob                  every mistake of a job at once            422
├ InvalidRequest              a request that is not what was asked for  400
├ Unplaceable                 nowhere to run                            409
├ JobFailed                   a task did not succeed
├ NotFound (LookupError)      no such job, node, allocation ...         404
├ NotAllowed                  known, but may not                        403
│ └ Unauthenticated           not known                                 401
│   └ MalformedToken          a token that is cut, mistyped or of another kind
├ Conflict                    the thing is in a state that forbids it   409
│ └ VersionConflict           it changed since it was read              409
├ HistoryGone                 the revision was pruned                   410
├ Unreachable (ConnectionError)   no answer from the server
│ └ WrongAuthority            an answer, but not from the server that was pinned
├ UnsafeFile                  others can read or change a private file
├ WaitTimeout (TimeoutError)  time ran out; says what is pending
├ Unavailable                 not now: try again                        503
├ StoreError                  the state file                            503
│ ├ StoreDamaged · StoreForeign · StoreTooNew · StoreInUse · StoreFull
├ DriverError                 a task cannot be run
│ └ ArtifactError ─ DigestMismatch
├ PluginError                 a scheduler or driver broke its promise
└ InvalidTransition           a bug in Khonsu                           500
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from attrs import frozen


@frozen
class Problem:
    """One mistake: where it is, what was found, what would be right, and the nearest known name."""

    path: str
    found: str
    expected: str
    nearest: str | None = None

    def __str__(self) -> str:
        """Return the mistake as one line."""
        hint = f" (did you mean {self.nearest}?)" if self.nearest else ""
        return f"{self.path}: found {self.found}, expected {self.expected}{hint}"


class KhonsuError(Exception):
    """The root of all errors that Khonsu raises on purpose.

    Attributes:
        code: A stable name, also the type of the problem document.
        status: The HTTP status it travels with.
        retryable: Whether the same request may succeed later without a change.
        hint: What to do about it, or an empty string.

    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retryable: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep the message and the hint."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message, and the hint behind it."""
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def facts(self) -> dict[str, Any]:
        """Return what this error knows beyond its message, as JSON values."""
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it by what it holds: its constructor takes facts and not a message."""
        return _rebuilt, (type(self), self.message, self.hint, self.__dict__.copy())

    @classmethod
    def from_facts(cls, message: str, hint: str, facts: Mapping[str, Any]) -> Self:
        """Rebuild an error from its message, hint and `facts`."""
        error = cls.__new__(cls)
        KhonsuError.__init__(error, message, hint=hint)
        error.__dict__.update(facts)
        return error


def _rebuilt(cls: type[KhonsuError], message: str, hint: str, held: Mapping[str, Any]) -> KhonsuError:
    """Return an error as it was in another process."""
    error = cls.__new__(cls)
    KhonsuError.__init__(error, message, hint=hint)
    error.__dict__.update(held)
    return error


class InvalidJob(KhonsuError):
    """A job is wrong; `problems` has every mistake."""

    code = "invalid-job"
    status = 422

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Build the message from the problems."""
        self.problems = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        count = len(self.problems)
        super().__init__(f"the job has {count} mistake{'s' if count != 1 else ''}:\n{lines}")

    def facts(self) -> dict[str, Any]:
        """Return the problems."""
        names = ("path", "found", "expected", "nearest")
        return {"problems": [{name: getattr(problem, name) for name in names} for problem in self.problems]}

    @classmethod
    def from_facts(cls, message: str, hint: str, facts: Mapping[str, Any]) -> Self:
        """Rebuild it with its problems."""
        del message, hint
        return cls([Problem(**problem) for problem in facts.get("problems", ())])


class InvalidRequest(KhonsuError):
    """A request is not what the operation takes."""

    code = "invalid-request"
    status = 400


class Unplaceable(KhonsuError):
    """No node can take the job; `explanation` says why, node by node."""

    code = "unplaceable"
    status = 409

    def __init__(self, message: str, *, explanation: object = None, hint: str = "") -> None:
        """Keep the explanation."""
        super().__init__(message, hint=hint)
        self.explanation = explanation


class JobFailed(KhonsuError):
    """A job did not end well; `result` is its `JobResult`."""

    code = "job-failed"
    status = 409

    def __init__(self, message: str, *, result: object = None, hint: str = "") -> None:
        """Keep the result."""
        super().__init__(message, hint=hint)
        self.result = result


class NotFound(KhonsuError, LookupError):
    """There is no such thing."""

    code = "not-found"
    status = 404

    def __init__(self, kind: str, name: str, *, nearest: str | None = None, hint: str = "") -> None:
        """Build the message from what was looked for."""
        self.kind = kind
        self.name = name
        self.nearest = nearest
        near = f" (did you mean {nearest}?)" if nearest else ""
        super().__init__(f"there is no {kind} {name!r}{near}", hint=hint)

    def facts(self) -> dict[str, Any]:
        """Return what was looked for."""
        return {"kind": self.kind, "name": self.name, "nearest": self.nearest}


class NotAllowed(KhonsuError):
    """The caller is known but may not do this."""

    code = "not-allowed"
    status = 403


class Unauthenticated(NotAllowed):
    """The caller showed no credential, or one that is not known here."""

    code = "unauthenticated"
    status = 401


class MalformedToken(Unauthenticated):
    """A text is not the token or fingerprint that it should be; the message never repeats it."""

    code = "malformed-token"

    def __init__(self, kind: str, fault: str, *, hint: str = "") -> None:
        """Build the message from what it should be ("a join token") and what is wrong ("is cut: ...")."""
        super().__init__(f"{kind} was expected, but the text {fault}", hint=hint)


class Conflict(KhonsuError):
    """The thing is in a state that forbids the request."""

    code = "conflict"
    status = 409


class VersionConflict(Conflict):
    """The thing changed since it was read."""

    code = "version-conflict"


class HistoryGone(KhonsuError):
    """The revision asked for was pruned, or belongs to an ended term."""

    code = "revision-gone"
    status = 410


class Unreachable(KhonsuError, ConnectionError):
    """The server did not answer."""

    code = "unreachable"
    status = 503
    retryable = True

    def __init__(self, server: str, cause: str, *, hint: str = "") -> None:
        """Build the message from the server's address and the cause."""
        self.server = server
        self.cause = cause
        super().__init__(f"no answer from {server}: {cause}", hint=hint)

    def facts(self) -> dict[str, Any]:
        """Return the server and the cause."""
        return {"server": self.server, "cause": self.cause}


class WrongAuthority(Unreachable):
    """A server answered whose authority is not the pinned one; nothing was said to it."""

    code = "wrong-authority"
    retryable = False

    def __init__(self, server: str, *, expected: str, found: str) -> None:
        """Build the message from both fingerprints; `found` may also say why there is none."""
        self.expected = expected
        self.found = found
        super().__init__(server, "its authority is not the pinned one")
        KhonsuError.__init__(
            self,
            f"{server} is not the pinned control plane: its authority should be {expected}, but is {found}",
            hint="Check the address; if it is right, then this is another control plane, one that was set up anew "
            "(ask its operator for a new fingerprint or join token), or somebody in between",
        )

    def facts(self) -> dict[str, Any]:
        """Return the server and both fingerprints."""
        return {**super().facts(), "expected": self.expected, "found": self.found}


class UnsafeFile(KhonsuError):
    """A private file or its directory is not what it must be: its kind, its owner or who may use it."""

    code = "unsafe-file"

    def __init__(self, path: str, fault: str, *, hint: str = "") -> None:
        """Build the message from the path and what is wrong with it."""
        self.path = path
        super().__init__(f"{path} {fault}", hint=hint)

    def facts(self) -> dict[str, Any]:
        """Return the path."""
        return {"path": self.path}


class WaitTimeout(KhonsuError, TimeoutError):
    """Time ran out; `result` says what is pending, and why."""

    code = "wait-timeout"
    status = 504
    retryable = True

    def __init__(self, message: str, *, result: object = None, hint: str = "") -> None:
        """Keep the result so far."""
        super().__init__(message, hint=hint)
        self.result = result


class Unavailable(KhonsuError):
    """The request cannot be served now."""

    code = "unavailable"
    status = 503
    retryable = True


class StoreError(KhonsuError):
    """The state cannot be read or written."""

    code = "store-error"
    status = 503
    retryable = True


class StoreDamaged(StoreError):
    """The state file is damaged; nothing was changed."""

    code = "store-damaged"
    retryable = False


class StoreForeign(StoreError):
    """The file is not a Khonsu state file; nothing was changed."""

    code = "store-foreign"
    retryable = False


class StoreTooNew(StoreError):
    """The state file was written by a newer Khonsu; nothing was changed."""

    code = "store-too-new"
    retryable = False


class StoreInUse(StoreError):
    """Another process has the state file open."""

    code = "store-in-use"


class StoreFull(StoreError):
    """There is no room for the write; nothing was half done."""

    code = "store-full"


class DriverError(KhonsuError):
    """A driver cannot do what was asked; the message says what and why."""

    code = "driver-error"


class ArtifactError(DriverError):
    """An artifact cannot be had."""

    code = "artifact-error"


class DigestMismatch(ArtifactError):
    """The bytes are not those that were pinned."""

    code = "digest-mismatch"


class PluginError(KhonsuError):
    """A plug-in broke the promise of its interface."""

    code = "plugin-error"


class InvalidTransition(KhonsuError):
    """A state machine was asked for a move that it does not have: a bug in Khonsu."""

    code = "invalid-transition"


def ensure(condition: object, belief: str) -> None:
    """Raise `InvalidTransition` when a belief of the programmer does not hold (also under `python -O`)."""
    if not condition:
        raise InvalidTransition(f"broken belief: {belief}")


def all_errors() -> dict[str, type[KhonsuError]]:
    """Return every error class of the tree by its code."""
    found: dict[str, type[KhonsuError]] = {}
    todo: list[type[KhonsuError]] = [KhonsuError]
    while todo:
        error = todo.pop()
        found[error.code] = error
        todo.extend(error.__subclasses__())
    return found


def to_problem(error: KhonsuError) -> dict[str, Any]:
    """Return an error as a problem document (RFC 9457)."""
    return {
        "type": error.code,
        "title": type(error).__name__,
        "status": error.status,
        "detail": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
        **error.facts(),
    }


def from_problem(document: Mapping[str, Any]) -> KhonsuError:
    """Rebuild an error from a problem document; an unknown code becomes a plain `KhonsuError`."""
    known = {"type", "title", "status", "detail", "hint", "retryable", "instance"}
    error = all_errors().get(str(document.get("type")), KhonsuError)
    facts = {name: value for name, value in document.items() if name not in known}
    made = error.from_facts(str(document.get("detail", "")), str(document.get("hint", "")), facts)
    made.retryable = bool(document.get("retryable", error.retryable))
    return made
