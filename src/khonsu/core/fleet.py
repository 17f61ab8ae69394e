"""The fleet as a scheduler sees it: every node a row, every resource and attribute a column, at one revision."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from khonsu.core.arrays import BoolArray, Columns, FloatArray, IntArray, read_only
from khonsu.core.feasible import feasible
from khonsu.core.ids import NodeId
from khonsu.core.nodes import READY, STATES, Codes, NodeTable
from khonsu.core.revision import Revision
from khonsu.errors import ensure

if TYPE_CHECKING:
    from khonsu.core.ask import Ask

ScalarT = TypeVar("ScalarT", bound=np.generic)

UNITS: Mapping[str, str] = {"cpu": "millicores", "memory": "bytes", "disk": "bytes", "ports": "count"}
RESOURCES = tuple(UNITS)


@frozen(kw_only=True, eq=False)
class TakenPorts:
    """Which nodes have which port taken: a number per port whose bit r stands for row r of the node table."""

    by_port: Mapping[int, int] = field(factory=dict[int, int])
    more: Mapping[int, BoolArray] = field(factory=dict)
    """By port, the nodes of the fleet on which copies would take it that are only thought of."""

    def on(self, port: int, rows: int, chosen: IntArray | None) -> BoolArray:
        """Return the nodes that have a port taken: `chosen` of all rows, or all."""
        bits = self.by_port.get(port, 0).to_bytes(rows // 8 + 1, "little")
        taken = np.unpackbits(np.frombuffer(bits, np.uint8), count=rows, bitorder="little").astype(np.bool_)
        taken = taken if chosen is None else taken[chosen]
        return taken | self.more[port] if port in self.more else taken

    def folded(self) -> TakenPorts:
        """Return the same with everything in `by_port`; only for a fleet with all rows of its table."""
        if not self.more:
            return self
        more = {
            port: int.from_bytes(np.packbits(mask, bitorder="little"), "little") for port, mask in self.more.items()
        }
        return TakenPorts(
            by_port={**self.by_port, **{port: self.by_port.get(port, 0) | bits for port, bits in more.items()}}
        )


class Fleet:
    """The nodes at one revision, as read-only columns that all have the same order.

    A fleet never changes: `after` and `[...]` return another one. Columns are made when they are looked at. It may be
    read from several threads.
    """

    def __init__(
        self,
        *,
        revision: Revision,
        table: NodeTable,
        states: IntArray,
        used: Columns,
        hosts: Mapping[tuple[str, str], Mapping[int, int]] | None = None,
        copies: Mapping[tuple[str, str], IntArray] | None = None,
        ports: TakenPorts | None = None,
        seed: int = 0,
        step: int = 0,
        chosen: IntArray | None = None,
    ) -> None:
        """Make a fleet of a table of nodes and columns beside it; `FleetState.snapshot` does.

        Args:
            revision: The revision it shows.
            table: The nodes.
            states: The code in `STATES` of each row.
            used: What is used of each resource.
            hosts: How many copies there are, by (job, group) and the row of the table.
            copies: The same as columns, for the groups where it is no longer what `hosts` says.
            ports: The ports taken.
            seed: Where `rng` begins.
            step: How many copies were added since.
            chosen: The rows of the table that this fleet has, or None for all.

        """
        self.revision = revision
        self.table = table
        self.states = states
        self.used: Mapping[str, IntArray] = used
        self.units = UNITS
        self._used = used
        self._hosts = hosts or {}
        self._copies = dict(copies or {})
        self._ports = ports or TakenPorts()
        self._seed = seed
        self._step = step
        self._chosen = chosen

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.states)

    @cached_property
    def ids(self) -> tuple[NodeId, ...]:
        """Return the id of each node."""
        return self.table.ids if self._chosen is None else tuple(self.table.ids[row] for row in self._chosen)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the name of each node."""
        return self.table.names if self._chosen is None else tuple(self.table.names[row] for row in self._chosen)

    @cached_property
    def ready(self) -> BoolArray:
        """Return which nodes may be given work: heard of, and eligible."""
        return read_only(self.states == READY)

    @cached_property
    def rank(self) -> IntArray:
        """Return the place of each node in the seeded order that decides between equals: the lowest wins."""
        return self._rows_of(self.table.rank)

    @cached_property
    def total(self) -> Mapping[str, IntArray]:
        """Return what each node has of each resource."""
        if self._chosen is None:
            return self.table.total
        return Columns(RESOURCES, lambda name: self.table.total[name][self._chosen])

    @cached_property
    def free(self) -> Mapping[str, IntArray]:
        """Return what is left of each resource; below zero where a node has shrunk."""
        total, used = self.total, self.used
        return Columns(RESOURCES, lambda name: total[name] - used[name])

    def share(self, resource: str) -> FloatArray:
        """Return the used share of a resource, 0 where a node has none of it."""
        total = self.total[resource]
        return np.divide(self.used[resource], total, out=np.zeros(len(self)), where=total > 0)

    def attribute(self, name: str) -> Codes:
        """Return an attribute by the name that constraints use: `os`, `label.rack`, `node.name`."""
        return self._codes_of(self.table.attribute(name))

    def driver(self, name: str) -> Codes:
        """Return a driver: "healthy", what is wrong with it, or nothing where a node does not have it."""
        return self._codes_of(self.table.driver(name))

    def where(self, attribute: str, operator: str, value: str = "") -> BoolArray:
        """Return the nodes on which a condition holds.

        Raises:
            ValueError: There is no such operator, or it cannot take this value.

        """
        return self._rows_of(self.table.where(attribute, operator, value))

    def copies(self, ask: Ask) -> IntArray:
        """Return how many copies of the ask's group each node has, those that are about to stop included."""
        copies = self._copies.get(ask.key)
        if copies is None:
            hosts = self._hosts.get(ask.key, {})
            copies = np.zeros(len(self.table) if hosts else len(self), np.int64)
            if hosts:
                copies[list(hosts)] = list(hosts.values())
                copies = copies if self._chosen is None else copies[self._chosen]
            self._copies[ask.key] = read_only(copies)
        return copies

    def failures(self, ask: Ask) -> IntArray:
        """Return how often the ask's slot failed on each node."""
        found = np.zeros(len(self.table), np.int64)
        for node in ask.avoid:
            if (row := self.table.rows.get(node)) is not None:
                found[row] += 1
        return self._rows_of(read_only(found))

    def taken(self, port: int) -> BoolArray:
        """Return the nodes that have a port taken."""
        return self._ports.on(port, len(self.table), self._chosen)

    def fits(self, ask: Ask) -> IntArray:
        """Return how many more copies fit on each node: 0 where anything stands against them."""
        return feasible(ask, self).fits

    def after(self, ask: Ask, copies: int | IntArray = 1) -> Fleet:
        """Return the fleet as it would be with more copies on each node, the same number or one per node."""
        added = np.asarray(copies, np.int64)
        changed = {name: self.used[name] + amount * added for name, amount in ask.resources.items() if amount}
        ports = self._ports
        if ask.static_ports:
            more = {port: self.taken(port) | (added > 0) for port in ask.static_ports}
            ports = TakenPorts(by_port=ports.by_port, more={**ports.more, **more})
        return Fleet(
            revision=self.revision,
            table=self.table,
            states=self.states,
            used=self._used.replaced(changed),
            hosts=self._hosts,
            copies={**self._copies, ask.key: read_only(self.copies(ask) + added)},
            ports=ports,
            seed=self._seed,
            step=self._step + int(added.sum()),
            chosen=self._chosen,
        )

    def __getitem__(self, rows: BoolArray | IntArray | slice) -> Fleet:
        """Return the fleet of some nodes: by a mask, by rows in any order and number, or a slice."""
        used = self.used
        every = np.arange(len(self.table)) if self._chosen is None else self._chosen
        return Fleet(
            revision=self.revision,
            table=self.table,
            states=read_only(self.states[rows]),
            used=Columns(RESOURCES, lambda name: used[name][rows]),
            hosts=self._hosts,
            copies={key: read_only(copies[rows]) for key, copies in self._copies.items()},
            ports=TakenPorts(
                by_port=self._ports.by_port, more={port: mask[rows] for port, mask in self._ports.more.items()}
            ),
            seed=self._seed,
            step=self._step,
            chosen=read_only(every[rows]),
        )

    def counting(self, ask: Ask, copies: IntArray) -> Fleet:
        """Return the fleet with more copies counted on each node whose resources are already taken."""
        return self._with(self._seed, {**self._copies, ask.key: read_only(self.copies(ask) + copies)})

    def next_group(self, seed: int) -> Fleet:
        """Return the fleet as another group finds it: with its own seed, and all that was taken.

        The copies that were added are no longer counted, so that a job of many groups does not carry a column for each.
        Only for a fleet with all nodes.
        """
        ensure(self._chosen is None, "the next group is placed on all nodes")
        return self._with(seed, {})

    def _with(self, seed: int, copies: Mapping[tuple[str, str], IntArray]) -> Fleet:
        return Fleet(
            revision=self.revision,
            table=self.table,
            states=self.states,
            used=self._used,
            hosts=self._hosts,
            copies=copies,
            ports=self._ports if copies else self._ports.folded(),
            seed=seed,
            chosen=self._chosen,
        )

    def rng(self) -> np.random.Generator:
        """Return a source of chance that depends on the seed and on how many copies were added: the same each time."""
        return np.random.default_rng((self._seed, abs(self._step)))

    def state(self, row: int) -> str:
        """Return what a node is, in one word of `STATES`."""
        return STATES[int(self.states[row])]

    def to_pandas(self) -> Any:
        """Return the columns as a pandas `DataFrame`, one row per node; needs pandas."""
        columns: dict[str, object] = {"id": self.ids, "name": self.names, "ready": self.ready, "rank": self.rank}
        for name in RESOURCES:
            columns |= {f"{name}_total": self.total[name], f"{name}_used": self.used[name]}
        return import_module("pandas").DataFrame(columns)

    def _rows_of(self, column: npt.NDArray[ScalarT]) -> npt.NDArray[ScalarT]:
        return column if self._chosen is None else read_only(column[self._chosen])

    def _codes_of(self, column: Codes) -> Codes:
        return column if self._chosen is None else Codes(read_only(column.codes[self._chosen]), column.values)
