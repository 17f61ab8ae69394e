"""The drivers' configs: what the nodes that there are say of them, kept until one of them says something else."""

from __future__ import annotations

from collections.abc import Mapping

from khonsu.control.state import Moves, State
from khonsu.core.configs import schemas_of
from khonsu.core.job import JSON
from khonsu.core.records import Node


class Configs:
    """The schema of each driver's config, over the nodes of a state."""

    def __init__(self, state: State) -> None:
        """Follow a state."""
        self._state = state
        self._schemas: Mapping[str, Mapping[str, JSON]] | None = None
        state.listeners.append(self._follow)
        state.rebuilt.append(self._forget)

    def schemas(self) -> Mapping[str, Mapping[str, JSON]]:
        """Return the schema of each driver that some node has."""
        if self._schemas is None:
            self._schemas = schemas_of(self._state.tables.nodes.values())
        return self._schemas

    def _follow(self, moves: Moves) -> None:
        for before, after in moves:
            drivers = [one.drivers for one in (before, after) if isinstance(one, Node)]
            if len(drivers) == 1 or (drivers and drivers[0] != drivers[1]):
                self._forget()

    def _forget(self) -> None:
        self._schemas = None
