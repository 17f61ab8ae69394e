"""What a client asks for: jobs, and what is done with them and with nodes, each until it is acknowledged."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

import anyio
from attrs import frozen

from khonsu.client.asking import Asker
from khonsu.client.client import Client
from khonsu.core.codec import to_json
from khonsu.core.job import Job, Resources
from khonsu.core.policies import Disconnect, Update
from khonsu.core.states import Eligibility, NodeStatus
from khonsu.errors import Conflict, KhonsuError, NotFound
from khonsu.scopes import bare_task_group
from khonsu.testing.fake_driver import FakeConfig
from khonsu.testing.simulation.clock import true_time
from khonsu.testing.simulation.env import SimEnv
from khonsu.testing.simulation.host import Host
from khonsu.testing.simulation.oracle import Oracle
from khonsu.testing.simulation.programs import CONTROL, operator_token
from khonsu.testing.simulation.stories import Step, Story
from khonsu.testing.simulation.transport import SimTransport

PAUSE_SECONDS: Final = 1.0
KEY_BYTES: Final = 8
LOOK_SECONDS: Final = 20.0
AGAIN_SHARE: Final = 0.3
"""How often something is asked for once more that was answered."""
AGAIN_SECONDS: Final = 15.0
"""How long after the answer that is, at most."""
_KEEPS: tuple[Literal["replacement", "original"], ...] = ("replacement", "original")


def sample_jobs(count: int, chance: random.Random) -> tuple[Job, ...]:
    """Return jobs of several kinds: services, exclusive ones, and batch jobs; together they need half of four nodes."""
    return tuple(_sample(number, chance) for number in range(count))


def _sample(number: int, chance: random.Random) -> Job:
    resources = Resources(cpu=chance.choice((100, 200, 400)) / 1000, memory="64MiB")
    stop_seconds = chance.choice((0.0, 0.0, 0.5, 3.0, 20.0))
    kind = chance.choice(("service", "service", "exclusive", "batch"))
    common: dict[str, Any] = {
        "driver": "fake",
        "resources": resources,
        "disk": "10MiB",
        "kill_timeout": chance.choice((1.0, 5.0)),
        "update": Update(healthy_for=chance.choice((0.0, 2.0))),
    }
    if kind == "batch":
        config = FakeConfig(run_seconds=chance.uniform(0.5, 20.0), stop_seconds=stop_seconds)
        return Job.single(f"batch-{number}", config, type="batch", count=chance.choice((1, 2)), **common)
    config = FakeConfig(stop_seconds=stop_seconds, prepare_seconds=chance.choice((0.0, 0.0, 1.0)))
    if kind == "exclusive":
        return Job.single(f"exclusive-{number}", config, exclusive=True, **common)
    disconnect = Disconnect(replace_after=chance.choice((0.0, 0.0, 10.0)), keep=chance.choice(_KEEPS))
    return Job.single(f"service-{number}", config, count=chance.choice((1, 2, 3)), disconnect=disconnect, **common)


@frozen(kw_only=True)
class Workload:
    """What a client asks for, and until when.

    Args:
        jobs: Jobs that are submitted, each at some time within `submit_seconds`.
        submit_seconds: How long that is.
        stories: What is done with other jobs.
        seconds: All of it is begun by then, and all nodes may have work after it.
        lively: Whether nodes are drained and removed, too, and things are looked at.
        scripts: What else is done; each is given who asks.

    """

    jobs: Sequence[Job] = ()
    submit_seconds: float
    stories: Sequence[Story] = ()
    seconds: float
    lively: bool = False
    scripts: Sequence[Callable[[Insisting], Coroutine[Any, Any, None]]] = ()


async def run_client(host: Host, env: SimEnv, *, workload: Workload, control: Host, oracle: Oracle) -> None:
    """Ask for everything at its time, each until it is answered; then do nothing, for ever."""
    asker = Insisting(host, env, control, oracle)
    async with bare_task_group() as group:
        for job in workload.jobs:
            step = Step(at=env.random() * workload.submit_seconds, verb="submit", job=job)
            group.start_soon(_tell, asker, (step,), [env.token_bytes(KEY_BYTES).hex()])
        for story in workload.stories:
            # The keys first: what they are does not depend on when they are needed.
            keys = [env.token_bytes(KEY_BYTES).hex() for _ in story]
            group.start_soon(_tell, asker, story, keys)
        for script in workload.scripts:
            group.start_soon(script, asker)
        if workload.lively:
            operator = Operator(asker, workload.seconds)
            for act in (operator.drain, operator.drain, operator.remove, operator.look, operator.settle):
                group.start_soon(act)
        await anyio.sleep_forever()


class Insisting:
    """Asks until there is an answer: with the same key, so that what was done is not done again."""

    def __init__(self, host: Host, env: SimEnv, control: Host, oracle: Oracle) -> None:
        """Ask nothing yet."""
        self.env = env
        self.oracle = oracle
        self._transport = SimTransport(host.network, host.name, CONTROL, env)
        self._control = control

    @property
    def client(self) -> Client:
        """Return a client.

        Raises:
            Unreachable: There is no token for it yet.

        """
        # Read again each time: a control plane that lost power before it had one makes another.
        return Client(self._transport, token=operator_token(self._control), env=self.env)

    async def once(self, operation: str, body: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
        """Ask once; return the answer, or None if there is none.

        Raises:
            Conflict: It cannot be done, and will not be.
            NotFound: What it is about is not there.

        """
        try:
            return await Asker(self._transport, operator_token(self._control)).call(operation, body, key=key)
        except (Conflict, NotFound):
            raise
        except KhonsuError:
            return None

    async def insist(self, operation: str, body: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
        """Ask until there is an answer, and return it; None if it cannot be done."""
        while True:
            try:
                answer = await self.once(operation, body, key)
            except (Conflict, NotFound):
                return None
            if answer is not None:
                if self.env.random() < AGAIN_SHARE:
                    self._transport.network.group.start_soon(self._again, operation, body, key)
                return answer
            await self.env.sleep(self.env.jittered(PAUSE_SECONDS))

    async def _again(self, operation: str, body: Mapping[str, Any], key: str) -> None:
        """Ask once more after a while, as somebody does who has forgotten the answer: nothing may come of it."""
        await self.env.sleep(self.env.random() * AGAIN_SECONDS)
        with suppress(KhonsuError):
            await self.once(operation, body, key)


async def _tell(asker: Insisting, story: Story, keys: Sequence[str]) -> None:
    """Do with one job what its story says."""
    for step, key in zip(story, keys, strict=True):
        await asker.env.sleep(max(0.0, step.at - true_time()))
        await _take(asker, step, key)


async def _take(asker: Insisting, step: Step, key: str) -> None:
    """Ask for one step, and tell the oracle what was acknowledged."""
    name = f"{step.job.namespace}/{step.job.name}"
    about: dict[str, Any] = {"namespace": step.job.namespace, "name": step.job.name}
    if step.verb == "stop_copy":
        await _stop_copy(asker, step, key)
        return
    if step.verb == "purge":
        asker.oracle.forgetting(name)
    elif step.verb != "stop":
        asker.oracle.submitting(name)
    match step.verb:
        case "submit" | "rerun":
            body = {"job": to_json(step.job), "namespace": step.job.namespace, "rerun": step.verb == "rerun"}
            answer = await asker.insist("job.submit", body, key)
        case "scale":
            answer = await asker.insist("job.scale", {**about, "count": step.count}, key)
        case "revert":
            answer = await asker.insist("job.revert", {**about, "version": step.count}, key)
        case _:
            answer = await asker.insist("job.stop", {**about, "purge": step.verb == "purge"}, key)
    if answer is not None and step.verb != "purge":
        asker.oracle.acknowledged(name, answer["version"], stopped=step.verb == "stop")


async def _stop_copy(asker: Insisting, step: Step, key: str) -> None:
    """Have one copy of a job stopped."""
    try:
        copies = [one for one in await asker.client.allocations(job=step.job.name) if one.live]
    except KhonsuError:
        return
    if copies:
        await asker.insist("allocation.stop", {"namespace": step.job.namespace, "id": copies[0].id}, key)


class Operator:
    """Looks after nodes: drains some, removes one that is down, and makes all of them ready for work in the end."""

    def __init__(self, asker: Insisting, seconds: float) -> None:
        """Do so within some seconds of the run."""
        self._asker = asker
        self._env = asker.env
        self._seconds = seconds

    async def drain(self) -> None:
        """Drain a node at some time, most of the time, and give it work again after a while."""
        await self._env.sleep(self._env.random() * self._seconds)
        if self._env.random() < 0.4:
            return
        try:
            nodes = await self._asker.client.nodes()
        except KhonsuError:
            return
        if nodes:
            name = nodes[int(self._env.random() * len(nodes))].name
            deadline = (0.0, 3.0, 60.0)[int(self._env.random() * 3)]
            await self._asker.insist("node.drain", {"name": name, "deadline_seconds": deadline}, self._key())
            await self._env.sleep(self._env.random() * 20.0)
            await self._asker.insist("node.undrain", {"name": name}, self._key())

    async def remove(self) -> None:
        """Remove the first node that is down after some time, half of the time."""
        await self._env.sleep(self._env.random() * self._seconds)
        if self._env.random() < 0.5:
            return
        while true_time() < self._seconds:
            with suppress(KhonsuError):
                for node in await self._asker.client.nodes():
                    if node.status is NodeStatus.DOWN:
                        await self._asker.client.remove_node(node.name)
                        return
            await self._env.sleep(PAUSE_SECONDS)

    async def look(self) -> None:
        """Read this and that, again and again."""
        while True:
            await self._env.sleep(self._env.jittered(LOOK_SECONDS))
            with suppress(KhonsuError):
                await self._look()

    async def _look(self) -> None:
        client = self._asker.client
        jobs = await client.jobs()
        await client.status()
        if jobs:
            name = jobs[int(self._env.random() * len(jobs))].name
            await client.job(name)
            await client.explain(name)
            await client.history(name)

    async def settle(self) -> None:
        """Give all nodes work in the end."""
        await self._env.sleep(max(0.0, self._seconds - true_time()))
        while True:
            with suppress(KhonsuError):
                nodes = await self._asker.client.nodes()
                idle = [node for node in nodes if node.eligibility is not Eligibility.ELIGIBLE]
                for node in idle:
                    await self._asker.client.undrain_node(node.name)
                if not idle:
                    return
            await self._env.sleep(PAUSE_SECONDS)

    def _key(self) -> str:
        return self._env.token_bytes(KEY_BYTES).hex()
