"""Where an agent may make cgroups (v1 or v2), and what a task's own group should say."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import field, frozen

from khonsu.abc.driver import SpawnSpec
from khonsu.supervisor.processes import descendants, everyone

_LEAF = "khonsu-agent"
_PERIOD_MICROS = 100_000
_QUOTA_MICROS_MIN = 1000
_TRIES = 20


@frozen(kw_only=True)
class CgroupSupport:
    """What can be done for tasks on this machine.

    Attributes:
        version: Of the cgroup hierarchy that limits memory; 0 if there is none for us.
        memory: The group below which groups with a memory limit can be made, or None.
        cpu: The same for a share of the CPU; in version 2 the same group.
        bases: What to write into each of these groups when it is made: it comes with the first task and goes with
            the last.
        files: The names of the files that such a group has on this kernel.
        message: Why something is missing, for people.

    """

    version: int = 0
    memory: Path | None = None
    cpu: Path | None = None
    bases: Mapping[Path, Mapping[str, str]] = field(factory=dict)
    files: frozenset[str] = frozenset()
    message: str = ""

    def task_group(self, spec: SpawnSpec) -> dict[str, Any] | None:
        """Return the groups that a task is to have, as the fork server wants them, or None."""
        name = digest(spec.directory)
        groups = {kind: base / name for kind, base in (("memory", self.memory), ("cpu", self.cpu)) if base}
        if not groups:
            return None
        settings: list[list[str]] = []
        if memory := groups.get("memory"):
            settings += self._settings(memory, _memory_v1(spec) if self.version == 1 else _memory_v2(spec))
        if cpu := groups.get("cpu"):
            settings += self._settings(cpu, _cpu_v1(spec) if self.version == 1 else _cpu_v2(spec))
        events = "memory.oom_control" if self.version == 1 else "memory.events"
        return {
            "bases": [(str(base), _lines(base, values)) for base, values in self.bases.items()],
            "groups": list(dict.fromkeys(str(group) for group in groups.values())),
            "settings": settings,
            "events": f"{groups['memory']}/{events}" if self.memory else None,
        }

    def _settings(self, group: Path, wanted: Mapping[str, str]) -> list[list[str]]:
        """Return the values to write, without those for files that this kernel does not have."""
        return _lines(group, {file: value for file, value in wanted.items() if file in self.files})


def _lines(group: Path, values: Mapping[str, str]) -> list[list[str]]:
    return [[str(group / file), value] for file, value in values.items()]


def digest(text: str) -> str:
    """Return a short name for a long one."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def cgroup_support(name: str, *, proc: Path = Path("/proc/self")) -> CgroupSupport:
    """Find out by trying; nothing is left of it.

    Args:
        name: Of the group for the tasks, below the agent's own.
        proc: The folder that describes this process.

    """
    try:
        own = own_groups(proc)
    except (OSError, ValueError) as error:
        return CgroupSupport(message=f"no cgroups: {error}")
    if "memory" in own:
        return _try_v1(own, name)
    if "" in own:
        return _try_v2(own[""], name)
    return CgroupSupport(message="no cgroup hierarchy with a memory controller is mounted")


