"""A disk without room, for the database and for a node: real SQLite, real ENOSPC."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import pytest
from peewee import SqliteDatabase

from khonsu.agent.agent import Agent
from khonsu.api.listener import HTTPListener
from khonsu.control.plane import ControlPlane
from khonsu.core.job import Job, Restart, Update
from khonsu.core.states import AllocationStatus, NodeStatus
from khonsu.drivers.binary import BinaryConfig, BinaryDriver
from khonsu.errors import StoreFull
from khonsu.stores.memory import MemoryStore
from khonsu.stores.sqlite import SQLiteStore
from tests.faults.program import Eager
from tests.faults.running import Server, a_client, alive, until, words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from khonsu.client.client import Client
    from khonsu.core.records import Allocation

pytestmark = [pytest.mark.anyio, pytest.mark.end_to_end]

A = AllocationStatus
MIB = 2**20


class Disk(Protocol):
    """A place for a state file that can be made full."""

    store: SQLiteStore

    async def fill(self) -> None:
        """Leave no room."""

    async def clear(self) -> None:
        """Make room again."""


class Pages:
    """A database that may not have more pages than it has: what SQLite says then is SQLITE_FULL."""

    def __init__(self, folder: Path) -> None:
        self.databases: list[SqliteDatabase] = []
        self.store = SQLiteStore(folder / "state.db", database=self._open)

    def _open(self, *arguments: Any, **options: Any) -> SqliteDatabase:
        self.databases.append(SqliteDatabase(*arguments, **options))
        return self.databases[-1]

    async def _limit(self, pages: int) -> None:
        database: Any = self.databases[-1]
        await self.store.read(lambda _: database.execute_sql(f"PRAGMA max_page_count={pages}"))

    async def fill(self) -> None:
        """Allow no page more; the least that can be asked for is what there is."""
        await self._limit(1)

    async def clear(self) -> None:
        """Allow as many as there can be."""
        await self._limit(2**30)


class Filesystem:
    """A small file system of its own, which something else fills to the last byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SQLiteStore(folder / "state.db")

    async def fill(self) -> None:
        """Write until nothing can be written."""
        fill(self.folder)

    async def clear(self) -> None:
        """Remove that."""
        (self.folder / "ballast").unlink()


