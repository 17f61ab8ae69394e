from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import jsonschema_rs
import pytest
import requests
import schemathesis
from anyio.from_thread import start_blocking_portal
from attrs import frozen
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

import khonsu
from khonsu.abc.transport import Identity, Request
from khonsu.api.openapi import document
from khonsu.api.shapes import SHAPES
from khonsu.core.codec import from_json, to_json
from khonsu.core.job import Job
from khonsu.core.operations import OPERATIONS, Direction, Operation, Role
from khonsu.core.protocol import JoinRequest, JoinResponse, NodeFacts
from khonsu.core.records import NodeResources
from khonsu.errors import all_errors, to_problem
from khonsu.testing.counterpart import sample_error
from tests.api.raw import served
from tests.effort import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import SearchStrategy

    from khonsu.core.secret import Secret

Case: TypeAlias = schemathesis.Case[Any]
APIOperation: TypeAlias = schemathesis.APIOperation[Any, Any, Any, Any]

DOCUMENT = document()
PROBLEM = {"$ref": "#/components/schemas/Problem", "components": DOCUMENT["components"]}
EXAMPLES_MAX = 6


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
    wrong = [code for code in all_errors() if not jsonschema_rs.is_valid(PROBLEM, to_problem(sample_error(code)))]
    assert wrong == []


@pytest.mark.anyio
async def test_the_document_is_served() -> None:
    """The server hands out the document."""
    async with served() as line:
        answer = await line.ask("GET", "/api/v1/openapi.json")
    assert answer.body == json.loads(json.dumps(DOCUMENT))


# ---------------------------------------------------------------------------------------------- whatever it allows


@frozen
class Running:
    """A control plane that serves, and what each role shows to it."""

    url: str
    ca: str
    credentials: dict[Role, str]

    def send(self, case: Case, session: requests.Session) -> schemathesis.Response:
        """Send a case as whoever may make such a request."""
        role = OPERATIONS[case.operation.definition.raw["operationId"]].role
        headers = {"Authorization": f"Bearer {self.credentials[role]}"}
        return case.call(base_url=self.url, session=session, headers=headers, verify=self.ca, timeout=10)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run a control plane on an event loop of another thread, with one node."""
    data_dir = tmp_path_factory.mktemp("state")
    control = khonsu.ControlPlane(
        store=khonsu.MemoryStore(), listeners=[khonsu.HTTPListener("127.0.0.1:0")], data_dir=data_dir
    )
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(control):
        invite = partial(control.invite, valid="1h")
        transport = khonsu.HTTPTransport(control.addresses[0], ca=data_dir / "ca.pem")
        node = portal.call(joined, transport, portal.call(invite))
        yield Running(
            url=control.addresses[0],
            ca=str(data_dir / "ca.pem"),
            credentials={
                Role.OPERATOR: (data_dir / "operator.token").read_text().strip(),
                Role.JOIN: portal.call(invite).reveal(),
                Role.NODE: node.credential,
            },
        )


async def joined(transport: khonsu.HTTPTransport, token: Secret) -> JoinResponse:
    """Become a node."""
    resources = NodeResources(cpu_millis=1000, memory_bytes=2**30, disk_bytes=2**30)
    request = JoinRequest(name="mac", facts=NodeFacts(resources=resources, boot_id="b", version="0"))
    async with transport.connect(Identity(credential=token)) as connection:
        answer = await connection.call(Request(operation="node.join", body=to_json(request)))
    return from_json(JoinResponse, answer.body)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Keep connections."""
    with requests.Session() as session:
        session.trust_env = False
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


def called() -> list[Operation]:
    """Return the operations but for the stream of events, which goes on until something happens."""
    return [each for each in OPERATIONS.values() if each.name != "event.stream"]


def cases() -> Iterator[Any]:
    """Go through what the document allows, and what it does not."""
    described = document()
    described["components"]["schemas"] = bounded(described["components"]["schemas"])
    described["paths"] = {f"/api/v1{each.path}": described["paths"][f"/api/v1{each.path}"] for each in called()}
    loaded = schemathesis.openapi.from_dict(described)
    for found in loaded.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        for mode in GenerationMode:
            yield pytest.param(operation, mode, id=f"{operation.method} {operation.path} {mode.value}")


@pytest.mark.parametrize(("operation", "mode"), list(cases()))
def test_nothing_that_is_sent_makes_the_server_fail(
    operation: APIOperation, mode: GenerationMode, running: Running, session: requests.Session
) -> None:
    """Whatever is sent, the answer is either good or a refusal as the document describes it, and never a 500."""
    strategy: SearchStrategy[Case] = operation.as_strategy(generation_mode=mode)
    found: list[int] = []

    @given(case=strategy)
    @settings(
        examples(EXAMPLES_MAX),
        deadline=None,
        database=None,
        phases=[Phase.generate],  # making a job smaller that fails would take minutes
        suppress_health_check=list(HealthCheck),
    )
    def run(case: Case) -> None:
        response = running.send(case, session)
        found.append(response.status_code)
        assert response.status_code < 500
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]
            problem = json.loads(response.content)
            assert jsonschema_rs.is_valid(PROBLEM, problem)
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
