"""Starting stays fast, as a multiple of what the bare interpreter takes.

These are the only tests that measure. They compare processor time, the smallest of several runs, so that neither the
machine's speed nor its load decides. On the machine where the limits were set the bare interpreter starts in 12 ms.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

RUNS = 7
IMPORT_RATIO_MAX = 8.0  # 100 ms
HELP_RATIO_MAX = 12.0  # 150 ms
HEAVY = {"numpy", "peewee", "httpx", "cryptography", "starlette", "uvicorn", "rich", "fsspec", "asyncio"}


def processor_seconds(*arguments: str) -> float:
    """Start the interpreter once and return the user and system time that it took."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize(
    ("arguments", "ratio_max"),
    [(("-c", "import khonsu"), IMPORT_RATIO_MAX), (("-m", "khonsu", "--help"), HELP_RATIO_MAX)],
    ids=["import", "help"],
)
def test_start_is_fast(arguments: tuple[str, ...], ratio_max: float) -> None:
    """Importing Khonsu takes at most 100 ms, its help 150 ms, on the machine where the bare interpreter takes 12."""
    processor_seconds(*arguments)  # writes the byte code
    pairs = [(processor_seconds("-c", "pass"), processor_seconds(*arguments)) for _ in range(RUNS)]
    bare, ours = (min(column) for column in zip(*pairs, strict=True))
    assert ours / bare <= ratio_max


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules in a fresh interpreter after it ran some code."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", f"{code}; {report}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    """`import khonsu` loads names; what they need is loaded when they are used."""
    assert loaded_by("import khonsu") & HEAVY == set()


def test_an_agent_loads_no_numpy() -> None:
    """What an agent process needs does not bring numpy, which costs it 12 MiB."""
    assert "numpy" not in loaded_by("import khonsu; khonsu.Agent; khonsu.BinaryDriver; khonsu.HTTPTransport")
