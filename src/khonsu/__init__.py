"""Khonsu, a workload orchestrator you import.

Every name is loaded when it is first used, so that a program pays only for the parts that it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from khonsu import abc as abc
    from khonsu import errors as errors
    from khonsu import testing as testing
    from khonsu.abc.driver import Driver as Driver
    from khonsu.abc.driver import Fingerprint as Fingerprint
    from khonsu.abc.driver import Handle as Handle
    from khonsu.abc.driver import TaskContext as TaskContext
    from khonsu.abc.driver import TaskExit as TaskExit
    from khonsu.abc.scheduler import Scheduler as Scheduler
    from khonsu.abc.scheduler import scheduler as scheduler
    from khonsu.abc.store import ChangeList as ChangeList
    from khonsu.abc.store import Commit as Commit
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
    from khonsu.abc.transport import Transport as Transport
    from khonsu.agent.agent import Agent as Agent
    from khonsu.api.listener import HTTPListener as HTTPListener
    from khonsu.client.client import Client as Client
    from khonsu.client.stream import Stream as Stream
    from khonsu.client.sync import SyncClient as SyncClient
    from khonsu.client.sync import SyncStream as SyncStream
    from khonsu.control.plane import ControlPlane as ControlPlane
    from khonsu.core.arrays import BoolArray as BoolArray
    from khonsu.core.arrays import FloatArray as FloatArray
    from khonsu.core.arrays import IntArray as IntArray
    from khonsu.core.ask import Ask as Ask
    from khonsu.core.changes import Changes as Changes
    from khonsu.core.fleet import Fleet as Fleet
    from khonsu.core.job import Affinity as Affinity
    from khonsu.core.job import Artifact as Artifact
    from khonsu.core.job import ArtifactSource as ArtifactSource
    from khonsu.core.job import Constraint as Constraint
    from khonsu.core.job import Disconnect as Disconnect
    from khonsu.core.job import Group as Group
    from khonsu.core.job import Job as Job
    from khonsu.core.job import Logs as Logs
    from khonsu.core.job import Port as Port
    from khonsu.core.job import Reschedule as Reschedule
    from khonsu.core.job import Resources as Resources
    from khonsu.core.job import Restart as Restart
    from khonsu.core.job import Spread as Spread
    from khonsu.core.job import Task as Task
    from khonsu.core.job import Update as Update
    from khonsu.core.plan import Outcome as Outcome
    from khonsu.core.plan import Plan as Plan
    from khonsu.core.plan import Snapshot as Snapshot
    from khonsu.core.protocol import LogLine as LogLine
    from khonsu.core.records import Allocation as Allocation
    from khonsu.core.records import DriverInfo as DriverInfo
    from khonsu.core.records import Evaluation as Evaluation
    from khonsu.core.records import Event as Event
    from khonsu.core.records import JobVersion as JobVersion
    from khonsu.core.records import Node as Node
    from khonsu.core.records import NodeResources as NodeResources
    from khonsu.core.records import PlacementFailure as PlacementFailure
    from khonsu.core.records import PortAssignment as PortAssignment
    from khonsu.core.records import Rollout as Rollout
    from khonsu.core.records import TaskStatus as TaskStatus
    from khonsu.core.results import Explanation as Explanation
    from khonsu.core.results import FieldChange as FieldChange
    from khonsu.core.results import GroupExplanation as GroupExplanation
    from khonsu.core.results import GroupPlan as GroupPlan
    from khonsu.core.results import GroupSummary as GroupSummary
    from khonsu.core.results import Invitation as Invitation
    from khonsu.core.results import JobInfo as JobInfo
    from khonsu.core.results import JobPlan as JobPlan
    from khonsu.core.results import JobResult as JobResult
    from khonsu.core.results import NodeExplanation as NodeExplanation
    from khonsu.core.results import Refusal as Refusal
    from khonsu.core.results import Score as Score
    from khonsu.core.results import Submission as Submission
    from khonsu.core.results import SystemStatus as SystemStatus
    from khonsu.core.retention import Retention as Retention
    from khonsu.core.revision import Revision as Revision
    from khonsu.core.secret import Secret as Secret
    from khonsu.core.states import AllocationStatus as AllocationStatus
    from khonsu.core.states import Desired as Desired
    from khonsu.core.states import Eligibility as Eligibility
    from khonsu.core.states import EvaluationStatus as EvaluationStatus
    from khonsu.core.states import JobStatus as JobStatus
    from khonsu.core.states import JobType as JobType
    from khonsu.core.states import NodeStatus as NodeStatus
    from khonsu.core.states import TaskState as TaskState
    from khonsu.core.toml import dumps_job as dumps_job
    from khonsu.core.toml import load_jobs as load_jobs
    from khonsu.core.toml import loads_jobs as loads_jobs
    from khonsu.drivers.binary import BinaryConfig as BinaryConfig
    from khonsu.drivers.binary import BinaryDriver as BinaryDriver
    from khonsu.env import Env as Env
    from khonsu.env import SystemEnv as SystemEnv
    from khonsu.errors import ArtifactError as ArtifactError
    from khonsu.errors import Conflict as Conflict
    from khonsu.errors import DigestMismatch as DigestMismatch
    from khonsu.errors import DriverError as DriverError
    from khonsu.errors import HistoryGone as HistoryGone
    from khonsu.errors import InvalidJob as InvalidJob
    from khonsu.errors import InvalidRequest as InvalidRequest
    from khonsu.errors import InvalidTransition as InvalidTransition
    from khonsu.errors import JobFailed as JobFailed
    from khonsu.errors import KhonsuError as KhonsuError
    from khonsu.errors import MalformedToken as MalformedToken
    from khonsu.errors import NotAllowed as NotAllowed
    from khonsu.errors import NotFound as NotFound
    from khonsu.errors import PluginError as PluginError
    from khonsu.errors import Problem as Problem
    from khonsu.errors import StoreDamaged as StoreDamaged
    from khonsu.errors import StoreError as StoreError
    from khonsu.errors import StoreForeign as StoreForeign
    from khonsu.errors import StoreFull as StoreFull
    from khonsu.errors import StoreInUse as StoreInUse
    from khonsu.errors import StoreTooNew as StoreTooNew
    from khonsu.errors import Unauthenticated as Unauthenticated
    from khonsu.errors import Unavailable as Unavailable
    from khonsu.errors import Unplaceable as Unplaceable
    from khonsu.errors import Unreachable as Unreachable
    from khonsu.errors import UnsafeFile as UnsafeFile
    from khonsu.errors import VersionConflict as VersionConflict
    from khonsu.errors import WaitTimeout as WaitTimeout
    from khonsu.errors import WrongAuthority as WrongAuthority
    from khonsu.local import LocalCluster as LocalCluster
    from khonsu.schedulers.fit import BinPack as BinPack
    from khonsu.schedulers.fit import SpreadOut as SpreadOut
    from khonsu.stores.memory import MemoryStore as MemoryStore
    from khonsu.stores.sqlite import SQLiteStore as SQLiteStore
    from khonsu.stores.wrapper import StoreWrapper as StoreWrapper
    from khonsu.transports.http import HTTPTransport as HTTPTransport

__all__ = [
    "Affinity",
    "Agent",
    "Allocation",
    "AllocationStatus",
    "Artifact",
    "ArtifactError",
    "ArtifactSource",
    "Ask",
    "BinPack",
    "BinaryConfig",
    "BinaryDriver",
    "BoolArray",
    "ByteStream",
    "ChangeList",
    "Changes",
    "Client",
    "Commit",
    "Conflict",
    "Connection",
    "Constraint",
    "ControlPlane",
    "Desired",
    "DigestMismatch",
    "Disconnect",
    "Driver",
    "DriverError",
    "DriverInfo",
    "Eligibility",
    "Env",
    "Evaluation",
    "EvaluationStatus",
    "Event",
    "Explanation",
    "FieldChange",
    "Fingerprint",
    "Fleet",
    "FloatArray",
    "Group",
    "GroupExplanation",
    "GroupPlan",
    "GroupSummary",
    "HTTPListener",
    "HTTPTransport",
    "Handle",
    "Handler",
    "HistoryGone",
    "Identity",
    "IntArray",
    "InvalidJob",
    "InvalidRequest",
    "InvalidTransition",
    "Invitation",
    "Job",
    "JobFailed",
    "JobInfo",
    "JobPlan",
    "JobResult",
    "JobStatus",
    "JobType",
    "JobVersion",
    "KhonsuError",
    "Listener",
    "LocalCluster",
    "LogLine",
    "Logs",
    "MalformedToken",
    "MemoryStore",
    "Node",
    "NodeExplanation",
    "NodeResources",
    "NodeStatus",
    "NotAllowed",
    "NotFound",
    "Outcome",
    "PlacementFailure",
    "Plan",
    "PluginError",
    "Port",
    "PortAssignment",
    "Problem",
    "Refusal",
    "Request",
    "Reschedule",
    "Resources",
    "Response",
    "Restart",
    "Retention",
    "Revision",
    "Rollout",
    "SQLiteStore",
    "Scheduler",
    "Score",
    "Secret",
    "Snapshot",
    "Spread",
    "SpreadOut",
    "Store",
    "StoreDamaged",
    "StoreError",
    "StoreForeign",
    "StoreFull",
    "StoreInUse",
    "StoreTooNew",
    "StoreWrapper",
    "Stream",
    "Submission",
    "SyncClient",
    "SyncStream",
    "SystemEnv",
    "SystemStatus",
    "Task",
    "TaskContext",
    "TaskExit",
    "TaskState",
    "TaskStatus",
    "Transaction",
    "Transport",
    "Unauthenticated",
    "Unavailable",
    "Unplaceable",
    "Unreachable",
    "UnsafeFile",
    "Update",
    "VersionConflict",
    "View",
    "WaitTimeout",
    "WrongAuthority",
    "dumps_job",
    "load_jobs",
    "loads_jobs",
    "scheduler",
]

# The module of each name; a test compares this with the imports above.
_HOMES = {
    "khonsu.abc.driver": "Driver Fingerprint Handle TaskContext TaskExit",
    "khonsu.abc.scheduler": "Scheduler scheduler",
    "khonsu.abc.store": "ChangeList Commit Store Transaction View",
    "khonsu.abc.transport": "ByteStream Connection Handler Identity Listener Request Response Transport",
    "khonsu.agent.agent": "Agent",
    "khonsu.api.listener": "HTTPListener",
    "khonsu.client.client": "Client",
    "khonsu.client.stream": "Stream",
    "khonsu.client.sync": "SyncClient SyncStream",
    "khonsu.control.plane": "ControlPlane",
    "khonsu.core.arrays": "BoolArray FloatArray IntArray",
    "khonsu.core.ask": "Ask",
    "khonsu.core.changes": "Changes",
    "khonsu.core.fleet": "Fleet",
    "khonsu.core.job": (
        "Affinity Artifact ArtifactSource Constraint Disconnect Group Job Logs Port Reschedule Resources "
        "Restart Spread Task Update"
    ),
    "khonsu.core.plan": "Outcome Plan Snapshot",
    "khonsu.core.protocol": "LogLine",
    "khonsu.core.records": (
        "Allocation DriverInfo Evaluation Event JobVersion Node NodeResources PlacementFailure PortAssignment "
        "Rollout TaskStatus"
    ),
    "khonsu.core.results": (
        "Explanation FieldChange GroupExplanation GroupPlan GroupSummary Invitation JobInfo JobPlan JobResult "
        "NodeExplanation Refusal Score Submission SystemStatus"
    ),
    "khonsu.core.retention": "Retention",
    "khonsu.core.revision": "Revision",
    "khonsu.core.secret": "Secret",
    "khonsu.core.states": (
        "AllocationStatus Desired Eligibility EvaluationStatus JobStatus JobType NodeStatus TaskState"
    ),
    "khonsu.core.toml": "dumps_job load_jobs loads_jobs",
    "khonsu.drivers.binary": "BinaryConfig BinaryDriver",
    "khonsu.env": "Env SystemEnv",
    "khonsu.errors": (
        "ArtifactError Conflict DigestMismatch DriverError HistoryGone InvalidJob InvalidRequest "
        "InvalidTransition JobFailed KhonsuError MalformedToken NotAllowed NotFound PluginError Problem "
        "StoreDamaged StoreError StoreForeign StoreFull StoreInUse StoreTooNew Unauthenticated Unavailable "
        "Unplaceable Unreachable UnsafeFile VersionConflict WaitTimeout WrongAuthority"
    ),
    "khonsu.local": "LocalCluster",
    "khonsu.schedulers.fit": "BinPack SpreadOut",
    "khonsu.stores.memory": "MemoryStore",
    "khonsu.stores.sqlite": "SQLiteStore",
    "khonsu.stores.wrapper": "StoreWrapper",
    "khonsu.transports.http": "HTTPTransport",
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
_PARTS = frozenset({"abc", "errors", "testing"})


def __getattr__(name: str) -> object:
    """Load a name."""
    from importlib import import_module

    if name in _PARTS:
        return import_module(f"khonsu.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'khonsu' has no attribute {name!r}")
    value: object = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*__all__, *_PARTS, *(name for name in globals() if name.startswith("__"))})
