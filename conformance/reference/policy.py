"""What all rules of the reference homeserver have in common.

Each rule of the specification that a homeserver could get wrong is a method of a policy, and a policy is a small class.
A defect (:mod:`conformance.reference.defects`) is a subclass of one policy with one method replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from conformance.reference.store import JsonObject, Store

if TYPE_CHECKING:
    from conformance.reference.homeserver import Homeserver

F = TypeVar("F", bound=Callable[..., Any])

#: The client-server API's present prefix; `r0` is served alike.
CLIENT = "/_matrix/client/v3"


class Policy:
    """A part of the homeserver's rules, which knows the homeserver that it is a part of."""

    #: Whether its endpoints were there before r0.1.0 only.
    of_drafts: ClassVar[bool] = False

    def __init__(self, hs: Homeserver) -> None:
        self.hs = hs

    @property
    def store(self) -> Store:
        """What the homeserver knows."""
        return self.hs.store


class MatrixError(Exception):
    """A refusal of the client-server API (CS: Standard error response)."""

    def __init__(self, status: int, errcode: str, error: str, extra: JsonObject | None = None) -> None:
        super().__init__(f"{status} {errcode}: {error}")
        self.status = status
        self.errcode = errcode
        self.error = error
        self.extra = extra

    @property
    def body(self) -> JsonObject:
        """The answer's body."""
        return {"errcode": self.errcode, "error": self.error, **(self.extra or {})}


@dataclass(frozen=True)
class Endpoint:
    """Where a method of a policy is served."""

    method: str
    path: str
    #: Whether a token is needed.
    authenticated: bool = True
    #: Whether the call may take long: it is then made without the homeserver's lock.
    waits: bool = False


def endpoint(method: str, path: str, *, authenticated: bool = True, waits: bool = False) -> Callable[[F], F]:
    """Serve a method of a policy at a path, given without the prefix or in full.

    ``<name>`` is one path segment, percent-decoded, and becomes an argument of that name.
    """
    full = path if path.startswith("/_matrix") else CLIENT + path

    def mark(function: F) -> F:
        endpoints: list[Endpoint] = getattr(function, "endpoints", [])
        function.endpoints = [*endpoints, Endpoint(method, full, authenticated, waits)]  # type: ignore[attr-defined]
        return function

    return mark


def endpoints_of(policy: Policy) -> list[tuple[Endpoint, Callable[..., Any]]]:
    """The endpoints of a policy; a subclass serves its own version of a method where the method is served."""
    found: dict[str, list[Endpoint]] = {}
    for base in reversed(type(policy).__mro__):
        for name, member in vars(base).items():
            if hasattr(member, "endpoints"):
                found[name] = member.endpoints
    return [(each, getattr(policy, name)) for name, endpoints in found.items() for each in endpoints]
