"""What a helper is told: the data and the descriptors that go from the server through the forker to it."""

from __future__ import annotations

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypedDict

    class Cgroup(TypedDict):
        """Groups to make and to join, values to write first, and the file that counts out-of-memory kills.

        `bases` are the groups above those, for all tasks of the agent, with what is written when one is made.
        """

        bases: list[tuple[str, list[list[str]]]]
        groups: list[str]
        settings: list[list[str]]
        events: str | None

    class Spec(TypedDict):
        """What to run, as the agent asks for it; it has looked up and checked everything."""

        directory: str
        log_directory: str
        executable: str
        argv: list[str]
        env: dict[str, str]
        cwd: str
        uid: int | None
        gid: int | None
        groups: list[int] | None
        log_files: int
        log_file_bytes: int
        cgroup: Cgroup | None
        lease_path: str | None
        kill_timeout_seconds: float


DESCRIPTORS = 12
"""How many a helper is given."""


def encode_orders(serial: int, spec: Spec) -> bytes:
    """Return the orders for a helper.

    By marshal: both sides are the same process but for a fork, and reading it touches next to no memory.
    """
    cgroup = spec["cgroup"]
    return marshal.dumps(
        (
            serial,
            spec["directory"],
            spec["log_directory"],
            int(spec["log_files"]),
            int(spec["log_file_bytes"]),
            spec["lease_path"],
            float(spec["kill_timeout_seconds"]),
            spec["uid"],
            spec["gid"],
            spec["groups"],
            spec["cwd"],
            spec["executable"],
            spec["argv"],
            spec["env"],
            cgroup["groups"] if cgroup else [],
            cgroup["events"] if cgroup else None,
        )
    )


class Orders:
    """What a helper is told, and the open files that it is given."""

    __slots__ = (
        "argv", "cgroups", "control", "cwd", "directory", "env", "events", "executable", "gid", "go_end", "groups",
        "kill_timeout_seconds", "lease_path", "log_directory", "log_file_bytes", "log_files", "report", "report_end",
        "serial", "stderr", "stderr_end", "stdout", "stdout_end", "uid", "wake", "waker",
    )  # fmt: skip

    def __init__(self, data: bytes, descriptors: Sequence[int]) -> None:
        (
            self.serial,
            self.directory,
            self.log_directory,
            self.log_files,
            self.log_file_bytes,
            self.lease_path,
            self.kill_timeout_seconds,
            self.uid,
            self.gid,
            self.groups,
            self.cwd,
            self.executable,
            self.argv,
            self.env,
            self.cgroups,
            self.events,
        ) = marshal.loads(data)  # noqa: S302 - from ourselves
        # The first two are only kept open: the claim's lock, and the writer that keeps `control` from ending.
        (
            _, _, self.control, self.wake, self.waker, self.stdout, self.stdout_end, self.stderr, self.stderr_end,
            self.go_end, self.report, self.report_end,
        ) = descriptors  # fmt: skip
