"""results.json has an entry for every requirement, keeps to its schema, and says nothing secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.catalogue import load
from conformance.report.results import Outcome, Results, as_json, write
from conformance.schemas import problems
from conformance.verdict import Verdict
from conformance.wire.exchange import Direction
from conformance.wire.journal import Journal
from conformance.wire.redaction import Redactor

CATALOGUE = load()


@pytest.fixture
def results() -> Results:
    redactor = Redactor()
    redactor.add("s3cret", "as_token of A")
    return Results(CATALOGUE, redactor)


def content(results: Results, **changes: Any) -> dict[str, Any]:
    """The content of the file, found valid."""
    options: dict[str, Any] = {
        "suite_version": "1.2",
        "target": {"name": "Toy", "version": None, "url": "http://hs", "claimed_versions": ["v1.1"]},
        "reading": "lenient",
        "spec": "v1.1",
        "started_at": 1795219200.5,
        "duration": 1.23456,
        "notes": ["a note with s3cret"],
    }
    made = as_json(results, **{**options, **changes})
    assert problems("results", json.loads(json.dumps(made))) == []
    return made


def entry(results: Results, requirement: str) -> dict[str, Any]:
    (found,) = (each for each in content(results)["requirements"] if each["id"] == requirement)
    return dict(found)


def test_every_requirement_has_an_entry_in_catalogue_order(results: Results) -> None:
    made = content(results)
    assert [each["id"] for each in made["requirements"]] == list(CATALOGUE.ids())
    assert made["summary"]["skipped"] == len(made["requirements"])
    assert sum(made["summary"].values()) == len(made["requirements"])


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_can_be_written(results: Results, verdict: Verdict) -> None:
    results.add("TXN-01", Outcome(verdict, "200", "500", "because", duration=0.123456))
    made = content(results)
    assert made["summary"][verdict.value] >= 1
    found = entry(results, "TXN-01")
    assert (found["verdict"], found["expected"], found["seen"], found["reason"]) == (
        verdict.value,
        "200",
        "500",
        "because",
    )
    assert found["duration_s"] == 0.1235


def test_evidence_is_the_numbers_of_exchanges(results: Results) -> None:
    journal = Journal()
    exchanges = tuple(journal.open(Direction.TO_HOMESERVER, "H", "GET", "/x", ()) for _ in range(3))
    results.add("TXN-01", Outcome(Verdict.FAIL, "a", "b", evidence=exchanges[1:]))
    assert entry(results, "TXN-01")["evidence"] == [2, 3]


def test_what_was_not_judged_says_why(results: Results) -> None:
    results.skipped["TXN-02"] = "not selected"
    unobservable = next(each for each in CATALOGUE if each.unobservable)
    assert entry(results, "TXN-02")["reason"] == "not selected"
    assert entry(results, unobservable.id)["reason"] == unobservable.unobservable
    assert entry(results, "TXN-01")["reason"]


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [
        (Verdict.PASS, Verdict.FAIL, Verdict.FAIL),
        (Verdict.FAIL, Verdict.PASS, Verdict.FAIL),
        (Verdict.WARN, Verdict.FAIL, Verdict.FAIL),
        (Verdict.INCONCLUSIVE, Verdict.PASS, Verdict.INCONCLUSIVE),
        (Verdict.PASS, Verdict.NOT_CLAIMED, Verdict.PASS),
        (Verdict.FAIL, Verdict.ERROR, Verdict.ERROR),
        (Verdict.KNOWN_FAIL, Verdict.PASS, Verdict.KNOWN_FAIL),
    ],
)
def test_the_worst_of_two_checks_of_one_requirement_counts(
    results: Results, one: Verdict, other: Verdict, counts: Verdict
) -> None:
    results.add("TXN-01", Outcome(one, reason="x"))
    results.add("TXN-01", Outcome(other, reason="y"))
    assert results.of(CATALOGUE["TXN-01"]).verdict is counts


def test_no_secret_is_kept_in_an_outcome_or_written(results: Results) -> None:
    results.add("TXN-01", Outcome(Verdict.FAIL, "s3cret", "saw s3cret", "s3cret!"))
    assert results.of(CATALOGUE["TXN-01"]).seen == "saw <as_token of A>"
    assert "s3cret" not in json.dumps(content(results))


def test_requirements_are_found_by_verdict_in_catalogue_order(results: Results) -> None:
    results.add("TXN-02", Outcome(Verdict.FAIL, "a", "b"))
    results.add("TXN-01", Outcome(Verdict.WARN, "a", "b"))
    found = [requirement.id for requirement, _ in results.with_verdict(Verdict.FAIL, Verdict.WARN)]
    assert found == ["TXN-01", "TXN-02"]


def test_times_are_written_with_their_offset(results: Results) -> None:
    made = content(results)
    assert made["started"] == "2026-11-21T00:00:00.500+00:00"
    assert made["duration_s"] == 1.235


def test_any_text_of_a_homeserver_can_be_written(results: Results, tmp_path: Path) -> None:
    results.add("TXN-01", Outcome(Verdict.FAIL, "200", "500 \ud800\x00\u2028ü\U0001f600"))
    write(tmp_path / "results.json", content(results))
    read = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert problems("results", read) == []
    (found,) = (each for each in read["requirements"] if each["id"] == "TXN-01")
    assert found["seen"] == "500 \ud800\x00\u2028ü\U0001f600"
