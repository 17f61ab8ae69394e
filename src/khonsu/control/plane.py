"""The control plane: what a user composes, and the loops it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from khonsu.abc.store import Store
from khonsu.abc.transport import Listener
from khonsu.control.broker import Broker
from khonsu.control.eventlog import EventLog
from khonsu.control.forecasts import Forecasts
from khonsu.control.gate import Gate
from khonsu.control.handler import ControlHandler
from khonsu.control.jobs import Jobs
from khonsu.control.leases import Leases
from khonsu.control.logs import Logs
from khonsu.control.looks import Looks
from khonsu.control.metrics import render
from khonsu.control.nodes import Nodes
from khonsu.control.planner import Planner
from khonsu.control.pruner import Pruner
from khonsu.control.queries import Queries
from khonsu.control.reaper import Reaper
from khonsu.control.schedulers import Schedulers
from khonsu.control.sessions import Sessions
from khonsu.control.setup import operator_token, settle
from khonsu.control.state import State
from khonsu.control.streams import Streams
from khonsu.control.sync import Sync
from khonsu.control.unblocker import Unblocker
from khonsu.control.worker import Worker
from khonsu.core.operations import Role
from khonsu.core.retention import Retention
from khonsu.core.secret import Secret
from khonsu.core.units import DurationLike
from khonsu.env import Env, SystemEnv
from khonsu.errors import InvalidRequest, Unavailable
from khonsu.scopes import Lifetime
from khonsu.security.authority import Authority
from khonsu.security.serving import server_context
from khonsu.transports.inprocess import InProcessTransport

if TYPE_CHECKING:
    from khonsu.abc.scheduler import Scheduler
    from khonsu.client.client import Client

ASGIApp = Callable[[MutableMapping[str, Any], Callable[..., Any], Callable[..., Any]], Awaitable[None]]
"""What an ASGI server is given (ASGI 3.0, "Applications")."""

WORKERS = 2
"""How many evaluations are looked at side by side."""


class ControlPlane(Lifetime):
    """A control plane. An async context manager that serves from entry to exit.

    Args:
        store: Where the state is kept; entered and left with the control plane.
        listeners: How it is reached from other processes; none are needed within this one.
        schedulers: The user's own, by their `name`, beside the built-in ones.
        scheduler_processes: How many schedulers run in processes of their own; not supported yet.
        data_dir: Where its keys and the operator's token are kept. Without one they live only as long as this object.
        retention: What of the history is kept.
        env: Time, chance and threads.

    Raises:
        InvalidRequest: Something of it cannot be.

    """

    def __init__(
        self,
        *,
        store: Store,
        listeners: Sequence[Listener] = (),
        schedulers: Sequence[Scheduler] = (),
        scheduler_processes: int = 0,
        data_dir: Path | str | None = None,
        retention: Retention | None = None,
        env: Env | None = None,
    ) -> None:
        """Compose it; nothing is opened yet."""
        super().__init__()
        if scheduler_processes:
            raise InvalidRequest("scheduler_processes: not supported yet", hint="leave it out: they run on threads")
        self._store = store
        self._listeners = tuple(listeners)
        self._data_dir = None if data_dir is None else Path(data_dir)
        self._retention = retention if retention is not None else Retention()
        self._env = env if env is not None else SystemEnv()
        self._schedulers = Schedulers(schedulers, self._env)
        self._parts: Parts | None = None
        self._loops: TaskGroup | None = None
        self.addresses: tuple[str, ...] = ()
        """Where the listeners serve, once they do."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `task_status` is told when requests are served."""
        async with AsyncExitStack() as stack:
            # The keys first: they make the data directory, in which the store may be.
            authority = await self._open_authority()
            store = await stack.enter_async_context(self._store)
            state = State(store, self._env)
            await state.load()
            writer = await stack.enter_async_context(anyio.create_task_group())
            writer.start_soon(state.run)
            stack.callback(writer.cancel_scope.cancel)
            await settle(state)
            self._parts = parts = Parts(state, self._schedulers, authority, self._retention)
            if self._data_dir is not None:
                await operator_token(self._data_dir, state, parts.gate)
            loops = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(loops.cancel_scope.cancel)
            parts.start(loops)
            self._loops = loops
            stack.callback(parts.close)
            parts.handler.open = True
            self.addresses = tuple(
                [await stack.enter_async_context(one.serve(parts.handler)) for one in self._listeners]
            )
            task_status.started()
            await anyio.sleep_forever()

    async def _open_authority(self) -> Authority:
        if self._data_dir is None:
            return Authority.new(self._env)
        return await self._env.run_blocking(Authority.open, self._data_dir, self._env)

    @property
    def parts(self) -> Parts:
        """Return the running parts.

        Raises:
            Unavailable: The control plane is not running.

        """
        if self._parts is None:
            raise Unavailable("the control plane is not running", hint="use it inside `async with`")
        return self._parts

    def client(self, *, namespace: str = "default", role: str = "admin") -> Client:
        """Return a client of this control plane, in this process.

        Args:
            namespace: The namespace of everything that is named.
            role: What it may do; `admin` is all there is yet.

        Raises:
            InvalidRequest: There is no such role yet.

        """
        from khonsu.client.client import Client

        if role != "admin":
            raise InvalidRequest(f"role: {role!r} is not supported yet", hint="leave it out, or say admin")
        return Client(self._transport(Role.OPERATOR), namespace=namespace, env=self._env)

    def transport(self) -> InProcessTransport:
        """Return a transport for an agent in this process; it may join without a token."""
        return self._transport(Role.JOIN)

    def _transport(self, role: Role) -> InProcessTransport:
        credential = self.parts.gate.local(role)
        return InProcessTransport(self.parts.handler, credential=credential, task_group=self._loops)

    def asgi_app(self, *, hosts: Sequence[str] | None = ()) -> ASGIApp:
        """Return the HTTP API as an ASGI application, to be mounted in the user's own server.

        Args:
            hosts: The names and addresses that it is reached by, beside those of the loopback; None takes any, for
                servers that check the `Host` themselves.

        """
        from khonsu.api.app import build_app

        return build_app(self.parts.handler, hosts=hosts)

    async def invite(
        self, *, name: str | None = None, labels: Mapping[str, str] | None = None, valid: DurationLike = "15m"
    ) -> Secret:
        """Make a join token for one node.

        Raises:
            InvalidRequest: The name, a label or the time is none that an invitation can have.

        """
        batch, invitation = self.parts.nodes.invite(name=name, labels=labels or {}, valid=valid)
        await self.parts.state.commit(batch)
        return Secret(invitation.token)


