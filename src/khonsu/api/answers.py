"""Answers: JSON, and refusals as problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen
from starlette.responses import Response

from khonsu.core.protocol import PROTOCOL
from khonsu.errors import InvalidRequest, KhonsuError, Unauthenticated, to_problem
from khonsu.transports.routing import PROTOCOL_HEADER
from khonsu.transports.wire import encode

JSON_TYPE: Final = "application/json"
PROBLEM_TYPE: Final = "application/problem+json"

COMMON_HEADERS: Final[Mapping[str, str]] = {
    PROTOCOL_HEADER: str(PROTOCOL),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}

STRANGER: Final = Unauthenticated(
    "this needs a valid credential",
    hint="Send a token that is known here, neither used up nor expired, as `Authorization: Bearer TOKEN`; "
    "`khonsu login` keeps one, `khonsu node invite` makes one for a new node",
)


@frozen
class Refused(Exception):
    """A refusal that HTTP has a status of its own for."""

    status: int
    error: KhonsuError
    headers: Mapping[str, str] = field(factory=dict)


def refused(status: int, message: str, hint: str, **headers: str) -> Refused:
    """Return the refusal of a request that is not as it should be."""
    return Refused(status, InvalidRequest(message, hint=hint), {name.title(): text for name, text in headers.items()})


def answer(content: bytes, *, media_type: str = JSON_TYPE) -> Response:
    """Return a good answer."""
    return Response(content, headers=dict(COMMON_HEADERS), media_type=media_type)


def answer_json(body: Mapping[str, Any]) -> Response:
    """Return a good answer of JSON values."""
    return answer(encode(body))


def problem(error: KhonsuError, *, status: int | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """Return a refusal. Whoever is not known gets the same one for every reason."""
    extra = dict(headers or {})
    if isinstance(error, Unauthenticated):
        error, status = STRANGER, None
        extra["WWW-Authenticate"] = "Bearer"
    document = to_problem(error)
    if status is not None:
        document["status"] = status
    return Response(
        encode(document),
        status_code=int(document["status"]),
        headers={**COMMON_HEADERS, **extra},
        media_type=PROBLEM_TYPE,
    )
