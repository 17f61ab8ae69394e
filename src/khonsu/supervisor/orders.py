"""What a helper is told: the text and the descriptors that go from the server through the forker to it.

The text is fields with a NUL between them, since none of them can hold one and splitting costs next to nothing.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypedDict

    class Cgroup(TypedDict):
        """Groups to make and to join, values to write first, and the file that counts out-of-memory kills."""

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


_NONE = "-"


def encode_orders(serial: int, spec: Spec) -> bytes:
    """Return the text of the orders for a helper.

    Raises:
        OSError: There is a NUL in an argument, a path or the environment.

    """
    cgroup = spec["cgroup"]
    groups = cgroup["groups"] if cgroup else []
    fields = [
        str(serial),
        spec["directory"],
        spec["log_directory"],
        str(spec["log_files"]),
        str(spec["log_file_bytes"]),
        spec["lease_path"] or "",
        str(spec["kill_timeout_seconds"]),
        _NONE if spec["uid"] is None else str(spec["uid"]),
        _NONE if spec["gid"] is None else str(spec["gid"]),
        _NONE if spec["groups"] is None else " ".join(map(str, spec["groups"])),
        spec["cwd"],
        spec["executable"],
        (cgroup["events"] if cgroup else None) or "",
        str(len(groups)),
        str(len(spec["argv"])),
        *groups,
        *spec["argv"],
        *(f"{name}={value}" for name, value in spec["env"].items()),
    ]
    text = "\0".join(fields)
    if text.count("\0") != len(fields) - 1:
        raise OSError(errno.EINVAL, "embedded null byte in an argument, a path or the environment")
    return text.encode("utf-8", "surrogateescape")


class Orders:
    """What a helper is told, and the open files that it is given."""

    __slots__ = (
        "argv", "cgroups", "control", "cwd", "directory", "env", "events", "executable", "gid", "go_end", "groups",
        "kill_timeout_seconds", "lease_path", "log_directory", "log_file_bytes", "log_files", "report", "report_end",
        "serial", "stderr", "stderr_end", "stdout", "stdout_end", "uid", "wake", "waker",
    )  # fmt: skip

    def __init__(self, text: bytes, descriptors: Sequence[int]) -> None:
        fields = text.decode("utf-8", "surrogateescape").split("\0")
        self.serial, self.directory, self.log_directory = int(fields[0]), fields[1], fields[2]
        self.log_files, self.log_file_bytes = int(fields[3]), int(fields[4])
        self.lease_path, self.kill_timeout_seconds = fields[5], float(fields[6])
        self.uid = None if fields[7] == _NONE else int(fields[7])
        self.gid = None if fields[8] == _NONE else int(fields[8])
        self.groups = None if fields[9] == _NONE else [int(group) for group in fields[9].split()]
        self.cwd, self.executable, self.events = fields[10], fields[11], fields[12]
        first = 15 + int(fields[13])
        self.cgroups = fields[15:first]
        last = first + int(fields[14])
        self.argv = fields[first:last]
        self.env = fields[last:]
        # The first two are only kept open: the claim's lock, and the writer that keeps `control` from ending.
        self.control, self.wake, self.waker, self.stdout, self.stdout_end = descriptors[2:7]
        self.stderr, self.stderr_end, self.go_end, self.report, self.report_end = descriptors[7:]


DESCRIPTORS = 12
"""How many a helper is given."""
