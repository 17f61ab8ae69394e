"""What a client wants: jobs, submitted until they are acknowledged."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, Literal

import anyio

from khonsu.client.client import Client
from khonsu.core.job import Job, Resources
from khonsu.core.policies import Disconnect, Update
from khonsu.errors import KhonsuError
from khonsu.scopes import bare_task_group
from khonsu.testing.fake_driver import FakeConfig
from khonsu.testing.simulation.env import SimEnv
from khonsu.testing.simulation.host import Host
from khonsu.testing.simulation.oracle import Oracle
from khonsu.testing.simulation.programs import CONTROL, operator_token
from khonsu.testing.simulation.transport import SimTransport

PAUSE_SECONDS: Final = 1.0
KEY_BYTES: Final = 8
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


async def run_client(
    host: Host, env: SimEnv, *, jobs: Sequence[Job], over_seconds: float, control: Host, oracle: Oracle
) -> None:
    """Submit jobs at some time or other, each until it is acknowledged; then do nothing, for ever."""
    transport = SimTransport(host.network, host.name, CONTROL, env)

    async def insist(job: Job, after_seconds: float, key: str) -> None:
        await env.sleep(after_seconds)
        oracle.submitting(f"default/{job.name}")
        while not await _submit(transport, env, job, key, control):
            await env.sleep(env.jittered(PAUSE_SECONDS))
        oracle.acknowledged(f"default/{job.name}")

    async with bare_task_group() as group:
        for job in jobs:
            group.start_soon(insist, job, env.random() * over_seconds, env.token_bytes(KEY_BYTES).hex())
        await anyio.sleep_forever()


async def _submit(transport: SimTransport, env: SimEnv, job: Job, key: str, control: Host) -> bool:
    """Submit a job once; return whether it was acknowledged."""
    try:
        # Read again each time: a control plane that lost power before it had one makes another.
        client = Client(transport, token=operator_token(control), env=env)
        await client.submit(job, idempotency_key=key)
    except KhonsuError:
        return False
    return True
