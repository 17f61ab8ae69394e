"""What an agent was composed of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from khonsu.abc.driver import AnyDriver, Driver
from khonsu.agent.limits import Limits
from khonsu.agent.machine import Machine, look_around
from khonsu.artifacts.networks import parse_networks
from khonsu.core.job import Resources
from khonsu.core.names import check_labels, check_name
from khonsu.drivers.supervisor import Supervisor
from khonsu.env import Env
from khonsu.errors import InvalidRequest


@frozen(kw_only=True)
class Settings:
    """Checked, and the same for all runs of one agent."""

    name: str
    drivers: Mapping[str, AnyDriver]
    directory: Path
    labels: Mapping[str, str]
    pool: str
    resources: Resources | None
    limits: Limits
    artifact_networks: tuple[str, ...]
    env: Env
    supervisor: Callable[..., Supervisor] = Supervisor
    """What keeps processes alive; made of a folder and `env`."""
    look_around: Callable[[Path], Machine] = look_around
    """Says what the machine is, given the data directory."""


def check_networks(networks: Sequence[str]) -> tuple[str, ...]:
    """Return where artifacts may be fetched from besides the public internet.

    Raises:
        InvalidRequest: One is no network.

    """
    try:
        return tuple(map(str, parse_networks(networks)))
    except ValueError as error:
        hint = "Write an address, or a network such as 192.168.1.0/24"
        raise InvalidRequest(f"artifact_networks: {error}", hint=hint) from None


def check(
    name: str, labels: Mapping[str, str], pool: str, volumes: Mapping[str, object], drivers: Sequence[AnyDriver]
) -> None:
    """Check what an agent is composed of.

    Raises:
        InvalidRequest: Something cannot be; names every mistake.

    """
    mistakes = [
        str(problem)
        for problem in (*check_name(name, "name"), *check_labels(labels, "labels"), *check_name(pool, "pool"))
    ]
    given: Sequence[object] = drivers
    names = [driver.name for driver in given if isinstance(driver, Driver)]
    if len(names) < len(drivers):
        mistakes.append("drivers: something among them is no driver")
    mistakes += [f"drivers: there are two named {twice}" for twice in sorted({n for n in names if names.count(n) > 1})]
    if volumes:
        mistakes.append("volumes: not supported yet")
    if mistakes:
        raise InvalidRequest("; ".join(mistakes))
