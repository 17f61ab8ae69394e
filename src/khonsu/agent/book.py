"""The book: every allocation that the agent has, in memory and in the journal."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from khonsu.agent.journal import Journal
from khonsu.agent.state import AllocationState, Progress
from khonsu.core.codec import from_json, to_json
from khonsu.core.ids import AllocationId
from khonsu.core.job import JSON, Group
from khonsu.core.protocol import Assignment
from khonsu.core.revision import ZERO, Revision
from khonsu.errors import InvalidRequest

_ASSIGNMENT: Final = "assignment/"
_PROGRESS: Final = "progress/"
_GROUP: Final = "group/"
_SEEN: Final = "seen"
_BOOT: Final = "boot"
_CLUSTER: Final = "cluster"
_ADDRESS: Final = "address"
_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class Kept:
    """What an earlier run of the agent left in the journal."""

    states: tuple[AllocationState, ...] = ()
    seen: Revision = ZERO
    boot: str = ""
    cluster: str = ""
    address: str = ""
    stray: tuple[str, ...] = ()
    """Keys of entries that belong to no allocation which could be read: what a power cut let outlive its others."""


def read(values: Mapping[str, JSON]) -> Kept:
    """Return what a journal's values say.

    An allocation that cannot be read, since another version wrote it, is left out: then it is not known here any more.
    """
    seen = values.get(_SEEN)
    states = tuple(_states(values))
    used = {key for state in states for key in _keys(state)}
    return Kept(
        states=states,
        seen=Revision.parse(seen) if isinstance(seen, str) else ZERO,
        boot=str(values.get(_BOOT, "")),
        cluster=str(values.get(_CLUSTER, "")),
        address=str(values.get(_ADDRESS, "")),
        stray=tuple(key for key in values if key.startswith((_ASSIGNMENT, _PROGRESS, _GROUP)) and key not in used),
    )


def _keys(state: AllocationState) -> tuple[str, str, str]:
    key = state.assignment.id
    return _ASSIGNMENT + key, _PROGRESS + key, _GROUP + state.assignment.group


def _states(values: Mapping[str, JSON]) -> Iterator[AllocationState]:
    groups: dict[str, Group] = {}
    for key, value in values.items():
        if not key.startswith(_ASSIGNMENT):
            continue
        try:
            assignment = from_json(Assignment, value)
            if assignment.group not in groups:
                groups[assignment.group] = from_json(Group, values.get(_GROUP + assignment.group))
            progress = from_json(Progress, values.get(_PROGRESS + assignment.id))
        except InvalidRequest as error:
            _log.warning("the journal's entry %s cannot be read and is left out: %s", key, error)
            continue
        yield AllocationState(assignment=assignment, group=groups[assignment.group], progress=progress)


class Book:
    """The allocations of a node by id. Used from the event loop only.

    What is noted is on its way to the disk; `journal.durable()` waits until it is there.
    """

    def __init__(self, journal: Journal, kept: Kept) -> None:
        """Begin with what an earlier run left."""
        self.journal = journal
        self.states: dict[AllocationId, AllocationState] = {state.assignment.id: state for state in kept.states}
        self.seen = kept.seen
        """The newest revision of what is wanted that was ever acted on."""
        self.cluster = kept.cluster
        """Whose allocations they are: ids and revisions of another cluster mean something else."""
        self._groups = Counter(state.assignment.group for state in kept.states)
        for key in kept.stray:
            journal.drop(key)

    def note(self, state: AllocationState) -> None:
        """Note an allocation as it is now."""
        key = state.assignment.id
        before = self.states.get(key)
        self.states[key] = state
        if before is None:
            name = state.assignment.group
            self._groups[name] += 1
            if self._groups[name] == 1:
                self.journal.put(_GROUP + name, to_json(state.group))
        if before is None or before.assignment != state.assignment:
            self.journal.put(_ASSIGNMENT + key, to_json(state.assignment))
        if before is None or before.progress is not state.progress:
            self.journal.put(_PROGRESS + key, to_json(state.progress))

    def forget(self, key: AllocationId) -> None:
        """Drop an allocation whose end the control plane knows."""
        state = self.states.pop(key, None)
        if state is None:
            return
        self.journal.drop(_ASSIGNMENT + key)
        self.journal.drop(_PROGRESS + key)
        name = state.assignment.group
        self._groups[name] -= 1
        if not self._groups[name]:
            del self._groups[name]
            self.journal.drop(_GROUP + name)

    def note_seen(self, revision: Revision) -> None:
        """Note up to which revision it is known what is wanted."""
        self.seen = revision
        self.journal.put(_SEEN, str(revision))

    def note_boot(self, boot: str) -> None:
        """Note in which boot of the machine the processes of the book run."""
        self.journal.put(_BOOT, boot)

    def note_cluster(self, cluster: str) -> None:
        """Note whose allocations they are."""
        if cluster != self.cluster:
            self.cluster = cluster
            self.journal.put(_CLUSTER, cluster)

    def note_address(self, address: str) -> None:
        """Note where the node is reached, for the next start, which may be without a network."""
        self.journal.put(_ADDRESS, address)
