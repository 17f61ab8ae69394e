"""Where cgroups can be made, on descriptions of machines that this one is not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from khonsu.abc.driver import SpawnSpec
from khonsu.drivers.cgroups import CgroupSupport, cgroup_support, own_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

V1 = {"memory": "memory", "cpu": "cpu,cpuacct"}


def process(folder: Path, mounts: Mapping[str, tuple[str, str, str]], groups: str) -> Path:
    """Return a description of a process: mounts (place to kind, root, options), and its groups."""
    proc = folder / "proc"
    proc.mkdir()
    lines = [
        f"30 23 0:26 {root} {place} rw - {kind} {kind} {options}" for place, (kind, root, options) in mounts.items()
    ]
    (proc / "mountinfo").write_text("\n".join(["22 1 8:1 / / rw - ext4 /dev/sda rw", *lines]) + "\n")
    (proc / "cgroup").write_text(groups)
    return proc


def spec(**limits: int) -> SpawnSpec:
    """Return a process with limits."""
    where = {"executable": "/bin/true", "cwd": "/", "directory": "/data/attempt", "log_directory": "/data/logs"}
    return SpawnSpec(argv=("true",), env={}, **where, **limits)  # type: ignore[arg-type]


def test_groups_of_version_1_are_found(tmp_path: Path) -> None:
    """Each controller has a hierarchy, perhaps shared with another, perhaps seen from inside a container."""
    mounts = {
        "/cg/memory": ("cgroup", "/docker/abc", "rw,memory"),
        "/cg/cpu,cpuacct": ("cgroup", "/", "rw,cpu,cpuacct"),
    }
    proc = process(tmp_path, mounts, "4:memory:/docker/abc/inner\n3:cpu,cpuacct:/user\n0::/\n")
    found = own_groups(proc)
    assert found["memory"] == Path("/cg/memory/inner")
    assert found["cpu"] == Path("/cg/cpu,cpuacct/user")


@pytest.mark.parametrize("groups", ["", "0::/\n", "1:name=systemd:/\n"])
def test_no_hierarchy_is_no_support(tmp_path: Path, groups: str) -> None:
    """Where nothing is mounted nothing can be limited, and it says so."""
    support = cgroup_support("khonsu-x", proc=process(tmp_path, {}, groups))
    assert (support.version, support.memory, support.cpu) == (0, None, None)
    assert support.message == "no cgroup hierarchy with a memory controller is mounted"
    assert support.task_group(spec(memory_bytes=1)) is None


def test_no_proc_is_no_support(tmp_path: Path) -> None:
    """A system without /proc has no cgroups."""
    assert cgroup_support("khonsu-x", proc=tmp_path / "none").message.startswith("no cgroups: ")


def test_a_group_that_may_not_be_written_is_no_support(tmp_path: Path) -> None:
    """A hierarchy in which nothing can be made is named with the reason."""
    mounts = {str(tmp_path / "none"): ("cgroup", "/", "rw,memory")}
    support = cgroup_support("khonsu-x", proc=process(tmp_path, mounts, "4:memory:/\n"))
    assert support.memory is None
    assert "memory: No such file or directory" in support.message
    assert "no cpu controller" in support.message


def test_version_2_without_delegation_is_no_support(tmp_path: Path) -> None:
    """In version 2 the memory controller has to be delegated to the agent's group."""
    own = tmp_path / "cg" / "user.slice"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu pids\n")
    proc = process(tmp_path, {str(tmp_path / "cg"): ("cgroup2", "/", "rw")}, "0::/user.slice\n")
    assert cgroup_support("khonsu-x", proc=proc).message == f"the memory controller is not delegated to {own}"


def test_version_2_does_not_move_others(tmp_path: Path) -> None:
    """When others share the agent's group, they are left where they are, and there is no support."""
    own = tmp_path / "cg"
    own.mkdir()
    for name, text in {"controllers": "cpu memory", "subtree_control": "", "type": "domain", "procs": "1\n"}.items():
        (own / f"cgroup.{name}").write_text(text)
    proc = process(tmp_path, {str(own): ("cgroup2", "/", "rw")}, "0::/\n")
    support = cgroup_support("khonsu-x", proc=proc)
    assert support.message == f"no cgroup can be made below {own}: other processes are in the agent's own group"
    assert not (own / "khonsu-agent").exists()


