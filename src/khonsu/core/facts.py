"""What an agent may say of its machine: a node is believed, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from khonsu.core.codec import dumps
from khonsu.core.names import check_labels, check_name
from khonsu.core.protocol import NodeFacts
from khonsu.errors import Problem

FACTS_BYTES_MAX: Final = 2**20
"""Of all facts of a node as JSON; they are written with every change of the node, and shown with every list."""

BOOT_ID_LENGTH_MAX: Final = 256


def check_facts(facts: NodeFacts, path: str = "facts") -> Iterator[Problem]:
    """Yield every mistake in the facts of a node."""
    yield from check_labels(facts.labels, f"{path}.labels")
    yield from check_name(facts.pool, f"{path}.pool")
    yield from check_boot_id(facts.boot_id, f"{path}.boot_id")
    for name in ("cpu_millis", "memory_bytes", "disk_bytes"):
        if (amount := getattr(facts.resources, name)) < 0:
            yield Problem(f"{path}.resources.{name}", str(amount), "0 or more")
    if (size := len(dumps(facts).encode())) > FACTS_BYTES_MAX:
        yield Problem(path, f"{size} bytes", f"at most {FACTS_BYTES_MAX} bytes")


def check_boot_id(boot_id: str, path: str = "boot_id") -> Iterator[Problem]:
    """Yield what is wrong with the id of a boot of a machine."""
    if len(boot_id) > BOOT_ID_LENGTH_MAX:
        yield Problem(path, f"{len(boot_id)} letters", f"at most {BOOT_ID_LENGTH_MAX} letters")
