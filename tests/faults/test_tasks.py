"""Tasks that cannot run, on a real node: what has become of each is told in words."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import socket
import struct
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from khonsu.agent.agent import Agent
from khonsu.agent.limits import Limits
from khonsu.control.plane import ControlPlane
from khonsu.core.job import Artifact, Job, Reschedule, Restart, Update
from khonsu.core.states import AllocationStatus
from khonsu.drivers.binary import BinaryConfig, BinaryDriver
from khonsu.stores.memory import MemoryStore
from khonsu.supervisor.processes import look
from tests.faults.program import Eager
from tests.faults.running import alive, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from anyio.abc import SocketStream

    from khonsu.client.client import Client
    from khonsu.core.records import Allocation

pytestmark = [pytest.mark.anyio, pytest.mark.end_to_end]

A = AllocationStatus
ONCE: dict[str, Any] = {"restart": Restart(attempts=0), "reschedule": Reschedule(attempts=0)}
ARTIFACT_BYTES = 2**20


@asynccontextmanager
async def a_node(folder: Path) -> AsyncGenerator[Client, None]:
    """Own a control plane and an agent in this process; yields a client."""
    limits = Limits(artifact=ARTIFACT_BYTES)
    async with ControlPlane(store=MemoryStore()) as plane, plane.client() as client:
        settings: dict[str, Any] = {"transport": plane.transport(), "drivers": [BinaryDriver()], "limits": limits}
        near = ["127.0.0.0/8"]
        async with Agent("one", data_dir=folder, on_exit="stop", env=Eager(), artifact_networks=near, **settings):
            yield client


async def why(client: Client, name: str, command: str, *args: str, **fields: Any) -> str:
    """Run a batch job that fails, and return what is told about it."""
    job = Job.single(name, BinaryConfig(command, args=args), type="batch", disk="1MiB", **{**ONCE, **fields})
    result = await client.run(job, timeout="30s")
    (copy,) = result.allocations
    assert (result.status, copy.status, copy.tasks[0].exit_code) == ("failed", A.FAILED, None)
    return copy.message


def an_elf(machine: int) -> bytes:
    """Return the head of a program for a machine."""
    return b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HHI", 2, machine, 1) + b"\0" * 40


async def test_commands_that_cannot_run(tmp_path: Path) -> None:
    """Not there, a folder, not executable, for another machine, no program: each is told with what to do."""
    ours = platform.machine()
    other = an_elf(0xB7 if ours == "x86_64" else 0x3E)
    for name, content, mode in (
        ("plain", b"#!/bin/sh\n", 0o644),
        ("foreign", other, 0o755),
        ("text", b"just words\n", 0o755),
        ("empty", b"", 0o755),
        ("script", b"#!/no/such/interpreter\n", 0o755),
    ):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    expected = {
        "no-such-command": "there is no command",
        str(tmp_path / "gone"): "there is no command",
        str(tmp_path): "is a folder",
        str(tmp_path / "plain"): f"chmod +x {tmp_path / 'plain'}",
        str(tmp_path / "foreign"): "it is for linux/",
        str(tmp_path / "text"): "no first line such as #!/bin/sh",
        str(tmp_path / "empty"): "it is empty",
        str(tmp_path / "script"): "its interpreter is not there",
    }
    found: dict[str, str] = {}
    async with a_node(tmp_path / "agent") as client:

        async def run(number: int, command: str) -> None:
            found[command] = await why(client, f"j{number}", command)

        async with anyio.create_task_group() as group:
            for number, command in enumerate(expected):
                group.start_soon(run, number, command)
        user = await why(client, "user", "true", user="nobody-of-that-name")
    assert "nobody-of-that-name" in user
    assert [text for command, text in expected.items() if text not in found[command]] == [], found


class Files:
    """An HTTP server with one good file and several bad ones."""

    GOOD = b"#!/bin/sh\nexit 0\n"

    async def serve(self, stream: SocketStream) -> None:
        """Answer one request."""
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive()
            path = head.split()[1]
            if path == b"/gone":
                await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            length = {b"/cut": len(self.GOOD) * 2, b"/large": ARTIFACT_BYTES + 1}.get(path, len(self.GOOD))
            await stream.send(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode())
            if path != b"/large":
                await stream.send(self.GOOD)


async def test_artifacts_that_cannot_be_had(tmp_path: Path) -> None:
    """Not there, of another digest, cut in the middle, larger than the limit: told with the address, and never run."""
    digest = hashlib.sha256(Files.GOOD).hexdigest()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    cases = {
        "gone": (digest, "404"),
        "other": ("0" * 64, "sha256"),
        "cut": (digest, "cut"),
        "large": (digest, "larger than the limit"),
    }
    found: dict[str, str] = {}
    async with listener, anyio.create_task_group() as group:
        group.start_soon(partial(listener.serve, Files().serve))
        async with a_node(tmp_path / "agent") as client:

            async def run(name: str, sha256: str) -> None:
                artifact = Artifact(source=f"{url}/{name}", sha256=sha256, destination="program")
                found[name] = await why(client, name, "./program", artifacts=[artifact])

            async with anyio.create_task_group() as jobs:
                for name, (sha256, _) in cases.items():
                    jobs.start_soon(run, name, sha256)
        group.cancel_scope.cancel()
    wrong = [name for name, (_, says) in cases.items() if says not in found[name] or f"{url}/{name}" not in found[name]]
    assert wrong == [], found


async def test_a_port_that_a_stranger_holds(tmp_path: Path) -> None:
    """A static port that some other program has is a failure of the task, with its own words in the log."""
    program = (
        "import os, socket; s = socket.socket(); s.bind(('127.0.0.1', int(os.environ['KHONSU_PORT_HTTP']))); s.listen()"
    )
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        async with a_node(tmp_path / "agent") as client:
            config = BinaryConfig("python3", args=["-c", program])
            job = Job.single("port", config, type="batch", ports={"http": port}, disk="1MiB", **ONCE)
            result = await client.run(job, timeout="30s")
            (copy,) = result.allocations
            assert (result.status, copy.tasks[0].exit_code) == ("failed", 1)
            async with client.logs(copy) as lines:
                text = [line.text async for line in lines]
            assert "Address already in use" in text[-1]


async def the_copy(client: Client, job: str, status: AllocationStatus = A.RUNNING) -> Allocation:
    """Return the one copy of a job when it has a status, and its process is known."""

    async def look_for_it() -> Allocation | None:
        copies = [one for one in await client.allocations(job=job) if one.status is status]
        return copies[0] if copies and copies[0].tasks[0].pid else None

    return await until(look_for_it)


async def test_helper_and_fork_server_are_killed(tmp_path: Path) -> None:
    """Who loses its helper has failed, and says so; who loses the fork server runs on; new tasks start after both."""
    update = Update(healthy_for=0.0)

    def service(name: str) -> Job:
        return Job.single(name, BinaryConfig("sleep", args=["1000"]), update=update, disk="1MiB", **ONCE)

    async with a_node(tmp_path / "agent") as client:
        for name in ("kept", "lost"):
            await client.run(service(name), timeout="30s")
        kept, lost = await the_copy(client, "kept"), await the_copy(client, "lost")
        keeps, loses = kept.tasks[0].pid, lost.tasks[0].pid
        assert keeps is not None
        assert loses is not None
        helper = look(loses)
        assert helper is not None
        above = look(helper.parent)
        assert above is not None
        forker = look(above.parent)
        os.kill(helper.parent, signal.SIGKILL)
        ended = await the_copy(client, "lost", A.FAILED)
        assert (ended.status, ended.tasks[0].exit_code) == (A.FAILED, None)
        assert "helper" in ended.message
        assert not alive(loses)
        assert forker is not None
        os.kill(above.parent, signal.SIGKILL)
        assert (await client.run(service("new"), timeout="30s")).status == "healthy"
        assert alive(keeps)
        again = await client.allocation(kept.id)
        assert (again.status, again.tasks[0].pid, again.tasks[0].attempt) == (A.RUNNING, keeps, 1)
