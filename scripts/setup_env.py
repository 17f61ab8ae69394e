"""Make a virtual environment with Khonsu in it, and say what is missing if that cannot be done.

    python3 scripts/setup_env.py --venv .venv [--group test] [--python python3.12] [--wheel]

Runs on a bare Debian 12 (Python 3.11 without pip) and installs `python3-venv` there when it may. Does nothing when the
environment was made from the same `pyproject.toml` already. Standard library only.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
VENV_PACKAGE = "python3-venv"
STAMPS = "khonsu-stamps"


def main() -> None:
    """Make the environment unless it is there and fresh."""
    parser = argparse.ArgumentParser(description="Make a virtual environment with Khonsu in it.")
    parser.add_argument("--venv", type=Path, required=True, help="folder of the environment")
    parser.add_argument("--group", action="append", default=[], help="dependency group to install as well")
    parser.add_argument("--python", help="interpreter to make it with")
    parser.add_argument("--wheel", action="store_true", help="install a built wheel, not the source tree")
    options = parser.parse_args()
    venv = ROOT / options.venv
    venv.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{venv}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python = options.python or find_python()
        if not (venv / STAMPS / "khonsu").exists():  # also where it was left half made
            create(python, venv)
        install(venv, sorted(options.group), wheel=options.wheel)


def find_python() -> str:
    """Return an interpreter that is new enough, or end with the way to get one."""
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        path = shutil.which(name)
        if path and version_of(path) >= OLDEST:
            return path
    sys.exit(f"Khonsu needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and there is none in PATH. {advice('python3')}")


def version_of(python: str) -> tuple[int, int]:
    """Return (major, minor) of an interpreter; (0, 0) if it does not start."""
    code = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return (int(words[0]), int(words[1])) if done.returncode == 0 and words else (0, 0)


def create(python: str, venv: Path) -> None:
    """Make an empty environment; Debian keeps the part of Python that does it in a package of its own."""
    if not runs([python, "-c", "import ensurepip, venv"]):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            sys.exit(f"{python} cannot make virtual environments. {advice(VENV_PACKAGE)}")
        print(f"installing {VENV_PACKAGE} with apt-get", flush=True)
        if not apt_install(VENV_PACKAGE):
            sys.exit(f"apt-get could not install {VENV_PACKAGE}. {advice(VENV_PACKAGE)}")
    print(f"making {venv.name} with {python}", flush=True)
    must([python, "-m", "venv", str(venv)])


def apt_install(package: str) -> bool:
    """Install a Debian package, with a fresh list of packages if the present one does not know it."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install_command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
    if runs(install_command, environment):
        return True
    return runs(["apt-get", "update", "-q"], environment) and runs(install_command, environment)


def install(venv: Path, groups: list[str], *, wheel: bool) -> None:
    """Install Khonsu and the groups; a stamp for what was installed makes the second time a no-op."""
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamps = venv / STAMPS
    stamps.mkdir(exist_ok=True)
    missing = [name for name in ("khonsu", *groups) if read(stamps / name) != wanted]
    if missing:
        print(f"installing {', '.join(missing)} into {venv.name}", flush=True)
        if "khonsu" in missing:
            must([*pip, "install", "--upgrade", "pip>=25.1"])  # the first pip that knows dependency groups
        arguments = [part for name in missing if name != "khonsu" for part in ("--group", name)]
        source = ["."] if wheel else ["--editable", "."]
        must([*pip, "install", *source, *arguments])
        for name in missing:
            (stamps / name).write_text(wanted, encoding="utf-8")
    elif wheel:  # the source may have changed though the dependencies have not
        must([*pip, "install", "--no-deps", "--force-reinstall", "."])


def read(path: Path) -> str:
    """Return the text of a file, and nothing if there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def runs(command: list[str], environment: dict[str, str] | None = None) -> bool:
    """Say whether a command succeeds; what it prints is not shown."""
    return subprocess.run(command, capture_output=True, check=False, cwd=ROOT, env=environment).returncode == 0


def must(command: list[str]) -> None:
    """Run a command, and end with its exit code if it fails."""
    done = subprocess.run(command, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit(f"failed ({done.returncode}): {' '.join(command)}")


def advice(package: str) -> str:
    """Say how to get a package on this machine."""
    if shutil.which("apt-get"):
        return f"Install it: sudo apt-get install {package}"
    return "Install Python with the package manager of this machine, or from https://www.python.org/downloads/."


if __name__ == "__main__":
    main()
