"""What a planted bug is: a function that says which names of the product are something else for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias
from unittest.mock import patch

from attrs import evolve, frozen

Patch: TypeAlias = tuple[Any, str, Any]
"""A module or class, a name in it, and what it stands for."""
Patches: TypeAlias = Callable[[], Iterator[Patch]]


@frozen(kw_only=True)
class Mutant:
    """A planted bug."""

    name: str
    what: str
    """What is wrong, in a line."""
    patches: Patches
    harmless: str = ""
    """Why no seed can find it, where none does."""
    parts: int = 1
    """How many mistakes it is made of."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have it in the product for the length of a block."""
        with ExitStack() as stack:
            for owner, name, value in self.patches():
                stack.enter_context(patch.object(owner, name, value))
            yield


def always(value: object) -> Callable[..., Any]:
    """Return a function that returns this, whatever it is given."""

    def answer(*_: object, **__: object) -> object:
        return value

    return answer


def mutant(patches: Patches) -> Mutant:
    """Make a bug of a function: its name, its docstring, and what it yields."""
    return Mutant(name=patches.__name__, what=str(patches.__doc__), patches=patches)


def harmless(why: str) -> Callable[[Patches], Mutant]:
    """Make a bug that no seed can find, for a reason."""
    return lambda patches: evolve(mutant(patches), harmless=why)


def pair(one: Mutant, other: Mutant, what: str) -> Mutant:
    """Make a bug of two."""

    def patches() -> Iterator[Patch]:
        yield from one.patches()
        yield from other.patches()

    return Mutant(name=f"{one.name}+{other.name}", what=what, patches=patches, parts=one.parts + other.parts)
