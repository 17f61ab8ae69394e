"""The job: what a user asks for. Frozen values, written by the user and by nobody else.

Arguments are as people write them (`memory="64MiB"`, `delay="2s"`); the attributes carry their unit in the name
(`memory_bytes`, `delay_seconds`). Construction only converts: ranges and names are checked all at once by
`khonsu.core.validate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

import attrs
from attrs import field, frozen

from khonsu.core.states import JobType
from khonsu.core.units import (
    CPULike,
    DurationLike,
    SizeLike,
    cpu_millis,
    optional_cpu_millis,
    optional_seconds,
    optional_size_bytes,
    seconds,
    size_bytes,
)

JSON: TypeAlias = Any
"""A JSON value."""

T = TypeVar("T")

OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in", "not_in", "regex", "version", "is_set", "is_not_set", "distinct")
UNARY_OPERATORS = ("is_set", "is_not_set", "distinct")


def _as_tuple(value: Iterable[T]) -> tuple[T, ...]:
    return tuple(value)


def _as_mapping(value: Mapping[str, T]) -> dict[str, T]:
    return dict(value)


@frozen
class Constraint:
    """A condition on a node: `ATTRIBUTE OPERATOR VALUE`."""

    attribute: str
    operator: str = "="
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Parse `"label.disk = ssd"`; the value may hold spaces, `is_set` and its like take none.

        Raises:
            ValueError: The text is not three words, or two for an operator without a value.

        """
        words = text.split(None, 2)
        if len(words) == 3 and words[1] in OPERATORS and words[1] not in ("is_set", "is_not_set"):  # noqa: PLR2004
            return cls(words[0], words[1], words[2].strip())
        if len(words) == 2 and words[1] in UNARY_OPERATORS:  # noqa: PLR2004
            return cls(words[0], words[1])
        raise ValueError(f'{text!r} is not "ATTRIBUTE OPERATOR VALUE" with one of {" ".join(OPERATORS)}')

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"{self.attribute} {self.operator} {self.value}".rstrip()


def _constraint(value: Constraint | str) -> Constraint:
    return Constraint.parse(value) if isinstance(value, str) else value


def _constraints(values: Iterable[Constraint | str]) -> tuple[Constraint, ...]:
    return tuple(_constraint(value) for value in values)


@frozen
class Affinity:
    """A wish: prefer (or, with a negative weight, avoid) nodes where a condition holds."""

    where: Constraint = field(converter=_constraint)
    weight: int = 50


@frozen
class Spread:
    """A wish to spread the copies over the values of an attribute, evenly or by shares in percent."""

    attribute: str
    weight: int = field(default=100, kw_only=True)
    targets: Mapping[str, int] = field(factory=dict, converter=_as_mapping, kw_only=True)


@frozen
class Port:
    """A named port of a group. `host` None is dynamic; `task` None is the same as the host's."""

    name: str
    host: int | None = None
    task: int | None = None


PortLike: TypeAlias = Literal["dynamic"] | int | Mapping[str, int]


def _port(name: str, value: PortLike | str) -> Port:
    if isinstance(value, bool) or not isinstance(value, (int, str, Mapping)):
        raise ValueError(f'port {name}: {value!r} is not "dynamic", a number, or {{ host = ..., task = ... }}')
    if isinstance(value, str):
        if value != "dynamic":
            raise ValueError(f'port {name}: {value!r} is not "dynamic", a number, or {{ host = ..., task = ... }}')
        return Port(name)
    if isinstance(value, int):
        return Port(name, value)
    if unknown := sorted(set(value) - {"host", "task"}):
        raise ValueError(f"port {name}: {', '.join(unknown)} is not known; known are host and task")
    return Port(name, value.get("host"), value.get("task"))


def _ports(value: Mapping[str, PortLike] | Iterable[Port]) -> tuple[Port, ...]:
    if isinstance(value, Mapping):
        return tuple(_port(name, port) for name, port in value.items())
    return tuple(value)


@frozen(kw_only=True)
class Restart:
    """Restarts of a task on its node: `attempts` within a window, then the allocation fails."""

    attempts: int = 3
    within_seconds: float = field(default=600.0, converter=seconds, alias="within")
    delay_seconds: float = field(default=2.0, converter=seconds, alias="delay")
    delay_max_seconds: float = field(default=60.0, converter=seconds, alias="delay_max")


@frozen(kw_only=True)
class Reschedule:
    """Moves of a failed copy to another node; `attempts` None is without limit."""

    attempts: int | None = None
    delay_seconds: float = field(default=5.0, converter=seconds, alias="delay")
    delay_max_seconds: float = field(default=600.0, converter=seconds, alias="delay_max")


