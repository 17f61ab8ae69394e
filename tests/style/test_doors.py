"""Each outside library and each source of chance or time is reached through one door."""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING

import pytest

from tests.style.source import Module, library

if TYPE_CHECKING:
    from collections.abc import Iterator

# What may import each library. A door is a file or a folder of the package, with a slash at its end.
HELPER = "supervisor/"  # runs alone, in a bare interpreter
SIMULATION = "testing/simulation/"  # makes clocks and chance
BENCH = "bench/"  # measures, and therefore reads the real clock
DOORS: dict[str, tuple[str, ...]] = {
    "peewee": ("stores/",),
    "playhouse": ("stores/", SIMULATION),
    "apsw": (SIMULATION,),
    "sqlite3": ("stores/",),
    "httpx": ("web.py",),
    "h11": ("transports/upload.py", "api/"),
    "cryptography": ("security/",),
    "fsspec": ("backup/", "artifacts/"),
    "s3fs": ("backup/", "artifacts/"),
    "starlette": ("api/",),
    "uvicorn": ("api/",),
    "click": ("cli/", "__main__.py"),
    "rich": ("cli/",),
    "matplotlib": ("sim/",),
    "pytest": (),
    "hypothesis": (),
    "trio": ("testing/",),
    "asyncio": ("env.py", "api/", HELPER, BENCH, SIMULATION),
    "time": ("env.py", HELPER, BENCH, SIMULATION),
    "uuid": ("env.py",),
    "random": ("env.py", BENCH, "testing/virtual.py", SIMULATION),
    "secrets": ("env.py",),
}
PROGRAMS = ("cli/", "examples/", "bench/", "__main__.py", f"{SIMULATION}__main__.py", HELPER)

# Who catches everything, and how often: the outermost loops, which must outlive what they call. Counts only fall; a new
# entry needs a reason that a reviewer believes.
BROAD_EXCEPTS: dict[str, int] = {
    "agent/verbs.py": 1,  # a driver is somebody else's code, and must not end the agent
    "artifacts/flights.py": 1,  # a shared download hands what it raised to those who wait for it
    "control/schedulers.py": 1,  # a scheduler is somebody else's code, and whoever asks it must hear that it failed
    "control/state.py": 1,  # a store may be somebody else's code, and whoever waits for it must hear that it failed
    "control/worker.py": 1,  # so may be a plan that it made, which must not end the control plane
    "testing/simulation/host.py": 1,  # whatever ends a program of a simulated host is told to the world
    "testing/simulation/sweep.py": 1,  # a world that breaks down is a finding, and the other seeds are to run
    "env.py": 1,  # a worker thread hands what a call raised to the task that waits for it
    "scopes.py": 1,  # what fails beside the block's own error becomes a note on it
    "stores/engine.py": 1,  # the writer's thread hands what a transaction raised to the task that waits for it
    "stores/sqlite.py": 1,  # a transaction that fails, however, undoes itself and nothing else
    "supervisor/child.py": 1,  # between fork and exec, nothing may unwind into the parent's code
    "transports/serving.py": 1,  # one request that fails must not end the server; its caller is told without the inside
}


@pytest.mark.parametrize("library_name", sorted(DOORS))
def test_a_library_has_one_door(library_name: str) -> None:
    """A library is imported behind its own door and nowhere else."""
    strangers = [
        f"{module.place}:{line} imports {name}"
        for module in library()
        if not module.place.startswith(DOORS[library_name])
        for name, line in module.imports()
        if name.split(".")[0] == library_name
    ]
    assert strangers == []


def test_the_helper_imports_the_standard_library_only() -> None:
    """The process that keeps tasks alive starts in a bare interpreter, where nothing of ours can be imported."""
    strangers = [
        f"{module.place}:{line} imports {name}"
        for module in library()
        if module.place.startswith(HELPER)
        for name, line in module.imports()
        if name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert strangers == []


def test_broad_excepts_are_counted() -> None:
    """Catching everything is left to named outer loops, and their number only falls."""
    counts = {module.place: sum(1 for _ in broad_excepts(module)) for module in library()}
    assert {place: count for place, count in counts.items() if count} == BROAD_EXCEPTS


def broad_excepts(module: Module) -> Iterator[ast.ExceptHandler]:
    """Find handlers of everything that do not raise it again as their last act."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type):
            last = node.body[-1]
            if not (isinstance(last, ast.Raise) and last.exc is None):
                yield node


def is_broad(caught: ast.expr | None) -> bool:
    """Say whether an `except` clause catches everything."""
    if isinstance(caught, ast.Tuple):
        return any(is_broad(element) for element in caught.elts)
    return caught is None or (isinstance(caught, ast.Name) and caught.id in {"Exception", "BaseException"})


def test_the_library_never_prints_or_exits() -> None:
    """Printing and ending the process are for programs; the library returns values and raises errors."""
    calls = [
        f"{module.place}:{node.lineno} {ast.unparse(node.func)}"
        for module in library()
        if not module.place.startswith(PROGRAMS)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"print", "exit", "quit", "sys.exit", "os._exit", "logging.basicConfig"}
    ]
    assert calls == []
