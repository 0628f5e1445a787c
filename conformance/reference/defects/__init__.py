"""Ways in which the reference homeserver can be made to break a rule, and ways to differ without breaking any.

A *defect* is a subclass of one policy that gets one rule wrong. It says which requirements must fail for it (`breaks`)
and which others may (`also`). A *variant* differs where the specification leaves a homeserver free: no requirement may
fail for it in the lenient reading, and none be lost but those that it is said to lose.

Each lives in the file of the area that it is about; `benign.py` has the variants.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from conformance.reference.policy import Policy

P = TypeVar("P", bound=type[Policy])


@dataclass(frozen=True)
class Defect:
    """One broken rule."""

    id: str
    #: What the homeserver does wrong.
    sentence: str
    policy: type[Policy]
    #: The requirements that must fail.
    breaks: tuple[str, ...]
    #: Requirements that may fail as well.
    also: tuple[str, ...] = ()
    #: The variant that it is a defect of; None: the homeserver as it is.
    on: str | None = None
    #: Requirements whose checks make the traffic in which it shows.
    needs: tuple[str, ...] = ()
    #: The dialect in which it is one (`--spec`); None: the present specification.
    spec: str | None = None

    @property
    def area(self) -> str:
        """The area of the catalogue that it breaks first."""
        return self.breaks[0].partition("-")[0]


@dataclass(frozen=True)
class Variant:
    """One way to differ."""

    id: str
    sentence: str
    policies: tuple[type[Policy], ...]
    #: Requirements that cannot be decided, or are not claimed, with it; ``*`` for any.
    loses: tuple[str, ...] = ()
    #: It takes minutes: only run in the full mode of the kill matrix.
    slow: bool = False
    #: The dialect in which it differs (`--spec`); None: the present specification.
    spec: str | None = None


_defects: dict[str, Defect] = {}
_variants: dict[str, Variant] = {}


def defect(
    *breaks: str,
    also: tuple[str, ...] = (),
    on: str | None = None,
    needs: tuple[str, ...] = (),
    spec: str | None = None,
) -> Callable[[P], P]:
    """Register a policy as a defect, under its class's name in kebab case; its docstring is the sentence."""

    def register(policy: P) -> P:
        name = _kebab(policy.__name__)
        if name in _defects:
            raise ValueError(f"two defects are called {name}")
        if not breaks:
            raise ValueError(f"the defect {name} breaks nothing")
        _defects[name] = Defect(name, _sentence(policy), policy, breaks, also, on, needs, spec)
        return policy

    return register


def variant(name: str, *, loses: tuple[str, ...] = (), slow: bool = False, spec: str | None = None) -> Callable[[P], P]:
    """Register a policy as (part of) a variant; the docstring of the first is the sentence."""

    def register(policy: P) -> P:
        if name in _variants:
            before = _variants[name]
            _variants[name] = replace(before, policies=(*before.policies, policy), loses=(*before.loses, *loses))
        else:
            _variants[name] = Variant(name, _sentence(policy), (policy,), loses, slow, spec)
        return policy

    return register


def _sentence(policy: type[Policy]) -> str:
    text = policy.__dict__.get("__doc__") or ""
    if not text.strip():
        raise ValueError(f"{policy.__name__} has no docstring to say what is wrong")
    return " ".join(text.split())


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


@functools.cache
def _load() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def defects() -> dict[str, Defect]:
    """All defects by id."""
    _load()
    return dict(_defects)


def variants() -> dict[str, Variant]:
    """All variants by id."""
    _load()
    return dict(_variants)


def spec_of(name: str) -> str | None:
    """The dialect of a defect or a variant; None: the present specification.

    :raises KeyError: there is neither a defect nor a variant of that id.
    """
    _load()
    return _variants[name].spec if name in _variants else _defects[name].spec


def policies_of(name: str) -> tuple[type[Policy], ...]:
    """The policies that a defect or a variant replaces.

    :raises KeyError: there is neither a defect nor a variant of that id.
    """
    _load()
    if name in _variants:
        return _variants[name].policies
    chosen = _defects[name]
    return (chosen.policy, *(_variants[chosen.on].policies if chosen.on else ()))
