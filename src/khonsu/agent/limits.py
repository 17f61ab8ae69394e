"""How much an agent keeps."""

from __future__ import annotations

from attrs import field, frozen

from khonsu.core.units import seconds, size_bytes


@frozen(kw_only=True)
class Limits:
    """How much an agent keeps on its disk beside what its tasks need. Written as in a job: `"10GiB"`, `"7d"`."""

    artifact_cache_bytes: int = field(default=10 * 2**30, converter=size_bytes, alias="artifact_cache")
    """Artifacts that were fetched, for the next task that wants them."""
    artifact_bytes: int = field(default=2 * 2**30, converter=size_bytes, alias="artifact")
    """The largest artifact that is fetched."""
    ended_count: int = 500
    """Allocations that have ended, for their logs."""
    ended_bytes: int = field(default=4 * 2**30, converter=size_bytes, alias="ended_size")
    """What they take together."""
    ended_seconds: float = field(default=7 * 86_400.0, converter=seconds, alias="ended_age")
    """How long they are kept."""
