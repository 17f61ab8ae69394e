from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import attrs
import jsonschema_rs
import pytest
import requests
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from khonsu.abc.transport import ByteStream, Request, Response
from khonsu.api.listener import HTTPListener
from khonsu.api.openapi import document
from khonsu.api.shapes import SHAPES
from khonsu.core.codec import from_json, to_json
from khonsu.core.job import Job
from khonsu.core.operations import OPERATIONS, Direction
from khonsu.errors import all_errors, to_problem
from khonsu.testing import Counterpart
from khonsu.testing.counterpart import sample_error
from tests.api.raw import TOKEN, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from hypothesis.strategies import SearchStrategy

Case: TypeAlias = schemathesis.Case[Any]
APIOperation: TypeAlias = schemathesis.APIOperation[Any, Any, Any, Any]

DOCUMENT = document()
EXAMPLES_MAX = 6


class Typed(Counterpart):
    """Reads each body as the types that the document promises, and answers with nothing."""

    async def call(self, request: Request, /) -> Response:
        takes = SHAPES[request.operation].takes
        if attrs.has(takes):
            from_json(takes, request.body)
        else:
            for name, kind in takes.items():
                if name in request.body:
                    from_json(kind, request.body[name])
        return Response()

    @asynccontextmanager
    async def stream(self, request: Request, /) -> AsyncGenerator[ByteStream, None]:
        yield Nothing()


class Nothing(ByteStream):
    """A stream of nothing, or to nowhere."""

    async def receive(self) -> bytes:
        raise anyio.EndOfStream

    async def send(self, data: bytes, /) -> None:
        assert data


# -------------------------------------------------------------------------------------------------- the document


def test_each_operation_is_described() -> None:
    """The document has each operation of the table, and the table of shapes no other."""
    described = {one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values() if "tags" in one}
    assert described == set(OPERATIONS) == set(SHAPES)


def test_each_reference_leads_somewhere() -> None:
    """Nothing is referred to that is not in the document."""
    found = json.dumps(DOCUMENT).split('"$ref": "#/components/')[1:]
    references = {each.partition('"')[0] for each in found}
    assert [name for name in references if name.split("/")[1] not in DOCUMENT["components"][name.split("/")[0]]] == []


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_each_schema_is_one(name: str) -> None:
    """Each schema is valid in its dialect."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema_rs.meta.validate(DOCUMENT["components"]["schemas"][name])
    assert jsonschema_rs.validator_for(schema) is not None


def test_a_job_is_what_its_schema_says() -> None:
    """What the codec makes of a job is valid by the document, and something else is not."""
    schema = {"$ref": "#/components/schemas/Job", "components": DOCUMENT["components"]}
    job = Job.single("web", {"command": "/bin/true"}, driver="binary", ports={"http": "dynamic"}, meta={"a": "b"})
    assert jsonschema_rs.is_valid(schema, to_json(job))
    assert not jsonschema_rs.is_valid(schema, {**to_json(job), "priority": "high"})


def test_each_error_is_what_its_schema_says() -> None:
    """The problem document of each error is valid by the document."""
    schema = {"$ref": "#/components/schemas/Problem", "components": DOCUMENT["components"]}
    wrong = [code for code in all_errors() if not jsonschema_rs.is_valid(schema, to_problem(sample_error(code)))]
    assert wrong == []


@pytest.mark.anyio
async def test_the_document_is_served() -> None:
    """The server hands out the document."""
    async with served() as line:
        answer = await line.ask("GET", "/api/v1/openapi.json")
    assert answer.body == json.loads(json.dumps(DOCUMENT))


# ---------------------------------------------------------------------------------------------- whatever it allows


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Serve on an event loop of another thread; yields the URL and the file of the authority."""
    handler = Typed()
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.write_text(handler.authority.certificate_pem)
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(HTTPListener("127.0.0.1:0").serve(handler)) as url,
    ):
        yield url, ca


@pytest.fixture(scope="module")
def session(server: tuple[str, Path]) -> Iterator[requests.Session]:
    """Keep a connection."""
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        yield session


def bounded(schema: Any) -> Any:
    """Make a schema smaller, so that values are drawn in milliseconds: short lists, and no free JSON in the depth."""
    if isinstance(schema, list):
        return [bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: bounded(item) for name, item in schema.items()}
    if made.get("type") == "array":
        made["maxItems"] = 2
    if "additionalProperties" in made:
        made["maxProperties"] = 2
        made["additionalProperties"] = made["additionalProperties"] or {"type": ["string", "integer", "null"]}
    return made


def cases() -> Iterator[Any]:
    """Go through what the document allows, and what it does not."""
    described = document()
    described["components"]["schemas"] = bounded(described["components"]["schemas"])
    described["paths"] = {path: each for path, each in described["paths"].items() if path.startswith("/api/")}
    loaded = schemathesis.openapi.from_dict(described)
    for found in loaded.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        for mode in GenerationMode:
            yield pytest.param(operation, mode, id=f"{operation.method} {operation.path} {mode.value}")


@pytest.mark.parametrize(("operation", "mode"), list(cases()))
def test_nothing_that_is_sent_makes_the_server_fail(
    operation: APIOperation,
    mode: GenerationMode,
    server: tuple[str, Path],
    session: requests.Session,
) -> None:
    """Whatever is sent, the answer is either good or a refusal as the document describes it, and never a 500."""
    strategy: SearchStrategy[Case] = operation.as_strategy(generation_mode=mode)
    found: list[int] = []

    @given(case=strategy)
    @settings(
        max_examples=EXAMPLES_MAX,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # making a job smaller that fails would take minutes
        suppress_health_check=list(HealthCheck),
    )
    def run(case: Case) -> None:
        response = case.call(base_url=server[0], session=session, verify=str(server[1]), timeout=10)
        found.append(response.status_code)
        assert response.status_code < 500
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]
            problem = json.loads(response.content)
            assert problem["status"] == response.status_code
            assert problem["hint"] or problem["detail"]

    run()
    assert found


def test_streams_are_of_bytes() -> None:
    """Streams down are lines, streams up are bytes, as the document says."""
    for operation in OPERATIONS.values():
        described = DOCUMENT["paths"][f"/api/v1{operation.path}"][operation.method.lower()]
        if operation.direction is Direction.DOWN:
            assert list(described["responses"]["200"]["content"]) == ["application/x-ndjson"]
        if operation.direction is Direction.UP:
            assert list(described["requestBody"]["content"]) == ["application/octet-stream"]
