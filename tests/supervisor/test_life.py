"""Real processes: how they start, what is known of their end, and that nothing of them is left."""

from __future__ import annotations

import os
import pwd
import signal
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from khonsu.errors import DriverError
from khonsu.supervisor.processes import look
from tests.supervisor.tasks import PATIENCE_SECONDS, fifo, is_alive, output, python, shell, spec, until_gone, word

if TYPE_CHECKING:
    from pathlib import Path

    from khonsu.drivers.supervisor import Supervisor

pytestmark = pytest.mark.anyio

IS_ROOT = os.getuid() == 0


async def test_the_exit_code_and_the_output_are_kept(supervisor: Supervisor, tmp_path: Path) -> None:
    """A task's exit code and both of its streams are there after its end."""
    handle = await supervisor.spawn(shell(tmp_path, "echo out; echo err >&2; exit 7"))
    ended = await supervisor.wait(handle)
    assert (ended.code, ended.signal, ended.out_of_memory, ended.ok) == (7, None, False, False)
    assert ended.finished_at > 0
    assert (output(tmp_path), output(tmp_path, "stderr")) == ("out\n", "err\n")


async def test_success_is_code_zero(supervisor: Supervisor, tmp_path: Path) -> None:
    """A task that ends well has the code 0."""
    assert (await supervisor.wait(await supervisor.spawn(spec(tmp_path, "/bin/true")))).ok


async def test_a_signal_is_no_exit_code(supervisor: Supervisor, tmp_path: Path) -> None:
    """A task that dies by a signal has that signal, and no code."""
    ended = await supervisor.wait(await supervisor.spawn(shell(tmp_path, "kill -SEGV $$")))
    assert (ended.code, ended.signal) == (None, signal.SIGSEGV)


