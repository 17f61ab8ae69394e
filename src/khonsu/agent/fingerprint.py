"""What an agent says of its node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from urllib.parse import urlsplit

from attrs import evolve

from khonsu.abc.driver import AnyDriver, Fingerprint
from khonsu.abc.transport import Transport
from khonsu.agent.machine import Machine, local_address
from khonsu.agent.verbs import call
from khonsu.core.job import Resources
from khonsu.core.protocol import NodeFacts
from khonsu.core.records import DriverInfo, NodeResources
from khonsu.core.schema import config_schema
from khonsu.drivers.cgroups import CgroupSupport
from khonsu.errors import DriverError

LOOPBACK = "127.0.0.1"


async def describe_driver(driver: AnyDriver) -> DriverInfo:
    """Return what a driver says of itself; one that cannot say anything is not healthy."""
    try:
        found: Fingerprint = await call(driver, "fingerprint", driver.fingerprint(), kind=Fingerprint)
        schema = config_schema(driver.config_type)
    except (DriverError, TypeError) as error:
        return DriverInfo(name=driver.name, healthy=False, message=str(error))
    return DriverInfo(
        name=driver.name,
        version=found.version,
        healthy=found.healthy,
        message=found.message,
        config_schema=schema,
        attributes=found.attributes,
    )


def attributes_of(machine: Machine, drivers: Iterable[DriverInfo], cgroups: CgroupSupport) -> dict[str, str]:
    """Return the attributes that constraints ask for, by their bare names."""
    attributes = {
        "os": machine.os,
        "arch": machine.arch,
        "kernel.version": machine.kernel,
        "hostname": machine.hostname,
        "khonsu.version": version("khonsu"),
        "memory_limit": "true" if cgroups.memory is not None else "false",
    }
    if cgroups.version:
        attributes["cgroups.version"] = str(cgroups.version)
    for driver in drivers:
        if driver.healthy:
            attributes[f"driver.{driver.name}.version"] = driver.version
            attributes |= {f"driver.{driver.name}.{key}": value for key, value in driver.attributes.items()}
    return attributes


def node_facts(
    machine: Machine,
    *,
    drivers: tuple[DriverInfo, ...],
    cgroups: CgroupSupport,
    labels: Mapping[str, str],
    pool: str,
    resources: Resources | None,
    address: str,
    journal: str | None = None,
) -> NodeFacts:
    """Return all that the control plane is told of a node; `journal` is what was wrong with the agent's."""
    attributes = attributes_of(machine, drivers, cgroups)
    if journal is not None:
        attributes["journal.damaged"] = journal
    found = NodeResources(
        cpu_millis=machine.cpu_millis, memory_bytes=machine.memory_bytes, disk_bytes=machine.disk_bytes
    )
    if resources is not None:
        found = evolve(found, cpu_millis=resources.cpu_millis, memory_bytes=resources.memory_bytes)
    return NodeFacts(
        labels=dict(labels),
        pool=pool,
        attributes=attributes,
        resources=found,
        drivers=drivers,
        address=address,
        boot_id=machine.boot_id,
        version=version("khonsu"),
    )


def address_towards(transport: Transport) -> str:
    """Return the address of this machine on the way to the server; the loopback's within one process. Blocks."""
    url = getattr(transport, "url", None)
    if not isinstance(url, str):
        return LOOPBACK
    parts = urlsplit(url)
    return local_address(parts.hostname or LOOPBACK, parts.port or 443)
