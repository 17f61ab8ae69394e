from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from khonsu.errors import NotFound, PluginError
from khonsu.schedulers import registry


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that two packages with schedulers are installed."""
    points = (
        EntryPoint("roomiest", "tests.schedulers.test_interface:RoomiestFirst", registry.GROUP),
        EntryPoint("broken", "khonsu.errors:Nothing", registry.GROUP),
        EntryPoint("binpack", "khonsu.errors:Nothing", registry.GROUP),
    )
    monkeypatch.setattr(registry, "_installed", lambda: {point.name: point for point in points})


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_built_in_schedulers_are_found_by_their_own_name(name: str) -> None:
    """The table and the classes agree."""
    assert name == registry.resolve(name)().name


def test_an_installed_scheduler_is_found(installed: None) -> None:
    """By its entry point; one of a built-in name does not hide that."""
    assert registry.resolve("roomiest")().name == "roomiest"
    assert registry.resolve("binpack")().name == "binpack"
    assert registry.known() == ("binpack", "broken", "roomiest", "spread")


def test_one_that_cannot_be_loaded_says_why(installed: None) -> None:
    """The name, where it should have been, and the error."""
    with pytest.raises(PluginError, match=r"scheduler broken cannot be loaded from khonsu.errors:Nothing: .*Nothing"):
        registry.resolve("broken")


def test_an_unknown_name_lists_the_known_ones() -> None:
    """With the nearest of them."""
    with pytest.raises(NotFound, match=r"no scheduler 'binpak' .did you mean binpack.*schedulers are binpack, spread"):
        registry.resolve("binpak")