def fill(folder: Path) -> None:
    """Write a file until there is no room for another byte."""
    file = os.open(folder / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (2**16, 2**12, 1):
            with suppress(OSError):
                while True:
                    os.write(file, b"x" * size)
    finally:
        os.close(file)


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Path]:
    """Own a file system of some size; skips the test where nobody may mount one."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "khonsu-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs root, and leave to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(params=[Pages, Filesystem])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """Return each of the disks."""
    if request.param is Pages:
        yield Pages(tmp_path)
        return
    with mounted(tmp_path / "mount", 8 * MIB) as folder:
        yield Filesystem(folder)


async def attempted(client: Client, job: str, attempt: int) -> Allocation | None:
    """Return the copy of a job that runs in some attempt."""
    for one in await client.allocations(job=job):
        if one.status is A.RUNNING and one.tasks[0].attempt == attempt and one.tasks[0].pid:
            return one
    return None


async def the_copy(client: Client, job: str, attempt: int) -> Allocation:
    """Return the one copy of a job when it runs in some attempt."""
    return await until(partial(attempted, client, job, attempt))


async def the_end(client: Client, job: str) -> Allocation | None:
    """Return the copy of a job that has ended."""
    return next((one for one in await client.allocations(job=job) if one.status.terminal), None)


def a_job(name: str, folder: Path, **fields: Any) -> Job:
    """Return a service that says its pid in a file, with a lot that is to be remembered."""
    config = BinaryConfig("sh", args=["-c", f'echo $$ >> "{folder}/{name}"; exec sleep 1000'])
    restart = Restart(delay=0, delay_max=0)
    return Job.single(
        name, config, update=Update(healthy_for=0.0), restart=restart, meta={"a": "x" * 100_000}, disk="1MiB", **fields
    )


async def test_the_database_has_no_room(disk: Disk, tmp_path: Path) -> None:
    """Writes are refused with 503 and undone, reads and tasks go on, and with room all goes on by itself."""
    folder = tmp_path / "server"
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    plane = ControlPlane(store=disk.store, listeners=[HTTPListener("127.0.0.1:0")], data_dir=folder, env=Eager())
    async with plane, a_client(folder, plane.addresses[0]) as client:
        settings: dict[str, Any] = {"drivers": [BinaryDriver()], "on_exit": "stop", "env": Eager()}
        async with Agent("one", transport=plane.transport(), data_dir=tmp_path / "agent", **settings):
            await client.run(a_job("there", jobs), timeout="30s")
            first = (await the_copy(client, "there", 1)).tasks[0].pid
            assert first is not None
            await disk.fill()
            for _ in range(2):
                with pytest.raises(StoreFull, match="room") as caught:
                    await client.submit(a_job("more", jobs), idempotency_key="once")
                assert (caught.value.retryable, bool(caught.value.hint)) == (True, True)
            await refused_with_503(Server(folder=folder, address=plane.addresses[0]))
            assert [job.name for job in await client.jobs()] == ["there"]
            assert alive(first)
            os.kill(first, signal.SIGKILL)
            started = await words(jobs / "there", 2)
            assert (await client.node("one")).status is NodeStatus.READY
            await disk.clear()
            again = await the_copy(client, "there", 2)
            assert str(again.tasks[0].pid) == started[1]
            submission = await client.submit(a_job("more", jobs), idempotency_key="once")
            assert (submission.outcome, submission.version) == ("created", 1)
            assert (await client.wait(submission, timeout="30s")).status == "healthy"
            assert len(await words(jobs / "more", 1)) == 1


async def refused_with_503(server: Server) -> None:
    """See the refusal of a write as it stands on the wire."""
    async with server.line() as line:
        body = {"job": {"name": "more", "driver": "binary", "config": {"command": "a"}, "meta": {"a": "x" * 100_000}}}
        answer = await line.ask(
            "POST",
            "/api/v1/namespaces/default/jobs",
            json.dumps(body).encode(),
            Authorization=f"Bearer {server.token}",
            Content_Type="application/json",
        )
        assert (answer.status, answer.body["type"], answer.body["retryable"]) == (503, "store-full", True)


async def test_a_node_has_no_room(tmp_path: Path) -> None:
    """A task whose logs find no room goes on and its end is told; what is new waits, and begins when there is room."""
    with mounted(tmp_path / "mount", 4 * MIB) as folder:
        os.mkfifo(tmp_path / "fifo")
        script = f'yes words | head -c 3000000; read line < "{tmp_path}/fifo"; yes words | head -c 3000000; exit 7'
        once = Restart(attempts=0)
        talks = Job.single("talks", BinaryConfig("sh", args=["-c", script]), type="batch", restart=once, disk="1MiB")
        async with ControlPlane(store=MemoryStore()) as plane, plane.client() as client:
            settings: dict[str, Any] = {"drivers": [BinaryDriver()], "on_exit": "stop", "env": Eager()}
            async with Agent("one", transport=plane.transport(), data_dir=folder, **settings):
                await client.submit(talks)
                await the_copy(client, "talks", 1)
                fill(folder)
                await client.submit(a_job("new", tmp_path))
                await anyio.to_thread.run_sync((tmp_path / "fifo").write_text, "go\n")
                ended = await until(partial(the_end, client, "talks"))
                assert (ended.status, ended.tasks[0].exit_code) == (A.FAILED, 7)
                assert not (tmp_path / "new").exists()
                (folder / "ballast").unlink()
                assert (await client.wait("new", timeout="30s")).status == "healthy"
                assert len(await words(tmp_path / "new", 1)) == 1
