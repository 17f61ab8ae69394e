"""`${name}` in a driver's config, in values of `env` and in sources of artifacts, and nowhere else.

Only `${...}` is special. `$${` is a literal `${`; `$`, `$$`, `$X` and a `${` that is never closed pass unchanged. An
unknown name is a mistake of the job, found when it is submitted. What a name stands for is known on the node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from attrs import frozen

from khonsu.core.mistakes import join, show
from khonsu.core.names import nearest
from khonsu.core.records import PortAssignment
from khonsu.core.task import JSON, Artifact, Task
from khonsu.errors import DriverError, Problem

_PLACEHOLDER: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_FIXED: Final = (
    "alloc.id", "alloc.slot", "alloc.dir", "alloc.attempt", "alloc.epoch",
    "job.name", "group.name", "task.name", "task.dir", "node.name",
)  # fmt: skip
_OF_THE_NODE: Final = ("node.attribute.", "node.label.")
_SHOWN_MAX: Final = 50
_LATER: Final = {"secret.": "secrets", "volume.": "volumes"}


@frozen
class Names:
    """The names that may stand in `${...}` of one task; what only a node knows is known by how it begins."""

    ports: frozenset[str]
    metas: tuple[Mapping[str, str], ...] = ()

    def knows(self, name: str) -> bool:
        """Return whether a name may be used."""
        kind, _, rest = name.partition(".")
        if kind in ("port", "address"):
            return rest in self.ports
        if kind == "meta":
            return any(rest in meta for meta in self.metas)
        return name in _FIXED or any(name.startswith(start) and name != start for start in _OF_THE_NODE)

    def known(self) -> Iterator[str]:
        """Yield the names, with an X for what only a node knows."""
        yield from (f"{kind}.{port}" for kind in ("port", "address") for port in sorted(self.ports))
        yield from _FIXED
        yield from (f"{start}X" for start in _OF_THE_NODE)
        yield from (f"meta.{key}" for meta in self.metas for key in meta)


def placeholders(text: str) -> Iterator[str]:
    """Yield the names in a text, in order."""
    if "${" in text:
        yield from (match[1] for match in _PLACEHOLDER.finditer(text) if match[1] is not None)


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Return a text with every `${name}` replaced, and every `$${` by `${`.

    Raises:
        DriverError: A name has no value here, such as a label that this node does not have.

    """

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        if name not in values:
            hint = "Ask for it with a constraint such as 'label.rack is_set'" if name.startswith(_OF_THE_NODE) else ""
            raise DriverError(f"there is no value for ${{{name}}} on this node", hint=hint)
        return values[name]

    return _PLACEHOLDER.sub(replace, text) if "${" in text else text


