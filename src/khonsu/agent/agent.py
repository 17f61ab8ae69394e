"""The agent: what a user composes."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import anyio
from anyio.abc import TaskStatus
from attrs import frozen

from khonsu.abc.driver import AnyDriver
from khonsu.abc.transport import Identity, Transport
from khonsu.agent.events import Ending
from khonsu.agent.fingerprint import address_towards
from khonsu.agent.identity import NodeIdentity, check_name, read_identity
from khonsu.agent.joining import join, trusted
from khonsu.agent.limits import Limits
from khonsu.agent.logs import LogServer
from khonsu.agent.parts import Opened, Parts, make_parts, open_all
from khonsu.agent.settings import Settings, check, check_networks
from khonsu.agent.sync import Speaker, Sync
from khonsu.core.job import Resources
from khonsu.core.secret import Secret
from khonsu.env import Env, SystemEnv
from khonsu.errors import InvalidRequest, KhonsuError, NotAllowed, Unauthenticated, WrongAuthority
from khonsu.scopes import Lifetime, bare_task_group, first, run_in_order

NONE: Final[Mapping[str, str]] = MappingProxyType({})
OnExit = Literal["leave", "stop", "drain"]

SESSION_BYTES: Final = 8
FACTS_SECONDS: Final = 60.0
GOODBYE_SECONDS_MAX: Final = 5.0
SILENCE_SECONDS_MAX: Final = 30.0
"""How long a drain goes on without an answer of the control plane."""
_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class Speech:
    """What speaks with the control plane."""

    sync: Sync
    logs: LogServer


class Agent(Lifetime):
    """An agent: makes its node's allocations real. An async context manager, entered when the node is registered.

    Args:
        name: The node's name.
        transport: The way to the control plane.
        drivers: How tasks can run here.
        data_dir: For this agent alone; it is made if it is not there. The next agent on it is the same node, and goes
            on with its tasks.
        join_token: Needed the first time only, and when the node was removed; not by an agent within the control
            plane's own process.
        labels: For constraints (`label.KEY`).
        pool: The part of the fleet that the node belongs to; jobs choose theirs by `pool`.
        volumes: Not supported yet.
        resources: What tasks may reserve here, CPU and memory, instead of what the machine has.
        on_exit: What happens to the tasks at the end: `leave` lets them run on, for the next agent; `stop` stops them;
            `drain` waits until the control plane has moved them.
        limits: How much is kept on the disk beside what tasks need.
        artifact_networks: Where artifacts may be fetched from besides the public internet: addresses, or networks such
            as `192.168.1.0/24`. Who submits a job says what the agent asks for, and would else ask from within.
        env: Time, chance and threads.

    Raises:
        InvalidRequest: Something of it cannot be.

    """

    def __init__(
        self,
        name: str,
        *,
        transport: Transport,
        drivers: Sequence[AnyDriver],
        data_dir: Path | str,
        join_token: Secret | str | None = None,
        labels: Mapping[str, str] = NONE,
        pool: str = "default",
        volumes: Mapping[str, Path | str] = NONE,
        resources: Resources | None = None,
        on_exit: OnExit = "leave",
        limits: Limits | None = None,
        artifact_networks: Sequence[str] = (),
        env: Env | None = None,
    ) -> None:
        """Compose it; nothing is opened yet."""
        super().__init__()
        check(name, labels, pool, volumes, drivers)
        self._transport = transport
        self._join_token = None if join_token is None else Secret.of(join_token)
        self._on_exit = on_exit
        self._env = env if env is not None else SystemEnv()
        self._settings = Settings(
            name=name,
            drivers={driver.name: driver for driver in drivers},
            directory=Path(data_dir).absolute(),  # tasks run elsewhere
            labels=dict(labels),
            pool=pool,
            resources=resources,
            limits=limits if limits is not None else Limits(),
            artifact_networks=check_networks(artifact_networks),
            env=self._env,
        )

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled, and then do what `on_exit` says; `task_status` is told when the node is registered.

        While the control plane does not answer, tasks run on and are looked after.

        Raises:
            Conflict: Another agent runs on the data directory, or under this identity.
            Unauthenticated: The node cannot join, or is not known any more; its tasks run on.
            InvalidRequest: The data directory is that of another node.
            UnsafeFile: The data directory cannot be used.
            Unreachable: The node has not joined yet, and there is no answer.

        """
        await run_in_order(self._serve, task_status)

    async def _serve(self, started: Callable[[], None], stopping: anyio.Event, /) -> None:
        async with open_all(self._settings) as opened, AsyncExitStack() as stack:
            parts = await make_parts(opened)
            await parts.begin()
            # To look up a name may take its time without a network; tasks do not wait for it.
            await parts.look_again(await self._env.run_blocking(address_towards, self._transport))
            speech = await self._register(stack, opened, parts)
            async with bare_task_group() as loops:
                loops.start_soon(speech.sync.run)
                loops.start_soon(speech.logs.run)
                loops.start_soon(self._look_again, parts, speech.sync)
                started()
                await stopping.wait()
                await self._end(parts, speech.sync)
                loops.cancel_scope.cancel()
            await self._leave(parts, speech.sync)

    # The beginning.

    async def _register(self, stack: AsyncExitStack, opened: Opened, parts: Parts) -> Speech:
        """Make the first request, and join before it where that is needed."""
        directory = self._settings.directory
        identity = await self._env.run_blocking(read_identity, directory)
        if identity is not None:
            check_name(identity, self._settings.name, directory)
            await parts.belong_to(identity.cluster)
            speech = await stack.enter_async_context(self._speaking(opened, parts, identity))
            try:
                await speech.sync.begin()
                return speech
            except (Unauthenticated, WrongAuthority) as error:
                # It was removed here, or this is another control plane: only a token of that one says whom to trust.
                refused = error
            if isinstance(refused, WrongAuthority) and self._join_token is None:
                raise refused
            try:
                identity = await self._join(parts)
            except NotAllowed:
                raise refused from None
            except InvalidRequest:
                # Without a token it is not even known whom to trust with a join.
                if self._join_token is None:
                    raise refused from None
                raise
        else:
            identity = await self._join(parts)
        await parts.belong_to(identity.cluster)
        speech = await stack.enter_async_context(self._speaking(opened, parts, identity))
        await speech.sync.begin()
        return speech

    async def _join(self, parts: Parts) -> NodeIdentity:
        return await join(
            self._transport,
            self._join_token,
            name=self._settings.name,
            facts=parts.facts,
            directory=self._settings.directory,
            env=self._env,
        )

    @asynccontextmanager
    async def _speaking(self, opened: Opened, parts: Parts, identity: NodeIdentity) -> AsyncGenerator[Speech, None]:
        """Own a connection with the node's credential."""
        transport = trusted(self._transport, identity)
        session = self._env.token_bytes(SESSION_BYTES).hex()
        async with transport.connect(Identity(credential=identity.credential)) as connection:
            logs = LogServer(connection, identity.node, layout=opened.layout, workload=parts.workload, env=self._env)
            sync = Sync(
                connection,
                Speaker(identity=identity, session=session, boot_id=parts.facts.boot_id),
                book=parts.book,
                workload=parts.workload,
                lease=parts.lease,
                facts=parts.facts,
                serve=logs.take,
                env=self._env,
            )
            yield Speech(sync=sync, logs=logs)

    async def _look_again(self, parts: Parts, sync: Sync) -> None:
        """Tell what has changed about the node, and again what the control plane has not taken note of."""
        while True:
            await self._env.sleep(self._env.jittered(FACTS_SECONDS))
            if await parts.look_again(await self._env.run_blocking(address_towards, self._transport)):
                sync.tell(parts.facts)
            parts.workload.tell_again(only_ended=True)

    # The end.

    async def _end(self, parts: Parts, sync: Sync) -> None:
        """Do with the tasks what is wanted, and tell what has become of them."""
        workload = parts.workload
        workload.accepting = False
        if self._on_exit == "stop":
            workload.end_all(Ending.STOP, "the agent was stopped, and its tasks with it")
            await workload.until_idle()
        elif self._on_exit == "drain":
            await self._drain(parts, sync)
        with anyio.move_on_after(GOODBYE_SECONDS_MAX):
            while workload.untold:
                await sync.flush()

    async def _leave(self, parts: Parts, sync: Sync) -> None:
        """Say goodbye where nothing is left; whoever spoke after that would be there again."""
        if not parts.workload.live:
            with anyio.move_on_after(GOODBYE_SECONDS_MAX):
                await self._say(sync.leave())

    async def _drain(self, parts: Parts, sync: Sync) -> None:
        """Wait until the control plane has moved all work elsewhere."""
        with anyio.move_on_after(GOODBYE_SECONDS_MAX):
            await self._say(sync.leave(drain=True))
            await sync.flush()
        while parts.workload.live:
            silent_seconds = self._env.monotonic() - parts.lease.contact
            if not sync.draining or silent_seconds > SILENCE_SECONDS_MAX:
                why = "does not answer" if sync.draining else "does not drain this node"
                _log.warning("the control plane %s; the tasks of node %s run on", why, self._settings.name)
                return
            await first(parts.workload.moved, self._env.sleep, 1.0)

    async def _say(self, goodbye: Awaitable[None]) -> None:
        """Say something that is not worth an error when nobody hears it."""
        try:
            await goodbye
        except KhonsuError as error:
            _log.info("node %s: %s", self._settings.name, error)
