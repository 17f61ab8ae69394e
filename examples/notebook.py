"""A sweep over parameters, as in a notebook: no async, no server, one cell after the other.

What: `LocalCluster` runs one batch job for each parameter, several at once; the results come back as values.
Needs: Khonsu, nothing else.
Run: `python examples/notebook.py`, or paste the cells (`# %%`) into a notebook, where each value shows as a table.
Expect: a table of four runs with their outputs; exit code 0.
"""

from __future__ import annotations

import sys

import khonsu

PARAMETERS = (2, 3, 5, 7)


def main() -> dict[int, str]:
    """Run the cells, and return the output of each run by its parameter."""
    # %% A cluster of this machine; it ends with the kernel, or with `cluster.close()`.
    cluster = khonsu.LocalCluster()
    client = cluster.client

    # %% One job for each parameter. `submit` returns at once, so that they run side by side.
    submissions = {
        number: client.submit(
            khonsu.Job.single(
                f"power-{number}",
                khonsu.BinaryConfig(sys.executable, args=["-c", f"print({number} ** 100 % 1000)"]),
                type="batch",
                meta={"number": str(number)},
            )
        )
        for number in PARAMETERS
    }

    # %% Wait for them. A result that failed is returned as well; `raise_for_status` makes it an error.
    results = {number: client.wait(one, timeout="30s").raise_for_status() for number, one in submissions.items()}

    # %% What they wrote.
    outputs: dict[int, str] = {}
    for number, result in results.items():
        with client.logs(result) as lines:
            outputs[number] = "".join(line.text for line in lines)
        print(f"{number:>2} ** 100 mod 1000 = {outputs[number]:>3}   ({result.status} on {result.allocations[0].node})")

    # %% Where each copy went and why, as a value that a notebook shows as a table.
    print(client.explain("power-2").groups[0].nodes[0])
    cluster.close()
    return outputs


if __name__ == "__main__":
    raise SystemExit(main() != {number: str(number**100 % 1000) for number in PARAMETERS})
