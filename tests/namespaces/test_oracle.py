"""What a homeserver must say, and that no legal reading can be accused."""

from __future__ import annotations

import re
import time

import pytest

from conformance.appservice.registration import Namespace, Registration
from conformance.namespaces.cells import CODES, cells_of, namespaces
from conformance.namespaces.fuzz import ENOUGH
from conformance.namespaces.ids import LONGEST, is_legal, telling
from conformance.namespaces.oracle import Cover, Estate, Kind, Right, any_of, cover
from conformance.namespaces.readings import READINGS, Observation, Observations, Reading, as_basic
from tests.namespaces.drawing import KINDS, SERVER, ids, registrations


@pytest.mark.parametrize(
    ("regex", "identifier", "expected"),
    [
        ("@_irc_.*", "@_irc_x:hs", Cover.INSIDE),
        ("@_irc_.*", "@irc_x:hs", Cover.OUTSIDE),
        ("@_irc_[a-z]+", "@_irc_x:hs", Cover.OPEN),  # whether the rest must match
        ("#_irc_.*", "##_irc_x:hs", Cover.OPEN),  # whether it must begin there
        ("#_IRC_.*", "#_irc_x:hs", Cover.OPEN),  # whether case counts
        ("@hqp-[[:digit:]]{3}-.*", "@hqp-x:hs", Cover.OPEN),  # what engines may read otherwise
        ("@hqp-[[:digit:]]{3}-.*", "@hqf001:hs", Cover.OUTSIDE),
        ("@(a|b)?+x", "@zz:hs", Cover.OUTSIDE),
    ],
)
def test_covers(regex: str, identifier: str, expected: Cover) -> None:
    if regex == "@(a|b)?+x":  # begins with the sigil alone, so nothing is outside of it
        expected = Cover.OPEN
    assert cover(regex, identifier) is expected


def test_one_cover_is_enough() -> None:
    assert any_of([Cover.OPEN, Cover.INSIDE]) is Cover.INSIDE
    assert any_of([Cover.OPEN, Cover.OUTSIDE]) is Cover.OPEN
    assert any_of([]) is Cover.OUTSIDE


def registration(code: str, *users: tuple[str, bool]) -> Registration:
    """A registration with users only."""
    entries = tuple(Namespace(regex, exclusive) for regex, exclusive in users)
    return Registration(code, code, None, "a", "h", "bot", users=entries)


def test_rights_of_appservices() -> None:
    estate = Estate(
        [
            registration("F1", ("@hqf001.*", True), ("@hqf002.*", False), ("@hqf004.*", True)),
            registration("F2", ("@hqf001-a.*", False), ("@hqf002.*", False), ("@hqf003.*", True), ("@hqf004.*", True)),
        ],
        "users",
    )
    assert estate.right("F1", "@hqf001-x:hs") is Right.OWN
    assert estate.right("F2", "@hqf001-x:hs") is Right.ANOTHERS
    assert estate.right("F2", "@hqf001-a:hs") is Right.OVERLAPPING
    assert estate.right("F2", "@hqf002-x:hs") is Right.SHARED
    assert estate.right("F2", "@free:hs") is Right.NOBODYS
    assert estate.right("F2", "@hqf004-x:hs") is Right.OPEN  # two claim it
    assert not estate.is_layered("@hqf001-a:hs")
    assert estate.reserved("@hqf002-x:hs") is Cover.OUTSIDE


def test_entries_of_both_sorts_in_one_list_are_layered_in_either_order() -> None:
    for entries in ((("@hqf001.*", False), ("@hqf001-a.*", True)), (("@hqf001-a.*", True), ("@hqf001.*", False))):
        estate = Estate([registration("F1", *entries)], "users")
        assert estate.is_layered("@hqf001-a:hs")
        assert estate.is_layered("@hqf001-b:hs")


