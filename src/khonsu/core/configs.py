"""What can be said of a job only with the nodes at hand: drivers, their configs, the scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from khonsu.core.job import JSON, Job
from khonsu.core.mistakes import MISTAKES_MAX, show
from khonsu.core.names import nearest
from khonsu.core.records import Node
from khonsu.core.schemacheck import Checker
from khonsu.errors import Problem


def schemas_of(nodes: Iterable[Node]) -> dict[str, Mapping[str, JSON]]:
    """Return the schema of each driver that some node has; where nodes differ, any of their schemas will do."""
    found: dict[str, list[Mapping[str, JSON]]] = {}
    for node in nodes:
        for driver in node.drivers:
            schemas = found.setdefault(driver.name, [])
            if driver.config_schema not in schemas:
                schemas.append(driver.config_schema)
    return {name: schemas[0] if len(schemas) == 1 else {"anyOf": schemas} for name, schemas in found.items()}


def check_configs(job: Job, schemas: Mapping[str, Mapping[str, JSON]]) -> tuple[Problem, ...]:
    """Return every mistake in the tasks' drivers and configs.

    Args:
        job: A job that `check_job` finds right.
        schemas: The schema of each driver's config by the driver's name; with none, nothing is known and nothing wrong.

    """
    if not schemas:
        return ()
    problems: list[Problem] = []
    checker = Checker()
    for index, group in enumerate(job.groups):
        for number, task in enumerate(group.tasks):
            path = f"groups[{index}].tasks[{number}]"
            if task.driver in schemas:
                problems.extend(checker.check(task.config, schemas[task.driver], f"{path}.config"))
            else:
                problems.append(_unknown(task.driver, schemas, f"{path}.driver", "a driver that a node has"))
    return tuple(problems[:MISTAKES_MAX])


def check_scheduler(job: Job, known: Iterable[str]) -> tuple[Problem, ...]:
    """Return what is wrong with the name of a job's scheduler."""
    names = set(known)
    return (
        () if job.scheduler in names else (_unknown(job.scheduler, names, "scheduler", "a scheduler of this cluster"),)
    )


def _unknown(name: str, known: Iterable[str], path: str, what: str) -> Problem:
    names = sorted(known)
    return Problem(path, show(name), f"{what}: {', '.join(names)}", nearest(name, names))