class Parts:
    """The running parts of a control plane, wired together."""

    def __init__(self, state: State, schedulers: Schedulers, authority: Authority, retention: Retention) -> None:
        """Wire them."""
        self.state = state
        self.gate = Gate(state)
        self.sessions = Sessions()
        self.leases = Leases(state)
        self.broker = Broker(state)
        self.nodes = Nodes(state, self.gate, self.sessions, authority.fingerprint)
        self.looks = Looks(state, self.leases)
        self.planner = Planner(state)
        self.schedulers = schedulers
        self.streams = Streams(state, self.sessions)
        self._authority = authority
        self._pruner = Pruner(state, retention)
        self.handler = self._handler()

    def start(self, loops: TaskGroup) -> None:
        """Start the loops."""
        for number in range(WORKERS):
            worker = Worker(
                number,
                state=self.state,
                broker=self.broker,
                looks=self.looks,
                planner=self.planner,
                schedulers=self.schedulers,
            )
            loops.start_soon(worker.run)
        loops.start_soon(Reaper(self.state, self.nodes, self.leases, self.looks).run)
        loops.start_soon(Unblocker(self.state, self.broker).run)
        loops.start_soon(self._pruner.run)

    def close(self) -> None:
        """Refuse further requests."""
        self.handler.open = False

    def _handler(self) -> ControlHandler:
        queries = Queries(self.state, self.nodes, self.schedulers)
        jobs = Jobs(self.state, queries, self.schedulers)
        forecasts = Forecasts(self.state, self.looks, jobs, self.schedulers)
        sync = Sync(self.state, self.nodes, self.sessions, self.leases)
        logs = Logs(self.state, self.streams)
        return ControlHandler(
            self.state,
            self.gate,
            calls={
                "job.submit": jobs.submit,
                "job.plan": forecasts.plan,
                "job.explain": forecasts.explain,
                "job.revert": jobs.revert,
                "job.scale": jobs.scale,
                "job.stop": jobs.stop,
                "job.list": queries.jobs,
                "job.get": queries.job,
                "job.result": queries.result,
                "job.history": queries.history,
                "allocation.list": queries.allocations,
                "allocation.get": queries.allocation,
                "allocation.stop": jobs.stop_allocation,
                "node.list": queries.nodes,
                "node.get": queries.node,
                "node.drain": self.nodes.drain,
                "node.undrain": self.nodes.undrain,
                "node.remove": self.nodes.remove,
                "node.invite": self.nodes.invite_call,
                "node.join": self.nodes.join,
                "node.sync": sync.sync,
                "node.leave": sync.leave,
                "system.status": queries.system,
            },
            streams={
                "allocation.logs": logs.of_allocation,
                "job.logs": logs.of_job,
                "event.stream": EventLog(self.state).stream,
                "node.stream": self.streams.answer,
            },
            context=lambda hosts: server_context(self._authority, hosts, self.state.env),
            metrics=lambda: render(self.state, self.broker),
        )
