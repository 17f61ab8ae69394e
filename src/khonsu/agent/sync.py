"""The agent's one request, again and again: it renews the lease, reports, and brings what is wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio
from attrs import frozen

from khonsu.abc.transport import Connection, Request
from khonsu.agent.book import Book
from khonsu.agent.identity import NodeIdentity
from khonsu.agent.inbox import Inbox
from khonsu.agent.lease import Lease
from khonsu.agent.workload import Workload
from khonsu.core.codec import from_json, to_json
from khonsu.core.leases import INTERVAL_SECONDS, TTL_SECONDS
from khonsu.core.protocol import AgentRequest, NodeFacts, SyncRequest, SyncResponse, speaks
from khonsu.core.revision import Revision
from khonsu.env import Env
from khonsu.errors import Conflict, KhonsuError, NotAllowed, Unauthenticated, Unavailable
from khonsu.scopes import bare_task_group

ANSWER_SECONDS_MAX: Final = 10.0
"""How long the answer to a report may take."""
REPORTS_MAX: Final = 500
"""How many reports go with one request, whose size is limited; only the first has all of them."""
REPORT_SECONDS_MIN: Final = 0.01
"""How often news is told at most."""
LEASE_SECONDS_MAX: Final = 86_400.0
BACKOFF_SECONDS: Final = 0.25
PATIENCE_SECONDS_MIN: Final = 2.0
_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class Speaker:
    """Who speaks: a node, and one run of its agent."""

    identity: NodeIdentity
    session: str
    boot_id: str


class Sync:
    """Speaks with the control plane over a connection. For the event loop only."""

    def __init__(
        self,
        connection: Connection,
        speaker: Speaker,
        *,
        book: Book,
        workload: Workload,
        lease: Lease,
        facts: NodeFacts,
        serve: Callable[[AgentRequest], None],
        env: Env,
    ) -> None:
        """Say nothing yet.

        Args:
            connection: With the node's own credential.
            speaker: Who speaks.
            book: Knows what was seen.
            workload: Is told what is wanted, and tells what has become of it.
            lease: Is renewed.
            facts: What the node is, for the first request.
            serve: Is given what the control plane wants of the agent itself.
            env: The clock.

        """
        self._connection = connection
        self._speaker = speaker
        self._book = book
        self._workload = workload
        self._lease = lease
        self._facts: NodeFacts | None = facts
        self._inbox = Inbox(serve)
        self._env = env
        self._begun = False
        self._reporting = anyio.Lock()
        self._failures = 0
        self._interval_seconds = INTERVAL_SECONDS
        self._lease_seconds = TTL_SECONDS
        self.draining = False
        """Whether the control plane moves all work off this node."""

    def tell(self, facts: NodeFacts) -> None:
        """Have told what the node has become."""
        self._facts = facts
        self._workload.news.set()

    async def begin(self) -> None:
        """Make the first request of a run, which tells all and asks for all; tries until it is answered.

        Raises:
            Conflict: Another agent runs under this identity, or speaks another version of the protocol.
            Unauthenticated: The control plane does not know this node (any more).
            KhonsuError: Something that will not pass by itself, such as a server that is not the one that was joined.

        """
        while not self._begun:
            await self._exchange(hold_seconds=0.0)

    async def run(self) -> None:
        """Watch and report, for ever.

        Raises:
            Conflict: Another agent runs under this identity.
            Unauthenticated: The control plane does not know this node any more.

        """
        async with bare_task_group() as group:
            group.start_soon(self._watch)
            group.start_soon(self._report)

    async def _watch(self) -> None:
        while True:
            await self._exchange(hold_seconds=self._env.jittered(self._interval_seconds))

    async def _report(self) -> None:
        """Tell news at once; what comes while an answer is waited for goes together with the next request."""
        while True:
            await self._workload.news.wait()
            began = self._env.monotonic()
            await self.flush()
            # The first news goes at once; a storm of them goes together.
            pause = REPORT_SECONDS_MIN - (self._env.monotonic() - began)
            if pause > 0:
                await self._env.sleep(pause)

    async def flush(self) -> None:
        """Tell all that is untold, once, if anybody listens."""
        async with self._reporting:
            await self._exchange(hold_seconds=0.0)

    async def leave(self, *, drain: bool = False) -> None:
        """Say that the agent goes away, or that all work is to be moved off its node."""
        speaker = self._speaker
        body = {"node": speaker.identity.node, "session": speaker.session, **({"drain": True} if drain else {})}
        await self._connection.call(Request(operation="node.leave", body=body, deadline_seconds=ANSWER_SECONDS_MAX))

    # One request.

    async def _exchange(self, *, hold_seconds: float) -> None:
        """Make a request and act on the answer; after a failure, wait for a while."""
        sent = self._env.monotonic()
        reports = self._workload.take_reports(REPORTS_MAX if self._begun else None)
        facts, self._facts = self._facts, None
        request = SyncRequest(
            node=self._speaker.identity.node,
            session=self._speaker.session,
            boot_id=self._speaker.boot_id,
            seen=self._book.seen if self._begun else None,
            hold_seconds=hold_seconds,
            reports=reports,
            facts=facts,
            taken=self._inbox.untold,
        )
        try:
            await self._ask(sent, request)
        except KhonsuError as error:
            self._check(error)
            await self._pause(error)

    async def _ask(self, sent: float, request: SyncRequest) -> None:
        """Make one request, once; if it comes to nothing, what it told is told again."""
        done = False
        try:
            self._take(sent, await self._call(request))
            self._inbox.told(request.taken)
            done = True
        finally:
            if not done:
                self._workload.put_back(request.reports)
                self._keep(request.facts)

    def _keep(self, facts: NodeFacts | None) -> None:
        """Tell facts with the next request, unless there are newer ones."""
        if self._facts is None:
            self._facts = facts

    async def _call(self, request: SyncRequest) -> SyncResponse:
        patience = max(PATIENCE_SECONDS_MIN, (self._lease_seconds - self._interval_seconds) / 2)
        seconds = request.hold_seconds + patience if request.hold_seconds else ANSWER_SECONDS_MAX
        answer = await self._connection.call(
            Request(operation="node.sync", body=to_json(request), deadline_seconds=seconds)
        )
        return from_json(SyncResponse, answer.body)

    def _check(self, error: KhonsuError) -> None:
        """Raise what ends the agent; anything else may pass, and once all was well it is waited for."""
        name = self._speaker.identity.name
        if isinstance(error, Conflict):
            raise Conflict(f"the agent of node {name} stops: {error.message}", hint=error.hint) from error
        if isinstance(error, (Unauthenticated, NotAllowed)):
            raise Unauthenticated(
                f"the control plane does not take node {name} (any more): {error.message}",
                hint="Its tasks run on. Join again with a new token (`khonsu node invite`, then KHONSU_JOIN); "
                "what is no longer wanted is stopped then",
            ) from error
        if not self._begun and not error.retryable:
            raise error

    async def _pause(self, error: KhonsuError) -> None:
        """Wait before the next try, longer each time."""
        if not self._failures:
            _log.warning("node %s: %s; its tasks run on", self._speaker.identity.name, error)
        self._failures += 1
        longest = self._interval_seconds
        await self._env.sleep(self._env.jittered(min(longest, BACKOFF_SECONDS * 2.0 ** min(self._failures, 16))))

    # The answer.

    def _take(self, sent: float, response: SyncResponse) -> None:
        """Act on an answer; nothing is awaited, so that what is wanted and the lease change together."""
        if not speaks(response.protocol):
            raise Conflict(f"the control plane speaks protocol {response.protocol}", hint="Upgrade the older of both")
        if not all(0 < seconds <= LEASE_SECONDS_MAX for seconds in (response.lease_seconds, response.interval_seconds)):
            raise Unavailable(
                f"a lease of {response.lease_seconds:g} s, to be renewed every {response.interval_seconds:g} s, is none"
            )
        seen = self._book.seen
        if response.term < seen.term:
            raise Unavailable(f"a control plane of term {response.term} answers, but term {seen.term} has begun")
        # Of two answers that overtook each other the older is only good for the lease.
        if response.revision >= seen:
            self._apply(response, seen)
        elif not self._begun:
            raise Unavailable(f"the control plane is at revision {response.revision}, behind {seen}")
        if response.tell_all:
            self._workload.tell_again(only_ended=False)
            self._workload.news.set()
        self._workload.forget(response.forget)
        self._lease.renew(sent, response.lease_seconds)
        self._interval_seconds, self._lease_seconds = response.interval_seconds, response.lease_seconds
        self.draining = response.draining
        self._inbox.take(response.requests)
        if self._failures:
            _log.warning("node %s: the control plane answers again", self._speaker.identity.name)
            self._failures = 0

    def _apply(self, response: SyncResponse, seen: Revision) -> None:
        if response.term > seen.term and self._begun:
            # It may have been set back: it is told everything once more.
            self._workload.tell_again(only_ended=False)
            self._workload.news.set()
        # Before what it wants: whatever part of it survives a power cut, nobody older is obeyed after that.
        if response.assignments or response.term > seen.term:
            self._book.note_seen(response.revision)
        else:
            self._book.seen = response.revision
        self._workload.apply(response.assignments, response.groups, complete=response.complete)
        self._begun = True
