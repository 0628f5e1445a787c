"""What `--only` selects."""

from __future__ import annotations

import re

import pytest

from conformance.catalogue import load
from conformance.catalogue.selection import select

ORDER = frozenset(requirement.id for requirement in load().of_area("ORDER"))


def only(words: str) -> frozenset[str]:
    return select(words, load())


def test_an_id_selects_one_requirement() -> None:
    assert only("TXN-13") == {"TXN-13"}


def test_an_area_selects_all_of_it() -> None:
    assert only("ORDER") == ORDER


def test_ids_and_areas_add_up() -> None:
    assert only("ORDER,TXN-13,ORDER-01") == ORDER | {"TXN-13"}


def test_a_level_alone_selects_from_the_whole_catalogue() -> None:
    assert len(only("must")) == 73
    assert len(only("must,may")) == 73 + 11


def test_a_level_restricts_ids_and_areas() -> None:
    assert only("TXN,RETRY-05,must") == {"TXN-12", "TXN-13", "TXN-14", "TXN-17"}
    assert only("TXN,RETRY-05,must,should") == {"TXN-12", "TXN-13", "TXN-14", "TXN-17", "TXN-19", "RETRY-05"}


def test_a_restriction_may_leave_nothing() -> None:
    assert only("ORDER,must") == frozenset()


def test_upper_and_lower_case_blanks_and_a_final_comma_do_not_matter() -> None:
    assert only(" order , txn-13, ") == only("ORDER,TXN-13")
    assert only("Implied") == only("implied") == only("IMPLIED")


def test_the_area_of_the_drafts_has_its_long_ids() -> None:
    assert only("draft-reg-01") == {"DRAFT-REG-01"}
    assert len(only("draft")) == 36


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("TXM", "'TXM' is no requirement, area or level: did you mean TXN?"),
        ("TXN,retry-5", "'retry-5' is no requirement, area or level: did you mean RETRY-15?"),
        ("most", "'most' is no requirement, area or level: did you mean must?"),
        ("?", "'?' is no requirement, area or level: as-conformance requirements lists them"),
    ],
)
def test_an_unknown_word_is_an_error_that_offers_the_closest_one(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        only(words)


@pytest.mark.parametrize("words", ["", " ", ",,"])
def test_an_empty_list_is_an_error(words: str) -> None:
    with pytest.raises(ValueError, match="the list of requirements is empty"):
        only(words)
