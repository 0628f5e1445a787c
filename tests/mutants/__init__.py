"""Synapse, deliberately broken: each mutant replaces one thing in the real Synapse, in memory, before it starts.

They prove that the checks catch bugs in a real homeserver and blame the right requirement. A mutant is a function in
`tests/mutants/<area>.py` that patches Synapse's classes; its docstring says what is wrong with the homeserver.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A broken Synapse: what breaks it, the requirements that must fail, and those that may fail with them."""

    name: str
    sentence: str
    patch: Callable[[], None]
    breaks: tuple[str, ...]
    also: tuple[str, ...]

    @property
    def area(self) -> str:
        """The area of the catalogue that it breaks first."""
        return self.breaks[0].rpartition("-")[0].lower()


MUTANTS: dict[str, Mutant] = {}


def mutant(*breaks: str, also: tuple[str, ...] = ()) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a patch under its function's name."""

    def register(patch: Callable[[], None]) -> Callable[[], None]:
        name = patch.__name__
        if name in MUTANTS:
            raise ValueError(f"two mutants are called {name}")
        MUTANTS[name] = Mutant(name, (patch.__doc__ or "").strip(), patch, breaks, also)
        return patch

    return register


def load() -> dict[str, Mutant]:
    """All mutants by name."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith(("_", "test_")):
            importlib.import_module(f"{__name__}.{module.name}")
    return MUTANTS
