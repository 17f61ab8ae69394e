"""Records of every kind with every field set, for the check of stores."""

from __future__ import annotations

from typing import Any, Final

from khonsu.core.ids import AllocationId, EvaluationId, NodeId, key_text, make_key
from khonsu.core.job import Job
from khonsu.core.records import (
    Allocation,
    Credential,
    DriverInfo,
    Evaluation,
    Event,
    IdempotencyKey,
    JobRecord,
    JobVersion,
    JoinToken,
    Node,
    NodeResources,
    PlacementFailure,
    PortAssignment,
    Record,
    Rollout,
    Setting,
    TaskStatus,
    Time,
)
from khonsu.core.revision import Revision
from khonsu.core.states import (
    AllocationStatus,
    Desired,
    Eligibility,
    EvaluationStatus,
    JobStatus,
    JobType,
    NodeStatus,
    TaskState,
)

TEXT: Final = "Mond ☾ \"quoted\" \\ 'x' \U0001f319 \x00 \n"
AT: Final = Time(1_700_000_000.123456)
DIGEST: Final = "00ff"
REAL: Final = 0.1 + 0.2  # has 17 digits


def number(sequence: int) -> str:
    """Return an id; they are in the order of their sequence numbers."""
    return key_text(make_key(1, sequence))


def allocation(sequence: int, **fields: Any) -> Allocation:
    """Return an allocation with little set, and some fields as given."""
    known: dict[str, Any] = {
        "namespace": "default",
        "job": "web",
        "version": 1,
        "group": "main",
        "slot": sequence,
        "node_id": NodeId(number(900)),
        "node": "moon",
        "evaluation": EvaluationId(number(901)),
        "created_at": AT,
        "changed_at": AT,
    }
    return Allocation(id=AllocationId(number(sequence)), **{**known, **fields})


def setting(key: str, value: object = None) -> Setting:
    """Return a setting."""
    return Setting(key=key, value=value)


def full_allocation() -> Allocation:
    """Return an allocation with every field set."""
    task = TaskStatus(
        name="web",
        status=TaskState.FAILED,
        attempt=2,
        exit_code=1,
        signal=9,
        out_of_memory=True,
        pid=4711,
        started_at=AT,
        finished_at=AT,
        message=TEXT,
    )
    return allocation(
        3,
        run=2,
        desired=Desired.STOP,
        status=AllocationStatus.FAILED,
        health=False,
        generation=3,
        ports=(PortAssignment(name="http", host=8080, task=80), PortAssignment(name="x", host=1, task=1)),
        exit_code=137,
        tasks=(task,),
        previous=AllocationId(number(2)),
        replaces=True,
        reschedules=4,
        score=REAL,
        healthy_at=AT,
        desired_at=2**40,
        message=TEXT,
    )


def records() -> tuple[Record, ...]:
    """Return one record of every kind, with every field set, and one with what has a default left out."""
    return (*_jobs(), *_fleet(), full_allocation(), allocation(4), *_access(), *_events())


def _jobs() -> tuple[Record, ...]:
    rollout = Rollout(version=2, status="failed", started_at=AT, progressed_at=AT, message=TEXT)
    spec = Job.single(
        "web", {"command": "/bin/true", "args": [TEXT, 1]}, driver="binary", meta={"a": TEXT}, ports={"http": "dynamic"}
    )
    failure = PlacementFailure(group="main", wanted=3, placed=1, nodes=5, reasons={"memory": 4})
    return (
        JobRecord(
            key="default/web",
            namespace="default",
            name="web",
            type=JobType.BATCH,
            version=2,
            status=JobStatus.FAILED,
            stopped=True,
            stable_version=1,
            created_at=AT,
            submitted_at=AT,
            generation=7,
            rollout=rollout,
            message=TEXT,
            run=3,
        ),
        JobVersion(key="default/web/2", job="default/web", version=2, spec=spec, created_at=AT, stable=True),
        Evaluation(
            id=EvaluationId(number(901)),
            job="default/web",
            priority=50,
            trigger="submit",
            status=EvaluationStatus.BLOCKED,
            created_at=AT,
            not_before=AT,
            attempts=2,
            blocked_on=("memory", "driver.binary"),
            failures=(failure,),
            message=TEXT,
        ),
    )


def _fleet() -> tuple[Record, ...]:
    resources = NodeResources(cpu_millis=4000, memory_bytes=2**35, disk_bytes=2**50)
    driver = DriverInfo(
        name="binary", version="1", healthy=False, message=TEXT, config_schema={"type": ["object", None]}
    )
    return (
        Node(
            id=NodeId(number(900)),
            name="moon",
            pool="edge",
            status=NodeStatus.DOWN,
            eligibility=Eligibility.DRAINING,
            labels={"b": TEXT, "a": ""},
            attributes={"os": "linux"},
            resources=resources,
            drivers=(driver,),
            address="192.0.2.1",
            boot_id="boot",
            version="0.1",
            joined_at=AT,
            status_at=AT,
            drain_deadline_at=AT,
        ),
        Node(id=NodeId(number(2**40 - 1)), name="sun", resources=resources, joined_at=Time(0.0), status_at=Time(0.0)),
    )


def _access() -> tuple[Record, ...]:
    return (
        Credential(id="c1", role="node", node=NodeId(number(900)), secret_hash=DIGEST, created_at=AT, expires_at=AT),
        Credential(id="c2", role="operator", secret_hash=DIGEST, created_at=AT),
        JoinToken(id="j1", secret_hash=DIGEST, name="mac", labels={"disk": "ssd"}, created_at=AT, expires_at=AT),
        IdempotencyKey(key=TEXT, digest="d", answer={"job": {"x": [1, None, True, 1.5]}}, created_at=AT),
        setting("null"),
        setting("deep", {"a": [1, {"b": TEXT}], "c": False}),
    )


def _events() -> tuple[Record, ...]:
    return (
        Event(
            id=number(500),
            revision=Revision(1, 2**40),
            at=AT,
            type="allocation-failed",
            namespace="default",
            job="web",
            version=1,
            group="main",
            slot=0,
            allocation=AllocationId(number(3)),
            task="web",
            node="moon",
            message=TEXT,
            details={"exit_code": 1},
        ),
        Event(id=number(501), revision=Revision(0, 0), at=AT, type="started"),
    )
