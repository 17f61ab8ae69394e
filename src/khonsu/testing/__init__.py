"""Worlds and checks for tests. Nothing here needs a test framework."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from khonsu.testing.counterpart import Counterpart as Counterpart
    from khonsu.testing.drivers import DriverCheckFailed as DriverCheckFailed
    from khonsu.testing.drivers import check_driver as check_driver
    from khonsu.testing.fake_driver import FakeConfig as FakeConfig
    from khonsu.testing.fake_driver import FakeDriver as FakeDriver
    from khonsu.testing.fake_driver import FakeMachine as FakeMachine
    from khonsu.testing.fleets import ask as ask
    from khonsu.testing.fleets import fleet as fleet
    from khonsu.testing.fleets import fleet_state as fleet_state
    from khonsu.testing.schedulers import SchedulerCheckFailed as SchedulerCheckFailed
    from khonsu.testing.schedulers import check_scheduler as check_scheduler
    from khonsu.testing.simulation.world import World as World
    from khonsu.testing.stores import StoreCheckFailed as StoreCheckFailed
    from khonsu.testing.stores import check_store as check_store
    from khonsu.testing.transports import TransportCheckFailed as TransportCheckFailed
    from khonsu.testing.transports import check_transport as check_transport
    from khonsu.testing.virtual import VirtualEnv as VirtualEnv

_HOMES = {
    "Counterpart": "khonsu.testing.counterpart",
    "DriverCheckFailed": "khonsu.testing.drivers",
    "FakeConfig": "khonsu.testing.fake_driver",
    "FakeDriver": "khonsu.testing.fake_driver",
    "FakeMachine": "khonsu.testing.fake_driver",
    "SchedulerCheckFailed": "khonsu.testing.schedulers",
    "StoreCheckFailed": "khonsu.testing.stores",
    "TransportCheckFailed": "khonsu.testing.transports",
    "VirtualEnv": "khonsu.testing.virtual",
    "World": "khonsu.testing.simulation.world",
    "ask": "khonsu.testing.fleets",
    "check_driver": "khonsu.testing.drivers",
    "check_scheduler": "khonsu.testing.schedulers",
    "check_store": "khonsu.testing.stores",
    "check_transport": "khonsu.testing.transports",
    "fleet": "khonsu.testing.fleets",
    "fleet_state": "khonsu.testing.fleets",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the names have one home


def __getattr__(name: str) -> Any:
    """Load a name where it is used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the names."""
    return list(__all__)
