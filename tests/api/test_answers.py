"""What is asked and answered by real parts, beside the document that describes it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import jsonschema_rs
import pytest
from attrs import define, evolve, field

import khonsu
from khonsu.abc.oneway import Downward
from khonsu.abc.transport import Handler, Listener
from khonsu.api.openapi import document
from khonsu.core.operations import OPERATIONS, Direction, Role
from khonsu.errors import to_problem

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

    from khonsu.abc.transport import ByteStream, Request, Response

DOCUMENT = document()


@define
class Heard:
    """What was asked and answered, by operation."""

    asked: list[tuple[str, Mapping[str, Any]]] = field(factory=list)
    answered: list[tuple[str, Any]] = field(factory=list)
    refused: list[khonsu.KhonsuError] = field(factory=list)


class Recording(Handler):
    """A handler that keeps what goes through it, and gives every write of an operator a key of its own."""

    def __init__(self, handler: Handler, heard: Heard) -> None:
        self._handler = handler
        self._heard = heard

    async def call(self, request: Request, /) -> Response:
        """Serve a request."""
        name = request.operation
        self._heard.asked.append((name, request.body))
        if OPERATIONS[name].role is Role.OPERATOR and not OPERATIONS[name].reads:
            request = evolve(request, idempotency_key=f"{name}/{len(self._heard.asked)}")
        try:
            response = await self._handler.call(request)
        except khonsu.KhonsuError as error:
            self._heard.refused.append(error)
            raise
        self._heard.answered.append((name, response.body))
        return response

    @asynccontextmanager
    async def stream(self, request: Request, /) -> AsyncGenerator[ByteStream, None]:
        """Serve a stream."""
        self._heard.asked.append((request.operation, request.body))
        async with self._handler.stream(request) as stream:
            if OPERATIONS[request.operation].direction is Direction.UP:
                self._heard.answered.append((request.operation, {}))
                yield stream
            else:
                yield Lines(stream, request.operation, self._heard)

    def server_context(self, hosts: Sequence[str], /) -> ssl.SSLContext:
        """Return the TLS context."""
        return self._handler.server_context(hosts)

    def metrics(self) -> str:
        """Return the metrics."""
        return self._handler.metrics()

    def ready(self) -> bool:
        """Return whether it serves."""
        return self._handler.ready()


class Lines(Downward):
    """A stream whose lines are kept."""

    def __init__(self, stream: ByteStream, name: str, heard: Heard) -> None:
        self._stream = stream
        self._name = name
        self._heard = heard

    async def receive(self) -> bytes:
        """Return the next lines."""
        data = await self._stream.receive()
        self._heard.answered += [(self._name, json.loads(line)) for line in data.splitlines()]
        return data


class RecordingListener(Listener):
    """Serves over HTTPS, and keeps what goes through."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    @asynccontextmanager
    async def serve(self, handler: Handler, /) -> AsyncGenerator[str, None]:
        """Serve a handler."""
        async with khonsu.HTTPListener("127.0.0.1:0").serve(Recording(handler, self._heard)) as url:
            yield url


def once(name: str) -> khonsu.Job:
    """Return a batch job that says hello."""
    return khonsu.Job.single(name, khonsu.BinaryConfig("/bin/echo", args=["hello"]), type="batch", meta={"a": "b"})


def lasting(count: int = 1) -> khonsu.Job:
    """Return a service that is healthy at once."""
    config = khonsu.BinaryConfig("/bin/sleep", args=["600"])
    return khonsu.Job.single(
        "web", config, count=count, ports={"http": "dynamic"}, update=khonsu.Update(healthy_for=0.0)
    )


async def ask_everything(control: khonsu.ControlPlane, client: khonsu.Client, agent: khonsu.Agent) -> None:
    """Make every request that there is, most of them well, and some that are refused."""
    async with agent:
        await client.status()
        await client.wait_for_nodes(1, timeout="20s")
        (await client.run(once("done"), timeout="30s")).raise_for_status()
        async with client.logs("done") as lines:
            assert [line.text async for line in lines] == ["hello"]
        async with client.logs((await client.allocations(job="done"))[0]) as lines:
            assert [line.text async for line in lines] == ["hello"]
        await client.run(lasting(), timeout="30s")
        assert (await client.plan(lasting(2))).outcome == "updated"
        await client.scale("web", 2)
        await client.revert("web", version=1)
        huge = khonsu.Job.single("huge", khonsu.BinaryConfig("true"), resources=khonsu.Resources(cpu=9_000))
        await client.submit(huge)
        await client.wait("huge", placement_timeout=0)
        for name in ("huge", "web", "done"):
            await client.job(name)
            await client.explain(name)
        await client.jobs()
        await client.history("web")
        for one in await client.allocations():
            await client.allocation(one.id)
        await client.stop_allocation((await client.wait("web", timeout="30s")).allocations[0])
        await client.drain_node("home", deadline="1h")
        await client.node("home")
        await client.undrain_node("home")
        for wrong in (client.job("nobody"), client.revert("web", version=99), client.remove_node("home")):
            with pytest.raises(khonsu.KhonsuError):
                await wrong
        with pytest.raises(khonsu.InvalidJob):
            await client.submit(khonsu.Job.single("odd", {"comand": "x"}, driver="binary"))
        await client.stop("web")
    await client.nodes()
    await client.remove_node("home")
    async with client.events(follow=False) as events:
        assert [event.type async for event in events]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Heard, set[str]]:
    """Return what was said, and which operations remembered their answers under a key."""
    return anyio.run(talked, tmp_path_factory.mktemp("talk"))


