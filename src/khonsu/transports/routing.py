"""Between a request's body and the parts of an HTTP request: path, query and JSON body.

`split` is used where a request is sent, `join` where it is served, so that both sides have one law. The parameters of
the path go there, those of a read into the query, the rest into the JSON body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from attrs import frozen

from khonsu.core.codec import parse_time, time_text
from khonsu.core.mistakes import found
from khonsu.core.operations import OPERATIONS, QUERY_KINDS, Direction, Kind, Operation
from khonsu.core.units import seconds
from khonsu.errors import InvalidRequest

PREFIX: Final = "/api/v1"
INTEGER_DIGITS_MAX: Final = 18

PROTOCOL_HEADER: Final = "Khonsu-Protocol"
IDEMPOTENCY_HEADER: Final = "Idempotency-Key"
DEADLINE_HEADER: Final = "Khonsu-Deadline"

_FLAGS = {"true": True, "false": False, "1": True, "0": False}


@frozen(kw_only=True)
class Parts:
    """A request as HTTP has it. `target` is path and query below the prefix; `content` None means no body at all."""

    target: str
    content: Mapping[str, Any] | None = None


def find_operation(name: str, *directions: Direction) -> Operation:
    """Return an operation that goes in one of these directions.

    Raises:
        InvalidRequest: There is none.

    """
    operation = OPERATIONS.get(name)
    if operation is None or operation.direction not in directions:
        verb = "call" if Direction.CALL in directions else "stream"
        raise InvalidRequest(f"there is no operation {name!r} to {verb}")
    return operation


def has_content(operation: Operation) -> bool:
    """Return whether the request carries a JSON body."""
    return not operation.reads and operation.direction is not Direction.UP


def split(operation: Operation, body: Mapping[str, Any]) -> Parts:
    """Return the parts of a request.

    Raises:
        InvalidRequest: A parameter is missing, is not of its kind, or has no place in this operation.

    """
    rest = dict(body)
    path = operation.path
    for name in operation.path_parameters:
        path = path.replace(f"{{{name}}}", _segment(name, rest.pop(name, None)))
    if has_content(operation):
        return Parts(target=path, content=rest if rest or operation.method == "POST" else None)
    unknown = set(rest) - set(operation.query_parameters)
    if unknown:
        raise InvalidRequest(f"{operation.name} has no parameter {', '.join(sorted(unknown))}")
    query = [(name, _to_text(name, value)) for name, value in rest.items() if value is not None]
    try:
        return Parts(target=f"{path}?{urlencode(query)}" if query else path)
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"the query holds half a character: {error.object!r}") from None


def join(
    operation: Operation,
    path: Mapping[str, str],
    query: Sequence[tuple[str, str]],
    content: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body that `split` took apart. Unknown parameters of the query are left out; the path always wins.

    Raises:
        InvalidRequest: A parameter of the query is not of its kind, or is there twice.

    """
    body = dict(content or {})
    known = operation.query_parameters
    for name, text in query:
        if name in known:
            if name in body:
                raise InvalidRequest(f"{name}: found twice, expected once")
            body[name] = _from_text(name, text)
    body.update(path)
    return body


def held_seconds(body: Mapping[str, Any]) -> float:
    """Return how long the answer to a request may be held on purpose."""
    held = body.get("wait") or body.get("hold_seconds") or 0.0
    return float(held) if isinstance(held, (int, float)) else 0.0


def _segment(name: str, value: object) -> str:
    """Return a parameter as one segment of a path."""
    if not isinstance(value, str) or value in ("", ".", ".."):
        raise InvalidRequest(f"{name}: found {found(value)}, expected a name")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name}: found half a character in {value!r}, expected a name") from None


def _to_text(name: str, value: object) -> str:
    kind = QUERY_KINDS.get(name, Kind.TEXT)
    if kind is Kind.FLAG and isinstance(value, bool):
        return "true" if value else "false"
    if kind is Kind.INTEGER and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if kind is Kind.DURATION and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.3f}".rstrip("0").rstrip(".") + "s"
    if kind is Kind.TIME and isinstance(value, (int, float)) and not isinstance(value, bool):
        return time_text(value)
    if kind is Kind.TEXT and isinstance(value, str):
        return value
    raise InvalidRequest(f"{name}: found {found(value)}, expected {_EXPECTED[kind]}")


def _from_text(name: str, text: str) -> Any:
    kind = QUERY_KINDS.get(name, Kind.TEXT)
    if kind is Kind.TEXT:
        return text
    if kind is Kind.FLAG and text in _FLAGS:
        return _FLAGS[text]
    digits = text.removeprefix("-")
    if kind is Kind.INTEGER and digits.isascii() and digits.isdigit() and len(digits) <= INTEGER_DIGITS_MAX:
        return int(text)
    try:
        if kind is Kind.DURATION:
            return seconds(float(text) if text.isascii() and text.isdigit() else text)
        if kind is Kind.TIME:
            return parse_time(text)
    except ValueError:
        pass
    raise InvalidRequest(f"{name}: found {found(text)}, expected {_EXPECTED[kind]}")


_EXPECTED: Final = {
    Kind.TEXT: "text",
    Kind.FLAG: "true or false",
    Kind.INTEGER: "a whole number",
    Kind.DURATION: 'seconds or a duration such as "30s"',
    Kind.TIME: "a time such as 2026-07-20T20:17:40Z",
}
