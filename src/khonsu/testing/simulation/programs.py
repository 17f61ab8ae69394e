"""What runs on the hosts: the real control plane and the real agent, on simulated ground."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Self, TypeVar

import anyio
from attrs import evolve

from khonsu.abc.driver import AnyDriver
from khonsu.abc.scheduler import Scheduler
from khonsu.abc.store import Commit, Store, Transaction, View
from khonsu.abc.transport import Transport
from khonsu.agent.agent import Agent
from khonsu.agent.identity import FILE as IDENTITY
from khonsu.agent.machine import Machine
from khonsu.client.client import Client
from khonsu.control.plane import ControlPlane
from khonsu.control.setup import OPERATOR_TOKEN
from khonsu.core.records import KINDS, Record, Setting
from khonsu.core.retention import Retention
from khonsu.core.revision import Revision
from khonsu.core.secret import Secret
from khonsu.env import Env
from khonsu.errors import StoreError, Unauthenticated, Unreachable, UnsafeFile
from khonsu.stores.sqlite import SQLiteStore
from khonsu.stores.views import TERM_KEY
from khonsu.stores.wrapper import StoreWrapper
from khonsu.testing.simulation.coverage import OPEN, WRITE
from khonsu.testing.simulation.env import SimEnv
from khonsu.testing.simulation.host import Host
from khonsu.testing.simulation.oracle import Oracle
from khonsu.testing.simulation.processes import SimSupervisor
from khonsu.testing.simulation.transport import SimListener, SimTransport

T = TypeVar("T")

CONTROL: Final = "control"
"""The name and the address of the control plane's host."""
CLIENT: Final = "client"
DATABASE: Final = "/khonsu.db"
INVITE_SECONDS: Final = 5.0
"""How long an operator waits before it begins anew."""
CPU_MILLIS: Final = 4000
MEMORY_BYTES: Final = 8 * 2**30
DISK_BYTES: Final = 100 * 2**30

MakeStore = Callable[[Host, SimEnv], Store]
MakeDrivers = Callable[[Host], Sequence[AnyDriver]]


def sqlite_store(host: Host, env: SimEnv) -> Store:
    """Return the real store, on the simulated disk of a host."""
    return SQLiteStore(DATABASE, env=env, database=host.disk.databases.database())


class ObservedStore(StoreWrapper):
    """A store that shows the oracle what it holds when it is opened, and each commit before others hear of it."""

    def __init__(self, store: Store, oracle: Oracle, host: Host, env: SimEnv) -> None:
        """Wrap a store of one run of a control plane."""
        super().__init__(store)
        self._host = host
        self._oracle = oracle
        self._env = env

    async def __aenter__(self) -> Self:
        """Open the other store, and show what it holds."""
        with self._oracle.sights.coverage.during(OPEN):
            await super().__aenter__()
            try:
                revision, records = await self.store.read(_everything)
                self._env.check()
            except BaseException as error:
                await self.store.__aexit__(type(error), error, error.__traceback__)
                raise
        self._oracle.sights.opened(self._host.clock)
        self._oracle.opened(revision, records)
        return self

    async def write(self, transaction: Callable[[Transaction], T], /) -> Commit[T]:
        """Run a transaction, and show its commit."""
        with self._oracle.sights.coverage.during(WRITE):
            try:
                commit = await self.store.write(transaction)
            except StoreError:
                self._oracle.sights.failed()
                raise
        if self._env.alive:
            self._oracle.committed(commit.revision, commit.changes)
        return commit


def _everything(view: View) -> tuple[Revision, list[Record]]:
    return view.revision, [record for kind in KINDS for record in view.find(kind)]


async def run_control_plane(
    host: Host,
    env: SimEnv,
    *,
    oracle: Oracle,
    store: MakeStore,
    schedulers: Callable[[], Iterable[Scheduler]],
    retention: Callable[[], Retention | None],
) -> None:
    """Run a control plane at its host's address; where its database was put back, begin a term first."""
    if host.term is not None:
        await _begin_term(store(host, env), host.term)
        host.term = None
    opened = store(host, env)
    kept = retention() or Retention()
    oracle.sights.retention = kept
    plane = ControlPlane(
        # What an old control plane does that has come back is of no account.
        store=ObservedStore(opened, oracle, host, env) if host.name == CONTROL else opened,
        listeners=[SimListener(host.network, host.name, env)],
        schedulers=tuple(schedulers()),
        retention=kept,
        data_dir=host.disk.files.root,
        env=env,
    )
    await plane.run()


async def _begin_term(store: Store, term: int) -> None:
    """Raise the term of a store, as whoever puts a copy back has to."""
    async with store:
        if (await store.read(lambda view: view.revision)).term < term:
            await store.write(lambda transaction: transaction.put(Setting(key=TERM_KEY, value=term)))


def operator_token(control: Host) -> Secret:
    """Return the operator's token from the disk of a control plane, as an operator would have copied it.

    Raises:
        Unreachable: There is none yet.

    """
    path = control.disk.files.root / OPERATOR_TOKEN
    try:
        return Secret(path.read_text("ascii").strip())
    except FileNotFoundError:
        raise Unreachable(control.name, "it has not started yet") from None


class SimAgent(Agent):
    """The real agent on a simulated host: another machine, and no processes of this one."""

    def __init__(
        self, host: Host, *, transport: Transport, drivers: Sequence[AnyDriver], env: Env, token: Secret | None
    ) -> None:
        """Compose it."""
        super().__init__(
            host.name,
            transport=transport,
            drivers=drivers,
            data_dir=host.disk.files.root,
            join_token=token,
            labels=host.labels,
            env=env,
        )
        self._settings = evolve(
            self._settings,
            supervisor=partial(SimSupervisor, table=host.table),
            look_around=lambda _: machine(host),
        )


def machine(host: Host) -> Machine:
    """Return what a simulated host is."""
    return Machine(
        os="linux",
        arch="amd64",
        kernel="6.1",
        hostname=host.name,
        boot_id=host.boot_id,
        cpu_millis=CPU_MILLIS,
        memory_bytes=MEMORY_BYTES,
        disk_bytes=DISK_BYTES,
    )


async def run_agent(host: Host, env: SimEnv, *, control: Host, drivers: MakeDrivers, oracle: Oracle) -> None:
    """Run an agent, which joins by an invitation if it has not joined yet, or was not taken any more."""
    oracle.sights.agent_started(host.name)
    transport = SimTransport(host.network, host.name, CONTROL, env)
    joined = (host.disk.files.root / IDENTITY).exists() and not host.refused
    token = None if joined else await _invited(host, env, control)
    agent = SimAgent(host, transport=transport, drivers=drivers(host), env=env, token=token)
    host.refused = False
    try:
        await agent.run()
    except (Unauthenticated, UnsafeFile):
        host.refused = True
        raise


async def _invited(host: Host, env: SimEnv, control: Host) -> Secret:
    """Have an operator invite a host, from a machine that is never led astray."""
    transport = SimTransport(host.network, CLIENT, CONTROL, env)
    client = Client(transport, token=operator_token(control), env=env)
    with anyio.move_on_after(INVITE_SECONDS):
        return Secret((await client.invite_node(name=host.name)).token)
    raise Unreachable(control.name, "it makes no invitation")
