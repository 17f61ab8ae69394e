from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from khonsu.core.operations import OPERATIONS, Direction
from khonsu.core.protocol import PROTOCOL
from khonsu.errors import Unauthenticated, all_errors
from khonsu.testing import Counterpart
from khonsu.testing.counterpart import sample_error
from tests.api.raw import JSON, served

if TYPE_CHECKING:
    from khonsu.abc.transport import Request, Response
    from khonsu.core.secret import Secret

pytestmark = pytest.mark.anyio

JOBS = "/api/v1/namespaces/default/jobs"
PLAN = "/api/v1/namespaces/default/plan"


class Strict(Counterpart):
    """Knows one credential, and says so before a body is read."""

    ready_now = True

    def authenticate(self, operation: str, credential: Secret | None, /) -> None:
        if credential is None or not credential.reveal().startswith("kht1.someone."):
            raise Unauthenticated("a reason that strangers must not learn")

    async def call(self, request: Request, /) -> Response:
        self.authenticate(request.operation, request.credential)
        return await super().call(request)

    def ready(self) -> bool:
        return self.ready_now


# ------------------------------------------------------------------------------------------------ who may come in


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer  ", "Basic a3JzOmE=", "Bearer a b", "Bearer kht1.other.0", f"Bearer {'x' * 2000}"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", JOBS), ("POST", JOBS), ("BREW", "/nowhere"), ("GET", "/metrics"), ("GET", "/api/v1/openapi.json")],
)
async def test_a_stranger_gets_one_constant_answer(authorization: str, method: str, path: str) -> None:
    """Whoever has no valid credential gets the same refusal, whatever was asked and whatever is wrong with it."""
    async with served(Strict()) as line:
        answer = await line.ask(method, path, b"{", **JSON, Authorization=authorization)
        first = await line.ask("GET", JOBS, Authorization="")
    assert (first.status, first.content) == (answer.status, answer.content)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert b"strangers must not learn" not in answer.content


async def test_no_operation_is_open() -> None:
    """Each route of the table refuses a stranger before anything else."""
    async with served() as line:
        for operation in OPERATIONS.values():
            path = "/api/v1" + operation.path.replace("{", "").replace("}", "")
            answer = await line.ask(
                operation.method, path, b"" if operation.method == "POST" else None, Authorization=""
            )
            assert (operation.name, answer.status) == (operation.name, 401)


async def test_a_stranger_is_refused_before_its_body_came() -> None:
    """The refusal does not wait for the body, where the handler can tell who asks."""
    async with served(Strict()) as line:
        answer = await line.ask(
            "POST", JOBS, None, **JSON, Authorization="Bearer kht1.other.0", Content_Length="1000000"
        )
    assert answer.status == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:4747", 200),
        ("LOCALHOST.", 200),
        ("127.0.0.1:4747", 200),
        ("[::1]:4747", 200),
        ("192.168.7.7", 200),
        ("khonsu.example", 200),
        ("KHONSU.example:1", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[evil", 403),
    ],
)
async def test_which_hosts_are_served(host: str, status: int) -> None:
    """A name that somebody else pointed to this server is refused; its own names and addresses are not."""
    async with served(advertise=("khonsu.example",)) as line:
        assert (await line.ask("GET", "/healthz", Host=host)).status == status


@pytest.mark.parametrize(
    "header", [{"Origin": "null"}, {"Origin": "https://localhost"}, {"Sec_Fetch_Site": "same-origin"}]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "PUT"])
async def test_a_web_page_is_refused(header: dict[str, str], method: str) -> None:
    """What a browser sends for a page is refused for all methods."""
    async with served() as line:
        answer = await line.ask(method, JOBS, b"" if method == "POST" else None, **header)
    assert (answer.status, answer.body["type"]) == (403, "not-allowed")
    assert "access-control-allow-origin" not in answer.headers


# ------------------------------------------------------------------------------------------------------ the routes


async def test_health_and_readiness_are_open() -> None:
    """Anybody may ask whether the server lives and serves."""
    handler = Strict()
    async with served(handler) as line:
        assert (await line.ask("GET", "/healthz", Authorization="")).body == {"status": "ok"}
        assert (await line.ask("GET", "/readyz", Authorization="")).body == {"status": "ready"}
        handler.ready_now = False
        assert (await line.ask("GET", "/readyz", Authorization="")).status == 503
        assert (await line.ask("GET", "/healthz", Authorization="")).status == 200


