"""Run every check of the project, several at a time, and print how long each took.

    python scripts/check.py [--jobs 4] [--only NAME ...]

A step is a short list of commands, run until one fails. The output of a step that fails is printed in full when it
ends; the exit code is 1 if any failed. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
NEWER_PYTHONS = ("3.12", "3.13")
# What runs whole programs and worlds, and waits for them: a step of its own beside all other tests.
WHOLE = tuple(f"tests/{name}" for name in ("bench", "cli", "examples", "faults", "simulation", "supervisor"))
PRINTING = threading.Lock()


@dataclass(frozen=True)
class Step:
    """One check: a name for people, and the commands to run in order until one fails."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    closing_line: bool = False  # print the last line of output also when it succeeds


@dataclass(frozen=True)
class Result:
    """How a step went; `seconds` is wall time."""

    step: Step
    ok: bool
    seconds: float


def main() -> None:
    """Run the chosen steps and end with a summary."""
    parser = argparse.ArgumentParser(description="Run every check of the project.")
    # Two more than there are cores: the tests wait for processes and disks about half of their time.
    jobs = max(2, os.cpu_count() or 2) + 2
    parser.add_argument("--jobs", type=int, default=jobs, help="steps that run at the same time")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="run this step only")
    options = parser.parse_args()
    known = steps()
    unknown = set(options.only) - {step.name for step in known}
    if unknown:
        sys.exit(f"no step {', '.join(sorted(unknown))}; there are: {', '.join(step.name for step in known)}")
    chosen = [step for step in known if not options.only or step.name in options.only]
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=min(options.jobs, 4)) as pool:
        results = list(pool.map(run, chosen))
    failed = [result.step.name for result in results if not result.ok]
    verdict = f"failed: {', '.join(failed)}" if failed else "all passed"
    print(f"{len(results)} checks in {time.monotonic() - started:.0f} s: {verdict}")
    sys.exit(1 if failed else 0)


def steps() -> list[Step]:
    """Return every step: the longest first, and the short ones before the last long one, which they do not delay."""
    python = str(BIN / "python")
    newer = [step for version in NEWER_PYTHONS if (step := newer_python(version))]
    pytest = (python, "-m", "pytest", "-q", "--continue-on-collection-errors", "--durations=5")
    return [
        Step("tests", ((*pytest, *(f"--ignore={folder}" for folder in WHOLE)),), closing_line=True),
        Step("tests-whole", ((*pytest, *WHOLE),), closing_line=True),
        *newer[:1],
        Step("format", ((str(BIN / "ruff"), "format", "--check", "."),)),
        Step("ruff", ((str(BIN / "ruff"), "check", "."),)),
        Step("imports", ((str(BIN / "lint-imports"),),)),
        Step("mypy", ((str(BIN / "mypy"), "src", "tests", "scripts", "examples"),)),
        Step(
            "public",
            (
                (python, "scripts/docs_code.py"),
                (str(BIN / "mypy"), "--cache-dir", "build/mypy", "build/docs_code"),
                (str(BIN / "pyright"),),
            ),
        ),
        *newer[1:],
    ]


def newer_python(version: str) -> Step | None:
    """Return the step that tests the built wheel on a newer Python, if this machine has one."""
    interpreter = find_python(version)
    if interpreter is None:
        print(f"no Python {version} here: its tests are left out")
        return None
    venv = f".venv-{version}"
    setup = ("--venv", venv, "--python", interpreter, "--group", "test", "--wheel")
    return Step(
        f"tests-{version}",
        (
            (str(BIN / "python"), "scripts/setup_env.py", *setup),
            (str(ROOT / venv / "bin" / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--effort=small"),
        ),
        closing_line=True,
    )


def find_python(version: str) -> str | None:
    """Return an interpreter of this version that starts: in PATH, or the newest that pyenv has."""
    from_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *map(str, reversed(from_pyenv))):
        # pyenv puts a `python3.12` into PATH that only says that no such version is chosen
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def run(step: Step) -> Result:
    """Run one step and print its line."""
    started = time.monotonic()
    output = ""
    ok = True
    environment = {**os.environ, "PY_COLORS": "0", "NO_COLOR": "1"}
    for command in step.commands:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        output += done.stdout
        if done.returncode:
            ok = False
            break
    seconds = time.monotonic() - started
    with PRINTING:
        if not ok:
            print(output.rstrip())
        elif step.closing_line and output.strip():
            print(output.rstrip().splitlines()[-1])
        print(f"{'ok    ' if ok else 'FAILED'} {step.name:<12} {seconds:6.1f} s", flush=True)
    return Result(step, ok, seconds)


if __name__ == "__main__":
    main()
