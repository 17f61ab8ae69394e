"""Bugs that are planted in the product for a while, to measure whether the simulation finds them.

Each is a patch of some names; none of it is a part of the product. `make mutants` prints the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.mutants import acting, leasing, placing, writing

if TYPE_CHECKING:
    from tests.simulation.mutants.planting import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (*writing.MUTANTS, *placing.MUTANTS, *leasing.MUTANTS, *acting.MUTANTS)
