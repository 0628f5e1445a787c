"""The catalogue's files: their form, and that nothing is missing."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from importlib import resources
from typing import Any

import pytest

from conformance.catalogue import ALL_APPSERVICES, AREAS, load
from conformance.catalogue.versions import OLD_DIALECTS, Version
from conformance.schemas import problems

# MUST, SHOULD, MAY, implied
COUNTS = {
    "REG": (2, 0, 1, 12),
    "AUTH": (8, 1, 0, 3),
    "LEGACY": (0, 10, 0, 4),
    "TXN": (4, 1, 0, 16),
    "RETRY": (2, 7, 1, 8),
    "ORDER": (0, 6, 0, 0),
    "EPH": (15, 1, 0, 6),
    "PING": (1, 0, 2, 17),
    "USERQ": (0, 3, 0, 15),
    "ALIASQ": (0, 2, 0, 17),
    "3PN": (0, 0, 1, 20),
    "IDENT": (3, 1, 0, 21),
    "DEVICE": (8, 0, 1, 8),
    "TS": (0, 1, 0, 13),
    "NSUSER": (5, 1, 0, 10),
    "NSALIAS": (8, 0, 0, 11),
    "INTEREST": (0, 0, 1, 30),
    "ADMIN": (8, 0, 1, 18),
    "SYNC": (0, 0, 1, 3),
    "ROOMDIR": (2, 0, 0, 9),
    "XSIGN": (2, 0, 0, 2),
    "RESTART": (2, 2, 0, 4),
    "INV": (1, 1, 0, 7),
    "DRAFT": (2, 3, 2, 29),
}

every_area = pytest.mark.parametrize("area", AREAS)


def parsed(area: str) -> Any:
    file = resources.files("conformance.catalogue").joinpath(f"{area.lower()}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


@every_area
def test_every_file_fits_the_schema(area: str) -> None:
    assert problems("catalogue", parsed(area), limit=0) == []


def test_no_file_lies_about_unused() -> None:
    here = resources.files("conformance.catalogue")
    files = {file.name for file in here.iterdir() if file.name.endswith(".toml")}
    assert files == {f"{area.lower()}.toml" for area in AREAS}


@every_area
def test_a_file_is_named_like_its_area_and_so_are_its_ids(area: str) -> None:
    data = parsed(area)
    assert data["area"] == area
    assert all(row["id"].startswith(f"{area}-") for row in data["requirement"])


@every_area
def test_every_area_has_its_number_of_requirements_of_each_level(area: str) -> None:
    levels = Counter(str(requirement.level) for requirement in load().of_area(area))
    assert tuple(levels[level] for level in ("MUST", "SHOULD", "MAY", "implied")) == COUNTS[area]


def test_there_are_407_requirements() -> None:
    levels = Counter(str(requirement.level) for requirement in load())
    assert len(load()) == 407
    assert levels == {"MUST": 73, "SHOULD": 40, "MAY": 11, "implied": 283}


@every_area
def test_ids_are_numbered_without_a_gap(area: str) -> None:
    series: dict[str, list[int]] = {}
    for requirement in load().of_area(area):
        name, _, number = requirement.id.rpartition("-")
        series.setdefault(name, []).append(int(number))
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in series.values())


def test_a_text_is_one_short_sentence() -> None:
    assert [one.text for one in load() if not (one.text.endswith(".") and len(one.text) <= 200)] == []
    assert [one.text for one in load() if re.search(r"[.!?]\s|\n", one.text)] == []


def test_no_text_occurs_twice_in_one_dialect() -> None:
    for dialect in ("modern", *OLD_DIALECTS.values()):
        texts = Counter(requirement.text for requirement in load() if dialect in requirement.dialects)
        assert [text for text, times in texts.items() if times > 1] == []


def test_versions_are_known_and_in_order() -> None:
    for one in load():
        since, until = Version.parse(one.since), Version.parse(one.until or "v1.20")
        assert since <= until, one.id


def test_what_holds_in_the_drafts_alone_starts_in_the_first_of_its_drafts() -> None:
    for one in load():
        if "modern" in one.dialects:
            assert one.since.startswith(("r0", "v1")), one.id
        else:
            versions = [Version.parse(name) for name, dialect in OLD_DIALECTS.items() if dialect in one.dialects]
            assert Version.parse(one.since) == min(versions), one.id


def test_only_the_area_of_the_drafts_is_for_the_drafts_alone() -> None:
    assert [one.id for one in load() if ("modern" in one.dialects) == (one.area == "DRAFT")] == []


def test_what_has_no_timing_is_unobservable() -> None:
    assert [one.id for one in load() if one.timing == "-" and not one.unobservable] == []


def test_other_requirements_that_are_named_exist() -> None:
    texts = " ".join(f"{one.text} {one.not_asserted}" for one in load())
    assert [named for named in re.findall(r"\b(?:[A-Z0-9]+-)+\d\d\b", texts) if named not in load()] == []


def test_a_requirement_about_all_appservices_lists_the_whole_fleet() -> None:
    assert [one.id for one in load() if len(one.needs) > 6 and one.needs != ALL_APPSERVICES] == []
