"""How a program with a cluster or a client of its own ends, whatever it does: nothing is left, and nothing hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from khonsu.client.portal import Portal
from khonsu.errors import KhonsuError

SECONDS_MAX = 60
HEAD = """
import os, signal, sys, threading
import khonsu
web = khonsu.Job.single("web", khonsu.BinaryConfig("/bin/sleep", args=["600"]), update=khonsu.Update(healthy_for=0))
"""
FORKED = """
cluster = khonsu.LocalCluster()
cluster.client.run(web, timeout="30s").raise_for_status()
child = os.fork()
if child == 0:
    try:
        cluster.client.jobs()
    except khonsu.KhonsuError as error:
        print(error.message, flush=True)
    cluster.close()
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print([job.name for job in cluster.client.jobs()], len(os.listdir(os.environ["TMPDIR"])))
"""
FAILED = """
with khonsu.LocalCluster() as cluster:
    cluster.client.run(web, timeout="30s").raise_for_status()
    raise LookupError("of the user")
"""
INTERRUPTED = """
class Hearing:
    def __call__(self, result):
        print(result.status, flush=True)
        threading.Timer(0.0, os.kill, (os.getpid(), signal.SIGINT)).start()
with khonsu.LocalCluster() as cluster:
    config = khonsu.BinaryConfig("/bin/sleep", args=["600"])
    cluster.client.submit(khonsu.Job.single("work", config, type="batch"))
    cluster.client.wait("work", progress=Hearing())
"""
INTERRUPTED_AT_ITS_START = """
khonsu.LocalCluster(nodes=0).close()
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
with khonsu.LocalCluster(nodes=3):
    threading.Event().wait(5)
"""


def processes_of(folder: Path) -> list[str]:
    """Return the commands of the tasks that have the folder in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
        except OSError:
            continue  # it ended, or is of another user
        if str(folder).encode() in environment and command.startswith(b"/bin/sleep"):
            found.append(command.decode().replace("\0", " "))
    return found


@pytest.mark.end_to_end
@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        pytest.param(FORKED, 0, "it is of another process\n7\n['web'] 1\n", id="forked and never closed"),
        pytest.param(FAILED, 1, "LookupError: of the user", id="an exception in the block"),
        pytest.param(INTERRUPTED, -signal.SIGINT, "KeyboardInterrupt", id="interrupted in a call"),
        pytest.param(INTERRUPTED_AT_ITS_START, -signal.SIGINT, "KeyboardInterrupt", id="interrupted at its start"),
    ],
)
def test_a_cluster_leaves_nothing(script: str, code: int, says: str, tmp_path: Path) -> None:
    """However the program ends, its tasks have ended, its folder is gone, and it tells what went wrong."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + script],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert (done.returncode, says in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_closing_ends_what_another_thread_waits_for() -> None:
    """A call that has no end, in another thread, neither keeps a portal from being closed nor goes on."""
    import anyio

    portal = Portal("khonsu-test")
    begun = threading.Event()
    errors: list[KhonsuError] = []

    async def forever() -> None:
        begun.set()
        await anyio.sleep_forever()

    def call() -> None:
        try:
            portal.call(forever)
        except KhonsuError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(SECONDS_MAX)
    portal.close()
    thread.join(SECONDS_MAX)
    assert [error.message for error in errors] == ["it is closed"]
