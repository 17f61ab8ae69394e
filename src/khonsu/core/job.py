"""The job: what a user asks for. Frozen values, written by the user and by nobody else.

Arguments are as people write them (`memory="64MiB"`, `delay="2s"`); the attributes carry their unit in the name
(`memory_bytes`, `delay_seconds`). Construction only converts: ranges and names are checked all at once by
`khonsu.core.validate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from attrs import field, frozen

from khonsu.core.about import about
from khonsu.core.codec import plain_json
from khonsu.core.conditions import (
    OPERATORS,
    UNARY_OPERATORS,
    Affinity,
    Constraint,
    Spread,
    as_affinities,
    as_constraints,
    as_spreads,
)
from khonsu.core.policies import Disconnect, Logs, Periodic, Reschedule, Restart, Update
from khonsu.core.states import JobType
from khonsu.core.task import (
    JSON,
    SIZE_BYTES_MAX,
    Artifact,
    ArtifactSource,
    Check,
    Device,
    Resources,
    SecretUse,
    Task,
    Volume,
)
from khonsu.core.units import DurationLike, SizeLike, size_bytes

__all__ = [
    "COUNT_MAX",
    "JSON",
    "OPERATORS",
    "UNARY_OPERATORS",
    "Affinity",
    "Artifact",
    "ArtifactSource",
    "Check",
    "Constraint",
    "Device",
    "Disconnect",
    "Group",
    "Job",
    "Logs",
    "Periodic",
    "Port",
    "PortLike",
    "Reschedule",
    "Resources",
    "Restart",
    "SecretUse",
    "Spread",
    "Task",
    "Update",
    "Volume",
    "as_port",
]

COUNT_MAX = 1_000_000
PORT_MAX = 65_535


@frozen
class Port:
    """A named port of a group. `host` None is dynamic; `task` None is the same as the host's."""

    name: str = field(metadata=about("The port's name, for `${port.NAME}`.", name=True))
    host: int | None = field(
        default=None, metadata=about("The port of the node; none: one is chosen.", low=1, high=PORT_MAX)
    )
    task: int | None = field(
        default=None, metadata=about("The port that the task listens on, where it is another.", low=1, high=PORT_MAX)
    )


PortLike: TypeAlias = str | int | Mapping[str, int]
PORT_EXPECTED = '"dynamic", a number, or { host = ..., task = ... }'


