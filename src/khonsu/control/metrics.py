"""Metrics: the control plane in numbers, as OpenMetrics text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from khonsu.control.broker import Broker
from khonsu.control.state import State


def render(state: State, broker: Broker) -> str:
    """Return the metrics: counts by status, what waits, and where the history is."""
    tables = state.tables
    nodes = Counter(str(node.status) for node in tables.nodes.values())
    jobs = Counter(str(job.status) for job in tables.jobs.values())
    allocations = tables.allocations.counts()
    evaluations = Counter(str(evaluation.status) for evaluation in tables.evaluations.values())
    lines = [
        *_gauge("khonsu_nodes", "Nodes by status.", nodes),
        *_gauge("khonsu_jobs", "Jobs by status.", jobs),
        *_gauge("khonsu_allocations", "Allocations by status.", allocations),
        *_gauge("khonsu_evaluations", "Evaluations that have not ended, by status.", evaluations),
        "# TYPE khonsu_evaluations_ready gauge",
        "# HELP khonsu_evaluations_ready Evaluations that wait for a scheduler.",
        f"khonsu_evaluations_ready {broker.waiting}",
        "# TYPE khonsu_revision gauge",
        "# HELP khonsu_revision The number of the last durable revision.",
        f"khonsu_revision {state.durable.number}",
        "# TYPE khonsu_term gauge",
        "# HELP khonsu_term The present term.",
        f"khonsu_term {state.term}",
        "# EOF",
    ]
    return "\n".join(lines) + "\n"


def _gauge(name: str, text: str, counts: Mapping[str, int]) -> Iterator[str]:
    yield f"# TYPE {name} gauge"
    yield f"# HELP {name} {text}"
    for status, count in sorted(counts.items()):
        yield f'{name}{{status="{status}"}} {count}'
