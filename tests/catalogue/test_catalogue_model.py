"""Reading the catalogue and looking things up in it."""

from __future__ import annotations

import dataclasses
import time

import pytest

from conformance.catalogue import AREAS, Catalogue, Level, load, read

FILE = """
area = "TXN"
title = "Transactions"
section = "AS: Pushing events"

[[requirement]]
id = "TXN-01"
level = "MUST"
text = "One."
since = "r0.1.0"
timing = "F"
needs = ["A"]

[[requirement]]
id = "TXN-02"
level = "implied"
text = "Two."
section = "CS: Room events"
since = "v1.2"
until = "v1.3"
dialects = ["modern", "r0"]
timing = "B"
needs = []
strict = true
reading = true
not_asserted = "Much."
unobservable = "Dark."
ambiguity = [7, 9]
"""


def test_a_requirement_is_found_by_its_id() -> None:
    assert load()["TXN-13"].level is Level.MUST
    assert "TXN-13" in load()
    assert "TXN-99" not in load()
    with pytest.raises(KeyError):
        load()["TXN-99"]


def test_the_requirements_come_in_catalogue_order() -> None:
    areas = list(dict.fromkeys(requirement.area for requirement in load()))
    assert areas == list(AREAS)
    assert load().ids()[:2] == ("REG-01", "REG-02")
    assert [requirement.id for requirement in load()] == list(load().ids())


def test_an_area_is_found_by_its_name() -> None:
    assert [requirement.id for requirement in load().of_area("ORDER")] == [f"ORDER-0{n}" for n in range(1, 7)]
    with pytest.raises(KeyError):
        load().of_area("NOTHING")


def test_the_catalogue_is_read_once() -> None:
    assert load() is load()


def test_reading_the_catalogue_is_cheap() -> None:
    load()
    fastest = float("inf")
    for _ in range(5):
        started = time.process_time()
        load.__wrapped__()
        fastest = min(fastest, time.process_time() - started)
    assert fastest < 0.1  # about 12 ms; a hundred on the slowest of machines


def test_a_requirement_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load()["TXN-13"].text = "Anything goes."  # type: ignore[misc]


def test_a_row_has_the_section_of_its_file_and_the_usual_values_unless_it_says_otherwise() -> None:
    plain, special = read(FILE).requirements
    assert (plain.area, plain.section, plain.until, plain.dialects) == ("TXN", "AS: Pushing events", None, ("modern",))
    assert (plain.strict, plain.reading, plain.ambiguity) == (False, False, ())
    assert (plain.not_asserted, plain.unobservable) == (None, None)
    assert (special.section, special.until, special.dialects) == ("CS: Room events", "v1.3", ("modern", "r0"))
    assert (special.level, special.needs, special.timing) == (Level.IMPLIED, (), "B")
    assert (special.strict, special.reading, special.ambiguity) == (True, True, (7, 9))
    assert (special.not_asserted, special.unobservable) == ("Much.", "Dark.")


def test_an_id_that_occurs_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="TXN-01 twice"):
        Catalogue([read(FILE), read(FILE)])


def test_a_file_that_is_no_toml_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 1"):
        read("area = TXN")
