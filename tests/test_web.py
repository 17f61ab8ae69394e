from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = "print('httpx._main' in sys.modules, 'rich' in sys.modules, callable(httpx.main), httpx.AsyncClient.__name__)"


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("from khonsu.web import httpx", "False False True AsyncClient"),
        ("import httpx; import khonsu.web", "True True"),
    ],
)
def test_the_command_line_of_the_library_is_loaded_only_by_who_wants_it(first: str, expected: str) -> None:
    """We load the HTTP library without its command line, and take nothing from a program that loaded it before."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {first}; {LOADED}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(expected)
