"""What an attempt of a task needs: its folders, its environment, its artifacts, its config."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import evolve, frozen

from khonsu.abc.driver import AnyDriver, ProcessSupervisor, TaskContext
from khonsu.agent.layout import Layout
from khonsu.agent.state import AllocationState
from khonsu.agent.verbs import config_of
from khonsu.artifacts import ArtifactStore
from khonsu.core.ids import fencing_token
from khonsu.core.interpolation import Copy, substitute, substitute_json, task_environment, values_for
from khonsu.core.job import Artifact, Task
from khonsu.core.protocol import NodeFacts
from khonsu.drivers.faults import passing
from khonsu.drivers.programs import DEFAULT_PATH, node_platform
from khonsu.env import Env
from khonsu.errors import DriverError

PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""What of the agent's own environment a task is given; everything else stays with the agent."""


@frozen(kw_only=True)
class Workshop:
    """Makes contexts for drivers, and lays out what is in them."""

    layout: Layout
    supervisor: ProcessSupervisor
    artifacts: ArtifactStore
    env: Env
    node: str
    facts: Callable[[], NodeFacts]
    term: Callable[[], int]

    def context(self, state: AllocationState, name: str, attempt: int, driver: AnyDriver) -> TaskContext[Any]:
        """Return what a driver is told of one attempt of a task.

        Raises:
            DriverError: Something in the spec has no meaning on this node.

        """
        assignment, spec = state.assignment, state.spec(name)
        copy = self._copy(state, name, attempt)
        facts = self.facts()
        values = values_for(copy, attributes=facts.attributes, labels=facts.labels, metas=(assignment.meta, spec.meta))
        own = {key: substitute(text, values) for key, text in spec.env.items()}
        return TaskContext(
            allocation=assignment.id,
            task=name,
            attempt=attempt,
            config=config_of(driver, substitute_json(spec.config, values)),
            spec=spec,
            artifacts=tuple(_substituted(artifact, values) for artifact in spec.artifacts),
            env={**_passed_on(spec), **own, **task_environment(copy)},
            directory=self.layout.task(assignment.id, name),
            log_directory=self.layout.logs(assignment.id, name),
            run_directory=self.layout.attempt(assignment.id, name, attempt),
            supervisor=self.supervisor,
            exclusive=state.group.exclusive,
        )

    def _copy(self, state: AllocationState, name: str, attempt: int) -> Copy:
        assignment = state.assignment
        return Copy(
            job=assignment.job,
            group=state.group.name,
            task=name,
            allocation=assignment.id,
            slot=assignment.slot,
            attempt=attempt,
            epoch=fencing_token(self.term(), assignment.generation, attempt),
            directory=str(self.layout.allocation(assignment.id)),
            task_directory=str(self.layout.task(assignment.id, name)),
            node=self.node,
            address=self.facts().address,
            ports=assignment.ports,
        )

    async def lay_out(self, task: TaskContext[Any]) -> None:
        """Make the folders of an attempt, and put its artifacts into them. Idempotent.

        Raises:
            DriverError: The disk, an artifact or the user is not to be had.

        """
        try:
            await self.env.run_blocking(self._make_folders, task.allocation, task.task, task.attempt, task.spec.user)
        except OSError as error:
            hint = "Look at the agent's disk"
            raise passing(f"cannot make {error.filename}: {error.strerror}", hint=hint) from error
        for artifact in task.artifacts:
            source, sha256 = _source(artifact)
            with await self.artifacts.fetch(source, sha256) as cached:
                await self.artifacts.place(cached, task.directory, artifact.destination)

    async def end(self, key: str, task: str, attempt: int) -> None:
        """End what may run of an attempt, by what keeps processes alive, without its driver.

        Raises:
            OSError: It cannot be seen whether something runs.

        """
        await self.supervisor.remove(str(self.layout.attempt(key, task, attempt)))

    def _make_folders(self, key: str, task: str, attempt: int, user: str | None) -> None:
        self.layout.make_task(key, task, attempt, _owner(user))


def _owner(user: str | None) -> int | None:
    """Return the user id that a task's folder belongs to, where it is not the agent's."""
    if user is None or os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise DriverError(f"there is no user {user!r} on this node") from None


def _passed_on(spec: Task) -> dict[str, str]:
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    passed.setdefault("PATH", DEFAULT_PATH)
    if spec.user is None and "HOME" in os.environ:
        passed["HOME"] = os.environ["HOME"]
    return passed


def _substituted(artifact: Artifact, values: Mapping[str, str]) -> Artifact:
    source = substitute(artifact.source, values) if artifact.source is not None else None
    platforms = {
        name: evolve(each, source=substitute(each.source, values)) for name, each in artifact.platforms.items()
    }
    return evolve(artifact, source=source, platforms=platforms)


def _source(artifact: Artifact) -> tuple[str, str | None]:
    """Return where an artifact comes from on this machine, and its digest."""
    here = node_platform()
    chosen = artifact.platforms.get(here)
    if chosen is not None:
        return chosen.source, chosen.sha256
    if artifact.source is None:
        raise DriverError(
            f"there is no artifact for {here}, only for {', '.join(sorted(artifact.platforms))}",
            hint="Add one to its platforms, or keep the job off such nodes by a constraint on `os` and `arch`",
        )
    return artifact.source, artifact.sha256
