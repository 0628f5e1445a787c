"""How a homeserver reads regular expressions, told from the cases that the specification leaves open.

Nothing here accuses: it is what authors of homeservers and of bridges like to know.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from conformance.namespaces.oracle import Entry, Kind
from conformance.namespaces.shapes import NotCommon, parse


@dataclass(frozen=True)
class Reading:
    """One way to read a regular expression."""

    #: Whether it must begin where the ID begins, and end where the ID ends.
    start: bool
    end: bool
    #: Whether capitals and small letters differ.
    case: bool

    def covers(self, regex: str, identifier: str) -> bool:
        """Whether an ID is covered, read so."""
        pattern = _compiled(regex, self.end, self.case)
        return (pattern.match if self.start else pattern.search)(identifier) is not None

    def reserves(self, entries: Iterable[Entry], identifier: str) -> bool:
        """Whether an exclusive entry covers an ID, read so."""
        return any(entry.exclusive and self.covers(entry.namespace.regex, identifier) for entry in entries)


@lru_cache(maxsize=16384)
def _compiled(regex: str, end: bool, case: bool) -> re.Pattern[str]:
    return re.compile(f"(?:{regex})\\Z" if end else regex, 0 if case else re.IGNORECASE)


READINGS = tuple(Reading(*each) for each in itertools.product((True, False), repeat=3))

#: What failure messages tell of an ID: the readings that homeservers are known to have.
NAMED = {
    "the whole ID": Reading(True, True, True),
    "from its start": Reading(True, False, True),
    "anywhere": Reading(False, False, True),
    "anywhere, ignoring case": Reading(False, False, False),
}


def told(regex: str, identifier: str) -> str:
    """What each of the usual readings says of an ID, in words."""
    return ", ".join(f"{name}: {'yes' if each.covers(regex, identifier) else 'no'}" for name, each in NAMED.items())


@dataclass(frozen=True)
class Observation:
    """What a homeserver made of an ID that is left open."""

    identifier: str
    #: The entries that come near it.
    entries: tuple[Entry, ...]
    #: Whether it took it for reserved.
    reserved: bool


@dataclass
class Observations:
    """What a homeserver made of all IDs of one kind that are left open."""

    kind: Kind
    seen: list[Observation] = field(default_factory=list)

    def best(self) -> tuple[list[Reading], int]:
        """The readings that explain most of what was seen, and how much of it."""
        agreeing = {
            reading: sum(reading.reserves(each.entries, each.identifier) is each.reserved for each in self.seen)
            for reading in READINGS
        }
        most = max(agreeing.values())
        return [reading for reading, count in agreeing.items() if count == most], most

    def lines(self) -> list[str]:
        """What the report says."""
        if not self.seen:
            return [f"{self.kind}: no open case was seen"]
        best, agreeing = self.best()
        parts = (
            _of([each.start for each in best], "from the start of an ID", "anywhere in an ID"),
            _of([each.end for each in best], "up to its end", "whatever follows"),
            _of([each.case for each in best], "case counts", "case does not count"),
        )
        how = "; ".join(part for part in parts if part) or "nothing tells the readings apart"
        return [f"{self.kind}: {how} ({agreeing} of {len(self.seen)} open cases)"]


def _of(values: Sequence[bool], yes: str, no: str) -> str:
    found = set(values)
    return "" if len(found) > 1 else yes if True in found else no


def as_basic(regex: str, identifier: str) -> bool | None:
    """Whether a regular expression covers an ID when read as a *basic* one, where parentheses, bars, braces, plus and
    question mark stand for themselves; None when that cannot be told.
    """
    pattern = _basic(regex)
    return None if pattern is None else pattern.fullmatch(identifier) is not None


@lru_cache(maxsize=4096)
def _basic(regex: str) -> re.Pattern[str] | None:
    if re.search(r"\\[()|+?{}]", regex):
        return None
    return re.compile(re.sub(r"(?<!\\)[()|+?{}]", r"\\\g<0>", _outside_brackets(regex)).translate(_BACK))


#: Stand-ins for signs within brackets while those outside are escaped.
_FORTH = {ord(char): chr(0xE000 + ord(char)) for char in "()|+?{}"}
_BACK = {0xE000 + ord(char): char for char in "()|+?{}"}


def _outside_brackets(regex: str) -> str:
    return re.sub(r"\[\^?[^]]*\]", lambda found: found[0].translate(_FORTH), regex)


def level(regex: str) -> str:
    """How much of POSIX a regular expression needs, in words."""
    try:
        return "basic or extended" if parse(regex).level == 0 else "extended"
    except NotCommon:
        return "outside the common subset"