def test_version_2_moves_the_agent_into_a_leaf(tmp_path: Path) -> None:
    """The agent leaves its group for a leaf, since a group has processes or limited children, not both."""
    own = tmp_path / "cg"
    own.mkdir()
    (own / "khonsu-agent").mkdir()
    us = str(os.getpid())
    for name, text in {"controllers": "cpu memory", "subtree_control": "", "type": "domain", "procs": us}.items():
        (own / f"cgroup.{name}").write_text(text)
    proc = process(tmp_path, {str(own): ("cgroup2", "/", "rw")}, "0::/\n")
    support = cgroup_support("khonsu-x", proc=proc)
    assert (own / "khonsu-agent" / "cgroup.procs").read_text() == us
    assert (own / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (support.version, support.memory, support.cpu) == (2, own / "khonsu-x", own / "khonsu-x")
    assert support.bases[own / "khonsu-x"]["cgroup.subtree_control"] == "+cpu +memory"


def test_a_group_that_goes_with_its_last_task_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of before that ends while we look takes the group for all with it; then we look again."""
    for controller in ("memory", "cpu"):
        (tmp_path / controller).mkdir()
    mounts = {str(tmp_path / name): ("cgroup", "/", f"rw,{name}") for name in ("memory", "cpu")}
    proc = process(tmp_path, mounts, "4:memory:/\n3:cpu:/\n")
    make = Path.mkdir
    gone: list[Path] = []

    def mkdir(path: Path, *arguments: object, **options: object) -> None:
        if path.name == "probe" and path.parent not in gone:
            gone.append(path.parent)
            shutil.rmtree(path.parent)
        make(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", mkdir)
    support = cgroup_support("khonsu-x", proc=proc)
    assert (support.version, support.message) == (1, "")
    assert gone == [tmp_path / name / "khonsu-x" for name in ("memory", "cpu")]


def settings(support: CgroupSupport, **limits: int) -> dict[str, str]:
    """Return what would be written, by the names of the files."""
    group = support.task_group(spec(**limits))
    assert group is not None
    return {Path(path).name: value for path, value in group["settings"]}


def test_limits_in_version_1() -> None:
    """Memory is a limit for swap, too; CPU a weight, and a quota where one is asked for."""
    files = frozenset(
        {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"}
        | {"cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"}
    )
    support = CgroupSupport(version=1, memory=Path("/m/base"), cpu=Path("/c/base"), files=files)
    assert settings(support, memory_bytes=100, memory_max_bytes=300, cpu_millis=250, cpu_max_millis=1) == {
        "memory.limit_in_bytes": "300",
        "memory.memsw.limit_in_bytes": "300",
        "memory.soft_limit_in_bytes": "100",
        "cpu.shares": "256",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "1000",
    }
    assert settings(support, cpu_millis=1) == {"cpu.shares": "2"}
    group = support.task_group(spec())
    assert group is not None
    assert len(group["groups"]) == 2
    assert group["events"] == f"{group['groups'][0]}/memory.oom_control"


def test_limits_in_version_2() -> None:
    """The same in the words of version 2, without what this kernel does not know."""
    files = frozenset({"memory.max", "memory.oom.group", "memory.low", "cpu.weight", "cpu.max"})
    support = CgroupSupport(version=2, memory=Path("/u/base"), cpu=Path("/u/base"), files=files)
    assert settings(support, memory_bytes=100, memory_max_bytes=300, cpu_millis=250, cpu_max_millis=1500) == {
        "memory.max": "300",
        "memory.oom.group": "1",
        "memory.low": "100",
        "cpu.weight": "25",
        "cpu.max": "150000 100000",
    }
    assert settings(support, memory_bytes=100, cpu_millis=1) == {
        "memory.max": "100",
        "memory.oom.group": "1",
        "cpu.weight": "1",
    }
    group = support.task_group(spec())
    assert group is not None
    assert len(group["groups"]) == 1
    assert group["events"] == f"{group['groups'][0]}/memory.events"
