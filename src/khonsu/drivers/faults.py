"""Errors of what may be over when it is tried again: a machine that is overloaded, a full disk."""

from __future__ import annotations

from khonsu.errors import DriverError


def passing(message: str, *, hint: str = "") -> DriverError:
    """Return an error after which a task may be tried again on the same node."""
    error = DriverError(message, hint=hint)
    error.retryable = True
    return error
