"""What a homeserver must say about an ID, where the specification leaves it only one answer.

The specification calls namespaces "POSIX regular expressions" and says neither whether they are anchored nor whether
case counts. An ID that a regular expression matches from end to end is *inside* for everybody; one that it matches
nowhere, even ignoring case, is *outside* for everybody. What lies between is *open*: it is only recorded. So no reading
of a homeserver can be accused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from conformance.appservice.registration import Namespace, Registration
from conformance.namespaces.shapes import NotCommon, parse

Kind = Literal["users", "aliases"]

SIGILS: dict[Kind, str] = {"users": "@", "aliases": "#"}

#: What the entries of a cell have in common (:mod:`conformance.namespaces.cells`).
_TAG = re.compile(r"hqf\d{3}", re.IGNORECASE)


def tag_of(regex: str) -> str | None:
    """The tag of the cell that a regular expression belongs to, in small letters."""
    found = _TAG.search(regex)
    return found[0].lower() if found else None


class Cover(StrEnum):
    """Whether something covers an ID."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    OPEN = "open"


@lru_cache(maxsize=65536)
def _matchers(regex: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    return re.compile(regex), re.compile(regex, re.IGNORECASE)


@lru_cache(maxsize=4096)
def _foreign(regex: str) -> str | None:
    """What a regular expression outside the common subset begins with, in small letters; None for all others."""
    try:
        parse(regex)
    except NotCommon:
        found = re.match(r"\^?([^][\\.*^$()|+?{}]*)", regex)
        return found[1].lower() if found and "|" not in regex else ""
    return None


def cover(regex: str, identifier: str) -> Cover:
    """Whether a regular expression covers an ID, whatever the anchoring and the case of letters mean.

    One outside the common subset leaves everything open that contains what it begins with.
    """
    beginning = _foreign(regex)
    if beginning is not None:
        return Cover.OPEN if beginning in identifier.lower() else Cover.OUTSIDE
    exact, loose = _matchers(regex)
    if loose.search(identifier) is None:
        return Cover.OUTSIDE
    return Cover.INSIDE if exact.fullmatch(identifier) else Cover.OPEN


@dataclass(frozen=True)
class Entry:
    """An entry of a registration file, and where it stands."""

    owner: str
    index: int
    namespace: Namespace

    @property
    def exclusive(self) -> bool:
        """Whether it makes IDs its appservice's alone."""
        return self.namespace.exclusive

    @property
    def tag(self) -> str | None:
        """The tag of its cell."""
        return tag_of(self.namespace.regex)

    def cover(self, identifier: str) -> Cover:
        """Whether it covers an ID."""
        return cover(self.namespace.regex, identifier)

    def __str__(self) -> str:
        kind = "exclusive" if self.exclusive else "not exclusive"
        return f"{self.owner}[{self.index}] {kind} {self.namespace.regex}"


def any_of(covers: Iterable[Cover]) -> Cover:
    """Whether at least one covers: inside when one is, outside when all are."""
    found = set(covers)
    if Cover.INSIDE in found:
        return Cover.INSIDE
    return Cover.OPEN if Cover.OPEN in found else Cover.OUTSIDE


class Right(StrEnum):
    """What an appservice may do with an ID, and by which of the catalogue's rules."""

    OWN = "inside an exclusive namespace of its own"
    SHARED = "inside a namespace of its own that is not exclusive, and outside the exclusive ones of others"
    NOBODYS = "outside its own namespaces and the exclusive ones of others"
    ANOTHERS = "inside an exclusive namespace of another appservice, outside its own"
    OVERLAPPING = "inside an exclusive namespace of another appservice, and inside one of its own that is not exclusive"
    OPEN = "left open"

    @property
    def allowed(self) -> bool:
        """Whether it may make it."""
        return self in (Right.OWN, Right.SHARED)


class Estate:
    """All namespaces of one kind that a homeserver has loaded: whatever an ID is drawn for, all of them judge it."""

    def __init__(self, registrations: Iterable[Registration], kind: Kind) -> None:
        self.kind = kind
        self.owners: dict[str, tuple[Entry, ...]] = {
            each.code: tuple(Entry(each.code, index, entry) for index, entry in enumerate(_entries(each, kind)))
            for each in registrations
        }
        every = [entry for entries in self.owners.values() for entry in entries]
        tagged = {(entry.owner, entry.tag, entry.exclusive) for entry in every}
        #: Owner and tag of the cells in which one appservice has entries of both sorts.
        self._layered = {
            (owner, tag) for owner, tag, _ in tagged if {(owner, tag, True), (owner, tag, False)} <= tagged
        }
        self._touching: dict[str, list[Entry]] = {}

    def touching(self, identifier: str) -> list[Entry]:
        """The entries that an ID is not outside of."""
        found = self._touching.get(identifier)
        if found is None:
            every = (entry for entries in self.owners.values() for entry in entries)
            found = [entry for entry in every if entry.cover(identifier) is not Cover.OUTSIDE]
            self._touching[identifier] = found
        return found

    def reserved(self, identifier: str) -> Cover:
        """Whether an ID is closed to humans: inside when any exclusive entry of anybody covers it."""
        return any_of(entry.cover(identifier) for entry in self.touching(identifier) if entry.exclusive)

    def is_layered(self, identifier: str) -> bool:
        """Whether an ID is in a cell where one appservice has an exclusive entry and one that is not: which of the two
        decides is the subject of requirements of their own (NSUSER-10, NSALIAS-17).
        """
        return any((each.owner, each.tag) in self._layered for each in self.touching(identifier))

    def covered(self, owner: str, identifier: str) -> Cover:
        """Whether an ID is one of an appservice's, exclusively or not."""
        return any_of(entry.cover(identifier) for entry in self.owners.get(owner, ()))

    def right(self, owner: str, identifier: str) -> Right:
        """What an appservice may do with an ID. Where two claim it exclusively the specification says nothing."""
        own = self.covered(owner, identifier)
        touching = self.touching(identifier)
        exclusive = [entry for entry in touching if entry.exclusive]
        mine = any_of(entry.cover(identifier) for entry in exclusive if entry.owner == owner)
        others = any_of(entry.cover(identifier) for entry in exclusive if entry.owner != owner)
        if own is Cover.OUTSIDE:
            return {Cover.INSIDE: Right.ANOTHERS, Cover.OUTSIDE: Right.NOBODYS, Cover.OPEN: Right.OPEN}[others]
        if own is Cover.INSIDE and others is Cover.OUTSIDE and mine is not Cover.OPEN:
            return Right.OWN if mine is Cover.INSIDE else Right.SHARED
        if own is Cover.INSIDE and others is Cover.INSIDE and mine is Cover.OUTSIDE and not self.is_layered(identifier):
            return Right.OVERLAPPING
        return Right.OPEN


def _entries(registration: Registration, kind: Kind) -> Sequence[Namespace]:
    return (registration.users if kind == "users" else registration.aliases) or ()
