"""How the errors of this package are built: the address, what was found there, what would be right."""

from __future__ import annotations

from khonsu.errors import ArtifactError, DigestMismatch


def fault(shown: str, found: str, *, hint: str = "", retryable: bool = False) -> ArtifactError:
    """Return an error about an address.

    Args:
        shown: The address as people may see it.
        found: What was found there.
        hint: What to do about it.
        retryable: Whether the same request may succeed later.

    """
    error = ArtifactError(f"artifact {shown}: {found}", hint=hint)
    error.retryable = retryable
    return error


def mismatch(shown: str, *, expected: str, found: str | None) -> DigestMismatch:
    """Return an error about bytes that are not those that were pinned; without `found`, not about what they are."""
    return DigestMismatch(
        f"artifact {shown}: its sha256 is {f'{found}, ' if found else ''}not {expected}",
        hint="If the publisher replaced it on purpose, put the new digest into the job",
    )


def cut(shown: str, *, received: int, total: int | None, reason: str) -> ArtifactError:
    """Return an error about a download that ended before its end."""
    of_total = f" of {total}" if total is not None else ""
    return fault(shown, f"cut after {received}{of_total} bytes ({reason})", retryable=True)
