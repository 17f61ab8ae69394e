"""A scheduler of your own, on a cluster that runs real tasks.

What: a scheduler that fills nodes up to their last core before it takes the next one, beside one that keeps them even.
Both are asked for their plan first.
Needs: Khonsu, nothing else.
Run: `python examples/own_scheduler.py`
Expect: `fill` puts four copies on one node; `even` puts two on each of two; exit code 0.
"""

from __future__ import annotations

from collections import Counter

import khonsu


class Fill(khonsu.Scheduler):
    """Prefer the node with the least CPU left after the placement."""

    name = "fill"
    independent = True

    def score(self, ask: khonsu.Ask, fleet: khonsu.Fleet, /) -> khonsu.FloatArray:
        """Return the share of the CPU that is used then."""
        return fleet.after(ask).share("cpu")


@khonsu.scheduler("even", independent=True)
def even(ask: khonsu.Ask, fleet: khonsu.Fleet) -> khonsu.FloatArray:
    """Prefer the node with the most CPU left after the placement."""
    return 1.0 - fleet.after(ask).share("cpu")


def work(scheduler: str) -> khonsu.Job:
    """Return a job of four copies, each of which takes one of a node's four cores."""
    return khonsu.Job.single(
        scheduler,
        khonsu.BinaryConfig("/bin/true"),
        type="batch",
        count=4,
        scheduler=scheduler,
        resources=khonsu.Resources(cpu=1, memory="16MiB"),
        disk="1MiB",
    )


def main() -> dict[str, list[int]]:
    """Run a job with each scheduler; return how many copies each node got, most first."""
    found: dict[str, list[int]] = {}
    machine = khonsu.Resources(cpu=4, memory="1GiB")
    with khonsu.LocalCluster(nodes=2, schedulers=[Fill(), even], resources=machine) as cluster:
        for name in ("fill", "even"):
            job = work(name)
            print(f"{name} would place:")
            for node in cluster.client.plan(job).explanation.groups[0].nodes:
                print(f"  {node.placed} on {node.node}, by the score {node.score}")
            result = cluster.client.run(job, timeout="30s").raise_for_status()
            copies = Counter(one.node for one in result.allocations)
            found[name] = sorted(copies.values(), reverse=True)
            print(f"  and did: {dict(copies)}")
    return found


if __name__ == "__main__":
    raise SystemExit(main() != {"fill": [4], "even": [2, 2]})