def as_port(name: str, value: PortLike) -> Port:
    """Return a port from what people write for it.

    Raises:
        ValueError: It is neither "dynamic", nor a number, nor a mapping of `host` and `task`.

    """
    if value == "dynamic":
        return Port(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return Port(name, value)
    if isinstance(value, Mapping) and set(value) <= {"host", "task"}:
        return Port(name, value.get("host"), value.get("task"))
    raise ValueError(f"port {name}: {value!r} is not {PORT_EXPECTED}")


def _as_ports(value: Mapping[str, PortLike] | Iterable[Port]) -> tuple[Port, ...]:
    if isinstance(value, Mapping):
        return tuple(as_port(name, port) for name, port in value.items())
    return tuple(value)


def _as_tasks(values: Iterable[Task]) -> tuple[Task, ...]:
    return tuple(values)


@frozen
class Group:
    """Tasks that are placed together, `count` times. A slot is (job, group, index)."""

    name: str = field(metadata=about("Unique in its job.", name=True))
    tasks: tuple[Task, ...] = field(
        converter=_as_tasks, kw_only=True, metadata=about("What runs together on one node.")
    )
    count: int = field(default=1, kw_only=True, metadata=about("How many copies run.", low=0, high=COUNT_MAX))
    gang: bool = field(
        default=False, kw_only=True, metadata=about("Whether all copies are placed together, or none of them.")
    )
    max_per_node: int | None = field(
        default=None, kw_only=True, metadata=about("How many copies one node may have.", low=1, high=COUNT_MAX)
    )
    exclusive: bool = field(
        default=False,
        kw_only=True,
        metadata=about("Whether a slot must never run twice, even if that means waiting for a lost node."),
    )
    ports: tuple[Port, ...] = field(
        default=(), converter=_as_ports, kw_only=True, metadata=about(f"Ports by name: {PORT_EXPECTED}.")
    )
    constraints: tuple[Constraint, ...] = field(
        default=(),
        converter=as_constraints,
        kw_only=True,
        metadata=about('What a node must be like, as "ATTRIBUTE OPERATOR VALUE".'),
    )
    affinities: tuple[Affinity, ...] = field(
        default=(), converter=as_affinities, kw_only=True, metadata=about("Which nodes are liked or disliked.")
    )
    spreads: tuple[Spread, ...] = field(
        default=(), converter=as_spreads, kw_only=True, metadata=about("Over what the copies are spread.")
    )
    restart: Restart | None = field(
        default=None, kw_only=True, metadata=about("Restarts on the node; none: as the job's type has them.")
    )
    reschedule: Reschedule | None = field(
        default=None, kw_only=True, metadata=about("Moves to another node; none: as the job's type has them.")
    )
    update: Update = field(
        factory=Update, kw_only=True, metadata=about("How copies of an earlier version are replaced.")
    )
    disconnect: Disconnect = field(
        factory=Disconnect, kw_only=True, metadata=about("What happens to copies on a node that is silent.")
    )
    disk_bytes: int = field(
        default=300 * 2**20,
        converter=size_bytes,
        alias="disk",
        kw_only=True,
        metadata=about("Disk that one copy reserves.", low=0, high=SIZE_BYTES_MAX),
    )

    def restart_policy(self, job_type: JobType) -> Restart:
        """Return the restart policy, by the job's type where the group has none of its own."""
        if self.restart is not None:
            return self.restart
        return Restart() if job_type.keeps_running else Restart(within="24h")

    def reschedule_policy(self, job_type: JobType) -> Reschedule:
        """Return the reschedule policy, by the job's type where the group has none of its own."""
        if self.reschedule is not None:
            return self.reschedule
        return Reschedule() if job_type.keeps_running else Reschedule(attempts=1)

    def demand(self) -> dict[str, int]:
        """Return what one copy takes of a node: millicores, bytes."""
        return {
            "cpu": sum(task.resources.cpu_millis for task in self.tasks),
            "memory": sum(task.resources.memory_bytes for task in self.tasks),
            "disk": self.disk_bytes,
        }

    def starts_first(self, job_type: JobType) -> bool:
        """Return whether a new copy may start before the old one stops."""
        if self.update.start_first != "auto":
            return self.update.start_first and not self.exclusive
        writable = any(not volume.read_only for task in self.tasks for volume in task.volumes)
        static = any(port.host is not None for port in self.ports)
        return job_type is JobType.SERVICE and not (static or writable or self.exclusive)

    @property
    def kill_timeout_seconds(self) -> float:
        """Return the longest time that stopping one copy may take."""
        return max((task.kill_timeout_seconds + task.shutdown_delay_seconds for task in self.tasks), default=math.nan)


def _as_groups(values: Iterable[Group]) -> tuple[Group, ...]:
    return tuple(values)


def _as_meta(value: Mapping[str, str]) -> Mapping[str, str]:
    return dict(value)


def _as_parameters(value: Mapping[str, JSON]) -> Mapping[str, JSON]:
    return {str(key): plain_json(item) for key, item in value.items()}


@frozen
class Job:
    """A job: groups of tasks, and how they are to run."""

    name: str = field(metadata=about("Unique in its namespace.", name=True))
    groups: tuple[Group, ...] = field(
        converter=_as_groups, kw_only=True, metadata=about("What is placed, each group as a unit.")
    )
    type: JobType = field(
        default=JobType.SERVICE, converter=JobType, kw_only=True, metadata=about("What kind of work it is.")
    )
    priority: int = field(default=50, kw_only=True, metadata=about("Who goes first: 100 before 1.", low=1, high=100))
    namespace: str = field(
        default="default", kw_only=True, metadata=about("Whose job it is; names are unique within one.", name=True)
    )
    scheduler: str = field(
        default="binpack", kw_only=True, metadata=about("Which scheduler chooses the nodes.", name=True)
    )
    pool: str = field(default="default", kw_only=True, metadata=about("The pool of nodes that it may use.", name=True))
    meta: Mapping[str, str] = field(
        factory=dict, converter=_as_meta, kw_only=True, metadata=about("Notes of your own, for `${meta.X}`.")
    )
    constraints: tuple[Constraint, ...] = field(
        default=(),
        converter=as_constraints,
        kw_only=True,
        metadata=about('What every node must be like, as "ATTRIBUTE OPERATOR VALUE".'),
    )
    affinities: tuple[Affinity, ...] = field(
        default=(), converter=as_affinities, kw_only=True, metadata=about("Which nodes are liked or disliked.")
    )
    spreads: tuple[Spread, ...] = field(
        default=(), converter=as_spreads, kw_only=True, metadata=about("Over what the copies of a group are spread.")
    )
    periodic: Periodic | None = field(
        default=None, kw_only=True, metadata=about("When it runs again and again.", later=True)
    )
    parameters: Mapping[str, JSON] = field(
        factory=dict,
        converter=_as_parameters,
        kw_only=True,
        metadata=about("Values that are given when it is started.", later=True),
    )

    def group(self, name: str) -> Group | None:
        """Return a group by its name."""
        return next((group for group in self.groups if group.name == name), None)

    @classmethod
    def single(
        cls,
        name: str,
        config: object,
        /,
        *,
        type: str = "service",
        driver: str | None = None,
        count: int = 1,
        priority: int = 50,
        namespace: str = "default",
        scheduler: str = "binpack",
        pool: str = "default",
        meta: Mapping[str, str] | None = None,
        constraints: Iterable[Constraint | str] = (),
        affinities: Iterable[Affinity] = (),
        spreads: Iterable[Spread] = (),
        gang: bool = False,
        max_per_node: int | None = None,
        exclusive: bool = False,
        ports: Mapping[str, PortLike] | None = None,
        restart: Restart | None = None,
        reschedule: Reschedule | None = None,
        update: Update | None = None,
        disconnect: Disconnect | None = None,
        disk: SizeLike = "300MiB",
        resources: Resources | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        artifacts: Iterable[Artifact] = (),
        kill_signal: str = "SIGTERM",
        kill_timeout: DurationLike = 10.0,
        shutdown_delay: DurationLike = 0.0,
        logs: Logs | None = None,
        checks: Iterable[Check] = (),
        volumes: Iterable[Volume] = (),
        secrets: Iterable[SecretUse] = (),
    ) -> Job:
        """Make a job of one group `main` with one task named after the job."""
        task = Task(
            name,
            config,
            driver=driver,
            resources=resources,
            env=env,
            user=user,
            artifacts=artifacts,
            kill_signal=kill_signal,
            kill_timeout=kill_timeout,
            shutdown_delay=shutdown_delay,
            logs=logs,
            checks=checks,
            volumes=volumes,
            secrets=secrets,
        )
        group = Group(
            "main",
            tasks=[task],
            count=count,
            gang=gang,
            max_per_node=max_per_node,
            exclusive=exclusive,
            ports=ports or {},
            restart=restart,
            reschedule=reschedule,
            update=update if update is not None else Update(),
            disconnect=disconnect if disconnect is not None else Disconnect(),
            disk=disk,
        )
        return cls(
            name,
            groups=[group],
            type=JobType(type),
            priority=priority,
            namespace=namespace,
            scheduler=scheduler,
            pool=pool,
            meta=meta or {},
            constraints=constraints,
            affinities=affinities,
            spreads=spreads,
        )
