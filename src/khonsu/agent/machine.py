"""What a machine is and has: looked up where the system tells it. Everything here blocks, shortly."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from khonsu.drivers.cgroups import own_groups
from khonsu.drivers.programs import node_platform
from khonsu.supervisor.processes import boot_id

DISK_STEP_BYTES: Final = 2**20
_NO_LIMIT_BYTES: Final = 2**60
_VERSION = re.compile(r"\d+(?:\.\d+)*", re.ASCII)


@frozen(kw_only=True)
class Machine:
    """What was found. Memory and CPU are what this process may use of them."""

    os: str
    arch: str
    kernel: str
    hostname: str
    boot_id: str
    cpu_millis: int
    memory_bytes: int
    disk_bytes: int
    """What was free below the data directory."""


def look_around(data_dir: Path, *, proc: Path = Path("/proc")) -> Machine:
    """Return what this machine is and has."""
    system, arch = node_platform().split("/")
    kernel = _VERSION.match(platform.release())
    groups = _groups(proc)
    cpu_quotas = [*_cpu_quotas_v2(groups.get("")), *_cpu_quotas_v1(groups.get("cpu"))]
    memory_limits = [*_limits(groups.get(""), "memory.max"), *_limits(groups.get("memory"), "memory.limit_in_bytes")]
    return Machine(
        os=system,
        arch=arch,
        kernel=kernel[0] if kernel is not None else platform.release(),
        hostname=socket.gethostname(),
        boot_id=boot_id(),
        cpu_millis=min([1000 * _cores(), *cpu_quotas]),
        memory_bytes=min([_memory_bytes(proc), *memory_limits]),
        disk_bytes=shutil.disk_usage(data_dir).free // DISK_STEP_BYTES * DISK_STEP_BYTES,
    )


def local_address(host: str, port: int) -> str:
    """Return the address of this machine on the way to another; nothing is sent. `127.0.0.1` where there is no way."""
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(place)
                return str(probe.getsockname()[0])
    except (OSError, UnicodeError):
        pass
    return "127.0.0.1"


def _cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes(proc: Path) -> int:
    try:
        for line in (proc / "meminfo").read_text("ascii").splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups(proc: Path) -> dict[str, Path]:
    try:
        return own_groups(proc / "self")
    except (OSError, ValueError):
        return {}


def _up(group: Path | None, file: str) -> Iterator[str]:
    """Yield what a file says in a group and in those above it."""
    while group is not None:
        try:
            yield (group / file).read_text("ascii").strip()
        except OSError:
            # The root of version 2 has no limits of its own; above the hierarchy there is nothing at all.
            if not (group / "cgroup.procs").exists():
                return
        group = group.parent if group.parent != group else None


def _limits(group: Path | None, file: str) -> Iterator[int]:
    for text in _up(group, file):
        if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
            yield int(text)


def _cpu_quotas_v2(group: Path | None) -> Iterator[int]:
    for text in _up(group, "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            yield max(1, int(quota) * 1000 // int(period))


def _cpu_quotas_v1(group: Path | None) -> Iterator[int]:
    for quota, period in zip(_up(group, "cpu.cfs_quota_us"), _up(group, "cpu.cfs_period_us"), strict=False):
        if quota.isdigit() and period.isdigit() and int(period):
            yield max(1, int(quota) * 1000 // int(period))