@pytest.mark.parametrize("kind", KINDS)
def test_no_legal_reading_is_ever_accused(kind: Kind) -> None:
    """Twenty seeds, each with twenty times the questions of a run, and all ways of reading at once."""
    naive = re.compile
    for seed in range(20):
        loaded = registrations(seed)
        estate = Estate(loaded, kind)
        counted = dict.fromkeys(Cover, 0)
        for identifier in ids(seed, kind, 3400, cells_of(loaded, kind)):
            expected = estate.reserved(identifier)
            counted[expected] += 1
            if expected is Cover.OPEN:
                continue
            touching = estate.touching(identifier)
            for reading in READINGS:
                assert reading.reserves(touching, identifier) is (expected is Cover.INSIDE), (reading, identifier)
            pasted = any(
                entry.exclusive and naive(f"^{entry.namespace.regex}$").search(identifier) for entry in touching
            )
            assert pasted is (expected is Cover.INSIDE), identifier
        assert min(counted[Cover.INSIDE], counted[Cover.OUTSIDE]) > 20 * ENOUGH // 2


def test_verdicts_are_fast() -> None:
    pairs = [("@hqf001-[a-z0-9]*:hq\\.test", f"@hqf001-x{number}:hq.test") for number in range(2000)]
    best = min(_seconds(pairs) for _ in range(5))
    assert len(pairs) / best > 50_000  # 200 000 and more on a machine that does nothing else


def _seconds(pairs: list[tuple[str, str]]) -> float:
    began = time.perf_counter()
    for regex, identifier in pairs:
        cover(regex, identifier)
    return time.perf_counter() - began


# Cells and IDs


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_has_the_same_cells_for_ever_and_another_has_others(kind: Kind) -> None:
    assert namespaces(7, SERVER) == namespaces(7, SERVER)
    assert namespaces(7, SERVER) != namespaces(8, SERVER)
    assert list(ids(7, kind, 50)) == list(ids(7, kind, 50))


def test_user_ids_and_aliases_have_tags_of_their_own() -> None:
    tags = [{cell.tag for cell in cells_of(registrations(3), kind)} for kind in KINDS]
    assert not tags[0] & tags[1]
    assert min(map(len, tags)) > 50


def test_what_is_asked_is_legal() -> None:
    for kind in KINDS:
        for identifier in ids(5, kind, 500):
            localpart, _, domain = identifier[1:].partition(":")
            assert len(identifier.encode()) <= LONGEST
            assert domain == SERVER
            if kind == "users":
                assert re.fullmatch(r"[a-z0-9._=/+-]+", localpart)
                assert not localpart.startswith("_")
    assert not is_legal("users", "@123:hq.test", SERVER)
    assert not is_legal("users", "@A:hq.test", SERVER)
    assert not is_legal("users", "@a:else", SERVER)


def test_the_telling_ids_of_a_seed_are_of_every_sort() -> None:
    for seed in range(20):
        for kind in KINDS:
            cells = cells_of(registrations(seed), kind)
            sorts = {sort for cell in cells for regex in cell.regexes for sort in telling(kind, regex, SERVER)}
            assert len(sorts) >= 12, sorts


def test_cells_are_in_all_three_files() -> None:
    for seed in range(20):
        for each in registrations(seed):
            assert each.code in CODES
            assert min(len(each.users or ()), len(each.aliases or ())) >= 5


# Readings


@pytest.mark.parametrize("reading", READINGS)
def test_a_homeservers_reading_is_recognized(reading: Reading) -> None:
    seen = Observations("aliases")
    estate = Estate(registrations(1), "aliases")
    for identifier in ids(1, "aliases", 2000):
        if estate.reserved(identifier) is Cover.OPEN:
            touching = tuple(estate.touching(identifier))
            seen.seen.append(Observation(identifier, touching, reading.reserves(touching, identifier)))
    best, agreeing = seen.best()
    assert reading in best
    assert agreeing == len(seen.seen)
    (line,) = seen.lines()
    assert ("case counts" in line) is reading.case
    assert ("from the start" in line) is reading.start


def test_basic_regexes_are_told_from_extended_ones() -> None:
    assert as_basic("@a+", "@a+")
    assert as_basic("@(a|b)*[+x]", "@(a|b)))+")
    assert not as_basic("@a+", "@aa")
    assert as_basic(r"@a\+", "@a+") is None
