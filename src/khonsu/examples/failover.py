"""A node dies with its tasks, and its copies run elsewhere; it comes back, and one copy of each slot stays.

What: a control plane and three agents as processes of their own, over TLS on the loopback. Needs: Linux, nothing but
Khonsu. Run: `python -m khonsu.examples.failover`. Expect: a timeline; the copies run again within 12 s of the kill (the
lease of 10 s, and 2 s), and exit code 0.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import Process

import khonsu
from khonsu.env import SystemEnv

COPIES = 3
SECONDS_MAX = 12.0
ENV = SystemEnv()


async def serve(directory: Path) -> None:
    """Run the control plane of this example until the process is stopped."""
    listener = khonsu.HTTPListener("127.0.0.1:0")
    store = khonsu.SQLiteStore(directory / "state.db")
    async with khonsu.ControlPlane(store=store, listeners=[listener], data_dir=directory) as control:
        print(control.addresses[0], flush=True)
        await anyio.sleep_forever()


async def work(directory: Path, server: str) -> None:
    """Run one agent until the process is stopped."""
    agent = khonsu.Agent(
        directory.name,
        transport=khonsu.HTTPTransport(server, ca=directory.parent / "control" / "ca.pem"),
        drivers=[khonsu.BinaryDriver()],
        data_dir=directory,
        join_token=os.environ.get("KHONSU_JOIN"),
    )
    async with agent:
        await anyio.sleep_forever()


class Machines:
    """The processes that stand for machines."""

    def __init__(self, directory: Path) -> None:
        """Keep everything below a directory."""
        self.directory = directory
        self.agents: dict[str, Process] = {}

    @asynccontextmanager
    async def control(self) -> AsyncGenerator[str, None]:
        """Run a control plane, and yield its address."""
        process = await anyio.open_process(
            [sys.executable, "-m", __spec__.name, "serve", str(self.directory / "control")], stderr=None, stdin=None
        )
        try:
            assert process.stdout is not None
            yield (await process.stdout.receive()).decode().strip()
        finally:
            process.terminate()
            await process.wait()

    async def start(self, name: str, server: str, token: str = "") -> None:
        """Start an agent."""
        command = [sys.executable, "-m", __spec__.name, "work", str(self.directory / name), server]
        environment = {**os.environ, "KHONSU_JOIN": token} if token else None
        self.agents[name] = await anyio.open_process(
            command, env=environment, stdin=None, stdout=subprocess.DEVNULL, stderr=None
        )

    def kill(self, name: str) -> None:
        """Kill a machine: its agent, what keeps its tasks, and with that the tasks."""
        mark = os.fsencode(self.directory / name)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if mark in (entry / "cmdline").read_bytes():
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    continue

    async def end(self) -> None:
        """Kill all that is left."""
        for name, process in self.agents.items():
            self.kill(name)
            await process.wait()


def running(allocations: tuple[khonsu.Allocation, ...]) -> dict[int, khonsu.Allocation]:
    """Return the running copies by slot."""
    return {one.slot: one for one in allocations if one.status == "running" and one.desired == "run"}


async def until_running_without(client: khonsu.Client, node: str) -> None:
    """Wait until every slot has a copy that runs on another node."""
    async with client.events(job="web") as events:
        async for _ in events:
            copies = running(await client.allocations(job="web"))
            if len(copies) == COPIES and all(one.node != node for one in copies.values()):
                return


async def until_one_of_each(client: khonsu.Client, node: str, after: khonsu.Revision) -> dict[int, khonsu.Allocation]:
    """Wait until a node is back and no slot has two live copies."""
    async with client.events(node=node, types=["node-ready"], after=after) as events:
        await anext(events)
    while True:
        live = tuple(one for one in await client.allocations(job="web") if not one.status.terminal)
        if max(Counter(one.slot for one in live).values()) == 1 and len(running(live)) == COPIES:
            return running(live)
        await ENV.sleep(0.1)


class Story:
    """The timeline, in seconds since the kill."""

    def __init__(self) -> None:
        """Begin at the kill."""
        self._began = ENV.monotonic()

    @property
    def seconds(self) -> float:
        """Return how long ago the kill was."""
        return ENV.monotonic() - self._began

    def tell(self, what: str) -> None:
        """Print what has happened now."""
        print(f"{self.seconds:6.1f} s  {what}", flush=True)


async def settle(client: khonsu.Client, machines: Machines, server: str) -> str:
    """Start three agents and the job; return the node of the first copy."""
    for name in ("one", "two", "three"):
        invitation = await client.invite_node(name=name)
        await machines.start(name, server, invitation.token)
    await client.wait_for_nodes(3, timeout="20s")
    job = khonsu.Job.single(
        "web",
        khonsu.BinaryConfig("/bin/sleep", args=["3600"]),
        count=COPIES,
        max_per_node=2,
        update=khonsu.Update(healthy_for="1s"),
    )
    result = (await client.run(job, timeout="30s")).raise_for_status()
    print(f"Three nodes; {COPIES} copies run on {', '.join(one.node for one in result.allocations)}.")
    return result.allocations[0].node


async def play(client: khonsu.Client, machines: Machines, server: str) -> int:
    """Kill a node and bring it back; return 0 if every promise was kept.

    Raises:
        TimeoutError: A promise was not kept even in three times its time.

    """
    victim = await settle(client, machines, server)
    before = (await client.status()).revision
    story = Story()
    machines.kill(victim)
    story.tell(f"node {victim} is killed, with its tasks")
    with anyio.fail_after(3 * SECONDS_MAX):
        await until_running_without(client, victim)
    moved = story.seconds
    story.tell("every slot has a copy that runs elsewhere")
    (await client.wait("web", timeout="30s")).raise_for_status()
    story.tell("all of them are healthy")
    await machines.start(victim, server)
    with anyio.fail_after(3 * SECONDS_MAX):
        copies = await until_one_of_each(client, victim, before)
    story.tell(f"node {victim} is back; one copy of each slot:")
    for slot, one in sorted(copies.items()):
        print(f"          slot {slot}: {one.id} on {one.node}")
    if moved > SECONDS_MAX:
        print(f"That took longer than the promised {SECONDS_MAX:.0f} s.")
    return 0 if moved <= SECONDS_MAX else 1


async def main(directory: Path) -> int:
    """Play it with machines below a directory, and return 0 if every promise was kept."""
    machines = Machines(directory)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(machines.control())
        stack.push_async_callback(machines.end)
        control = directory / "control"
        token = (control / "operator.token").read_text().strip()
        client = await stack.enter_async_context(khonsu.Client(server, token=token, ca=control / "ca.pem"))
        print(f"The control plane serves on {server}.")
        try:
            return await play(client, machines, server)
        except TimeoutError:
            print("A promise was broken: it did not happen in time.")
            return 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", place]:
            anyio.run(serve, Path(place))
        case ["work", place, address]:
            anyio.run(work, Path(place), address)
        case _:
            with tempfile.TemporaryDirectory(prefix="khonsu-") as place:
                raise SystemExit(anyio.run(main, Path(place)))