def substitute_json(value: JSON, values: Mapping[str, str]) -> JSON:
    """Return a JSON value with every text in it substituted; keys stay as they are.

    Raises:
        DriverError: A name has no value here, such as a label that this node does not have.

    """
    if isinstance(value, str):
        return substitute(value, values)
    if isinstance(value, Mapping):
        return {key: substitute_json(item, values) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [substitute_json(item, values) for item in value]
    return value


# ------------------------------------------------------------------------------------------------ names, at a submit


def known_names(ports: Iterable[str], *metas: Mapping[str, str]) -> Names:
    """Return the names that a task may use: its group's ports, and the meta of job and task, beside the fixed ones."""
    return Names(frozenset(ports), metas)


def check_names(text: str, names: Names, path: str) -> Iterator[Problem]:
    """Yield a problem for each name in a text that is not known."""
    for name in placeholders(text):
        if names.knows(name):
            continue
        later = next((feature for start, feature in _LATER.items() if name.startswith(start)), None)
        if later is not None:
            yield Problem(path, f"${{{name}}}", f"no such name: {later} are not supported yet")
            continue
        known = list(islice(names.known(), _SHOWN_MAX))
        expected = f"one of {', '.join(known)}; a literal ${{ is written $${{"
        yield Problem(path, f"${{{show(name)[1:-1]}}}", expected, nearest(name, names.known()))


def check_task(task: Task, names: Names, path: str) -> Iterator[Problem]:
    """Yield a problem for each unknown name in a task, wherever names are replaced."""
    yield from _check_json(task.config, names, f"{path}.config")
    yield from _check_json(task.env, names, f"{path}.env")
    for index, artifact in enumerate(task.artifacts):
        for place, source in _sources(artifact, f"{path}.artifacts[{index}]"):
            yield from check_names(source, names, place)


def _sources(artifact: Artifact, path: str) -> Iterator[tuple[str, str]]:
    if artifact.source is not None:
        yield f"{path}.source", artifact.source
    for platform, each in artifact.platforms.items():
        yield join(f"{path}.platforms", platform) + ".source", each.source


def _check_json(value: JSON, names: Names, path: str) -> Iterator[Problem]:
    if isinstance(value, str):
        yield from check_names(value, names, path)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _check_json(item, names, join(path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _check_json(item, names, f"{path}[{index}]")


# ---------------------------------------------------------------------------------------------------- values, on a node


@frozen(kw_only=True)
class Copy:
    """What is known on the node of one attempt of one task of one copy."""

    job: str
    group: str
    task: str
    allocation: str
    slot: int
    attempt: int
    epoch: int
    """The fencing token."""
    directory: str
    """Of the allocation."""
    task_directory: str
    node: str
    address: str
    """Where the node is reached."""
    ports: tuple[PortAssignment, ...] = ()


def values_for(
    copy: Copy,
    *,
    attributes: Mapping[str, str],
    labels: Mapping[str, str],
    metas: Iterable[Mapping[str, str]] = (),
) -> dict[str, str]:
    """Return what each name stands for.

    `port.X` is where the task listens, `address.X` where others reach it (`host:port`). Of several metas the later
    one wins: give the job's, then the task's.
    """
    values = {f"meta.{key}": text for meta in metas for key, text in meta.items()}
    values.update({f"node.attribute.{key}": text for key, text in attributes.items()})
    values.update({f"node.label.{key}": text for key, text in labels.items()})
    for port in copy.ports:
        values[f"port.{port.name}"] = str(port.task)
        values[f"address.{port.name}"] = host_port(copy.address, port.host)
    fixed = (
        copy.allocation, str(copy.slot), copy.directory, str(copy.attempt), str(copy.epoch),
        copy.job, copy.group, copy.task, copy.task_directory, copy.node,
    )  # fmt: skip
    return {**values, **dict(zip(_FIXED, fixed, strict=True))}


def task_environment(copy: Copy, *, secrets_directory: str | None = None) -> dict[str, str]:
    """Return the variables that Khonsu sets for a task."""
    variables = {
        "KHONSU_ALLOC_ID": copy.allocation,
        "KHONSU_SLOT": str(copy.slot),
        "KHONSU_ATTEMPT": str(copy.attempt),
        "KHONSU_EPOCH": str(copy.epoch),
        "KHONSU_JOB": copy.job,
        "KHONSU_NODE": copy.node,
        "KHONSU_TASK_DIR": copy.task_directory,
    }
    if secrets_directory is not None:
        variables["KHONSU_SECRETS_DIR"] = secrets_directory
    for port in copy.ports:
        variables[f"KHONSU_PORT_{variable_part(port.name)}"] = str(port.task)
        variables[f"KHONSU_ADDRESS_{variable_part(port.name)}"] = host_port(copy.address, port.host)
    return variables


def is_own_variable(name: str) -> bool:
    """Return whether a variable is one that Khonsu sets."""
    return name.startswith(("KHONSU_PORT_", "KHONSU_ADDRESS_")) or name in (
        "KHONSU_ALLOC_ID", "KHONSU_SLOT", "KHONSU_ATTEMPT", "KHONSU_EPOCH",
        "KHONSU_JOB", "KHONSU_NODE", "KHONSU_TASK_DIR", "KHONSU_SECRETS_DIR",
    )  # fmt: skip


def variable_part(port: str) -> str:
    """Return a port's name as it stands in a variable's: `http-alt` is `HTTP_ALT`."""
    return re.sub(r"[-.]", "_", port).upper()


def host_port(address: str, port: int) -> str:
    """Return an address and a port as one text; IPv6 addresses get brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
