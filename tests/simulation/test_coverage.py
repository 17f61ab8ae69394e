from __future__ import annotations

from khonsu.testing.simulation.coverage import Coverage, Met


def test_a_fault_meets_what_is_under_way_with_it() -> None:
    """Whichever began first; what is over, or not begun, does not meet."""
    coverage = Coverage()
    with coverage.during("store.write"):
        coverage.fault_began("DiskFull")
    coverage.operation_began("job.submit")
    coverage.fault_ended("DiskFull")
    coverage.operation_began("node.join")
    coverage.fault_began("AgentCrash")
    assert coverage.pairs == {
        ("DiskFull", "store.write"): 1,
        ("DiskFull", "job.submit"): 1,
        ("AgentCrash", "job.submit"): 1,
        ("AgentCrash", "node.join"): 1,
    }


def test_what_never_met_is_known() -> None:
    """Of all pairs of a fault that there is and an operation that happened, those are told that never met."""
    coverage = Coverage()
    coverage.fault_began("DiskFull")
    coverage.operation_began("job.submit")
    met = Met(("AgentCrash", "DiskFull"))
    met.add(coverage.pairs, coverage.operations)
    assert met.never == [("AgentCrash", "job.submit")]
    assert met.share == 0.5
