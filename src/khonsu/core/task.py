"""One process of a group, and what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, cast

import attrs
from attrs import field, frozen

from khonsu.core.about import about
from khonsu.core.codec import plain_json
from khonsu.core.conditions import Constraint, as_constraints
from khonsu.core.policies import Logs
from khonsu.core.units import (
    DurationLike,
    Millis,
    cpu_millis,
    optional_cpu_millis,
    optional_size_bytes,
    seconds,
    size_bytes,
)

JSON: TypeAlias = Any
"""A JSON value."""

CPU_MILLIS_MAX: Final = 10**9
MEMORY_BYTES_MIN: Final = 2**20
SIZE_BYTES_MAX: Final = 2**46
KILL_SECONDS_MAX: Final = 86_400.0
SIGNALS: Final = (
    "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGABRT", "SIGALRM", "SIGCONT",
    "SIGWINCH",
)  # fmt: skip


@frozen(kw_only=True)
class Device:
    """Devices that a task asks for."""

    name: str = field(metadata=about("The kind of device."))
    count: int = field(default=1, metadata=about("How many.", low=1, high=1000))
    constraints: tuple[Constraint, ...] = field(
        default=(), converter=as_constraints, metadata=about("What they must be like.")
    )


def _as_devices(values: Iterable[Device]) -> tuple[Device, ...]:
    return tuple(values)


@frozen(kw_only=True)
class Resources:
    """What one copy of a task reserves. `cpu` in cores is a reservation and a weight; `cpu_max` is a quota."""

    cpu_millis: int = field(
        default=Millis(100),
        converter=cpu_millis,
        alias="cpu",
        metadata=about("Cores that are reserved, and the weight in a contest for more.", low=0, high=CPU_MILLIS_MAX),
    )
    cpu_max_millis: int | None = field(
        default=None,
        converter=optional_cpu_millis,
        alias="cpu_max",
        metadata=about("The most cores that the task may use; none: no quota.", low=1, high=CPU_MILLIS_MAX),
    )
    memory_bytes: int = field(
        default=128 * 2**20,
        converter=size_bytes,
        alias="memory",
        metadata=about(
            "Memory that is reserved, and the limit unless `memory_max` is given.",
            low=MEMORY_BYTES_MIN,
            high=SIZE_BYTES_MAX,
        ),
    )
    memory_max_bytes: int | None = field(
        default=None,
        converter=optional_size_bytes,
        alias="memory_max",
        metadata=about(
            "The limit, where the task may use more than is reserved.", low=MEMORY_BYTES_MIN, high=SIZE_BYTES_MAX
        ),
    )
    devices: tuple[Device, ...] = field(
        default=(), converter=_as_devices, metadata=about("Devices such as GPUs.", later=True)
    )


@frozen(kw_only=True)
class ArtifactSource:
    """Where the artifact for one platform comes from."""

    source: str = field(metadata=about("A URL: https, or http and file where `sha256` is given."))
    sha256: str | None = field(default=None, metadata=about("The digest of the file, 64 hexadecimal digits."))


def _as_sources(values: Mapping[str, ArtifactSource]) -> Mapping[str, ArtifactSource]:
    return dict(values)


@frozen(kw_only=True)
class Artifact:
    """A file that is fetched before a task starts; `platforms` ("linux/arm64") override `source`."""

    source: str | None = field(default=None, metadata=about("A URL: https, or http and file where `sha256` is given."))
    sha256: str | None = field(default=None, metadata=about("The digest of the file, 64 hexadecimal digits."))
    destination: str | None = field(
        default=None, metadata=about("Where it goes, below the task's directory; without one, under its own name.")
    )
    platforms: Mapping[str, ArtifactSource] = field(
        factory=dict, converter=_as_sources, metadata=about("Other sources by platform, such as `linux/arm64`.")
    )


def _as_words(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen(kw_only=True)
class Check:
    """A health check of a task."""

    type: str = field(metadata=about("How it is checked: http, tcp or command."))
    port: str | None = field(default=None, metadata=about("The port that is asked."))
    path: str = field(default="/", metadata=about("The path that is asked for."))
    command: tuple[str, ...] = field(default=(), converter=_as_words, metadata=about("The command that is run."))
    interval_seconds: float = field(
        default=5.0, converter=seconds, alias="interval", metadata=about("How often it is checked.")
    )
    timeout_seconds: float = field(
        default=2.0, converter=seconds, alias="timeout", metadata=about("How long an answer may take.")
    )
    healthy_after: int = field(default=1, metadata=about("How many good answers make it healthy."))
    unhealthy_after: int = field(default=3, metadata=about("How many bad answers make it unhealthy."))
    grace_seconds: float = field(
        default=0.0, converter=seconds, alias="grace", metadata=about("How long bad answers do not count at first.")
    )


@frozen(kw_only=True)
class Volume:
    """A named volume of the node, mounted into a task."""

    name: str = field(metadata=about("The name that the agent gave it."))
    path: str = field(metadata=about("Where the task finds it."))
    read_only: bool = field(default=False, metadata=about("Whether the task may only read it."))


@frozen(kw_only=True)
class SecretUse:
    """A stored secret given to a task as a file or a variable."""

    name: str = field(metadata=about("The name of the secret."))
    file: str | None = field(default=None, metadata=about("The file that holds it."))
    env: str | None = field(default=None, metadata=about("The variable that holds it."))
    on_change: str = field(default="nothing", metadata=about("What happens when it changes."))


@frozen(init=False)
class Task:
    """One process of a group. `config` is a driver's config value, or a mapping with `driver=`."""

    name: str = field(metadata=about("Unique in its group.", name=True))
    config: Mapping[str, JSON] = field(metadata=about("What the driver is to run; its keys are the driver's."))
    driver: str = field(metadata=about("How it runs: the name of a driver, such as `binary`.", name=True))
    resources: Resources = field(factory=Resources, metadata=about("What one copy reserves."))
    env: Mapping[str, str] = field(factory=dict, metadata=about("Variables of the task's environment."))
    user: str | None = field(default=None, metadata=about("The user that it runs as; none: the agent's."))
    meta: Mapping[str, str] = field(factory=dict, metadata=about("Notes of your own, for `${meta.X}`."))
    isolation: str | None = field(
        default=None, metadata=about("The least isolation that it must have from the node.", later=True)
    )
    artifacts: tuple[Artifact, ...] = field(
        default=(), metadata=about("Files that are fetched before the task starts.")
    )
    kill_signal: str = field(default="SIGTERM", metadata=about("The signal that asks it to stop.", choices=SIGNALS))
    kill_timeout_seconds: float = field(
        default=10.0,
        alias="kill_timeout",
        metadata=about("How long it has to stop before it is killed.", low=0, high=KILL_SECONDS_MAX),
    )
    shutdown_delay_seconds: float = field(
        default=0.0,
        alias="shutdown_delay",
        metadata=about("How long it runs on before it is asked to stop.", low=0, high=KILL_SECONDS_MAX),
    )
    logs: Logs = field(factory=Logs, metadata=about("How much of its output is kept."))
    checks: tuple[Check, ...] = field(default=(), metadata=about("How its health is checked.", later=True))
    volumes: tuple[Volume, ...] = field(default=(), metadata=about("Volumes of the node.", later=True))
    secrets: tuple[SecretUse, ...] = field(default=(), metadata=about("Secrets that it is given.", later=True))
    lifecycle: Mapping[str, JSON] = field(
        factory=dict, metadata=about("When it runs, next to the other tasks.", later=True)
    )
    depends_on: tuple[str, ...] = field(default=(), metadata=about("Tasks that must run before it.", later=True))
    templates: tuple[Mapping[str, JSON], ...] = field(
        default=(), metadata=about("Files that are written from templates.", later=True)
    )

    def __init__(
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
        chosen = driver if driver is not None else named
        if chosen is None:
            raise ValueError(f"task {name!r}: a config that is a mapping needs driver=")
        self.__attrs_init__(
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
            lifecycle=plain_json(lifecycle or {}),
            depends_on=tuple(depends_on),
            templates=tuple(plain_json(template) for template in templates),
        )


def _config_mapping(config: object) -> tuple[Mapping[str, JSON], str | None]:
    """Return a config as a JSON mapping without what has its default, and the driver that its type names."""
    if isinstance(config, Mapping):
        return cast("Mapping[str, JSON]", plain_json(config)), None
    if not attrs.has(type(config)):
        raise TypeError(f"{config!r} is not a driver's config or a mapping")
    attributes: tuple[attrs.Attribute[Any], ...] = attrs.fields(cast("type[attrs.AttrsInstance]", type(config)))
    values = {attribute.name: getattr(config, attribute.name) for attribute in attributes}
    defaults = {attribute.name: _default(attribute, config) for attribute in attributes}
    written = {name: value for name, value in values.items() if value != defaults[name]}
    return cast("Mapping[str, JSON]", plain_json(written)), getattr(type(config), "driver", None)


def _default(attribute: attrs.Attribute[Any], owner: object) -> object:
    default: Any = attribute.default
    if hasattr(default, "factory"):
        return default.factory(owner) if default.takes_self else default.factory()
    return default
