"""Programs that kill themselves: a control plane or an agent that gets SIGKILL at one step of a job's life.

Run with the number of a socket. Each message on it is a JSON object that says what to run, with the writing end of a
pipe; a fork of this process, which has loaded everything, runs it, and says JSON lines into the pipe. Steps are counted
from the moment in which the program first hears of the job that `kill_job` names.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

import khonsu.agent.journal
import khonsu.agent.runner
import khonsu.agent.sync
import khonsu.agent.workload
import khonsu.control.columns
import khonsu.control.handler
import khonsu.drivers.supervisor
from khonsu.agent.agent import Agent
from khonsu.api.listener import HTTPListener
from khonsu.control.plane import ControlPlane
from khonsu.core.job import Job
from khonsu.drivers.binary import BinaryConfig, BinaryDriver
from khonsu.env import SystemEnv
from khonsu.stores.sqlite import SQLiteStore
from khonsu.stores.wrapper import StoreWrapper
from khonsu.transports.http import HTTPTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from khonsu.abc.store import Commit, Transaction
    from khonsu.abc.transport import Request, Response

HASTE = 10.0
COUNTED = {
    *("before a commit", "after a commit", "after node.sync"),
    *("before the journal", "after the journal", "before a request", "after a request"),
}
WRITES = ("job.submit", "job.stop", "node.sync")


class Eager(SystemEnv):
    """The machine's clock, and pauses that are shorter than was asked for."""

    async def sleep(self, seconds: float) -> None:
        """Sleep for a part of it."""
        await super().sleep(seconds / HASTE)


class Steps:
    """Counts steps, and ends the process at one of them as nobody can prevent."""

    def __init__(self, pipe: int, job: str, at: str | int) -> None:
        self._pipe = pipe
        self._job = job
        self._at = at
        self._count = 0
        self._armed = False

    def hear(self, job: str | None) -> None:
        """Hear of a job: an agent of its name, a control plane of the key of its submission."""
        self._armed = self._armed or job == self._job

    def __call__(self, name: str) -> None:
        """Be at a step; one with a name of its own is not counted."""
        if self._armed:
            self._count += name in COUNTED
            if self._at == name or (name in COUNTED and self._at == self._count):
                self.say(killed=name)
                os.kill(os.getpid(), signal.SIGKILL)

    def say(self, **facts: Any) -> None:
        """Tell the test something."""
        os.write(self._pipe, json.dumps(facts).encode() + b"\n")

    def around(self, owner: Any, name: str, label: str) -> None:
        """Make steps of the moments before and after a call."""
        original = getattr(owner, name)

        @wraps(original)
        async def call(*arguments: Any, **options: Any) -> Any:
            self(f"before {label}")
            value = await original(*arguments, **options)
            self(f"after {label}")
            return value

        setattr(owner, name, call)


# The control plane.


class KilledStore(StoreWrapper):
    """A store whose commits are steps."""

    steps: Steps

    async def write(self, transaction: Callable[[Transaction], Any], /) -> Commit[Any]:
        """Write."""
        self.steps("before a commit")
        commit = await super().write(transaction)
        self.steps("after a commit")
        return commit


async def control(steps: Steps, folder: Path, listen: str, **_: Any) -> None:
    """Run a control plane whose requests and commits are steps."""
    answer = khonsu.control.handler.ControlHandler.call

    async def call(self: Any, request: Request, /) -> Response:
        if request.operation == "job.submit":
            steps.hear(request.idempotency_key)
        if request.operation not in WRITES:
            return await answer(self, request)
        steps(f"before {request.operation}")
        response = await answer(self, request)
        steps(f"after {request.operation}")
        return response

    khonsu.control.handler.ControlHandler.call = call  # type: ignore[method-assign]
    store = KilledStore(SQLiteStore(folder / "state.db"))
    store.steps = steps
    plane = ControlPlane(store=store, listeners=[HTTPListener(listen)], data_dir=folder)
    async with plane:
        steps.say(address=plane.addresses[0])
        await anyio.sleep_forever()


# The agent.


async def agent(steps: Steps, folder: Path, server: str, token: str | None, **_: Any) -> None:
    """Run an agent whose writes, starts, stops and requests are steps."""
    assign = khonsu.agent.workload.Workload._assign
    feed = khonsu.agent.workload.Workload.feed
    write = khonsu.agent.journal._write

    def hear(self: Any, assignment: Any, groups: Any) -> None:
        steps.hear(assignment.job)
        assign(self, assignment, groups)

    def feeding(self: Any, key: Any, event: Any) -> None:
        steps(f"before it hears {type(event).__name__}")
        feed(self, key, event)

    def writing(*arguments: Any, **options: Any) -> int:
        steps("before the journal")
        count = write(*arguments, **options)
        steps("after the journal")
        return count

    khonsu.agent.workload.Workload._assign = hear  # type: ignore[method-assign]
    khonsu.agent.workload.Workload.feed = feeding  # type: ignore[method-assign]
    khonsu.agent.journal._write = writing
    for verb in ("spawn", "stop"):
        steps.around(khonsu.drivers.supervisor.Supervisor, verb, verb)
    steps.around(khonsu.agent.sync.Sync, "_call", "a request")
    transport = HTTPTransport(server)
    drivers = [BinaryDriver()]
    made = Agent("one", transport=transport, drivers=drivers, data_dir=folder, join_token=token, env=Eager())
    async with made:
        steps.say(node="one")
        await anyio.sleep_forever()


PROGRAMS: dict[str, Callable[..., Awaitable[None]]] = {"control": control, "agent": agent}


def run(order: dict[str, Any], pipe: int) -> None:
    """Run one program, to its end."""
    steps = Steps(pipe, order["kill_job"], order["kill_at"])
    steps.say(pid=os.getpid())
    order["folder"] = Path(order["folder"])
    main = PROGRAMS[order["run"]]

    async def work() -> None:
        await main(steps, **{name: value for name, value in order.items() if name != "run"})

    anyio.run(work)


async def warm_up(folder: Path) -> None:
    """Do once what the programs do, so that all that is made at its first use is there."""
    async with ControlPlane(store=SQLiteStore(folder / "state.db"), listeners=[HTTPListener("127.0.0.1:0")]) as plane:
        settings: dict[str, Any] = {"transport": HTTPTransport(plane.addresses[0]), "drivers": [BinaryDriver()]}
        token = await plane.invite()
        async with Agent("one", data_dir=folder / "agent", join_token=token, **settings), plane.client() as client:
            await client.run(Job.single("warm", BinaryConfig("true"), type="batch", disk="1MiB"), timeout="30s")


def bury(*_: object) -> None:
    """Take note of those who have died."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(orders: socket.socket) -> None:
    """Fork a program for each message."""
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(warm_up, Path(folder))
    signal.signal(signal.SIGCHLD, bury)
    while True:
        data, pipes, *_ = socket.recv_fds(orders, 2**16, 1)
        if not data:
            return
        os.set_inheritable(pipes[0], False)
        if os.fork() == 0:
            orders.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            run(json.loads(data), pipes[0])
            os._exit(0)
        os.close(pipes[0])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