async def test_the_world_of_a_task_is_what_was_asked_for(supervisor: Supervisor, tmp_path: Path) -> None:
    """Environment, folder, descriptors, mask, limits and signals are as stated, whatever those of the agent are."""
    script = """
import os, resource, signal, stat, sys
environ = sorted(open('/proc/self/environ').read().split(chr(0))[:-1])
print(environ, os.getcwd(), sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:4])
print(oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_CORE)[0], os.getpid() == os.getsid(0) == os.getpgrp())
print(os.fstat(0).st_rdev == os.stat('/dev/null').st_rdev, stat.S_ISFIFO(os.fstat(1).st_mode))
ignored = int([l for l in open('/proc/self/status') if l.startswith('SigIgn')][0].split()[1], 16)
ignored &= ~(1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)  # Python's own
ignored &= ~(1 << 31 | 1 << 32)  # the C library's own (32, 33): ignored where `posix_spawn` started an ancestor
print(ignored, signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    env = {"A": "1", "Ü": "ö €", "PYTHONUTF8": "1"}
    handle = await supervisor.spawn(python(tmp_path, script, cwd=str(tmp_path), env=env))
    ended = await supervisor.wait(handle)
    assert ended.ok, output(tmp_path, "stderr")
    lines = output(tmp_path).splitlines()
    assert lines[0].startswith(f"['A=1', 'PYTHONUTF8=1', 'Ü=ö €'] {tmp_path} [0, 1, 2, ")
    assert lines[1:] == ["0o22 0 True", "True True", "0 set()"]


@pytest.mark.parametrize(
    ("argv", "mode", "content", "message"),
    [
        (["/no/such/program"], None, "", "there is no /no/such/program"),
        (["{folder}/plain"], 0o644, "#!/bin/sh\n", "is not executable for the user who would run it"),
        (["{folder}/script"], 0o755, "#!/no/such/shell\n", "its interpreter is not there"),
        (["{folder}/bare"], 0o755, "echo hello\n", "is no program for this machine"),
        (["{folder}/other"], 0o755, "\x7fELF\x01\x02\x01" + "\0" * 9 + "\0\x02\0\x16" + "\0" * 60, "is no program for"),
        (["/bin/true", "a\0b"], None, "", "embedded null"),
        (["/"], None, "", "is not executable"),
    ],
)
async def test_a_program_that_cannot_run_says_why(
    supervisor: Supervisor, tmp_path: Path, *, argv: list[str], mode: int | None, content: str, message: str
) -> None:
    """A start that fails says what is wrong with the program, and leaves nothing behind."""
    argv = [part.format(folder=tmp_path) for part in argv]
    if mode is not None:
        program = tmp_path / argv[0].rsplit("/", 1)[1]
        program.write_text(content, "latin-1")
        program.chmod(mode)
    with pytest.raises(DriverError, match=message) as caught:
        await supervisor.spawn(spec(tmp_path, *argv))
    assert not caught.value.retryable
    assert sorted(os.listdir(tmp_path / "attempt")) == ["lock"]


async def test_a_folder_that_is_not_there_is_named(supervisor: Supervisor, tmp_path: Path) -> None:
    """A working directory that cannot be entered fails the start."""
    with pytest.raises(DriverError, match="cannot enter the working directory /no/such/folder: No such file"):
        await supervisor.spawn(spec(tmp_path, "/bin/true", cwd="/no/such/folder"))


async def test_a_start_that_failed_can_be_tried_again(supervisor: Supervisor, tmp_path: Path) -> None:
    """An attempt whose start failed has not been used up."""
    program = tmp_path / "late"
    with pytest.raises(DriverError, match="there is no"):
        await supervisor.spawn(spec(tmp_path, str(program)))
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    assert (await supervisor.wait(await supervisor.spawn(spec(tmp_path, str(program))))).code == 3


async def test_an_attempt_is_started_once(supervisor: Supervisor, tmp_path: Path) -> None:
    """Asking again, at once or after the end, gives the same handle and starts nothing."""
    asked = shell(tmp_path, f"echo started; cat {fifo(tmp_path / 'gate')}")
    handles = []

    async def ask() -> None:
        handles.append(await supervisor.spawn(asked))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(ask)
    assert all(handle == handles[0] for handle in handles)
    (tmp_path / "gate").write_text("go\n")
    await supervisor.wait(handles[0])
    assert await supervisor.spawn(asked) == handles[0]
    assert output(tmp_path) == "started\ngo\n"


async def test_stop_asks_first(supervisor: Supervisor, tmp_path: Path) -> None:
    """A stopped task gets the signal and may end in its own way."""
    ready = fifo(tmp_path / "ready")
    script = f"trap 'echo bye; exit 5' TERM; echo up > {ready}; while :; do sleep 0.01; done"
    handle = await supervisor.spawn(shell(tmp_path, script))
    await word(tmp_path / "ready")
    await supervisor.stop(handle, signal="SIGTERM", grace_seconds=30)
    assert (await supervisor.wait(handle)).code == 5
    assert output(tmp_path) == "bye\n"


async def test_stop_kills_after_the_grace(supervisor: Supervisor, tmp_path: Path) -> None:
    """A task that does not listen is killed when the grace is over, with everything that it started."""
    ready = fifo(tmp_path / "ready")
    script = f"trap '' TERM; sleep 1000 & echo $! > {ready}; while :; do wait; done"
    handle = await supervisor.spawn(shell(tmp_path, script))
    child = int(await word(tmp_path / "ready"))
    await supervisor.stop(handle, signal="SIGTERM", grace_seconds=0.05)
    assert (await supervisor.wait(handle)).signal == signal.SIGKILL
    assert not is_alive(child)


async def test_what_is_stopped_by_a_signal_still_hears_the_stop(supervisor: Supervisor, tmp_path: Path) -> None:
    """A task that stands still (SIGSTOP) is woken up to react to its stop."""
    ready = fifo(tmp_path / "ready")
    script = f"trap 'exit 4' TERM; echo up > {ready}; kill -STOP $$; while :; do sleep 0.01; done"
    handle = await supervisor.spawn(shell(tmp_path, script))
    await word(tmp_path / "ready")
    await supervisor.stop(handle, signal="SIGTERM", grace_seconds=30)
    assert (await supervisor.wait(handle)).code == 4


async def test_the_whole_family_ends_with_its_head(supervisor: Supervisor, tmp_path: Path) -> None:
    """When a task's own process ends, its children end, those with a session of their own and orphans included."""
    ready = fifo(tmp_path / "ready")
    script = f"""
import os, sys
pids = []
def child(depth):
    pid = os.fork()
    if pid:
        return
    os.setsid()
    if depth:
        child(depth - 1)
    os.write(w, b'%d ' % os.getpid())
    import signal
    signal.pause()
r, w = os.pipe()
child(0); child(2)
text = b''
while text.count(b' ') < 4:
    text += os.read(r, 100)
open({str(tmp_path / "ready")!r}, 'w').write(text.decode())
"""
    del ready
    handle = await supervisor.spawn(python(tmp_path, script))
    pids = [int(pid) for pid in (await word(tmp_path / "ready")).split()]
    assert (await supervisor.wait(handle)).code == 0
    assert [pid for pid in pids if is_alive(pid)] == []