@frozen(kw_only=True)
class Update:
    """How copies of an earlier version are replaced."""

    max_parallel: int = 1
    healthy_for_seconds: float = field(default=5.0, converter=seconds, alias="healthy_for")
    healthy_within_seconds: float = field(default=300.0, converter=seconds, alias="healthy_within")
    progress_within_seconds: float = field(default=600.0, converter=seconds, alias="progress_within")
    start_first: Literal["auto"] | bool = "auto"
    auto_revert: bool = True
    canary: int = 0


@frozen(kw_only=True)
class Disconnect:
    """What happens to copies on a node that is silent."""

    replace_after_seconds: float = field(default=0.0, converter=seconds, alias="replace_after")
    stop_after_seconds: float | None = field(default=None, converter=optional_seconds, alias="stop_after")
    keep: Literal["replacement", "original"] = "replacement"


@frozen(kw_only=True)
class Device:
    """Devices that a task asks for."""

    name: str
    count: int = 1
    constraints: tuple[Constraint, ...] = field(default=(), converter=_constraints)


@frozen(kw_only=True)
class Resources:
    """What one copy of a task reserves. `cpu` in cores is a reservation and a weight; `cpu_max` is a quota."""

    cpu_millis: int = field(default=0.1, converter=cpu_millis, alias="cpu")
    cpu_max_millis: int | None = field(default=None, converter=optional_cpu_millis, alias="cpu_max")
    memory_bytes: int = field(default="128MiB", converter=size_bytes, alias="memory")
    memory_max_bytes: int | None = field(default=None, converter=optional_size_bytes, alias="memory_max")
    devices: tuple[Device, ...] = field(default=(), converter=_as_tuple)


@frozen(kw_only=True)
class ArtifactSource:
    """Where the artifact for one platform comes from."""

    source: str
    sha256: str | None = None


@frozen(kw_only=True)
class Artifact:
    """A file that is fetched before a task starts; `platforms` ("linux/arm64") override `source`."""

    source: str | None = None
    sha256: str | None = None
    destination: str | None = None
    platforms: Mapping[str, ArtifactSource] = field(factory=dict, converter=_as_mapping)


@frozen(kw_only=True)
class Logs:
    """How much of a task's output is kept, per stream."""

    files: int = 10
    file_size_bytes: int = field(default="10MiB", converter=size_bytes, alias="file_size")


@frozen(kw_only=True)
class Check:
    """A health check of a task."""

    type: str
    port: str | None = None
    path: str = "/"
    command: tuple[str, ...] = field(default=(), converter=_as_tuple)
    interval_seconds: float = field(default=5.0, converter=seconds, alias="interval")
    timeout_seconds: float = field(default=2.0, converter=seconds, alias="timeout")
    healthy_after: int = 1
    unhealthy_after: int = 3
    grace_seconds: float = field(default=0.0, converter=seconds, alias="grace")


@frozen(kw_only=True)
class Volume:
    """A named volume of the node, mounted into a task."""

    name: str
    path: str
    read_only: bool = False


@frozen(kw_only=True)
class SecretUse:
    """A stored secret given to a task as a file or a variable."""

    name: str
    file: str | None = None
    env: str | None = None
    on_change: str = "nothing"


@frozen(kw_only=True)
class Periodic:
    """When a job runs again and again."""

    cron: str
    timezone: str = "UTC"
    overlap: str = "skip"
    catch_up: str = "last"


@frozen(init=False)
class Task:
    """One process of a group. `config` is a driver's config value, or a mapping with `driver=`."""

    name: str
    config: Mapping[str, JSON]
    driver: str
    resources: Resources = field(factory=Resources)
    env: Mapping[str, str] = field(factory=dict)
    user: str | None = None
    meta: Mapping[str, str] = field(factory=dict)
    isolation: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    kill_signal: str = "SIGTERM"
    kill_timeout_seconds: float = field(default=10.0, alias="kill_timeout")
    shutdown_delay_seconds: float = field(default=0.0, alias="shutdown_delay")
    logs: Logs = field(factory=Logs)
    checks: tuple[Check, ...] = ()
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[SecretUse, ...] = ()
    lifecycle: Mapping[str, JSON] = field(factory=dict)
    depends_on: tuple[str, ...] = ()
    templates: tuple[Mapping[str, JSON], ...] = ()

    def __init__(  # noqa: PLR0913 - the fields of the contract
        self,
        name: str,
        config: object,
        /,
        *,
        driver: str | None = None,
        resources: Resources | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        meta: Mapping[str, str] | None = None,
        isolation: str | None = None,
        artifacts: Iterable[Artifact] = (),
        kill_signal: str = "SIGTERM",
        kill_timeout: DurationLike = 10.0,
        shutdown_delay: DurationLike = 0.0,
        logs: Logs | None = None,
        checks: Iterable[Check] = (),
        volumes: Iterable[Volume] = (),
        secrets: Iterable[SecretUse] = (),
        lifecycle: Mapping[str, JSON] | None = None,
        depends_on: Iterable[str] = (),
        templates: Iterable[Mapping[str, JSON]] = (),
    ) -> None:
        """Make a task; the driver's name comes from the type of `config` unless it is a mapping."""
        mapping, named = _config_mapping(config)
        chosen = driver or named
        if chosen is None:
            raise ValueError(f"task {name!r}: a config that is a mapping needs driver=")
        self.__attrs_init__(  # type: ignore[attr-defined]
            name=name,
            config=mapping,
            driver=chosen,
            resources=resources if resources is not None else Resources(),
            env=dict(env or {}),
            user=user,
            meta=dict(meta or {}),
            isolation=isolation,
            artifacts=tuple(artifacts),
            kill_signal=kill_signal,
            kill_timeout=seconds(kill_timeout),
            shutdown_delay=seconds(shutdown_delay),
            logs=logs if logs is not None else Logs(),
            checks=tuple(checks),
            volumes=tuple(volumes),
            secrets=tuple(secrets),
            lifecycle=dict(lifecycle or {}),
            depends_on=tuple(depends_on),
            templates=tuple(templates),
        )


