"""The tree of errors."""

from __future__ import annotations

import pickle

import pytest

from khonsu.errors import KhonsuError, all_errors
from khonsu.testing.counterpart import sample_error


@pytest.mark.parametrize("code", sorted(all_errors()))
def test_an_error_passes_between_processes(code: str) -> None:
    """An error that is raised in a pool of processes arrives as it was."""
    error = sample_error(code)
    found: KhonsuError = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert (str(found), found.__dict__) == (str(error), error.__dict__)
