"""JSON on the wire: bodies, and errors as problem documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from khonsu.core.codec import loads
from khonsu.errors import InvalidRequest, KhonsuError, from_problem, to_problem


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body of JSON values as bytes.

    Raises:
        TypeError: It holds what is no JSON value.
        ValueError: It holds a number without end.

    """
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


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
    if "type" not in document:
        return None
    try:
        return from_problem(document)
    except (TypeError, AttributeError, KeyError):
        # A neighbouring version may know other facts; what it said is still good.
        return KhonsuError(str(document.get("detail", "")), hint=str(document.get("hint", "")))
