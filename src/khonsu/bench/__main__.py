"""`python -m khonsu.bench NAME [--parameter value]` prints one JSON object; `--list` prints the names."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from typing import Any, cast

import anyio

from khonsu.bench.report import Measured, as_json

BENCHMARKS = {
    "start": "single:start",
    "footprint": "single:footprint",
    "latency": "tasks:latency",
    "burst": "tasks:burst",
    "sleepers": "tasks:sleepers",
    "c1m": "c1m:c1m",
    "nomad-cases": "cases:cases",
    "agents": "agents:agents",
}
USAGE = "usage: python -m khonsu.bench --list | NAME [--parameter value]"
USAGE_EXIT = 2
WRONG_EXIT = 1


def main(words: list[str]) -> int:
    """Run a benchmark, and return the exit code: 1 if its result was wrong, 2 if it was not understood."""
    if words == ["--list"]:
        print("\n".join(BENCHMARKS))
        return 0
    try:
        name, parameters = words[0], words[1:]
        function = _find(name)
        given = _parse(function, parameters)
    except (LookupError, ValueError) as error:
        print(f"{error}\n{USAGE}" if words else USAGE, file=sys.stderr)
        return USAGE_EXIT
    measured = run(function, given)
    print(as_json(name, given, measured))
    return WRONG_EXIT if measured.wrong else 0


def run(function: Callable[..., Any], parameters: dict[str, Any]) -> Measured:
    """Run a benchmark, in an event loop if it is one for that."""
    if inspect.iscoroutinefunction(function):
        return cast("Measured", anyio.run(cast("Callable[[], Awaitable[Any]]", partial(function, **parameters))))
    return cast("Measured", function(**parameters))


def _find(name: str) -> Callable[..., Any]:
    if name not in BENCHMARKS:
        raise LookupError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    module, _, function = BENCHMARKS[name].partition(":")
    return cast("Callable[..., Any]", getattr(import_module(f"khonsu.bench.{module}"), function))


def _parse(function: Callable[..., Any], words: list[str]) -> dict[str, Any]:
    """Return all parameters of a benchmark, those that are not given with their defaults."""
    known = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    values = dict(known)
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--") or name not in known:
            raise ValueError(f"{word!r} is no parameter; there are {', '.join('--' + one for one in known)}")
        if not equals and isinstance(known[name], bool) and (not rest or rest[0].startswith("--")):
            text = "true"
        elif not equals:
            if not rest:
                raise ValueError(f"--{name} needs a value")
            text = rest.pop(0)
        values[name] = _value(known[name], text)
    return values


def _value(default: Any, text: str) -> Any:
    """Return a value of the type of the default."""
    if isinstance(default, bool):
        return text.lower() in ("true", "yes", "1")
    return type(default)(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
