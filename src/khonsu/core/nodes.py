"""What is constant about the nodes of a fleet between two changes of a node: names, totals, attributes, as columns.

A `NodeTable` is never changed: a change of a node makes a new one, which takes over what is known of the others. The
columns of attributes and the masks of conditions are made when they are first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import attrs
import numpy as np
from attrs import frozen

from khonsu.core.arrays import BoolArray, IntArray, read_only
from khonsu.core.constraints import predicate
from khonsu.core.ids import NodeId
from khonsu.core.records import Node, Time
from khonsu.core.states import Eligibility, NodeStatus

READY = 0
COLUMNS_MAX = 1024
MASKS_MAX = 8192
"""So many columns of attributes and masks of conditions are kept; then all are forgotten, and made again when asked."""
STATES = ("ready", "down", "draining", "ineligible")
"""What a node may be to a scheduler, by the code in the fleet's column; only the first may be given work."""


def state_code(node: Node) -> int:
    """Return the code in `STATES` of a node."""
    if node.status is not NodeStatus.READY:
        return 1
    return {Eligibility.ELIGIBLE: READY, Eligibility.DRAINING: 2, Eligibility.INELIGIBLE: 3}[node.eligibility]


@frozen(eq=False)
class Codes:
    """An attribute as a column: for each node the position of its value in `values`, -1 where it has none."""

    codes: IntArray
    values: tuple[str, ...]

    def text(self, row: int) -> str | None:
        """Return the value of one node, or None."""
        code = int(self.codes[row])
        return None if code < 0 else self.values[code]


class NodeTable:
    """The nodes of a fleet as they are registered, one row each."""

    def __init__(
        self,
        nodes: tuple[Node, ...],
        rank: IntArray,
        total: Mapping[str, IntArray],
        *,
        earlier: NodeTable | None = None,
        changed: Sequence[int] = (),
    ) -> None:
        """Make the table.

        Args:
            nodes: The nodes; their status and eligibility are not looked at.
            rank: The place of each in the order that decides between equals.
            total: What each has of each resource.
            earlier: The table before a change, with the same rows, except for new ones at its end.
            changed: The rows that differ from it, the new ones included.

        """
        self.nodes = nodes
        self.rank = read_only(rank)
        kept = earlier.ids if earlier is not None and len(earlier) == len(nodes) else None
        self.ids: tuple[NodeId, ...] = kept if kept is not None else tuple(node.id for node in nodes)
        """The ids by row; the same object as long as rows stand for the same nodes."""
        self.total = {name: read_only(column) for name, column in total.items()}
        self._columns: dict[str, Codes] = {}
        self._masks: dict[tuple[str, str, str], BoolArray] = {}
        self._outdated: dict[str, tuple[Codes, frozenset[int]]] = {}
        """Columns of earlier tables, with the rows that have changed since."""
        if earlier is not None:
            self._outdated = {name: (column, rows.union(changed)) for name, (column, rows) in earlier.known().items()}

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.nodes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names by row."""
        return tuple(node.name for node in self.nodes)

    @cached_property
    def rows(self) -> Mapping[NodeId, int]:
        """Return the row of each id."""
        return {node.id: row for row, node in enumerate(self.nodes)}

    def known(self) -> dict[str, tuple[Codes, frozenset[int]]]:
        """Return every column that was ever made, with the rows that have changed since."""
        # Copied first: another thread may be adding to them.
        return {**dict(self._outdated), **{name: (made, frozenset()) for name, made in dict(self._columns).items()}}

    def attribute(self, name: str) -> Codes:
        """Return an attribute as a column, by the name that constraints use."""
        return self._column(name, lambda node: node.attribute(name))

    def driver(self, name: str) -> Codes:
        """Return a driver as a column: "healthy", what is wrong with it, or nothing where there is none."""
        return self._column(f"driver {name}", lambda node: _driver(node, name))

    def where(self, attribute: str, operator: str, value: str) -> BoolArray:
        """Return the nodes on which a condition holds.

        Raises:
            ValueError: There is no such operator, or it cannot take this value.

        """
        key = (attribute, operator, value)
        mask = self._masks.get(key)
        if mask is None:
            column = self.attribute(attribute)
            holds = predicate(operator, value)
            # Codes are -1 where there is no value: the last place of the table of answers.
            answers = np.array([*(holds(text) for text in column.values), holds(None)], np.bool_)
            if len(self._masks) >= MASKS_MAX:
                self._masks.clear()
            mask = self._masks[key] = read_only(answers[column.codes])
        return mask

    def _column(self, name: str, value: Callable[[Node], str | None]) -> Codes:
        column = self._columns.get(name)
        if column is None:
            earlier, rows = self._outdated.pop(name, (None, frozenset[int]()))
            if len(self._columns) + len(self._outdated) >= COLUMNS_MAX:
                self._columns.clear()
                self._outdated.clear()
            column = self._columns[name] = _encode(self.nodes, value, earlier, rows)
        return column


def _driver(node: Node, name: str) -> str | None:
    found = next((driver for driver in node.drivers if driver.name == name), None)
    if found is None:
        return None
    return "healthy" if found.healthy else found.message or "unhealthy"


def _encode(
    nodes: tuple[Node, ...], value: Callable[[Node], str | None], earlier: Codes | None, changed: frozenset[int]
) -> Codes:
    """Make a column; only the changed rows are looked at if it was there before the change."""
    values = list(earlier.values) if earlier is not None else []
    position = {text: code for code, text in enumerate(values)}
    codes = np.full(len(nodes), -1, np.int32)
    if earlier is not None:
        codes[: len(earlier.codes)] = earlier.codes
    for row in changed if earlier is not None else range(len(nodes)):
        text = value(nodes[row])
        if text is None:
            codes[row] = -1
        else:
            code = position.get(text)
            if code is None:
                code = position[text] = len(values)
                values.append(text)
            codes[row] = code
    return Codes(read_only(codes), tuple(values))


def registration(node: Node) -> Node:
    """Return a node without what changes while it stays the same to a scheduler but for its state."""
    return attrs.evolve(
        node,
        status=NodeStatus.READY,
        eligibility=Eligibility.ELIGIBLE,
        boot_id="",
        version="",
        status_at=Time(0.0),
        drain_deadline_at=None,
        last_seen=None,
    )
