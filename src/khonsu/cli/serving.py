"""Programs that serve until they are told to end."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import click

from khonsu.cli.running import execute
from khonsu.client.resolve import ADDRESS_FILE
from khonsu.env import calm_collector
from khonsu.errors import UnsafeFile
from khonsu.scopes import bare_task_group

if TYPE_CHECKING:
    from khonsu.cli.output import Out

LEVELS: Final = ("debug", "info", "warning", "error")
DATA_MODE: Final = 0o700


def log_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--log-level`."""
    return click.option(
        "--log-level", type=click.Choice(LEVELS), default="warning", show_default=True, help="What is told on stderr."
    )(function)


class Ending:
    """When a program is to end: by itself where it serves already, else by being cancelled."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        """Take what the program runs in."""
        self._scope = scope
        self._told = anyio.Event()
        self._serving = False

    async def told(self) -> None:
        """Serve until told to end; then what was entered is to be left in order."""
        self._serving = True
        calm_collector()
        await self._told.wait()

    def tell(self) -> None:
        """Tell the program to end."""
        self._told.set()
        if not self._serving:
            self._scope.cancel()

    @property
    def began(self) -> bool:
        """Return whether the program was told."""
        return self._told.is_set()


def serve(body: Callable[[Ending], Awaitable[None]], out: Out, *, log_level: str) -> None:
    """Run a program until SIGTERM or SIGINT, which end it in order; a second one ends it at once."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    async def work() -> None:
        async with bare_task_group() as group:
            ending = Ending(group.cancel_scope)
            await group.start(_end_on_signal, ending, out)
            await body(ending)
            group.cancel_scope.cancel()

    execute(work, out)


async def _end_on_signal(
    ending: Ending, out: Out, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            if ending.began:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            out.note(f"{signal.Signals(number).name}: ending; once more ends it at once")
            ending.tell()


def made_directory(path: Path) -> Path:
    """Return a data directory as an absolute path; it is made, for its owner only, if it is not there.

    Raises:
        UnsafeFile: It cannot be made.

    """
    try:
        path.mkdir(mode=DATA_MODE, parents=True, exist_ok=True)
    except OSError as error:
        hint = "Choose a directory of your own with --data-dir"
        raise UnsafeFile(str(path), f"cannot be made: {error.strerror}", hint=hint) from None
    return path.absolute()


@asynccontextmanager
async def known_address(data_dir: Path, address: str) -> AsyncGenerator[None, None]:
    """Keep the address of a server in its data directory while it runs, for clients on this machine."""
    file = anyio.Path(data_dir / ADDRESS_FILE)
    await file.write_text(address + "\n", encoding="utf-8")
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await file.unlink(missing_ok=True)


def announce(out: Out, facts: dict[str, str | None], lines: tuple[str, ...]) -> None:
    """Say that a program is ready: the facts as an object for programs, lines for people."""
    if out.as_json:
        out.json(facts)
    else:
        for line in lines:
            out.line(line)
    sys.stdout.flush()