async def talked(folder: Path) -> tuple[Heard, set[str]]:
    """Run a control plane and an agent, and ask for everything."""
    heard = Heard()
    store = khonsu.MemoryStore()
    async with khonsu.ControlPlane(store=store, listeners=[RecordingListener(heard)], data_dir=folder / "d") as control:
        transport = khonsu.HTTPTransport(control.addresses[0], ca=folder / "d" / "ca.pem")
        client = khonsu.Client(transport, token=(folder / "d" / "operator.token").read_text().strip())
        async with client:
            token = (await client.invite_node(name="home", labels={"disk": "ssd"})).token
            agent = khonsu.Agent(
                "home",
                transport=transport,
                drivers=[khonsu.BinaryDriver()],
                data_dir=folder / "home",
                join_token=token,
                on_exit="stop",
            )
            with anyio.fail_after(60):
                await ask_everything(control, client, agent)
        kept: Any = await store.read(lambda view: view.find("idempotency_key"))
        return heard, {one.key.split("/")[1] for one in kept}


def closed(schema: Any) -> Any:
    """Make a schema refuse what it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(item) for name, item in schema.items()}
    if "properties" in made and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


COMPONENTS = closed(DOCUMENT["components"])


def described(name: str) -> Mapping[str, Any]:
    """Return what the document says of an operation."""
    operation = OPERATIONS[name]
    found: Mapping[str, Any] = DOCUMENT["paths"][f"/api/v1{operation.path}"][operation.method.lower()]
    return found


def mistakes(schema: Any, value: object) -> list[str]:
    """Return what is wrong with a value, by a schema that takes nothing but what it names."""
    validator = jsonschema_rs.validator_for({**closed(schema), "components": COMPONENTS})
    return [f"{error.instance_path}: {error.message}"[:300] for error in validator.iter_errors(value)]


def test_every_operation_was_asked_for(talk: tuple[Heard, set[str]]) -> None:
    """What follows leaves no operation out."""
    assert {name for name, _ in talk[0].asked} == {name for name, _ in talk[0].answered} == set(OPERATIONS)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_answers_are_as_described(talk: tuple[Heard, set[str]], name: str) -> None:
    """Each answer, and each line of a stream, has what the document says of it and nothing else."""
    (media,) = described(name)["responses"]["200"]["content"].values()
    for known, body in talk[0].answered:
        if known == name:
            assert mistakes(media["schema"], body) == []


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_requests_are_as_described(talk: tuple[Heard, set[str]], name: str) -> None:
    """What our own client and agent send has a place in the document: in the path, the query or the body."""
    parameters = [each["name"] for each in described(name)["parameters"] if each["in"] != "header"]
    content = described(name).get("requestBody", {"content": {}})["content"].get("application/json")
    for known, body in talk[0].asked:
        rest = {key: value for key, value in body.items() if key not in parameters}
        if known == name and content is not None:
            assert mistakes(content["schema"], rest) == []
        elif known == name:
            assert rest == {}


def test_refusals_are_as_described(talk: tuple[Heard, set[str]]) -> None:
    """Each refusal is a problem as the document has it."""
    assert {type(error) for error in talk[0].refused} >= {khonsu.NotFound, khonsu.InvalidJob}
    schema = {"$ref": "#/components/schemas/Problem", "components": DOCUMENT["components"]}
    for error in talk[0].refused:
        assert jsonschema_rs.is_valid(schema, json.loads(json.dumps(to_problem(error))))


def test_a_key_is_offered_where_it_works(talk: tuple[Heard, set[str]]) -> None:
    """The operations that offer a key are those that remember the answer under it."""
    offered = {
        name for name in OPERATIONS if "Idempotency-Key" in {each["name"] for each in described(name)["parameters"]}
    }
    assert offered == {operation.name for operation in OPERATIONS.values() if operation.once} == talk[1]
