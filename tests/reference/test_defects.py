"""The registry of defects: every check is proved by one, and each says what it breaks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance.catalogue import load
from conformance.kill_matrix import subjects
from conformance.reference.defects import Defect, defect, defects, policies_of, variant, variants
from conformance.reference.interest import Interest
from conformance.reference.policy import Policy
from conformance.report.killing import registry
from tests.test_checks import checked_requirements

PAGE = Path(__file__).parents[2] / "docs" / "kill-matrix.md"

#: Requirements with a check that cannot fail, and why.
UNFAILING = {
    "3PN-08": "the specification is silent: only recorded",
    "ADMIN-11": "the specification is silent: only recorded",
    "RETRY-14": "the specification leaves it free: only recorded",
    "ADMIN-23": "two sentences of the specification contradict each other: only recorded",
}


def test_every_requirement_with_a_check_has_a_killing_defect() -> None:
    broken = {requirement for each in defects().values() for requirement in each.breaks}
    assert checked_requirements() - broken == set(UNFAILING)


def test_defects_break_requirements_that_have_a_check() -> None:
    assert {requirement for each in defects().values() for requirement in each.breaks} <= checked_requirements()


@pytest.mark.parametrize("each", defects().values(), ids=lambda each: str(each.id))
def test_a_defect_says_what_it_breaks_in_one_sentence(each: Defect) -> None:
    ids = set(load().ids())
    assert ids.issuperset((*each.breaks, *each.also))
    assert len({*each.breaks, *each.also}) == len(each.breaks) + len(each.also)
    assert each.sentence.endswith(".")
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", each.id)
    assert each.policy.__module__.rpartition(".")[2] in (each.area.lower(), "poor")
    assert policies_of(each.id)[0] is each.policy
    own = [kind for kind in each.policy.__mro__ if kind.__module__.startswith("conformance.reference.defects.")]
    replaced = [name for kind in own for name in vars(kind) if not name.startswith("__")]
    assert replaced, f"{each.id} is like the reference"


def test_variants_lose_requirements_of_the_catalogue_only() -> None:
    ids = set(load().ids())
    assert len(variants()) >= 15
    for each in variants().values():
        assert ids.issuperset(set(each.loses) - {"*"}), each.id


def test_names_are_made_of_classes_and_sentences_of_docstrings() -> None:
    class HTTPIsBrokenIn2Ways(Interest):
        """Something
        is wrong."""

    defect("INTEREST-01", also=("TXN-01",))(HTTPIsBrokenIn2Ways)
    try:
        found = defects()["http-is-broken-in2-ways"]
        assert (found.sentence, found.breaks, found.also, found.area) == (
            "Something is wrong.",
            ("INTEREST-01",),
            ("TXN-01",),
            "INTEREST",
        )
        with pytest.raises(ValueError, match="two defects"):
            defect("INTEREST-01")(HTTPIsBrokenIn2Ways)
    finally:
        from conformance.reference import defects as registry

        del registry._defects["http-is-broken-in2-ways"]


def test_a_defect_without_a_sentence_or_a_requirement_is_refused() -> None:
    class Silent(Interest):
        pass

    class Harmless(Interest):
        """Breaks nothing."""

    with pytest.raises(ValueError, match="no docstring"):
        defect("INTEREST-01")(Silent)
    with pytest.raises(ValueError, match="no docstring"):
        variant("silent")(Silent)
    with pytest.raises(ValueError, match="breaks nothing"):
        defect()(Harmless)


def test_a_defect_on_a_variant_replaces_its_policies_too() -> None:
    on = [each for each in defects().values() if each.on is not None]
    assert on
    for each in on:
        assert each.on is not None
        assert policies_of(each.id) == (each.policy, *variants()[each.on].policies)
        assert all(issubclass(policy, Policy) for policy in policies_of(each.id))


def test_the_page_of_the_kill_matrix_shows_every_defect_and_variant_as_they_are() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert lines == registry(subjects()).splitlines(), "write docs/kill-matrix.md again, as it says"
