"""What a benchmark says: one figure, how it came about, and what was wrong."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from statistics import median
from typing import Any

from attrs import field, frozen

DIGITS = 6


@frozen(kw_only=True)
class Measured:
    """What a benchmark has measured.

    Args:
        figure: The figure by which it is judged, in `unit`.
        unit: The unit of the figure and of the samples.
        samples: The single measurements that the figure was made of.
        peak_rss_bytes: The most memory that the measured process had; None: that of this process.
        bytes_per_item: The memory that one item took, where items are what is measured.
        wrong: How many violations were found in the result.
        details: Whatever else is worth to be known.

    """

    figure: float
    unit: str
    samples: tuple[float, ...] = ()
    peak_rss_bytes: int | None = None
    bytes_per_item: float | None = None
    wrong: int = 0
    details: Mapping[str, Any] = field(factory=dict)

    @classmethod
    def median(cls, samples: list[float], unit: str, **rest: Any) -> Measured:
        """Return the median of samples as the figure."""
        return cls(figure=median(samples), unit=unit, samples=tuple(samples), **rest)


def as_json(name: str, parameters: Mapping[str, Any], measured: Measured) -> str:
    """Return the JSON object that a benchmark prints."""
    peak = own_peak_rss_bytes() if measured.peak_rss_bytes is None else measured.peak_rss_bytes
    return json.dumps(
        {
            "name": name,
            "parameters": dict(parameters),
            "figure": _rounded(measured.figure),
            "unit": measured.unit,
            "samples": [_rounded(sample) for sample in measured.samples],
            "peak_rss_bytes": peak,
            "bytes_per_item": _rounded(measured.bytes_per_item),
            "wrong": measured.wrong,
            "details": {key: _rounded(value) for key, value in measured.details.items()},
        }
    )


def own_peak_rss_bytes() -> int:
    """Return the most memory that this process had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def percentile(samples: list[float], share: float) -> float:
    """Return the sample below which a share of the samples lies."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _rounded(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value
