"""How much anybody may ask of the server."""

from __future__ import annotations

from attrs import frozen

MIB = 2**20
JOB_BYTES_MAX = 4 * MIB


@frozen(kw_only=True)
class Limits:
    """The limits of the HTTP API. The defaults suit the internet; tests make them small."""

    body_bytes_max: int = MIB
    """Of the JSON body of a request."""
    job_bytes_max: int = JOB_BYTES_MAX
    """Of one with a job: ten thousand groups in their short form."""
    sync_bytes_max: int = 8 * MIB
    """Of that of `node.sync`, which reports all allocations of a node."""
    depth_max: int = 64
    """Of nested JSON."""
    body_seconds_max: float = 30.0
    """For a JSON body to arrive."""
    wait_seconds_max: float = 600.0
    """For which a watch may be held."""
    header_bytes_max: int = 16 * 1024
    header_seconds_max: float = 10.0
    """For the head of a request to arrive, once its connection is open or its first byte is there."""
    handshake_seconds_max: float = 10.0
    """For a TLS handshake."""
    idle_seconds_max: float = 75.0
    """For which a connection is kept without a request."""
    discard_seconds_max: float = 5.0
    """For which the rest of a body is read that nobody wants, so that the refusal gets through."""
    connections_max: int = 10_000
    stop_seconds_max: float = 3.0
    """For writes to end when the server stops; reads, watches and streams end at once."""

    def bytes_max(self, operation: str) -> int:
        """Return how large the body of an operation may be."""
        if operation == "node.sync":
            return self.sync_bytes_max
        return self.job_bytes_max if operation in ("job.submit", "job.plan") else self.body_bytes_max
