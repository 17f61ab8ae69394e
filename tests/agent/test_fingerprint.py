from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from khonsu.abc.driver import Fingerprint
from khonsu.agent.fingerprint import address_towards, describe_driver, node_facts
from khonsu.agent.machine import Machine
from khonsu.core.job import Resources
from khonsu.drivers.binary import BinaryDriver
from khonsu.drivers.cgroups import CgroupSupport
from khonsu.testing import FakeDriver
from khonsu.transports.http import HTTPTransport
from khonsu.transports.inprocess import InProcessTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from khonsu.abc.transport import Connection, Identity

MACHINE = Machine(
    os="linux",
    arch="arm64",
    kernel="6.1.2",
    hostname="home",
    boot_id="b",
    cpu_millis=4000,
    memory_bytes=2**30,
    disk_bytes=2**40,
)


class Talkative(FakeDriver):
    """Has something to say of itself."""

    async def fingerprint(self) -> Fingerprint:
        return Fingerprint(version="7", attributes={"colour": "blue"})


class Broken(FakeDriver):
    """Cannot say anything."""

    async def fingerprint(self) -> Fingerprint:
        raise ZeroDivisionError("oops")


class Silent(FakeDriver):
    """Says nothing."""

    async def fingerprint(self) -> Fingerprint:
        return None  # type: ignore[return-value]


@pytest.mark.anyio
async def test_facts_of_a_node() -> None:
    """Attributes have the names that constraints use; what the user gives counts more than what is found."""
    drivers = (await describe_driver(Talkative()), await describe_driver(BinaryDriver()))
    facts = node_facts(
        MACHINE,
        drivers=drivers,
        cgroups=CgroupSupport(version=2, memory=Path("/x")),
        labels={"disk": "ssd"},
        pool="edge",
        resources=None,
        address="10.0.0.1",
    )
    assert (facts.pool, facts.labels) == ("edge", {"disk": "ssd"})
    assert facts.resources.cpu_millis == 4000
    assert facts.attributes["os"] == "linux"
    assert facts.attributes["arch"] == "arm64"
    assert facts.attributes["kernel.version"] == "6.1.2"
    assert facts.attributes["driver.fake.version"] == "7"
    assert facts.attributes["driver.fake.colour"] == "blue"
    assert facts.attributes["driver.binary.version"] == facts.attributes["khonsu.version"] == facts.version
    assert facts.attributes["memory_limit"] == "true"
    assert facts.attributes["cgroups.version"] == "2"
    assert [driver.config_schema["type"] for driver in facts.drivers] == ["object", "object"]
    smaller = node_facts(
        MACHINE,
        drivers=(),
        cgroups=CgroupSupport(),
        labels={},
        pool="default",
        resources=Resources(cpu=2, memory="512MiB"),
        address="10.0.0.1",
    )
    assert (smaller.resources.cpu_millis, smaller.resources.memory_bytes) == (2000, 2**29)
    assert smaller.attributes["memory_limit"] == "false"


@pytest.mark.anyio
async def test_a_driver_that_fails_is_not_healthy() -> None:
    """Whatever a driver raises is what is wrong with it, and nothing else; so it is where it says nothing."""
    assert "it returned NoneType, not Fingerprint" in (await describe_driver(Silent())).message
    info = await describe_driver(Broken())
    assert not info.healthy
    assert "ZeroDivisionError: oops" in info.message
    facts = node_facts(
        MACHINE,
        drivers=(info,),
        cgroups=CgroupSupport(),
        labels={},
        pool="default",
        resources=None,
        address="127.0.0.1",
    )
    assert not any(name.startswith("driver.") for name in facts.attributes)


def test_the_address_of_a_node() -> None:
    """It is where the way to the server begins."""

    class Elsewhere(InProcessTransport):
        def __init__(self) -> None:
            pass

        @asynccontextmanager
        async def connect(self, identity: Identity | None, /) -> AsyncGenerator[Connection, None]:
            raise NotImplementedError
            yield

    assert address_towards(Elsewhere()) == "127.0.0.1"
    assert address_towards(HTTPTransport("https://127.0.0.1:4747")) == "127.0.0.1"