async def test_a_stop_reaches_who_left_the_group(supervisor: Supervisor, tmp_path: Path) -> None:
    """A grandchild in a session of its own gets the signal, too, and the time to act on it."""
    ready = fifo(tmp_path / "ready")
    inner = f"trap 'echo heard; exit' TERM; echo up > {ready}; while :; do sleep 0.01; done"
    handle = await supervisor.spawn(
        shell(tmp_path, 'setsid sh -c "$INNER" & wait', env={"INNER": inner, "PATH": "/bin:/usr/bin"})
    )
    await word(tmp_path / "ready")
    await supervisor.stop(handle, signal="SIGTERM", grace_seconds=30)
    assert (await supervisor.wait(handle)).signal == signal.SIGTERM
    assert output(tmp_path) == "heard\n"


async def test_signal_does_not_stop(supervisor: Supervisor, tmp_path: Path) -> None:
    """A signal reaches the task, which goes on."""
    ready, gate = fifo(tmp_path / "ready"), fifo(tmp_path / "gate")
    script = f"trap 'echo hup > {ready}' HUP; echo up > {ready}; while :; do read x < {gate} && exit 6; done"
    handle = await supervisor.spawn(shell(tmp_path, script))
    assert await word(tmp_path / "ready") == "up"
    await supervisor.signal(handle, "SIGHUP")
    assert await word(tmp_path / "ready") == "hup"
    await anyio.to_thread.run_sync((tmp_path / "gate").write_text, "end\n")
    assert (await supervisor.wait(handle)).code == 6


async def test_an_unknown_signal_is_refused(supervisor: Supervisor, tmp_path: Path) -> None:
    """A name that is no signal is an error, and nothing is sent."""
    handle = await supervisor.spawn(spec(tmp_path, "/bin/sleep", "1000"))
    with pytest.raises(DriverError, match="there is no signal 'SIGNOPE'"):
        await supervisor.stop(handle, signal="SIGNOPE", grace_seconds=0)
    await supervisor.stop(handle, signal="SIGKILL", grace_seconds=0)


async def test_stop_and_signal_after_the_end_do_nothing(supervisor: Supervisor, tmp_path: Path) -> None:
    """Commands for a task that has ended reach nobody."""
    handle = await supervisor.spawn(spec(tmp_path, "/bin/true"))
    await supervisor.wait(handle)
    await supervisor.signal(handle, "SIGTERM")
    await supervisor.stop(handle, signal="SIGTERM", grace_seconds=10)
    assert (await supervisor.wait(handle)).code == 0


async def test_wait_can_be_cancelled_and_asked_again(supervisor: Supervisor, tmp_path: Path) -> None:
    """A wait that is given up changes nothing."""
    handle = await supervisor.spawn(spec(tmp_path, "/bin/sleep", "1000"))
    with anyio.move_on_after(0.01) as scope:
        await supervisor.wait(handle)
    assert scope.cancelled_caught
    assert await supervisor.reattach(handle)
    await supervisor.stop(handle, signal="SIGKILL", grace_seconds=0)
    assert (await supervisor.wait(handle)).signal == signal.SIGKILL


async def test_remove_kills_what_runs(supervisor: Supervisor, tmp_path: Path) -> None:
    """Removing an attempt ends its task and leaves no file of the helper."""
    handle = await supervisor.spawn(spec(tmp_path, "/bin/sleep", "1000"))
    await supervisor.remove(str(tmp_path / "attempt"))
    assert not is_alive(int(str(handle["pid"])))
    assert not (tmp_path / "attempt").exists()
    assert not await supervisor.reattach(handle)
    await supervisor.remove(str(tmp_path / "attempt"))