async def test_metrics_are_for_the_operator() -> None:
    """Metrics are OpenMetrics text."""
    async with served() as line:
        answer = await line.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.content.endswith(b"# EOF\n")


async def test_what_is_not_there_is_a_problem() -> None:
    """An unknown path says where the known ones are."""
    async with served() as line:
        for path in ("/", "/api/v1/", "/api/v2/jobs", JOBS + "/", "/api/v1/namespaces//jobs", "/metrics/"):
            answer = await line.ask("GET", path)
            assert (path, answer.status) == (path, 404)
            assert answer.headers["content-type"] == "application/problem+json"
            assert "openapi.json" in answer.body["hint"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", JOBS, "GET, POST"),
        ("HEAD", "/healthz", "GET"),
        ("POST", "/api/v1/nodes/mac", "DELETE, GET"),
        ("GET", "/api/v1/nodes/mac/drain", "POST"),
        ("FROBNICATE", "/api/v1/nodes/invite", "DELETE, GET, POST"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allowed: str) -> None:
    """The refusal of a method names those that the path takes."""
    async with served() as line:
        await line.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n".encode())
        answer = await line.answer(method.encode())
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


async def test_each_operation_has_its_route() -> None:
    """Each operation arrives at the handler under its own name, with the parameters of its path."""
    async with served() as line:
        for operation in OPERATIONS.values():
            if operation.direction is not Direction.CALL or operation.name not in (
                "job.get",
                "job.submit",
                "node.remove",
            ):
                continue
            path = operation.path.format(**{name: f"a {name}" for name in operation.path_parameters})
            answer = await line.ask(operation.method, "/api/v1" + quote(path), b"{}", **JSON)
            assert answer.body["operation"] == operation.name
            assert answer.body["body"] == {name: f"a {name}" for name in operation.path_parameters}


async def test_names_keep_their_letters() -> None:
    """A name may hold whatever a URL can encode; one that is not UTF-8 is refused."""
    async with served() as line:
        for name in ("a/b", "..", "%", "☾", "a?b#c", "\u0000"):
            answer = await line.ask("GET", f"{JOBS}/{quote(name, safe='')}")
            assert answer.body["body"]["name"] == name
        assert (await line.ask("GET", f"{JOBS}/%ff")).status == 400


async def test_the_path_goes_before_the_body() -> None:
    """A body cannot name another namespace than the path, by which access is decided."""
    async with served() as line:
        answer = await line.ask("POST", JOBS, b'{"namespace":"other","job":1}', **JSON)
    assert answer.body["body"] == {"namespace": "default", "job": 1}


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", {}),
        ("after=1.7&wait=30s", {"after": "1.7", "wait": 30.0}),
        ("wait=1m30s&limit=5", {"wait": 90.0, "limit": 5}),
        ("wait=2", {"wait": 2.0}),
        ("cursor=&unknown=x", {"cursor": ""}),
        ("cursor=a%20b%2Bc+d", {"cursor": "a b+c d"}),
    ],
)
async def test_a_query_is_read_by_kind(query: str, body: dict[str, object]) -> None:
    """Parameters of a query become values of their kinds; unknown ones are left out."""
    async with served() as line:
        answer = await line.ask("GET", f"{JOBS}?{query}")
    assert answer.body["body"] == {"namespace": "default", **body}


@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "limit=1.5",
        "limit=²",
        "limit=" + "9" * 30,
        "limit=1&limit=2",
        "wait=soon",
        "wait=-1",
        "wait=inf",
        "wait=11m",
        "wait=" + "9" * 308,
        "wait=" + "9" * 400,
        "cursor=%ff",
        "&".join(f"x{number}=" for number in range(101)),
    ],
)
async def test_a_wrong_query_is_refused(query: str) -> None:
    """A parameter that is not of its kind is refused, and named."""
    async with served() as line:
        answer = await line.ask("GET", f"{JOBS}?{quote(query, safe='=&%')}")
    assert (answer.status, answer.body["type"]) == (400, "invalid-request")
    assert answer.body["detail"]


# ----------------------------------------------------------------------------------------------------- the headers


@pytest.mark.parametrize(("spoken", "status"), [("", 200), *((str(PROTOCOL + skew), 200) for skew in (-1, 0, 1))])
async def test_a_neighbouring_protocol_is_understood(spoken: str, status: int) -> None:
    """One version of skew is spoken, and no version is none."""
    async with served() as line:
        answer = await line.ask("GET", JOBS, Khonsu_Protocol=spoken)
    assert (answer.status, answer.headers["khonsu-protocol"]) == (status, str(PROTOCOL))


