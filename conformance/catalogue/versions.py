"""Versions of the specification: their order, and which requirements hold in one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from conformance.catalogue import Requirement

#: Every version, oldest first. The drafts stand in the order in which they were written, not in that of their numbers.
NAMES: Final = (
    *("draft-003", "draft-001", "draft-000", "draft-004"),
    *("r0.0.0", "r0.1.0", "r0.1.1", "r0.1.2"),
    *(f"v1.{minor}" for minor in range(1, 21)),
)

#: The dialects other than the modern one. Each is the dialect of one version.
OLD_DIALECTS: Final = {
    "draft-003": "draft-003",
    "draft-001": "draft-001",
    "draft-000": "draft-000",
    "draft-004": "draft-004",
    "r0.0.0": "r0",
}

_ORDER: Final = {name: place for place, name in enumerate(NAMES)}
_CLIENT_SERVER_R0: Final = re.compile(r"r0\.\d+\.\d+")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """One version of the specification; older ones compare as less."""

    place: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read a version such as ``v1.7``, ``r0.1.0`` or ``draft-003``; ``r0`` means ``r0.0.0``.

        :raises ValueError: there is no such version.
        """
        try:
            return cls(_ORDER["r0.0.0" if text == "r0" else text])
        except KeyError:
            raise ValueError(
                f"{text!r} is not a version of the specification: expected draft-003, draft-001, draft-000, draft-004, "
                f"r0, r0.1.0 to r0.1.2, or v1.1 to {NAMES[-1]}"
            ) from None

    @property
    def dialect(self) -> str:
        """How a homeserver of this version speaks: ``modern``, ``r0`` or the name of a draft."""
        return OLD_DIALECTS.get(str(self), "modern")

    def __str__(self) -> str:
        return NAMES[self.place]


#: The newest version that has been released; those after it are still being written.
LATEST: Final = Version.parse("v1.19")


def applies(requirement: Requirement, version: Version) -> bool:
    """Whether a homeserver of this version has to meet the requirement.

    In the modern dialect ``since`` and ``until`` decide. A draft, and r0, is a dialect of its own: there the
    requirement applies when it is marked for that dialect.
    """
    if version.dialect not in requirement.dialects:
        return False
    if version.dialect != "modern":
        return True
    if version < Version.parse(requirement.since):
        return False
    return requirement.until is None or version <= Version.parse(requirement.until)


def bounds(requirement: Requirement) -> str:
    """In which versions a requirement holds, in words."""
    old = ", ".join(each for each in requirement.dialects if each != "modern")
    if "modern" not in requirement.dialects:
        return f"in {old} only"
    return f"since {requirement.since}" + (f" until {requirement.until}" if requirement.until else "")


def newest(claimed: Iterable[str]) -> Version | None:
    """The newest version among the strings of a homeserver's ``GET /versions``; None when it claims none we know.

    The client-server API was numbered r0.0.1 to r0.6.1 when the application service API was r0.1.x, so that any
    ``r0.x.y`` counts as r0.1.2. Strings we do not know, such as versions yet to come, are ignored.
    """
    known = [Version.parse("r0.1.2" if _CLIENT_SERVER_R0.fullmatch(text) else text) for text in claimed if _known(text)]
    return max(known, default=None)


def _known(text: str) -> bool:
    return bool(_CLIENT_SERVER_R0.fullmatch(text)) or (text.startswith("v") and text in _ORDER)
