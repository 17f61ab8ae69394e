"""`start` and `footprint`: a single node in a fresh process, before it has done anything."""

from __future__ import annotations

import time

from khonsu.bench import processes
from khonsu.bench.nodes import fresh_process
from khonsu.bench.report import Measured


def start(*, samples: int = 5) -> Measured:
    """Measure the seconds from the start of a process until its node can run a task."""
    found: list[float] = []
    peak = 0
    for _ in range(samples):
        with fresh_process() as node:
            found.append(node.seconds)
            peak = max(peak, processes.peak_rss_bytes(node.pid))
    return Measured.median(found, "s", peak_rss_bytes=peak)


def footprint(*, settle: float = 2.0, seconds: float = 10.0) -> Measured:
    """Measure the memory (PSS) of a node that nothing was asked of, helpers included, and how much it computes."""
    with fresh_process() as node:
        time.sleep(settle)
        family = [node.pid, *processes.descendants(node.pid)]
        began = sum(processes.cpu_seconds(pid) for pid in family)
        time.sleep(seconds)
        spent = sum(processes.cpu_seconds(pid) for pid in family) - began
        sizes = {pid: processes.pss_bytes(pid) for pid in family}
        peak = processes.peak_rss_bytes(node.pid)
    return Measured(
        figure=sum(sizes.values()),
        unit="bytes",
        samples=tuple(sizes.values()),
        peak_rss_bytes=peak,
        details={
            "node_bytes": sizes[node.pid],
            "other_processes_bytes": sum(sizes.values()) - sizes[node.pid],
            "processes": len(sizes),
            "idle_cpu_percent": 100 * spent / seconds if seconds else 0.0,
        },
    )
