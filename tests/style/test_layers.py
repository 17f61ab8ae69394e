"""The map of the layers is complete, and holds for what only a type checker sees too."""

from __future__ import annotations

import re
import tomllib

import grimp

from tests.style.source import PACKAGE, ROOT


def contract() -> dict[str, list[str]]:
    """Read the import contract of the layers."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = next(
        one for one in configuration["tool"]["importlinter"]["contracts"] if one["id"] == "layers"
    )
    return found


def layers() -> list[grimp.Layer]:
    """Read the layers of the import contract, leaving out what is not there yet."""
    lines = [re.sub(r"[()\s]", "", line).split("|") for line in contract()["layers"]]
    return [grimp.Layer(*names) for line in lines if (names := [name for name in line if exists(name)])]


def exists(name: str) -> bool:
    """Say whether the package has such a module."""
    return (PACKAGE / name / "__init__.py").exists() or (PACKAGE / f"{name}.py").exists()


def test_imports_for_the_type_checker_only_go_down_too() -> None:
    """An arrow that only types need is an arrow all the same."""
    graph = grimp.build_graph("khonsu", include_external_packages=False, cache_dir=None)
    for arrow in contract().get("ignore_imports", ()):
        importer, imported = arrow.split(" -> ")
        graph.remove_import(importer=importer, imported=imported)
    # The names at the top are re-exports of all layers; who imports the top imports what it uses of it.
    for imported in graph.find_modules_directly_imported_by("khonsu"):
        graph.remove_import(importer="khonsu", imported=imported)
    wrong = graph.find_illegal_dependencies_for_layers(layers=tuple(layers()), containers={"khonsu"})
    assert sorted(f"{each.importer} -> {each.imported}" for each in wrong) == []