def own_groups(proc: Path) -> dict[str, Path]:
    """Return the folder of our group in each hierarchy, by controller; version 2 has the empty name.

    Raises:
        OSError: There is no such description of this process.
        ValueError: It cannot be read.

    """
    mounts: dict[str, tuple[str, Path]] = {}
    for line in (proc / "mountinfo").read_text("utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        root, place = fields.split()[3:5]
        if kind == "cgroup2":
            mounts.setdefault("", (root, Path(place)))
        elif kind == "cgroup":
            for option in options.split()[-1].split(","):
                mounts.setdefault(option, (root, Path(place)))
    own: dict[str, Path] = {}
    for line in (proc / "cgroup").read_text("utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in mounts:
                top, folder = mounts[controller]
                # Inside a container the mount begins at its own group, not at the root.
                inside = path.removeprefix(top) if top != "/" else path
                own[controller] = folder / inside.lstrip("/")
    return own


def _try_v1(own: Mapping[str, Path], name: str) -> CgroupSupport:
    found: dict[str, Path] = {}
    bases: dict[Path, Mapping[str, str]] = {}
    files: set[str] = set()
    problems: list[str] = []
    # All tasks together weigh as much as the whole machine, against what else runs there.
    probes = {"memory": {"memory.limit_in_bytes": "-1"}, "cpu": {"cpu.shares": str(1024 * _cores())}}
    for controller, values in probes.items():
        if controller not in own:
            problems.append(f"no {controller} controller")
            continue
        base = own[controller] / name
        try:
            files |= _try_base(base, values)
        except OSError as error:
            problems.append(f"{controller}: {error.strerror} ({base})")
        else:
            found[controller] = base
            bases[base] = values
    return CgroupSupport(
        version=1 if found else 0,
        memory=found.get("memory"),
        cpu=found.get("cpu"),
        bases=bases,
        files=frozenset(files),
        message="; ".join(problems),
    )


def _try_base(base: Path, values: Mapping[str, str]) -> set[str]:
    """Make a group as it will be, return the files it has, and remove it again unless tasks are in it.

    Raises:
        OSError: It cannot be made.

    """
    for _ in range(_TRIES - 1):
        with suppress(FileNotFoundError):  # the last task of before went meanwhile, and took the group with it
            return _try_base_once(base, values)
    return _try_base_once(base, values)


def _try_base_once(base: Path, values: Mapping[str, str]) -> set[str]:
    base.mkdir(exist_ok=True)
    try:
        for file, value in values.items():
            (base / file).write_text(value, "ascii")
        probe = base / "probe"
        probe.mkdir(exist_ok=True)
        files = {path.name for path in probe.iterdir()}
        probe.rmdir()
    finally:
        with suppress(OSError):
            base.rmdir()
    return files


def _try_v2(own: Path, name: str) -> CgroupSupport:
    if own.name == _LEAF:
        own = own.parent  # we have moved there before
    base = own / name
    try:
        wanted = {"memory", "cpu"} & set((own / "cgroup.controllers").read_text("ascii").split())
        if "memory" not in wanted:
            return CgroupSupport(message=f"the memory controller is not delegated to {own}")
        enable = " ".join(f"+{controller}" for controller in sorted(wanted))
        if not wanted <= set((own / "cgroup.subtree_control").read_text("ascii").split()):
            _make_room(own)
            (own / "cgroup.subtree_control").write_text(enable, "ascii")
        values = {"cgroup.subtree_control": enable}
        if "cpu" in wanted:
            values["cpu.weight"] = str(min(10000, 100 * _cores()))
        files = _try_base(base, values)
    except OSError as error:
        return CgroupSupport(message=f"no cgroup can be made below {own}: {error.strerror or error}")
    cpu = base if "cpu" in wanted else None
    return CgroupSupport(version=2, memory=base, cpu=cpu, bases={base: values}, files=frozenset(files))


def _make_room(own: Path) -> None:
    """Move us into a leaf: in version 2 a group has processes or limited children, not both.

    Raises:
        OSError: Others are in the group, whom it is not ours to move.

    """
    if not (own / "cgroup.type").exists():
        return  # the root of all, to which this does not apply
    members = {int(pid) for pid in (own / "cgroup.procs").read_text("ascii").split()}
    ours = {os.getpid(), *(process.pid for process in descendants(os.getpid(), everyone()))}
    if members - ours:
        raise OSError("other processes are in the agent's own group")
    (own / _LEAF).mkdir(exist_ok=True)
    for pid in sorted(members):
        (own / _LEAF / "cgroup.procs").write_text(str(pid), "ascii")


def _memory_v1(spec: SpawnSpec) -> dict[str, str]:
    limit = spec.memory_max_bytes or spec.memory_bytes
    if limit is None:
        return {}
    # The second counts swap, too: nobody escapes the limit to the disk.
    values = {"memory.limit_in_bytes": str(limit), "memory.memsw.limit_in_bytes": str(limit)}
    if spec.memory_max_bytes and spec.memory_bytes:
        values["memory.soft_limit_in_bytes"] = str(spec.memory_bytes)
    return values


def _memory_v2(spec: SpawnSpec) -> dict[str, str]:
    limit = spec.memory_max_bytes or spec.memory_bytes
    if limit is None:
        return {}
    values = {"memory.max": str(limit), "memory.swap.max": "0", "memory.oom.group": "1"}
    if spec.memory_max_bytes and spec.memory_bytes:
        values["memory.low"] = str(spec.memory_bytes)
    return values


def _cpu_v1(spec: SpawnSpec) -> dict[str, str]:
    values: dict[str, str] = {}
    if spec.cpu_millis:
        values["cpu.shares"] = str(max(2, spec.cpu_millis * 1024 // 1000))
    if spec.cpu_max_millis:
        values["cpu.cfs_period_us"] = str(_PERIOD_MICROS)
        values["cpu.cfs_quota_us"] = str(_quota_micros(spec.cpu_max_millis))
    return values


def _cpu_v2(spec: SpawnSpec) -> dict[str, str]:
    values: dict[str, str] = {}
    if spec.cpu_millis:
        values["cpu.weight"] = str(min(10000, max(1, spec.cpu_millis // 10)))
    if spec.cpu_max_millis:
        values["cpu.max"] = f"{_quota_micros(spec.cpu_max_millis)} {_PERIOD_MICROS}"
    return values


def _quota_micros(millis: int) -> int:
    return max(_QUOTA_MICROS_MIN, millis * _PERIOD_MICROS // 1000)


def _cores() -> int:
    return os.cpu_count() or 1
