"""What `khonsu doctor` looks at. Each check returns what it found, and what to do about it; none changes anything."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import asdict, frozen

from khonsu.client.profiles import development_directory
from khonsu.client.resolve import ADDRESS_FILE, DATA_VARIABLE, SERVER_VARIABLE, TOKEN_FILE
from khonsu.core.units import format_size
from khonsu.errors import InvalidRequest, KhonsuError, NotAllowed

if TYPE_CHECKING:
    from khonsu.cli.running import Dial
    from khonsu.core.results import SystemStatus
    from khonsu.env import Env

CLOCK_SECONDS_MAX: Final = 5.0
FREE_BYTES_MIN: Final = 2**30
OPEN_FILES_MIN: Final = 1_024
BUILT_AFTER: Final = 1_750_000_000.0
"""No clock that is right shows an earlier time: 2025-06-15."""
PRIVATE_FILES: Final = (TOKEN_FILE, "ca.key", "state.db")

Status = Literal["ok", "warning", "wrong"]


@frozen
class Finding:
    """What a check found."""

    check: str
    status: Status
    found: str
    advice: str = ""

    def shape(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


@frozen
class Reached:
    """Whether the control plane was reached, what it said, and how far its clock is from ours, in seconds."""

    finding: Finding
    status: SystemStatus | None = None
    skew_seconds: float = 0.0


def data_directory(dial: Dial) -> Path | None:
    """Return the data directory of the server on this machine, if one is meant."""
    if dial.data_dir is not None:
        return dial.data_dir
    if dial.server is not None:
        return None
    if os.environ.get(DATA_VARIABLE):
        return Path(os.environ[DATA_VARIABLE])
    development = development_directory()
    return development if (development / ADDRESS_FILE).exists() else None


def open_files() -> Finding:
    """Check how many files a process may have open: an agent needs three for each task."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES_MIN:
        return Finding("open files", "warning", f"a process may open {soft}", "Raise it: `ulimit -n 65536`")
    return Finding("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"a process may open {soft}")


def permissions(data_dir: Path) -> Finding:
    """Check that a server's directory and its secrets are for its owner only."""
    finding = private("data directory", data_dir)
    if finding.status != "ok":
        return finding
    for name in PRIVATE_FILES:
        file = data_dir / name
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            return Finding("data directory", "wrong", f"others can use {file}", f"Run: chmod 600 {file}")
    return finding


def private(check: str, directory: Path) -> Finding:
    """Check that a directory is there, is ours, and cannot be written by others."""
    if not directory.is_dir():
        return Finding(check, "wrong", f"there is no {directory}", "Check the name; a first start makes it")
    status = directory.stat()
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return Finding(check, "wrong", f"{directory} is not for this user", "Run as its owner")
    if status.st_mode & stat.S_IWOTH:
        return Finding(check, "wrong", f"everybody can write to {directory}", f"Run: chmod 700 {directory}")
    return Finding(check, "ok", f"{directory} is private")


def database(data_dir: Path) -> Finding:
    """Check the state file, without opening it for writing."""
    from khonsu.cli.wiring import STATE_FILE
    from khonsu.stores.file import check_file

    file = data_dir / STATE_FILE
    if not file.exists():
        return Finding("database", "ok", f"there is no {file} yet; a first start makes it")
    try:
        check_file(file)
    except KhonsuError as error:
        return Finding("database", "wrong", error.message, error.hint)
    return Finding("database", "ok", f"{file} is whole ({format_size(file.stat().st_size)})")


def disk(directory: Path) -> Finding:
    """Check that there is room."""
    if not directory.is_dir():
        return Finding("disk", "warning", f"there is no {directory}")
    free = shutil.disk_usage(directory).free
    if free < FREE_BYTES_MIN:
        return Finding("disk", "wrong", f"only {format_size(free)} are free at {directory}", "Make room, or move it")
    return Finding("disk", "ok", f"{format_size(free)} are free at {directory}")


def port(listen: str) -> Finding:
    """Check whether a server could serve at an address."""
    host, _, number = listen.rpartition(":")
    try:
        with socket.create_server((host.strip("[]") or "127.0.0.1", int(number))):
            return Finding("port", "ok", f"{listen} is free")
    except (OSError, ValueError, OverflowError) as error:
        advice = f"`ss -ltnp 'sport = :{number}'` names the program; or take another port with --listen"
        return Finding("port", "wrong", f"a server cannot listen on {listen}: {error}", advice)


async def reach(dial: Dial, env: Env) -> Reached:
    """Ask the control plane how it is."""
    try:
        client, server = dial.client()
        async with client:
            await client.status()  # what is made for the first request shall not count as the way there
            before = env.now()
            status = await client.status()
            after = env.now()
    except InvalidRequest as error:
        meant = dial.server is not None or os.environ.get(SERVER_VARIABLE)
        return Reached(Finding("control plane", "wrong" if meant else "warning", error.message, error.hint))
    except NotAllowed as error:
        advice = error.hint or "Log in again with a credential that is known there"
        return Reached(Finding("control plane", "wrong", error.message, advice))
    except KhonsuError as error:
        return Reached(Finding("control plane", "wrong", error.message, error.hint or "Check that it runs"))
    found = f"{server} answers: Khonsu {status.version}, {status.jobs} jobs, {status.allocations_live} live allocations"
    return Reached(Finding("control plane", "ok", found), status, status.now - (before + after) / 2)


def clock(reached: Reached, env: Env) -> Finding:
    """Compare the clock with the control plane's, or with what it must at least be."""
    advice = "Set the clock, and let a time service keep it: `timedatectl set-ntp true`"
    if env.now() < BUILT_AFTER:
        return Finding("clock", "wrong", "this machine's clock is years behind", advice)
    if reached.status is None:
        return Finding("clock", "ok", "there is no other clock to compare with")
    skew = abs(reached.skew_seconds)
    if skew > CLOCK_SECONDS_MAX:
        return Finding("clock", "wrong", f"it is {skew:.0f} s off from the control plane's", advice)
    return Finding("clock", "ok", f"it agrees with the control plane's to {max(skew, 0.001):.3f} s")


def nodes(status: SystemStatus) -> Finding:
    """Check whether there are nodes, and whether all are heard of."""
    if status.nodes_down:
        advice = "`khonsu node list` shows them. Start their agents again, or `khonsu node remove` them"
        return Finding("nodes", "warning", f"{status.nodes_down} down, {status.nodes_ready} ready", advice)
    if not status.nodes_ready:
        return Finding("nodes", "warning", "there are none", "`khonsu node invite` prints how a machine becomes one")
    return Finding("nodes", "ok", f"{status.nodes_ready} ready")
