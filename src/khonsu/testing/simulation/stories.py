"""What the client of a seed wants: jobs of all kinds, and what is done to each of them in turn."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from attrs import evolve, field, frozen

from khonsu.core.job import Group, Job, Resources, Task
from khonsu.core.policies import Disconnect, Reschedule, Restart, Update
from khonsu.testing.fake_driver import FakeConfig

Verb = Literal["submit", "rerun", "scale", "revert", "stop", "purge", "stop_copy"]
ZONES: Final = ("a", "b")
"""Each agent is in one of these (`label.zone`), in turn."""
PORT_FIRST: Final = 8000
DEAF_SECONDS: Final = 1000.0
"""How long a task takes to obey that does not."""
STEPS_MAX: Final = 3
_KEEPS: Final[tuple[Literal["replacement", "original"], ...]] = ("replacement", "original")
_KINDS: Final = ("service",) * 6 + ("exclusive",) * 3 + ("batch",) * 4 + ("ports", "ports", "system", "sysbatch")
_KINDS_BAD: Final = ("bad-service", "bad-batch")


@frozen(kw_only=True)
class Step:
    """Something that is asked of a job, at a time in seconds since the start of the run.

    `job` is what is submitted, `count` what it is scaled to, or which version it goes back to.
    """

    at: float
    verb: Verb
    job: Job
    count: int = field(default=0)


Story = Sequence[Step]
"""What is asked of one job, one after the other: each when what is before it was answered."""


def sample_stories(count: int, chance: random.Random, *, submit_seconds: float, seconds: float) -> tuple[Story, ...]:
    """Return so many stories.

    Args:
        count: How many jobs there are.
        chance: What they are like.
        submit_seconds: All are submitted by then.
        seconds: All that is done to them is begun by then.

    """
    return tuple(tuple(_story(number, chance, submit_seconds, seconds)) for number in range(count))


def _story(number: int, chance: random.Random, submit_seconds: float, seconds: float) -> Iterator[Step]:
    job = _job(number, chance)
    at = chance.random() * submit_seconds
    yield Step(at=at, verb="submit", job=job)
    steps = chance.choice((0, 0, 0, 1, 1, STEPS_MAX - 1))
    times = sorted(chance.uniform(at, seconds) for _ in range(steps))
    for place, time in enumerate(times):
        step = _step(job, chance, time)
        job = step.job
        yield step
        if step.verb == "purge":
            return
        # What was broken last is mended in the end, as somebody would do it, half of the time.
        if place == steps - 1 and step.verb == "submit" and _broken(job) and chance.random() < 0.5:
            yield Step(at=seconds, verb="submit", job=_changed(job, chance))


def _step(job: Job, chance: random.Random, at: float) -> Step:
    """Return something that may be done to a job."""
    verbs = ["update", "update", "stop", "purge", "stop_copy"]
    if job.type == "service":
        verbs += ["bad", "bad", "scale", "scale", "revert", "stop_copy"]
    if not job.type.keeps_running:
        verbs += ["rerun", "rerun"]
    match chance.choice(verbs):
        case "update":
            return Step(at=at, verb="submit", job=_changed(job, chance))
        case "bad":
            return Step(at=at, verb="submit", job=_spoilt(job, chance))
        case "scale":
            count = chance.choice((0, 1, 2, 3))
            return Step(at=at, verb="scale", job=_scaled(job, count), count=count)
        case "revert":
            return Step(at=at, verb="revert", job=job, count=1)
        case "stop":
            return Step(at=at, verb="stop", job=job)
        case "purge":
            return Step(at=at, verb="purge", job=job)
        case "rerun":
            return Step(at=at, verb="rerun", job=job)
        case _:
            return Step(at=at, verb="stop_copy", job=job)


# Jobs.


def _job(number: int, chance: random.Random) -> Job:
    kind = chance.choice(_KINDS_BAD if chance.random() < 0.05 else _KINDS)
    name = f"{kind}-{number}"
    common = _common(chance)
    service = FakeConfig(
        stop_seconds=chance.choice((0.0, 0.0, 0.5, 3.0, DEAF_SECONDS)),
        prepare_seconds=chance.choice((0.0, 0.0, 1.0)),
    )
    batch = FakeConfig(run_seconds=chance.uniform(0.5, 20.0), stop_seconds=chance.choice((0.0, 0.5, DEAF_SECONDS)))
    once: dict[str, Any] = {"reschedule": Reschedule(attempts=1, delay=1.0), "restart": Restart(attempts=1, delay=0.5)}
    match kind:
        case "exclusive":
            return Job.single(name, service, exclusive=True, count=chance.choice((1, 1, 2)), **common)
        case "batch":
            return Job.single(name, batch, type="batch", count=chance.choice((1, 2, 3)), **common)
        case "system":
            return Job.single(name, service, type="system", **common)
        case "sysbatch":
            return Job.single(name, evolve(batch, run_seconds=3.0), type="sysbatch", **common)
        case "ports":
            fixed = chance.random() < 0.5
            ports = {"http": PORT_FIRST + number % 3 if fixed else "dynamic", "metrics": "dynamic"}
            return Job.single(name, service, ports=ports, count=1 if fixed else 2, **common)
        case "bad-batch":
            return Job.single(name, _failing(batch, chance), type="batch", **{**common, **once})
        case "bad-service":
            return Job.single(name, _failing(service, chance), **{**common, **once})
        case _:
            placing = chance.choice(({}, {}, {"gang": True}, {"max_per_node": 1}, {"constraints": [_zone(chance)]}))
            return Job.single(name, service, count=chance.choice((1, 2, 3)), **placing, **common)


def _common(chance: random.Random) -> dict[str, Any]:
    """Return what may be any of some things in every job."""
    return {
        "driver": "fake",
        "resources": Resources(cpu=chance.choice((100, 100, 300)) / 1000, memory="64MiB"),
        "disk": "10MiB",
        "priority": chance.choice((1, 50, 50, 100)),
        "scheduler": chance.choice(("binpack", "spread")),
        "kill_timeout": chance.choice((1.0, 5.0)),
        "shutdown_delay": chance.choice((0.0, 0.0, 0.0, 1.0)),
        "restart": Restart(
            attempts=chance.choice((0, 1, 3)), within=chance.choice((5.0, 60.0)), delay=chance.choice((0.1, 2.0))
        ),
        "reschedule": Reschedule(delay=chance.choice((0.5, 1.0, 3.0)), delay_max=5.0),
        "update": Update(
            healthy_for=chance.choice((0.0, 0.5, 2.0)),
            healthy_within=12.0,
            progress_within=chance.choice((15.0, 25.0)),
            max_parallel=chance.choice((1, 2)),
            start_first=chance.choice(("auto", False)),
            auto_revert=chance.random() < 0.7,
            canary=chance.choice((0, 0, 0, 1)),
        ),
        "disconnect": Disconnect(
            replace_after=chance.choice((0.0, 0.0, 10.0)),
            keep=chance.choice(_KEEPS),
            stop_after=chance.choice((None, None, 5.0, 20.0)),
        ),
    }


def _zone(chance: random.Random) -> str:
    return f"label.zone = {chance.choice(ZONES)}"


def _failing(config: FakeConfig, chance: random.Random) -> FakeConfig:
    """Return what fails: it is refused, or ends badly after a while."""
    fails: Sequence[Literal["", "prepare", "start"]] = ("", "", "prepare", "start")
    if refused := chance.choice(fails):
        return evolve(config, fails=refused)
    return evolve(config, exit_code=chance.choice((1, 137)), run_seconds=chance.choice((0.1, 1.0, 4.0)))


def _changed(job: Job, chance: random.Random) -> Job:
    """Return a job that does something else, and works."""
    config: dict[str, Any] = {"stop_seconds": chance.choice((0.1, 0.7, 2.0, DEAF_SECONDS))}
    if not job.type.keeps_running:
        config["run_seconds"] = chance.uniform(0.5, 10.0)
    return _with(job, config, env={"CHANGED": f"{chance.random():.6f}"})


def _spoilt(job: Job, chance: random.Random) -> Job:
    """Return a job whose copies fail."""
    failing = _failing(FakeConfig(), chance)
    config = {"fails": failing.fails} if failing.fails else {"exit_code": 1, "run_seconds": failing.run_seconds}
    return _with(job, config, env={"CHANGED": f"{chance.random():.6f}"})


def _with(job: Job, config: dict[str, Any], env: dict[str, str]) -> Job:
    group = job.groups[0]
    before = group.tasks[0]
    task = Task(
        before.name,
        config,
        driver=before.driver,
        resources=before.resources,
        env=env,
        kill_timeout=before.kill_timeout_seconds,
        shutdown_delay=before.shutdown_delay_seconds,
    )
    return _with_group(job, evolve(group, tasks=(task,)))


def _scaled(job: Job, count: int) -> Job:
    return _with_group(job, evolve(job.groups[0], count=count))


def _with_group(job: Job, group: Group) -> Job:
    return evolve(job, groups=(group,))


def _broken(job: Job) -> bool:
    config = job.groups[0].tasks[0].config
    return bool(config.get("fails") or config.get("exit_code"))
