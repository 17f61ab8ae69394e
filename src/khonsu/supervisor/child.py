"""What happens between the fork of a task's process and its own program."""

from __future__ import annotations

import errno
import json
import os

from .processes import die_with_parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .orders import Orders

_TEXT_MAX = 80  # a line of reports has to fit into what a pipe takes in one piece (512 bytes on macOS)

GO = b"g"
GIVEN_UP = "server"
"""The step that fails when the word does not come."""


def become_task(orders: Orders, helper: int) -> NoReturn:
    """Turn this new process into the task; never returns.

    Limits, signals and standard input are as the fork server has set them up, and it puts us into our cgroups while we
    wait for its word, which comes once it is recorded who we are. It is short because every page that is touched here
    is copied first.

    Args:
        orders: What to run. Its report gets the step that failed, the error's number and its text; it is closed
            without a word by a successful exec.
        helper: The process whose end is also ours.

    """
    step = "session"
    try:
        os.setsid()
        os.umask(0o022)
        step = "user"
        if orders.groups is not None:
            os.setgroups(orders.groups)
        if orders.gid is not None:
            os.setgid(orders.gid)
        if orders.uid is not None:
            os.setuid(orders.uid)
        die_with_parent(helper)  # after the change of user, which would undo it
        step = "cwd"
        os.chdir(orders.cwd)
        os.dup2(orders.stdout_end, 1)
        os.dup2(orders.stderr_end, 2)
        step = GIVEN_UP
        if os.read(orders.go_end, 1) != GO:
            raise OSError(errno.ECANCELED, "the fork server gave it up")
        step = "exec"
        os.execve(orders.executable, orders.argv, orders.env)  # noqa: S606 - no shell, on purpose
    except OSError as error:
        _tell(orders.report_end, step, error.errno or errno.EINVAL, error.strerror or str(error))
    except BaseException as error:  # noqa: BLE001 - nothing may unwind into the helper's code
        _tell(orders.report_end, step, errno.EINVAL, f"{type(error).__name__}: {error}")
    os._exit(127)


def _tell(report: int, step: str, number: int, text: str) -> None:
    os.write(report, json.dumps([step, number, text[:_TEXT_MAX]]).encode())
