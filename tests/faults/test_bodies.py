"""What no client would send, sent to a real server."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from khonsu.api.limits import JOB_BYTES_MAX
from tests.api.raw import Line

if TYPE_CHECKING:
    from tests.api.raw import Answer
    from tests.faults.running import Server

pytestmark = pytest.mark.anyio

JOBS = "/api/v1/namespaces/default/jobs"
SLOW = 30
HUGE = "9" * 400
ODD = "\\ud800"


async def post(line: Line, server: Server, content: bytes, path: str = JOBS, **headers: str) -> Answer:
    """Make a request as the operator."""
    return await line.ask(
        "POST",
        path,
        content,
        **{"Content_Type": "application/json", "Authorization": f"Bearer {server.token}", **headers},
    )


def a_job(field: str) -> bytes:
    """Return the text of a job with one more field, which may be no right JSON."""
    return ('{"job":{"name":"x","driver":"binary","config":{"command":"true"},' + field + "}}").encode()


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"{}}", 400, "not JSON"),
        (b"\x00", 400, "not JSON"),
        (b"<job/>", 400, "not JSON"),
        ("{}".encode("utf-16"), 400, "not"),
        (b'{"job":"\xff\xfe"}', 400, "UTF-8"),
        (b"null", 400, "object"),
        (b'["job"]', 400, "object"),
        (b'"job"', 400, "object"),
        (b'{"job":' * 65 + b"1" + b"}" * 65, 400, "deeper than 64 levels"),
        (b'{"job":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "deep"),
        (a_job('"priority":NaN'), 400, "NaN is not JSON"),
        (a_job('"priority":-Infinity'), 400, "-Infinity is not JSON"),
        (a_job('"priority":1e400'), 400, "too large"),
        (a_job(f'"priority":{HUGE}'), 422, "priority"),
        (a_job(f'"priority":{HUGE * 20}'), 400, "not JSON"),
        (a_job(f'"priority":-{HUGE}'), 422, "priority"),
        (a_job(f'"count":{HUGE}'), 422, "count"),
        (a_job(f'"kill_timeout":{HUGE}'), 422, "kill_timeout"),
        (a_job('"kill_timeout":1e300'), 422, "kill_timeout"),
        (a_job(f'"resources":{{"memory":{HUGE}}}'), 422, "64TiB"),
        (a_job(f'"meta":{{"a":"{ODD}"}}'), 400, "UTF-8"),
        (a_job(f'"meta":{{"{ODD}":"a"}}'), 400, "UTF-8"),
        (a_job('"env":{"A":"\\u0000"}'), 422, "env"),
        (b'{"job":null}', 400, "job"),
        (b"{}", 400, "job"),
        (b"x" * (JOB_BYTES_MAX + 1), 413, "4MiB"),
    ],
)
async def test_a_wrong_body_is_told_what_is_wrong(server: Server, content: bytes, status: int, says: str) -> None:
    """Whatever a body holds, the refusal says what was found, and the connection serves the next request."""
    async with server.line() as line:
        answer = await post(line, server, content)
        assert answer.status == status, answer.content
        assert says in answer.body["detail"]
        assert (await line.ask("GET", JOBS, Authorization=f"Bearer {server.token}")).status == 200


async def test_of_two_keys_that_are_the_same_one_is_not_chosen_silently(server: Server) -> None:
    """An object with a key that stands there twice is refused: which of both was meant nobody knows."""
    async with server.line() as line:
        answer = await post(line, server, a_job('"priority":1,"priority":2'))
        assert answer.status == 400
        assert "twice" in answer.body["detail"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
async def test_another_type_is_refused(server: Server, kind: str) -> None:
    """A body that is declared to be something else is refused, and the right type is named."""
    async with server.line() as line:
        answer = await post(line, server, b"{}", Content_Type=kind)
        assert (answer.status, "application/json" in answer.body["hint"]) == (415, True)


async def test_chunks_without_end(server: Server) -> None:
    """A body that never ends is refused as soon as it is larger than the limit."""
    async with server.line() as line:
        head = f"POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
        await line.send(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = f"{JOB_BYTES_MAX // 4:x}\r\n".encode() + b"x" * (JOB_BYTES_MAX // 4) + b"\r\n"
        for _ in range(5):
            await line.send(chunk)
        answer = await line.answer()
        assert (answer.status, "4MiB" in answer.body["detail"]) == (413, True)


async def test_huge_headers_are_refused(server: Server) -> None:
    """A head larger than its limit is refused, whether it is one line or many."""
    for more in ({"X": "x" * 20_000}, {f"X{number}": "x" for number in range(3000)}):
        async with server.line() as line:
            answer = await post(line, server, b"{}", **more)
            assert (answer.status, "16KiB" in answer.body["detail"]) == (431, True)


async def test_who_is_slow_holds_nobody_up(server: Server) -> None:
    """While many connections send a head or a body byte by byte, others are served."""
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(server.line()) for _ in range(SLOW)]
        head = f"POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\nContent-Length: 9"
        for number, line in enumerate(slow):
            await line.send(
                head.encode() if number % 2 else f"{head}\r\nContent-Type: application/json\r\n\r\n".encode()
            )
            line_ = await stack.enter_async_context(server.line())
            assert (await line_.ask("GET", JOBS, Authorization=f"Bearer {server.token}")).status == 200


HOSTILE: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    2**63,
    2**63 - 1,
    -(2**63),
    1e308,
    "",
    "x" * 5000,
    "\ud800",
    "a\0b",
    "../..",
    "9" * 30 + "." + "9" * 30,
    [],
    [None],
    {},
    {"a": None},
]
WRITES: dict[str, dict[str, Any]] = {
    f"{JOBS}": {"job": {"name": "odd"}, "rerun": False, "expect_version": None},
    "/api/v1/namespaces/default/plan": {"job": {"name": "odd"}},
    f"{JOBS}/odd/revert": {"version": 1},
    f"{JOBS}/odd/scale": {"count": 1, "group": None},
    f"{JOBS}/odd/stop": {"purge": False},
    "/api/v1/namespaces/default/allocations/odd/stop": {},
    "/api/v1/nodes/odd/drain": {"deadline_seconds": 1},
    "/api/v1/nodes/invite": {"node_name": None, "labels": {}, "valid_seconds": 10},
}


@pytest.mark.parametrize("path", WRITES)
async def test_odd_parameters_of_writes(server: Server, path: str) -> None:
    """Whatever stands in a parameter of an operation that writes, it is done or refused with a reason, never a 500."""
    async with server.line() as line:
        for name in (*WRITES[path], "unknown"):
            for value in HOSTILE:
                answer = await post(line, server, json.dumps({**WRITES[path], name: value}).encode(), path)
                assert answer.status in {200, 400, 404, 409, 422}, (name, value, answer.content)
                assert answer.status == 200 or answer.body["detail"]


@pytest.mark.parametrize("text", ["", "x" * 3000, "%00", "%ED%A0%80", "..%2F", "-1", "9" * 30, "1e400", "nan", "0.0"])
async def test_odd_parameters_of_reads(server: Server, text: str) -> None:
    """Whatever stands in a path or a query, it is answered or refused with a reason, never a 500."""
    reads = [
        f"{JOBS}/{text}",
        f"{JOBS}/{text}/result",
        *(f"{JOBS}?{name}={text}" for name in ("cursor", "limit", "wait")),
        *(f"{JOBS}/odd/result?{name}={text}" for name in ("version", "run", "until")),
        f"{JOBS}?after={text}&wait=0",
        f"/api/v1/namespaces/{text}/jobs",
        f"/api/v1/namespaces/default/allocations?job={text}",
        f"/api/v1/nodes/{text}",
    ]
    async with server.line() as line:
        for read in reads:
            answer = await line.ask("GET", read, Authorization=f"Bearer {server.token}")
            assert answer.status in {200, 400, 404, 410}, (read, answer.content)
            assert answer.status == 200 or answer.body["detail"]
