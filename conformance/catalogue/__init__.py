"""The requirements as data: one TOML file per area beside this module, and their model."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any, Final

__all__ = ["ALL_APPSERVICES", "AREAS", "Area", "Catalogue", "Level", "Requirement", "load", "read"]

#: The areas in catalogue order. Each is the file of that name in lower case.
AREAS: Final = (
    *("REG", "AUTH", "LEGACY", "TXN", "RETRY", "ORDER", "EPH", "PING", "USERQ", "ALIASQ", "3PN", "IDENT", "DEVICE"),
    *("TS", "NSUSER", "NSALIAS", "INTEREST", "ADMIN", "SYNC", "ROOMDIR", "XSIGN", "RESTART", "INV", "DRAFT"),
)

#: What `needs` of a requirement about every appservice lists: the fleet without its optional members.
ALL_APPSERVICES: Final = ("A", "B", "C", "N", "D", "X", "Q", "L", "V1", "V2", "V3", "V4", "V5", "V6")


class Level(StrEnum):
    """How binding a requirement is."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"
    IMPLIED = "implied"  # no keyword, but stated as a fact, or nothing else makes sense without it


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that a conforming homeserver does."""

    id: str
    area: str
    level: Level
    #: The requirement in one sentence.
    text: str
    #: Where the specification says so, "AS: …" (application service API), "CS: …" (client-server API), "drafts: …".
    section: str
    #: The first version in which it holds; :mod:`conformance.catalogue.versions` orders them.
    since: str
    #: The last version in which it holds; None when it still does.
    until: str | None
    #: In which dialects of the specification it holds: "modern", "r0" and the names of drafts.
    dialects: tuple[str, ...]
    #: The wait inherent in it: F fast, Q a quiet window, B the server's backoff, T its time-outs, R a boot, "-" none.
    timing: str
    #: Codes of the appservices it takes; also "dynamic" (registered over HTTP) and "federation" (a second homeserver).
    needs: tuple[str, ...]
    #: Broken is a warning in the lenient reading and a failure in the strict one, whatever the level.
    strict: bool = False
    #: The two readings judge it differently in some other way, or it has verdicts in between.
    reading: bool = False
    #: What is deliberately left open.
    not_asserted: str | None = None
    #: Why a single homeserver cannot show it, or not the whole of it.
    unobservable: str | None = None
    #: Numbers of the ambiguities of the specification that bear on it.
    ambiguity: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Area:
    """The requirements about one subject, in order."""

    name: str
    title: str
    requirements: tuple[Requirement, ...]


class Catalogue:
    """All requirements in catalogue order: iterating gives them, an id looks one up, and ``in`` asks for an id."""

    def __init__(self, areas: Iterable[Area]) -> None:
        """:raises ValueError: two requirements have the same id."""
        self.areas = tuple(areas)
        self._by_id: dict[str, Requirement] = {}
        for area in self.areas:
            for requirement in area.requirements:
                if requirement.id in self._by_id:
                    raise ValueError(f"the catalogue has {requirement.id} twice")
                self._by_id[requirement.id] = requirement

    def __getitem__(self, requirement_id: str) -> Requirement:
        """:raises KeyError: there is no such requirement."""
        return self._by_id[requirement_id]

    def __contains__(self, requirement_id: object) -> bool:
        return requirement_id in self._by_id

    def __iter__(self) -> Iterator[Requirement]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def ids(self) -> tuple[str, ...]:
        """The ids of all requirements."""
        return tuple(self._by_id)

    def of_area(self, name: str) -> tuple[Requirement, ...]:
        """The requirements of an area.

        :raises KeyError: there is no such area.
        """
        for area in self.areas:
            if area.name == name:
                return area.requirements
        raise KeyError(name)


@functools.cache
def load() -> Catalogue:
    """The packaged catalogue, read once.

    :raises ValueError: a file is not TOML, or an id occurs twice.
    """
    here = resources.files(__name__)
    return Catalogue(read(here.joinpath(f"{name.lower()}.toml").read_text(encoding="utf-8")) for name in AREAS)


def read(text: str) -> Area:
    """One area from the text of its file, which is taken to fit the schema of such files.

    :raises ValueError: the text is not TOML.
    """
    data = tomllib.loads(text)
    rows: list[dict[str, Any]] = data["requirement"]
    return Area(data["area"], data["title"], tuple(_requirement(row, data["area"], data["section"]) for row in rows))


def _requirement(row: dict[str, Any], area: str, section: str) -> Requirement:
    return Requirement(
        id=row["id"],
        area=area,
        level=Level(row["level"]),
        text=row["text"],
        section=row.get("section", section),
        since=row["since"],
        until=row.get("until"),
        dialects=tuple(row.get("dialects", ("modern",))),
        timing=row["timing"],
        needs=tuple(row["needs"]),
        strict=row.get("strict", False),
        reading=row.get("reading", False),
        not_asserted=row.get("not_asserted"),
        unobservable=row.get("unobservable"),
        ambiguity=tuple(row.get("ambiguity", ())),
    )
