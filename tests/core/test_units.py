from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core import units
from khonsu.core.units import Millis


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, 0.0), (90, 90.0), (0.25, 0.25), ("90s", 90.0), ("1m30s", 90.0), ("250ms", 0.25), ("1.5h", 5400.0),
        ("2d", 172_800.0), (" 5s ", 5.0), (timedelta(minutes=1), 60.0), ("0s", 0.0),
    ],
)  # fmt: skip
def test_durations(written: Any, expected: float) -> None:
    """A duration is seconds, a text with units, or a timedelta."""
    assert units.seconds(written) == expected


@pytest.mark.parametrize(
    "written",
    ["", "5", "s", "5 s", "1m 30s", "-5s", -1, True, None, "5x", float("nan"), float("inf"), 10**400, [5], "5µs",
     "\u0665s",
     timedelta(seconds=-1), "9" * 400 + "s"],
)  # fmt: skip
def test_what_is_no_duration(written: Any) -> None:
    """Everything else is refused, in words that show what to write."""
    with pytest.raises(ValueError, match="is not a duration"):
        units.seconds(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, 0), (1024, 1024), ("1024", 1024), ("64MiB", 67_108_864), ("64MB", 64_000_000), ("1.5KiB", 1536),
        ("1 GiB", 2**30), ("10kB", 10_000), ("10KB", 10_000), ("3B", 3), ("2PiB", 2**51),
        ("9007199254740993B", 2**53 + 1),
    ],
)  # fmt: skip
def test_sizes(written: Any, expected: int) -> None:
    """A size is bytes, or a text with a binary or decimal unit; without a decimal point it is exact."""
    assert units.size_bytes(written) == expected


@pytest.mark.parametrize(
    "written",
    ["", "MiB", "64mib", "64M", "-1", -1, 1.5, True, None, "1e3", "1" * 31, "9" * 20 + "." + "9" * 20, "\u0665B"],
)
def test_what_is_no_size(written: Any) -> None:
    """Everything else is refused; nobody has to guess what `64M` is."""
    with pytest.raises(ValueError, match="is not a size"):
        units.size_bytes(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [(0, 0), (1, 1000), (0.25, 250), ("0.5", 500), (0.001, 1), (1.1, 1100), (64, 64_000), (Millis(250), 250)],
)
def test_cores(written: Any, expected: int) -> None:
    """CPU is cores, kept in thousandths; what is thousandths already stays so."""
    millis = units.cpu_millis(written)
    assert (millis, type(millis)) == (expected, int)


@pytest.mark.parametrize("written", ["", "2 cores", -1, True, None, float("nan"), 1e6, 10**400, Millis(-1), [1], "nan"])
def test_what_is_no_number_of_cores(written: Any) -> None:
    """Everything else is refused, negative thousandths too."""
    with pytest.raises(ValueError, match=r"is not a number of cores|are negative"):
        units.cpu_millis(written)


def test_cores_finer_than_a_thousandth_are_refused() -> None:
    """Nothing is rounded without being told."""
    with pytest.raises(ValueError, match="finer than a thousandth"):
        units.cpu_millis(0.0001)


@pytest.mark.parametrize("convert", [units.optional_seconds, units.optional_size_bytes, units.optional_cpu_millis])
def test_optional_quantities(convert: Any) -> None:
    """None stays None, and all else is converted."""
    assert convert(None) is None
    assert convert(0) == 0


@given(st.integers(0, 10**12))
def test_a_duration_is_written_so_that_it_can_be_read(millis: int) -> None:
    """Down to a millisecond, what is written for people is what was meant."""
    assert units.seconds(units.format_duration(millis / 1000)) == pytest.approx(millis / 1000, rel=1e-12)


@given(st.integers(0, 2**50), st.sampled_from([1, 2**10, 2**20, 2**30]))
def test_a_whole_size_is_written_exactly(count: int, unit: int) -> None:
    """A size without a decimal point is exact; one with it is near."""
    size = count * unit
    text = units.format_size(size)
    read = units.size_bytes(text)
    assert read == size if "." not in text else read == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize(
    ("formatted", "expected"),
    [
        (units.format_duration(90), "1m30s"),
        (units.format_duration(0), "0s"),
        (units.format_duration(86_400.25), "1d250ms"),
        (units.format_size(64 * 2**20), "64MiB"),
        (units.format_size(1536), "1.5KiB"),
        (units.format_size(3), "3B"),
        (units.format_cpu(250), "0.25"),
        (units.format_cpu(2000), "2"),
    ],
)
def test_quantities_are_written_for_people(formatted: str, expected: str) -> None:
    """The largest units that fit are used, and no zeros are shown."""
    assert formatted == expected
