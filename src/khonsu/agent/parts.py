"""The parts of a running agent, opened in order and wired together."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from anyio.abc import TaskGroup
from attrs import evolve, frozen

from khonsu.abc.driver import DriverHost
from khonsu.agent.book import Book, Kept, read
from khonsu.agent.cleanup import Cleaner
from khonsu.agent.events import Ending
from khonsu.agent.fingerprint import LOOPBACK, describe_driver, node_facts
from khonsu.agent.journal import Found, Journal, open_journal
from khonsu.agent.layout import Layout, own
from khonsu.agent.lease import Lease
from khonsu.agent.machine import Machine
from khonsu.agent.runner import Runner
from khonsu.agent.settings import Settings
from khonsu.agent.timers import Timers
from khonsu.agent.workload import Workload
from khonsu.agent.workshop import Workshop
from khonsu.artifacts import ArtifactStore
from khonsu.core.protocol import NodeFacts
from khonsu.core.revision import ZERO
from khonsu.drivers.supervisor import Supervisor
from khonsu.scopes import bare_task_group

CONTACT_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class Opened:
    """What is open for as long as an agent runs."""

    settings: Settings
    layout: Layout
    supervisor: Supervisor
    artifacts: ArtifactStore
    journal: Journal
    found: Found
    group: TaskGroup


@asynccontextmanager
async def open_all(settings: Settings) -> AsyncGenerator[Opened, None]:
    """Open what an agent needs, in order; the work in `group` is cancelled before anything is closed.

    Raises:
        Conflict: Another agent runs on the data directory.
        UnsafeFile: The data directory cannot be used.
        StoreTooNew: A newer Khonsu wrote the journal.

    """
    env, limits = settings.env, settings.limits
    async with AsyncExitStack() as stack:
        layout = await stack.enter_async_context(own(settings.directory, env))
        supervisor = await stack.enter_async_context(settings.supervisor(layout.supervisor, env=env))
        artifacts = await stack.enter_async_context(
            ArtifactStore(
                layout.artifacts,
                env=env,
                limit_bytes=limits.artifact_cache_bytes,
                artifact_bytes_max=limits.artifact_bytes,
                networks=settings.artifact_networks,
            )
        )
        for name, driver in settings.drivers.items():
            host = DriverHost(supervisor=supervisor, env=env, directory=layout.driver(name))
            await stack.enter_async_context(driver.opened(host))
        journal, found = await stack.enter_async_context(open_journal(layout.journal, env))
        group = await stack.enter_async_context(bare_task_group())
        stack.callback(group.cancel_scope.cancel)
        yield Opened(
            settings=settings,
            layout=layout,
            supervisor=supervisor,
            artifacts=artifacts,
            journal=journal,
            found=found,
            group=group,
        )


async def make_parts(opened: Opened) -> Parts:
    """Return the parts of an agent as they are before there is a network."""
    kept = read(opened.found.values)
    settings = opened.settings
    machine = await settings.env.run_blocking(settings.look_around, settings.directory)
    facts = await describe(opened, machine, kept.address or LOOPBACK)
    return Parts(opened, kept, machine, facts)


class Parts:
    """What works on top of what is open."""

    def __init__(self, opened: Opened, kept: Kept, machine: Machine, facts: NodeFacts) -> None:
        """Wire it; nothing runs before `begin`.

        Args:
            opened: What is open.
            kept: What the journal holds.
            machine: What the machine is.
            facts: What the node is.

        """
        settings = opened.settings
        self._opened = opened
        self._machine = machine
        self._env = settings.env
        self.facts = facts
        self._kept = kept
        self.book = Book(opened.journal, kept)
        self.lease = Lease(opened.supervisor, self._env)
        self._timers = Timers(self._env)
        # What a damaged journal knew may have run; its folder may have gone with a power cut.
        forgetful = opened.found.damaged is not None and kept.seen == ZERO
        self.workload = Workload(self.book, self._env, past=opened.layout.kept(), forgetful=forgetful)
        workshop = Workshop(
            layout=opened.layout,
            supervisor=opened.supervisor,
            artifacts=opened.artifacts,
            env=self._env,
            node=settings.name,
            facts=lambda: self.facts,
            term=lambda: self.book.seen.term,
        )
        self._runner = Runner(
            opened.group,
            feed=self.workload.feed,
            drivers=settings.drivers,
            workshop=workshop,
            journal=opened.journal,
            lease=self.lease,
            timers=self._timers,
            env=self._env,
        )
        self._cleaner = Cleaner(
            opened.layout,
            journal=opened.journal,
            runner=self._runner,
            supervisor=opened.supervisor,
            workload=self.workload,
            limits=settings.limits,
            env=self._env,
        )

    async def begin(self) -> None:
        """Go on with what an earlier run left, with or without a control plane."""
        if self._opened.found.damaged is not None:
            _log.warning("the journal was damaged and is set aside: %s", self._opened.found.damaged)
        group = self._opened.group
        await self._cleaner.end_strangers()
        same_boot = self._kept.boot == self._machine.boot_id
        self.workload.start(self._runner.carry_out, self._cleaner.take, same_boot=same_boot)
        self.book.note_boot(self._machine.boot_id)
        group.start_soon(self._timers.run)
        group.start_soon(self._cleaner.run)
        group.start_soon(self.lease.keep_published, self.workload.needs_lease)
        group.start_soon(self._mind_contact)

    async def belong_to(self, cluster: str) -> None:
        """Take orders of a cluster from now on; what another one wanted is ended and cleared away first."""
        if self.book.cluster not in ("", cluster):
            _log.warning("node %s joined another cluster; the tasks of the last one end", self._opened.settings.name)
            self.workload.end_all(Ending.STOP, "its node joined another cluster")
            await self.workload.until_idle()
            self.workload.forget(tuple(self.book.states))
            await self._cleaner.clear_all()
            self.book.note_seen(ZERO)
        self.book.note_cluster(cluster)

    async def _mind_contact(self) -> None:
        """End what is not to run on without contact for too long; as long as the lease holds, there is contact."""
        while True:
            await self._env.sleep(max(CONTACT_SECONDS, self.lease.until - self._env.monotonic()))
            if self.lease.held:
                continue
            if not self.workload.needs_contact():
                await self.lease.wait()  # nothing new can come before that
            self.workload.cut_off(self._env.monotonic() - self.lease.contact)

    async def look_again(self, address: str) -> bool:
        """Find out whether the node has changed, given its address; return whether it has."""
        before = self.facts
        settings = self._opened.settings
        try:
            found = await self._env.run_blocking(settings.look_around, settings.directory)
            # What tasks have written meanwhile is not lost to them: it is what they reserved.
            machine = evolve(found, disk_bytes=self._machine.disk_bytes)
            facts = await describe(self._opened, machine, address)
        except OSError as error:
            _log.warning("node %s cannot be looked at: %s", settings.name, error)
            return False
        self._machine, self.facts = machine, facts
        if address != before.address:
            self.book.note_address(address)
        return self.facts != before


async def describe(opened: Opened, machine: Machine, address: str) -> NodeFacts:
    """Return all that the control plane is told of the node."""
    settings = opened.settings
    drivers = tuple([await describe_driver(driver) for driver in settings.drivers.values()])
    return node_facts(
        machine,
        drivers=drivers,
        cgroups=opened.supervisor.cgroups,
        labels=settings.labels,
        pool=settings.pool,
        resources=settings.resources,
        address=address,
        journal=opened.found.damaged,
    )
