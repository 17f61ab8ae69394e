"""The interfaces that a plug-in author implements, each loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from khonsu.abc.driver import Driver as Driver
    from khonsu.abc.driver import DriverHost as DriverHost
    from khonsu.abc.driver import Fingerprint as Fingerprint
    from khonsu.abc.driver import Handle as Handle
    from khonsu.abc.driver import ProcessSupervisor as ProcessSupervisor
    from khonsu.abc.driver import SpawnSpec as SpawnSpec
    from khonsu.abc.driver import TaskContext as TaskContext
    from khonsu.abc.driver import TaskExit as TaskExit
    from khonsu.abc.scheduler import Scheduler as Scheduler
    from khonsu.abc.store import Change as Change
    from khonsu.abc.store import ChangeList as ChangeList
    from khonsu.abc.store import Columns as Columns
    from khonsu.abc.store import Commit as Commit
    from khonsu.abc.store import Delete as Delete
    from khonsu.abc.store import Put as Put
    from khonsu.abc.store import Store as Store
    from khonsu.abc.store import Transaction as Transaction
    from khonsu.abc.store import View as View
    from khonsu.abc.transport import ByteStream as ByteStream
    from khonsu.abc.transport import Connection as Connection
    from khonsu.abc.transport import Handler as Handler
    from khonsu.abc.transport import Identity as Identity
    from khonsu.abc.transport import Listener as Listener
    from khonsu.abc.transport import Request as Request
    from khonsu.abc.transport import Response as Response
    from khonsu.abc.transport import SupportsAuthentication as SupportsAuthentication
    from khonsu.abc.transport import SupportsPinning as SupportsPinning
    from khonsu.abc.transport import Transport as Transport

__all__ = [
    "ByteStream",
    "Change",
    "ChangeList",
    "Columns",
    "Commit",
    "Connection",
    "Delete",
    "Driver",
    "DriverHost",
    "Fingerprint",
    "Handle",
    "Handler",
    "Identity",
    "Listener",
    "ProcessSupervisor",
    "Put",
    "Request",
    "Response",
    "Scheduler",
    "SpawnSpec",
    "Store",
    "SupportsAuthentication",
    "SupportsPinning",
    "TaskContext",
    "TaskExit",
    "Transaction",
    "Transport",
    "View",
]

_HOMES = {
    "driver": "Driver DriverHost Fingerprint Handle ProcessSupervisor SpawnSpec TaskContext TaskExit",
    "scheduler": "Scheduler",
    "store": "Change ChangeList Columns Commit Delete Put Store Transaction View",
    "transport": (
        "ByteStream Connection Handler Identity Listener Request Response SupportsAuthentication "
        "SupportsPinning Transport"
    ),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Load a name."""
    from importlib import import_module

    if name not in _MODULE_OF:
        raise AttributeError(f"module 'khonsu.abc' has no attribute {name!r}")
    value: object = getattr(import_module(f"khonsu.abc.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the interfaces."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
