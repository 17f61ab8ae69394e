from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from khonsu.agent.machine import local_address, look_around

if TYPE_CHECKING:
    from pathlib import Path


def test_this_machine(tmp_path: Path) -> None:
    """What is found is what the system itself says, or less where a limit holds."""
    found = look_around(tmp_path)
    assert found.os == ("darwin" if sys.platform == "darwin" else "linux")
    assert found.hostname == socket.gethostname()
    assert os.uname().release.startswith(found.kernel)
    assert 0 < found.cpu_millis <= 1000 * (os.cpu_count() or 1)
    assert 0 < found.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found.boot_id
    assert found == look_around(tmp_path) or found.disk_bytes > 0


class Box:
    """A /proc and a cgroup hierarchy of our own."""

    def __init__(self, root: Path, mount: str, groups: str) -> None:
        self.proc = root / "proc"
        self.cgroup = root / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "meminfo").write_text("MemTotal:        8388608 kB\nMemFree: 1 kB\n")
        (self.proc / "self" / "mountinfo").write_text(mount.format(root=self.cgroup))
        (self.proc / "self" / "cgroup").write_text(groups)

    def group(self, path: str, **files: str) -> None:
        folder = self.cgroup / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text("")
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text + "\n")


V2 = "30 1 0:26 / {root} rw - cgroup2 cgroup2 rw\n"
V1 = (
    "30 1 0:26 / {root}/memory rw - cgroup cgroup rw,memory\n31 1 0:27 / {root}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
)


def test_limits_of_a_container(tmp_path: Path) -> None:
    """In version 2 the tightest limit of the own group and of those above it counts."""
    box = Box(tmp_path, V2, "0::/a/b\n")
    box.group(".")
    box.group("a", memory__max="1073741824", cpu__max="50000 100000")
    box.group("a/b", memory__max="max", cpu__max="max 100000")
    found = look_around(tmp_path, proc=box.proc)
    assert found.memory_bytes == 2**30
    assert found.cpu_millis == 500


def test_limits_of_an_older_container(tmp_path: Path) -> None:
    """In version 1 each controller has a hierarchy of its own, and no limit is a very large one."""
    box = Box(tmp_path, V1, "2:memory:/a\n1:cpu,cpuacct:/a\n")
    box.group("memory", memory__limit_in_bytes="9223372036854771712")
    box.group("memory/a", memory__limit_in_bytes="2147483648")
    box.group("cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    box.group("cpu/a", cpu__cfs_quota_us="25000", cpu__cfs_period_us="100000")
    found = look_around(tmp_path, proc=box.proc)
    assert found.memory_bytes == 2**31
    assert found.cpu_millis == 250


def test_without_limits_and_without_cgroups(tmp_path: Path) -> None:
    """Where nothing limits us the machine's memory counts; where there is no /proc the system is asked."""
    box = Box(tmp_path, V2, "0::/\n")
    box.group(".")
    assert look_around(tmp_path, proc=box.proc).memory_bytes == 8 * 2**30
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert look_around(tmp_path, proc=tmp_path / "nothing").memory_bytes == physical


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_address_towards_a_server(host: str) -> None:
    """The way to this machine begins at its loopback address."""
    assert local_address(host, 4747) in {"127.0.0.1", "::1"}


def test_the_address_towards_nowhere() -> None:
    """A name that nobody knows leaves the loopback address."""
    assert local_address("nowhere.invalid", 4747) == "127.0.0.1"
