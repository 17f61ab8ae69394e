"""A job of the words on the command line: `khonsu run -- /bin/echo hi`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import click
from attrs import frozen

from khonsu.cli.words import pairs

if TYPE_CHECKING:
    from khonsu.core.job import Job, PortLike

_NO_NAME: Final = re.compile(r"[^a-z0-9-]+")
NAME_LENGTH_MAX: Final = 60


@frozen(kw_only=True)
class Wishes:
    """What the options say of a job that is made of a command."""

    name: str | None = None
    type: str = "batch"
    count: int = 1
    cpu: str = "0.1"
    memory: str = "128MiB"
    ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        """Return whether any option says something."""
        return self != Wishes()


def job_of(argv: Sequence[str], wishes: Wishes) -> Job:
    """Return a job that runs a command; one that ends by itself is not tried again when it fails.

    Raises:
        InvalidJob: It is none that could run; has every mistake.
        click.UsageError: An option cannot be read.

    """
    from khonsu.core.job import Job, Reschedule, Resources, Restart
    from khonsu.core.states import JobType
    from khonsu.core.validate import ensure_valid
    from khonsu.drivers.binary import BinaryConfig

    # Whoever waits for a command wants to hear at once that it failed.
    once = not JobType(wishes.type).keeps_running
    try:
        job = Job.single(
            wishes.name or name_of(argv[0]),
            BinaryConfig(argv[0], args=argv[1:]),
            type=wishes.type,
            count=wishes.count,
            resources=Resources(cpu=wishes.cpu, memory=wishes.memory),
            ports=_ports(wishes.ports),
            env=pairs(wishes.env, "--env"),
            constraints=wishes.constraints,
            restart=Restart(attempts=0) if once else None,
            reschedule=Reschedule(attempts=0) if once else None,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return ensure_valid(job)


def name_of(command: str) -> str:
    """Return the name of a job that runs a command: that of the program, as far as a job can have it."""
    name = _NO_NAME.sub("-", PurePath(command).name.lower()).strip("-")[:NAME_LENGTH_MAX]
    return name if name and name[0].isalpha() else f"job-{name}".rstrip("-")


def _ports(words: Iterable[str]) -> dict[str, PortLike]:
    """Return ports: `http` is a dynamic one, `http=8080` that one."""
    found: dict[str, PortLike] = {}
    for word in words:
        name, equals, number = word.partition("=")
        if equals and not (number.isascii() and number.isdigit()):
            raise click.UsageError(f"--port {word!r} is neither NAME nor NAME=NUMBER")
        found[name] = int(number) if equals else "dynamic"
    return found
