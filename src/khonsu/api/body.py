"""Reading a request's body, which may be too long, too slow, too deep, or no JSON."""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

import anyio
from starlette.datastructures import Headers
from starlette.types import Receive

from khonsu.api.answers import refused
from khonsu.api.limits import JOB_BYTES_MAX, Limits
from khonsu.core.operations import Operation, Role
from khonsu.core.units import format_duration, format_size
from khonsu.errors import Unreachable
from khonsu.transports.wire import decode

TOO_LARGE: Final = 413
NOT_JSON: Final = 415
TOO_SLOW: Final = 408


def caller_gone() -> Unreachable:
    """Return the error of a request whose caller went away; what is sent after it reaches nobody."""
    return Unreachable("the caller", "it went away before its request was over")


async def read_json(operation: Operation, headers: Headers, receive: Receive, limits: Limits) -> dict[str, Any]:
    """Return the JSON object that a request holds; no body is an empty one.

    Raises:
        Refused: It is too large, too slow, too deep, or declared to be something else.
        InvalidRequest: It is no JSON object.
        Unreachable: The caller went away.

    """
    most = limits.bytes_max(operation.name)
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > most:
        raise _too_large(most)
    with anyio.move_on_after(limits.body_seconds_max) as scope:
        data = await _read(receive, most)
    if scope.cancelled_caught:
        limit = format_duration(limits.body_seconds_max)
        raise refused(
            TOO_SLOW,
            f"the body did not arrive within {limit}",
            "Send it faster, or in smaller parts",
            connection="close",
        )
    if data:
        _check_type(headers)
    # People write these, by hand or by program; what agents say comes from our own codec, and often.
    body = decode(data, unique_keys=operation.role is Role.OPERATOR)
    _check_values(body, limits.depth_max)
    return body


async def _read(receive: Receive, most: int) -> bytes:
    chunks, count = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise caller_gone()
        chunk: bytes = message.get("body", b"")
        count += len(chunk)
        if count > most:
            raise _too_large(most)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_large(most: int) -> Exception:
    hint = "Split the request"
    if most <= JOB_BYTES_MAX:
        hint = "Keep large data out of the job: pass it as an artifact; or make several jobs of its groups"
    return refused(TOO_LARGE, f"the body is larger than {format_size(most)}", hint)


def _check_type(headers: Headers) -> None:
    declared = headers.get("content-type", "")
    media_type, _, parameters = declared.partition(";")
    charset = parameters.lower().replace(" ", "").removeprefix("charset=").strip('"')
    if media_type.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        found = f"{declared[:100]!r}" if declared else "no Content-Type"
        raise refused(NOT_JSON, f"found {found}, expected JSON", "Send JSON with `Content-Type: application/json`")


def _check_values(body: dict[str, Any], depth_max: int) -> None:
    """Refuse what is nested too deep, and numbers such as 1e999, which JSON has and floats have not."""
    level: list[Any] = [body]
    depth = 0
    while level:
        depth += 1
        if depth > depth_max:
            raise refused(400, f"the JSON is nested deeper than {depth_max} levels", "Make it flatter")
        inner: list[Any] = []
        for container in level:
            for item in container.values() if isinstance(container, dict) else container:
                if isinstance(item, (dict, list)):
                    inner.append(item)
                elif isinstance(item, float) and not isfinite(item):
                    raise refused(400, "the JSON holds a number that is too large", "Use numbers below 1e308")
        level = inner
