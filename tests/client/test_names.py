"""The public names: three lists that must agree, and are loaded one by one."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

import pytest

import khonsu
import khonsu.abc

PACKAGES = pytest.mark.parametrize("package", [khonsu, khonsu.abc], ids=["khonsu", "khonsu.abc"])


def for_type_checkers(package: ModuleType) -> dict[str, str]:
    """Return the names that a type checker sees, with their modules, without the modules themselves."""
    tree = ast.parse(inspect.getsource(package))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {
        str(alias.asname): str(node.module)
        for node in imports
        for alias in node.names
        if alias.asname and node.module != "khonsu"
    }


@PACKAGES
def test_a_type_checker_sees_what_there_is(package: ModuleType) -> None:
    """Each name comes at run time from the module that type checkers look into."""
    prefix = "" if package is khonsu else f"{package.__name__}."
    assert for_type_checkers(package) == {name: prefix + module for name, module in package._MODULE_OF.items()}
    assert sorted(package._MODULE_OF) == sorted(package.__all__)


@PACKAGES
def test_every_name_can_be_loaded(package: ModuleType) -> None:
    """Each name is there, and an unknown one is told as Python tells it."""
    assert [name for name in package.__all__ if getattr(package, name, None) is None] == []
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = package.Nothing


def test_the_interfaces_are_the_same_at_the_top() -> None:
    """What stands in `khonsu.abc` and at the top is one thing."""
    both = set(khonsu.abc.__all__) & set(khonsu.__all__)
    assert {"Driver", "Scheduler", "Store", "Transport", "Listener"} <= both
    assert [name for name in both if getattr(khonsu, name) is not getattr(khonsu.abc, name)] == []
