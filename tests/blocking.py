"""A detector of calls that block an event loop.

It watches what the interpreter audits (sleep, name look-ups, whole folders copied or removed, databases opened) and the
two calls that wait for a disk. A call counts when the library makes it on a thread while an event loop runs on that
thread. It measures nothing, so that a slow machine changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

AUDITED = frozenset(
    {
        "shutil.copyfile",
        "shutil.copytree",
        "shutil.make_archive",
        "shutil.rmtree",
        "shutil.unpack_archive",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "sqlite3.connect",
        "time.sleep",
    }
)
DISK = ("fsync", "fdatasync")
OURS = f"{os.sep}khonsu{os.sep}"
SIMULATED = f"{os.sep}simulation{os.sep}"  # there the threads of a host run inline
FOREIGN = f"{os.sep}site-packages{os.sep}"
STANDARD_LIBRARY = str(Path(os.__file__).parent)

found: list[str] = []


def install() -> None:
    """Watch this process from now on; audit hooks cannot be taken away again."""
    sys.addaudithook(on_audit)
    for name in DISK:
        if hasattr(os, name):
            setattr(os, name, watched(name, getattr(os, name)))


def on_audit(event: str, _arguments: tuple[object, ...]) -> None:
    """Note an audited call that blocks a loop."""
    if event in AUDITED:
        note(event)


def watched(name: str, original: Callable[[int], None]) -> Callable[[int], None]:
    """Wrap a call of `os` that is not audited."""

    def call(descriptor: int) -> None:
        note(f"os.{name}")
        original(descriptor)

    return call


def note(call: str) -> None:
    """Remember a call if a loop runs on this thread and the library made it."""
    if not loop_runs_here():
        return
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith((STANDARD_LIBRARY, "<frozen")):
        if FOREIGN in frame.f_code.co_filename:
            break
        frame = frame.f_back
    file = frame.f_code.co_filename if frame is not None else ""
    if frame is not None and OURS in file and not any(part in file for part in (f"{os.sep}tests{os.sep}", SIMULATED)):
        found.append(f"{call} in {file}:{frame.f_lineno}")


def loop_runs_here() -> bool:
    """Say whether code of an event loop runs on this thread now."""
    return trio.lowlevel.in_trio_run() or asyncio._get_running_loop() is not None
