"""What happens between the fork of a task's process and its own program."""

from __future__ import annotations

import errno
import json
import os

from .processes import die_with_parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, TypedDict

    class Cgroup(TypedDict):
        """Groups to make and to join, values to write first, and the file that counts out-of-memory kills."""

        groups: list[str]
        settings: list[list[str]]
        events: str | None

    class Spec(TypedDict):
        """What to run; the agent has looked up and checked everything."""

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


GO = b"g"
GIVEN_UP = "server"
"""The step that fails when the word does not come."""


def become_task(spec: Spec, *, helper: int, stdout: int, stderr: int, go: int, report: int) -> NoReturn:
    """Turn this new process into the task; never returns.

    Limits, signals and standard input are as the fork server has set them up; the group for its resources is joined
    for us while we wait for the word. It is short because every page that is touched here is copied first.

    Args:
        spec: What to run.
        helper: The process whose end is also ours.
        stdout: Where output goes.
        stderr: Where the other output goes.
        go: Yields one byte once it is recorded who we are; nothing runs before.
        report: Gets the step that failed, the error's number and its text; closed by a successful exec.

    """
    step = "session"
    try:
        os.setsid()
        os.umask(0o022)
        step = "user"
        if spec["groups"] is not None:
            os.setgroups(spec["groups"])
        if spec["gid"] is not None:
            os.setgid(spec["gid"])
        if spec["uid"] is not None:
            os.setuid(spec["uid"])
        die_with_parent(helper)  # after the change of user, which would undo it
        step = "cwd"
        os.chdir(spec["cwd"])
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        step = GIVEN_UP
        if os.read(go, 1) != GO:
            raise OSError(errno.ECANCELED, "the fork server gave it up")
        step = "exec"
        os.execve(spec["executable"], spec["argv"], spec["env"])  # noqa: S606 - no shell, on purpose
    except OSError as error:
        _tell(report, step, error.errno or errno.EINVAL, error.strerror or str(error))
    except BaseException as error:  # noqa: BLE001 - nothing may unwind into the helper's code
        _tell(report, step, errno.EINVAL, f"{type(error).__name__}: {error}")
    os._exit(127)


def _tell(report: int, step: str, number: int, text: str) -> None:
    os.write(report, json.dumps([step, number, text[:200]]).encode())
