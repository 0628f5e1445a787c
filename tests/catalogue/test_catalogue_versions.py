"""The order of versions, and what holds in which."""

from __future__ import annotations

from itertools import pairwise

import pytest

from conformance.catalogue import load
from conformance.catalogue.versions import LATEST, NAMES, Version, applies, newest


def holds(requirement_id: str, version: str) -> bool:
    return applies(load()[requirement_id], Version.parse(version))


def test_versions_are_ordered_by_age() -> None:
    versions = [Version.parse(name) for name in NAMES]
    assert all(older < newer for older, newer in pairwise(versions))
    assert Version.parse("v1.9") < Version.parse("v1.10")
    assert Version.parse("draft-003") < Version.parse("draft-001") < Version.parse("draft-000") < Version.parse("r0")


def test_a_version_is_written_as_it_was_read() -> None:
    assert [str(Version.parse(name)) for name in NAMES] == list(NAMES)
    assert str(Version.parse("r0")) == "r0.0.0"


@pytest.mark.parametrize("text", ["", "v1", "v1.0", "v1.21", "1.7", "V1.7", "r0.2.0", "draft-002", "v1.07", "latest"])
def test_an_unknown_version_is_an_error_that_says_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a version of the specification: expected .* or v1\.1 to v1\.20"):
        Version.parse(text)


@pytest.mark.parametrize(
    ("version", "dialect"),
    [("draft-003", "draft-003"), ("draft-004", "draft-004"), ("r0", "r0"), ("r0.1.0", "modern"), ("v1.20", "modern")],
)
def test_a_version_has_a_dialect(version: str, dialect: str) -> None:
    assert Version.parse(version).dialect == dialect


def test_a_requirement_holds_from_its_first_version_on() -> None:
    assert not holds("PING-01", "v1.6")
    assert holds("PING-01", "v1.7")
    assert holds("PING-01", "v1.20")


def test_a_requirement_that_was_removed_holds_up_to_its_last_version() -> None:
    assert not holds("AUTH-08", "r0.1.0")
    assert holds("AUTH-08", "r0.1.1")
    assert holds("AUTH-08", "v1.3")
    assert not holds("AUTH-08", "v1.4")
    assert holds("IDENT-16", "v1.19")
    assert not holds("IDENT-16", "v1.20")


def test_a_draft_is_judged_by_what_is_marked_for_it() -> None:
    assert holds("AUTH-08", "draft-001")
    assert not holds("AUTH-08", "draft-003")
    assert holds("DRAFT-REG-05", "draft-003")
    assert not holds("DRAFT-REG-05", "draft-001")
    assert holds("TXN-11", "r0")
    assert not holds("TXN-01", "r0")


@pytest.mark.parametrize("version", ["r0.1.2", "v1.1", "v1.20"])
def test_the_drafts_do_not_hold_in_released_versions(version: str) -> None:
    assert not any(applies(requirement, Version.parse(version)) for requirement in load().of_area("DRAFT"))


def test_the_latest_version_is_the_newest_released_one() -> None:
    assert str(LATEST) == "v1.19"


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        (["r0.0.1", "r0.6.1", "v1.1", "v1.11", "v1.2"], "v1.11"),
        (["v1.9", "v1.10"], "v1.10"),
        (["r0.5.0", "r0.6.1"], "r0.1.2"),
        (["r0.0.1"], "r0.1.2"),
        (["v1.3", "v1.99", "org.example.unstable", "", "draft-003"], "v1.3"),
    ],
)
def test_the_newest_claimed_version_counts(claimed: list[str], expected: str) -> None:
    assert str(newest(claimed)) == expected


@pytest.mark.parametrize("claimed", [[], ["v9.9"], ["draft-003"], ["r0"]])
def test_a_homeserver_may_claim_nothing_that_is_known(claimed: list[str]) -> None:
    assert newest(claimed) is None


def test_the_claims_may_be_read_only_once() -> None:
    assert str(newest(iter(["r0.6.1", "v1.5"]))) == "v1.5"