@pytest.mark.parametrize("verb", ["stop", "remove"])
async def test_who_cannot_be_told_is_stopped_nonetheless(
    supervisor: Supervisor, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task whose helper's FIFO was removed gets the signal and its time; then it goes with its helper."""
    monkeypatch.setattr("khonsu.drivers.supervisor._UNHEARD_SECONDS_MIN", 0.05)
    monkeypatch.setattr("khonsu.drivers.supervisor._POLL_SECONDS_MAX", 0.02)
    script = f"trap 'echo heard' TERM; echo > {fifo(tmp_path / 'ready')}; while :; do sleep 0.01; done"
    handle = await supervisor.spawn(shell(tmp_path, script))
    await word(tmp_path / "ready")
    (tmp_path / "attempt" / "control").unlink()
    with anyio.fail_after(PATIENCE_SECONDS):
        if verb == "stop":
            await supervisor.stop(handle, signal="SIGTERM", grace_seconds=0.3)
            assert output(tmp_path) == "heard\n"
            assert (await supervisor.wait(handle)).signal == signal.SIGKILL
        else:
            await supervisor.remove(str(tmp_path / "attempt"))
            assert not (tmp_path / "attempt").exists()
    await until_gone(int(str(handle["pid"])))


async def test_remove_after_a_start_that_was_given_up(supervisor: Supervisor, tmp_path: Path) -> None:
    """A start that was cancelled half-way leaves nothing after a removal."""
    for delay in (0.0, 0.001, 0.003, 0.01):
        folder = tmp_path / str(delay)
        with anyio.move_on_after(delay):
            await supervisor.spawn(spec(folder, "/bin/sleep", "1234.5"))
        await supervisor.remove(str(folder / "attempt"))
        assert not (folder / "attempt" / "helper.json").exists()
    ended = await supervisor.wait(await supervisor.spawn(spec(tmp_path, "/bin/true")))
    assert ended.ok
    listing = anyio.run_process(["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null"], check=False)
    assert b"1234.5\0" not in (await listing).stdout


@pytest.mark.skipif(not IS_ROOT, reason="only root may run tasks as somebody else")
async def test_a_task_runs_as_its_user(supervisor: Supervisor, tmp_path: Path) -> None:
    """A task has the ids and groups of its user, can open its own output, and dies with its helper all the same."""
    script = "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), file=open('/dev/stdout', 'w'))"
    argv = ("/usr/bin/env", "python3", "-c", script)
    nobody = pwd.getpwnam("nobody")
    ended = await supervisor.wait(await supervisor.spawn(spec(tmp_path, *argv, user="nobody")))
    assert ended.ok, output(tmp_path, "stderr")
    groups = os.getgrouplist("nobody", nobody.pw_gid)
    assert output(tmp_path) == f"{(nobody.pw_uid,) * 3} {(nobody.pw_gid,) * 3} {groups}\n"

    handle = await supervisor.spawn(spec(tmp_path / "b", "/bin/sleep", "1000", user="nobody"))
    os.kill(int(str(handle["helper_pid"])), signal.SIGKILL)
    assert (await supervisor.wait(handle)).message == "the task's helper was killed, and its task with it"
    assert not is_alive(int(str(handle["pid"])))


async def test_an_unknown_user_is_refused(supervisor: Supervisor, tmp_path: Path) -> None:
    """A user whom this node does not know is named."""
    with pytest.raises(DriverError, match="there is no user 'nemo' on this node"):
        await supervisor.spawn(spec(tmp_path, "/bin/true", user="nemo"))


async def test_many_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    """Two hundred short tasks at once all end well, and leave no process behind."""
    codes = []

    async def run(number: int) -> None:
        handle = await supervisor.spawn(spec(tmp_path / str(number), "/bin/true"))
        codes.append((await supervisor.wait(handle)).code)
        await until_gone(int(str(handle["helper_pid"])))

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(run, number)
    assert codes == [0] * 200


async def test_deep_folders_and_odd_names(tmp_path: Path, supervisor: Supervisor) -> None:
    """Paths longer than a socket's address and beyond ASCII are no obstacle."""
    from khonsu.drivers.supervisor import Supervisor as Another
    from khonsu.env import SystemEnv

    deep = tmp_path / ("d" * 120) / "größe €"
    async with Another(deep / "supervisor", env=SystemEnv(), idle_seconds=0.2) as other:
        ended = await other.wait(
            await other.spawn(shell(deep, 'echo "$0" "$1"', argv=("/bin/sh", "-c", 'echo "$1"', "sh", "ä€")))
        )
    assert ended.ok
    assert output(deep) == "ä€\n"


def test_the_helpers_program_stands_alone() -> None:
    """The fork server finds nothing of Khonsu but its own package, and only the standard library beside it."""
    import subprocess
    from pathlib import Path as Folder

    from khonsu import supervisor as package

    folder = Folder(package.__file__).parents[1]
    script = (
        f"import sys; sys.path.append({str(folder)!r}); import supervisor.forkserver; "
        "print(sorted(name for name in sys.modules if name.split('.')[0] in "
        "{'khonsu', 'attrs', 'anyio', 'asyncio', 'threading', 'typing', 'dataclasses', 'inspect', 'logging'}))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_nobody_is_looked_up_for_a_pid_that_is_not_there() -> None:
    """A process that does not exist is None, not an error."""
    assert look(2**22 + 1) is None
