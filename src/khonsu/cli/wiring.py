"""The wiring: which concrete parts the command line composes. Nothing else of it names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from khonsu.abc.driver import AnyDriver
from khonsu.agent.agent import Agent, OnExit
from khonsu.api.listener import HTTPListener
from khonsu.control.plane import ControlPlane
from khonsu.core.job import Resources
from khonsu.core.schema import config_schema
from khonsu.core.secret import Secret
from khonsu.drivers.registry import BUILT_IN, load_driver
from khonsu.stores.sqlite import SQLiteStore
from khonsu.transports.http import HTTPTransport

STATE_FILE = "state.db"


def control_plane(data_dir: Path, listen: str, advertise: Iterable[str]) -> ControlPlane:
    """Return a control plane with its state in a file of its data directory."""
    return ControlPlane(
        store=SQLiteStore(data_dir / STATE_FILE),
        listeners=[HTTPListener(listen, advertise=tuple(advertise))],
        data_dir=data_dir,
    )


def remote_agent(
    name: str,
    server: str,
    data_dir: Path,
    *,
    ca: Path | None,
    join_token: Secret | None,
    drivers: Iterable[str],
    labels: Mapping[str, str],
    pool: str,
    resources: Resources | None,
    artifact_networks: Sequence[str],
    on_exit: OnExit,
) -> Agent:
    """Return an agent of a control plane that is reached over HTTPS."""
    return Agent(
        name,
        transport=HTTPTransport(server, ca=ca),
        drivers=load_drivers(drivers),
        data_dir=data_dir,
        join_token=join_token,
        labels=labels,
        pool=pool,
        resources=resources,
        artifact_networks=artifact_networks,
        on_exit=on_exit,
    )


def local_agent(
    name: str,
    control: ControlPlane,
    data_dir: Path,
    *,
    drivers: Iterable[str],
    labels: Mapping[str, str],
    artifact_networks: Sequence[str],
    on_exit: OnExit,
) -> Agent:
    """Return an agent of a control plane in this process, which must be running."""
    return Agent(
        name,
        transport=control.transport(),
        drivers=load_drivers(drivers),
        data_dir=data_dir,
        labels=labels,
        artifact_networks=artifact_networks,
        on_exit=on_exit,
    )


def load_drivers(names: Iterable[str]) -> list[AnyDriver]:
    """Return new drivers by their names.

    Raises:
        NotFound: There is none of a name; tells those that there are.

    """
    return [load_driver(name) for name in dict.fromkeys(names)]


def driver_schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of the config of each built-in driver."""
    return {name: config_schema(load_driver(name).config_type) for name in BUILT_IN}
