"""The public surface is what `khonsu.__all__` says, documented and small."""

from __future__ import annotations

import ast
import inspect
import types

import khonsu
import khonsu.abc
from tests.style.source import library

ABSTRACT_METHODS_MAX = 7


def public_objects() -> dict[str, object]:
    """Return what each public name stands for."""
    return {name: getattr(khonsu, name) for name in khonsu.__all__}


def test_every_public_name_resolves() -> None:
    """Each name in `__all__` is there, is listed by `dir`, and is listed once."""
    names = list(khonsu.__all__)
    assert sorted(set(names)) == sorted(names)
    assert [name for name in names if not hasattr(khonsu, name)] == []
    assert set(names) - set(dir(khonsu)) == set()


def test_nothing_else_is_public() -> None:
    """What is not in `__all__` has a leading underscore or is a module."""
    others = {
        name
        for name in set(dir(khonsu)) - set(khonsu.__all__)
        if not name.startswith("_") and not isinstance(getattr(khonsu, name), types.ModuleType)
    }
    assert others - {"annotations", "TYPE_CHECKING", "import_module", "Any"} == set()


def test_every_public_name_has_a_docstring() -> None:
    """Each public class and function says what it is for."""
    things = {name: thing for name, thing in public_objects().items() if isinstance(thing, type | types.FunctionType)}
    assert [name for name, thing in things.items() if not written_docstring(thing)] == []


def written_docstring(thing: type | types.FunctionType) -> str | None:
    """Return a docstring of the thing's own, neither inherited nor generated."""
    return thing.__dict__.get("__doc__") if isinstance(thing, type) else thing.__doc__


def test_every_public_method_has_a_docstring() -> None:
    """Each method of a public class is explained by it or by the interface that it implements."""
    silent = [
        f"{name}.{member}"
        for name, thing in public_objects().items()
        if isinstance(thing, type) and thing.__module__.startswith("khonsu.")
        for member, value in vars(thing).items()
        if not member.startswith("_") and inspect.isfunction(value) and not inspect.getdoc(getattr(thing, member))
    ]
    assert silent == []


def test_interfaces_are_small() -> None:
    """An interface has at most seven methods that a plug-in must write."""
    counts = {
        name: len(getattr(thing, "__abstractmethods__", ()))
        for name in khonsu.abc.__all__
        if isinstance(thing := getattr(khonsu.abc, name), type)
    }
    assert {name: count for name, count in counts.items() if count > ABSTRACT_METHODS_MAX} == {}


def test_only_the_wiring_names_concrete_plug_ins() -> None:
    """Concrete drivers, stores and transports are chosen by the user's program or by the command line."""
    wiring = ("cli/", "examples/", "bench/", "testing/", "sim/", "local", "__init__.py")
    plug_ins = ("BinaryDriver", "SQLiteStore", "MemoryStore", "HTTPTransport")
    own = ("drivers/", "stores/", "transports/", "client/")
    named = [
        f"{module.place}:{node.lineno} {node.id}"
        for module in library()
        if not module.place.startswith((*wiring, *own))
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name) and node.id in plug_ins
    ]
    assert named == []
