"""JSON on the wire: bodies, errors as problem documents, and the last line of a stream that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from khonsu.core.codec import json_text, loads
from khonsu.errors import InvalidRequest, KhonsuError, from_problem, to_problem


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body of JSON values as bytes.

    Raises:
        TypeError: It holds what is no JSON value.
        ValueError: It holds a number without end.

    """
    return json_text(body).encode()


def decode(data: bytes, *, unique_keys: bool = False) -> dict[str, Any]:
    """Return the body that some bytes hold; no bytes are an empty body.

    Args:
        data: The bytes.
        unique_keys: Refuse an object in which a key stands twice.

    Raises:
        InvalidRequest: They are no JSON object.

    """
    if not data:
        return {}
    body = loads(data, unique_keys=unique_keys)
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body is {_KINDS.get(type(body), 'something else')}, expected a JSON object")
    return body


_KINDS: dict[type, str] = {list: "a list", str: "a text", bool: "a truth value", type(None): "null"} | dict.fromkeys(
    (int, float), "a number"
)


def encode_error(error: KhonsuError) -> bytes:
    """Return an error as a problem document."""
    return encode(to_problem(error))


def decode_error(data: bytes) -> KhonsuError | None:
    """Return the error that a problem document tells of, or None if the bytes are no such document."""
    try:
        document = decode(data)
    except InvalidRequest:
        return None
    return _error(document)


def _error(document: Any) -> KhonsuError | None:
    if not isinstance(document, dict) or "type" not in document:
        return None
    try:
        return from_problem(document)
    except (TypeError, AttributeError, KeyError):
        # A neighbouring version may know other facts; what it said is still good.
        return KhonsuError(str(document.get("detail", "")), hint=str(document.get("hint", "")))


_PROBLEM: Final = b'{"problem":'


def encode_last_line(error: KhonsuError) -> bytes:
    """Return how a stream of lines ends that failed: with one more line, which says why."""
    # It may have stopped in the middle of a line, and an empty one does no harm.
    return b"\n" + _PROBLEM + encode_error(error) + b"}\n"


class Lines:
    """The lines of a stream as they come, but for the last one if it says why the stream failed."""

    def __init__(self) -> None:
        """Begin a line."""
        self._begins = True
        self._held = b""

    def take(self, data: bytes) -> bytes:
        """Return what can be passed on; the beginning of what may be the last line is kept for now."""
        data = self._held + data
        begin = data.removesuffix(b"\n").rfind(b"\n") + 1
        line = data[begin:]
        may_be = (begin or self._begins) and (line.startswith(_PROBLEM) or _PROBLEM.startswith(line))
        passed, self._held = (data[:begin], line) if may_be else (data, b"")
        if passed:
            self._begins = passed.endswith(b"\n")
        return passed

    def end(self) -> bytes:
        """Return what was kept of a stream that ended well.

        Raises:
            KhonsuError: It did not: this is why.

        """
        held, self._held = self._held, b""
        if held.startswith(_PROBLEM):
            try:
                error = _error(decode(held)["problem"])
            except InvalidRequest:
                error = None
            if error is not None:
                raise error
        return held
