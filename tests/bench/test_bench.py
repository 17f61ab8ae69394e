"""Benchmarks in their smallest sizes: that they run, say what they must, and find nothing wrong. Never how fast."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from khonsu.bench.__main__ import BENCHMARKS, main
from khonsu.bench.c1m import wrong_placements
from khonsu.bench.report import Measured, as_json, percentile
from khonsu.core.ids import AllocationId, EvaluationId, NodeId
from khonsu.core.records import Allocation, Time
from khonsu.core.states import AllocationStatus

if TYPE_CHECKING:
    from pytest import CaptureFixture  # noqa: PT013 - for the annotation only

KEYS = ["name", "parameters", "figure", "unit", "samples", "peak_rss_bytes", "bytes_per_item", "wrong", "details"]

SMALL = {
    "start": ["--samples", "1"],
    "footprint": ["--settle", "0", "--seconds", "0"],
    "latency": ["--samples", "2"],
    "burst": ["--count", "3", "--samples=1"],
    "sleepers": ["--count", "3", "--settle", "0"],
    "c1m": ["--nodes", "5", "--jobs", "2", "--count", "10", "--spread"],
    "nomad-cases": ["--nodes", "1300", "--samples", "1"],
    "agents": ["--agents", "3", "--allocations", "2", "--settle", "0", "--seconds", "0"],
}


def test_every_benchmark_is_tried() -> None:
    """No benchmark is left out of the test below."""
    assert set(SMALL) == set(BENCHMARKS)


@pytest.mark.skipif(sys.platform != "linux", reason="memory and processes are read from /proc")
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_prints_one_object_and_finds_nothing_wrong(name: str, capsys: CaptureFixture[str]) -> None:
    """Each prints one JSON object with all keys, its parameters with their defaults, and no violation."""
    assert main([name, *SMALL[name]]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == KEYS
    assert said["name"] == name
    assert said["wrong"] == 0
    assert said["figure"] >= 0
    assert said["peak_rss_bytes"] > 0
    assert said["parameters"]


def test_the_names_are_listed_one_a_line(capsys: CaptureFixture[str]) -> None:
    """`--list` prints the names and nothing else."""
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines() == list(BENCHMARKS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage"),
        (["nothing"], "there is no benchmark 'nothing'"),
        (["start", "--pace", "3"], "'--pace' is no parameter; there are --samples"),
        (["start", "3"], "'3' is no parameter"),
        (["start", "--samples"], "--samples needs a value"),
        (["start", "--samples", "few"], "invalid literal"),
    ],
)
def test_what_is_not_understood_is_said(words: list[str], said: str, capsys: CaptureFixture[str]) -> None:
    """A wrong name or parameter is named, on standard error, with exit code 2."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err


def test_a_wrong_result_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: CaptureFixture[str]) -> None:
    """Violations are printed and end in exit code 1."""
    monkeypatch.setattr("khonsu.bench.single.start", lambda: Measured(figure=1.0, unit="s", wrong=2))
    assert main(["start"]) == 1
    assert json.loads(capsys.readouterr().out)["wrong"] == 2


def test_the_figure_of_samples_is_their_median() -> None:
    """A median stands beside its samples."""
    measured = Measured.median([3.0, 1.0, 2.0], "s")
    said: dict[str, Any] = json.loads(as_json("start", {}, measured))
    assert said["figure"] == 2.0
    assert said["samples"] == [3.0, 1.0, 2.0]


def test_a_percentile_is_one_of_the_samples() -> None:
    """The 99th percentile of few samples is the largest of them."""
    assert percentile([1.0, 3.0, 2.0], 0.99) == 3.0
    assert percentile([float(number) for number in range(100)], 0.5) == 50.0


def test_missing_doubled_and_crowded_copies_are_wrong() -> None:
    """What was committed is counted: every slot once, no node with more than it has."""
    whole = [_copy(slot) for slot in range(3)]
    assert wrong_placements(whole, 3) == 0
    assert wrong_placements(whole[:2], 3) == 1
    assert wrong_placements([*whole, _copy(0)], 3) == 1
    silent = evolve(whole[0], status=AllocationStatus.UNKNOWN)
    successor = evolve(_copy(0), id=AllocationId("next"), generation=2, previous=silent.id, replaces=True)
    assert wrong_placements([silent, *whole[1:]], 3) == 0
    assert wrong_placements([silent, *whole[1:], successor], 3) == 0
    assert wrong_placements([*whole, successor], 3) == 1
    assert wrong_placements([silent, *whole[1:], evolve(successor, previous=None)], 3) == 1
    assert wrong_placements([silent, *whole[1:], successor, evolve(successor, generation=3)], 3) == 1
    crowded = [_copy(slot) for slot in range(20_000)]
    assert wrong_placements(crowded, len(crowded)) == 1


def _copy(slot: int) -> Allocation:
    return Allocation(
        id=AllocationId(str(slot)),
        namespace="default",
        job="job",
        version=1,
        group="main",
        slot=slot,
        node_id=NodeId("node"),
        node="node",
        evaluation=EvaluationId("evaluation"),
        created_at=Time(0.0),
        changed_at=Time(0.0),
    )