def _config_mapping(config: object) -> tuple[dict[str, JSON], str | None]:
    """Return a config as a JSON mapping without its defaults' noise, and the driver its type names."""
    if isinstance(config, Mapping):
        return dict(config), None
    if not attrs.has(type(config)):
        raise ValueError(f"{config!r} is not a driver's config or a mapping")
    mapping = {
        attribute.name: _plain(getattr(config, attribute.name))
        for attribute in attrs.fields(type(config))
        if getattr(config, attribute.name) != attribute.default
    }
    return mapping, getattr(type(config), "driver", None)


def _plain(value: JSON) -> JSON:
    """Return a config's value as a JSON value."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


@frozen
class Group:
    """Tasks that are placed together, `count` times. A slot is (job, group, index)."""

    name: str
    tasks: tuple[Task, ...] = field(converter=_as_tuple, kw_only=True)
    count: int = field(default=1, kw_only=True)
    gang: bool = field(default=False, kw_only=True)
    max_per_node: int | None = field(default=None, kw_only=True)
    exclusive: bool = field(default=False, kw_only=True)
    ports: tuple[Port, ...] = field(default=(), converter=_ports, kw_only=True)
    constraints: tuple[Constraint, ...] = field(default=(), converter=_constraints, kw_only=True)
    affinities: tuple[Affinity, ...] = field(default=(), converter=_as_tuple, kw_only=True)
    spreads: tuple[Spread, ...] = field(default=(), converter=_as_tuple, kw_only=True)
    restart: Restart | None = field(default=None, kw_only=True)
    reschedule: Reschedule | None = field(default=None, kw_only=True)
    update: Update = field(factory=Update, kw_only=True)
    disconnect: Disconnect = field(factory=Disconnect, kw_only=True)
    disk_bytes: int = field(default="300MiB", converter=size_bytes, alias="disk", kw_only=True)

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
            return bool(self.update.start_first) and not self.exclusive
        writable = any(not volume.read_only for task in self.tasks for volume in task.volumes)
        static = any(port.host is not None for port in self.ports)
        return job_type is JobType.SERVICE and not (static or writable or self.exclusive)

    @property
    def kill_timeout_seconds(self) -> float:
        """Return the longest time that stopping one copy may take."""
        return max((task.kill_timeout_seconds + task.shutdown_delay_seconds for task in self.tasks), default=math.nan)


@frozen
class Job:
    """A job: groups of tasks, and how they are to run."""

    name: str
    groups: tuple[Group, ...] = field(converter=_as_tuple, kw_only=True)
    type: JobType = field(default=JobType.SERVICE, converter=JobType, kw_only=True)
    priority: int = field(default=50, kw_only=True)
    namespace: str = field(default="default", kw_only=True)
    scheduler: str = field(default="binpack", kw_only=True)
    pool: str = field(default="default", kw_only=True)
    meta: Mapping[str, str] = field(factory=dict, converter=_as_mapping, kw_only=True)
    constraints: tuple[Constraint, ...] = field(default=(), converter=_constraints, kw_only=True)
    affinities: tuple[Affinity, ...] = field(default=(), converter=_as_tuple, kw_only=True)
    spreads: tuple[Spread, ...] = field(default=(), converter=_as_tuple, kw_only=True)
    periodic: Periodic | None = field(default=None, kw_only=True)
    parameters: Mapping[str, JSON] = field(factory=dict, converter=_as_mapping, kw_only=True)

    def group(self, name: str) -> Group | None:
        """Return a group by its name."""
        return next((group for group in self.groups if group.name == name), None)

    @classmethod
    def single(  # noqa: PLR0913 - the daily fields of job, group and task
        cls,
        name: str,
        config: object,
        /,
        *,
        type: str = "service",  # noqa: A002 - the field's name
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
