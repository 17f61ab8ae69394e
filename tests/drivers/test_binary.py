from __future__ import annotations

import pytest

from khonsu.drivers.binary import BinaryConfig, BinaryDriver
from khonsu.testing import FakeConfig, FakeDriver, FakeMachine, check_driver

pytestmark = pytest.mark.anyio

FOREVER = BinaryConfig("sleep", args=["1000"])


async def test_the_driver_keeps_the_promises() -> None:
    """The driver for programs does what every driver must do."""
    exits = {0: BinaryConfig("true"), 3: BinaryConfig("sh", args=["-c", "exit 3"])}
    stubborn = BinaryConfig("sh", args=["-c", "trap '' TERM; while :; do sleep 0.05; done"])
    await check_driver(BinaryDriver, config=FOREVER, exits=exits, stubborn=stubborn)


async def test_the_fake_driver_keeps_them_as_well() -> None:
    """The driver of simulations does what every driver must do."""
    machine = FakeMachine()
    exits = {code: FakeConfig(run_seconds=0.01, exit_code=code) for code in (0, 3)}
    stubborn = FakeConfig(stop_seconds=1000.0)
    await check_driver(lambda: FakeDriver(machine), config=FakeConfig(), exits=exits, stubborn=stubborn)