@pytest.mark.parametrize("spoken", [str(PROTOCOL + 2), "-1", "x", "²", "1" * 50])
async def test_another_protocol_is_refused(spoken: str) -> None:
    """Two versions apart do not understand each other, and say so."""
    async with served() as line:
        answer = await line.ask("GET", JOBS, Khonsu_Protocol=spoken)
    assert (answer.status, answer.body["hint"]) == (400, "Bring the older of the two to the version of the newer")


@pytest.mark.parametrize(
    "header",
    [
        {"Idempotency_Key": "a b"},
        {"Idempotency_Key": "x" * 256},
        {"Khonsu_Deadline": "-1"},
        {"Khonsu_Deadline": "nan"},
        {"Khonsu_Deadline": "1e9"},
    ],
)
async def test_wrong_headers_are_refused(header: dict[str, str]) -> None:
    """Headers of ours that cannot be understood are refused."""
    async with served() as line:
        assert (await line.ask("POST", JOBS, b"{}", **JSON, **header)).status == 400


async def test_answers_are_not_kept_by_anybody() -> None:
    """No cache keeps an answer, and no browser guesses its type."""
    async with served() as line:
        for path in (JOBS, "/nowhere", "/healthz"):
            answer = await line.ask("GET", path)
            assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == (
                "no-store",
                "nosniff",
            )


# ------------------------------------------------------------------------------------------------------ the bodies


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not JSON"),
        (b"x", "not JSON"),
        (b"[]", "a list"),
        (b'"x"', "a text"),
        (b"1", "a number"),
        (b"null", "null"),
        (b"true", "a truth value"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":1e999}', "too large"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'{"a":"\\ud800"}', "UTF-8"),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "deeper than 64"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deep"),
        (b'{"a":1}\x00', "not JSON"),
    ],
)
async def test_a_body_that_is_no_object_is_refused(content: bytes, says: str) -> None:
    """What is no JSON object, or too deep, is refused, and the message says what was found."""
    async with served() as line:
        answer = await line.ask("POST", JOBS, content, **JSON)
        assert (answer.status, answer.body["type"]) == (400, "invalid-request")
        assert says in answer.body["detail"]
        assert (await line.ask("GET", JOBS)).status == 200


async def test_the_deepest_body_is_taken() -> None:
    """64 levels are taken."""
    content = b'{"job":' + b"[" * 63 + b"]" * 63 + b"}"
    async with served() as line:
        assert (await line.ask("POST", JOBS, content, **JSON)).status == 200


@pytest.mark.parametrize(
    ("declared", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ("", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=latin-1", 415),
        ("application/jsonp", 415),
    ],
)
async def test_which_types_of_bodies_are_taken(declared: str, status: int) -> None:
    """Only JSON is taken, so that a form of a web page is not."""
    async with served() as line:
        assert (await line.ask("POST", JOBS, b"{}", Content_Type=declared)).status == status


async def test_no_body_is_an_empty_one() -> None:
    """A request without a body needs no type."""
    async with served() as line:
        answer = await line.ask("POST", JOBS, b"")
        assert (answer.status, answer.body["body"]) == (200, {"namespace": "default"})
        assert (await line.ask("DELETE", "/api/v1/nodes/mac")).body["body"] == {"name": "mac"}


async def test_each_error_has_its_document() -> None:
    """Each error of the tree is a problem document with its status, message, hint and facts."""
    async with served() as line:
        for code in all_errors():
            error = sample_error(code)
            answer = await line.ask("POST", PLAN, json.dumps({"code": code}).encode(), **JSON)
            assert answer.headers["content-type"] == "application/problem+json"
            assert (code, answer.status) == (code, error.status)
            assert answer.body["status"] == error.status
            if not isinstance(error, Unauthenticated):
                assert {"type": code, "detail": error.message, "hint": error.hint, **error.facts()}.items() <= (
                    answer.body.items()
                )


async def test_a_bug_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected failure is a 500 without its inside, which is in the log."""
    with caplog.at_level(logging.ERROR):
        async with served() as line:
            answer = await line.ask("POST", JOBS + "/web/revert", b"{}", **JSON)
    assert (answer.status, answer.body["type"]) == (500, "error")
    assert b'inside"' not in answer.content
    assert b"detail of the inside" not in answer.content
    assert "a detail of the inside" in caplog.text
