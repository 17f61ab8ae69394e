from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from khonsu.drivers import registry
from khonsu.drivers.binary import BinaryDriver
from khonsu.errors import NotFound, PluginError


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have some distributions installed that bring drivers."""
    points = EntryPoints(
        EntryPoint(name, value, registry.GROUP)
        for name, value in {
            "fake": "khonsu.testing.fake_driver:FakeDriver",
            "list": "builtins:list",
            "gone": "khonsu.nowhere:Driver",
        }.items()
    )

    def entry_points(**wanted: Any) -> EntryPoints:
        return points.select(**wanted)

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)


def test_a_built_in_driver_asks_no_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The static table comes first, since a look-up of entry points is slow."""
    monkeypatch.delattr("importlib.metadata.entry_points")
    assert isinstance(registry.load_driver("binary"), BinaryDriver)


@pytest.mark.usefixtures("plugged_in")
def test_a_driver_of_another_distribution() -> None:
    """A driver that an installed distribution brings is found by its name."""
    assert registry.load_driver("fake").name == "fake"
    assert registry.driver_names() == ("binary", "fake", "gone", "list")


@pytest.mark.usefixtures("plugged_in")
def test_an_unknown_driver() -> None:
    """The message names the nearest one, and all that there are."""
    with pytest.raises(NotFound) as caught:
        registry.load_driver("binry")
    assert caught.value.nearest == "binary"
    assert str(caught.value) == "there is no driver 'binry' (did you mean binary?). There are: binary, fake, gone, list"


@pytest.mark.usefixtures("plugged_in")
@pytest.mark.parametrize(("name", "message"), [("list", "is no driver, but list"), ("gone", "cannot be loaded")])
def test_a_broken_plug_in(name: str, message: str) -> None:
    """What cannot be loaded, or is something else, is told apart from what is not there."""
    with pytest.raises(PluginError, match=message):
        registry.load_driver(name)
