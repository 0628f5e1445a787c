"""Known deviations are known and nothing else: a baseline counts both ways and never outlives its bug."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from conformance.catalogue import load
from conformance.report.baseline import BadBaseline, Known, compare, read, updated, write
from conformance.report.results import Outcome
from conformance.verdict import Verdict

TODAY = date(2026, 11, 21)
CATALOGUE = load()
KNOWN = Known("TXN-01", Verdict.FAIL, "it is so", seen="500")


def saved(path: Path, text: str) -> dict[str, Known]:
    (path / "baseline.toml").write_text(text, encoding="utf-8")
    return read(path / "baseline.toml", CATALOGUE, TODAY)


def test_a_file_is_read_with_everything_an_entry_may_say(tmp_path: Path) -> None:
    entries = saved(
        tmp_path,
        '[[known]]\nid = "TXN-01"\nverdict = "fail"\nreason = "it is so"\nseen = "500"\n'
        'expires = 2027-06-01\n[[known]]\nid = "REG-04"\nverdict = "warn"\nreason = "x"\nflaky = true\n',
    )
    assert entries == {
        "TXN-01": Known("TXN-01", Verdict.FAIL, "it is so", "500", date(2027, 6, 1)),
        "REG-04": Known("REG-04", Verdict.WARN, "x", flaky=True),
    }


def test_an_empty_file_knows_nothing(tmp_path: Path) -> None:
    assert saved(tmp_path, "") == {}


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    entries = [KNOWN, Known("REG-04", Verdict.WARN, 'a "quoted" ü', expires=date(2030, 1, 1), flaky=True)]
    write(tmp_path / "baseline.toml", entries)
    assert list(read(tmp_path / "baseline.toml", CATALOGUE, TODAY).values()) == entries


ENTRY = '[[known]]\nid = "TXN-01"\nverdict = "fail"\nreason = "x"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("known = [", "is no TOML"),
        ("[[knwon]]\n", "knwon"),
        ('[[known]]\nid = "TXN-01"\nverdict = "fail"\n', '"reason" is missing'),
        (ENTRY.replace("fail", "pass"), "verdict"),
        (ENTRY.replace('"x"', '" "'), "reason"),
        (ENTRY + "sene = 1\n", "sene"),
        (ENTRY.replace("TXN-01", "TXN-99"), "lists TXN-99, which is no requirement"),
        (ENTRY + ENTRY, "lists TXN-01 twice"),
        (ENTRY + "expires = 2026-11-21\n", "TXN-01 .* expired on 2026-11-21"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_naming_the_entry(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadBaseline, match=said):
        saved(tmp_path, text)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadBaseline, match=r"cannot read the baseline .*nowhere"):
        read(tmp_path / "nowhere.toml", CATALOGUE, TODAY)


def outcome(verdict: Verdict, seen: str | None = None) -> Outcome:
    return Outcome(verdict, expected="200", seen=seen)


def test_a_deviation_as_listed_is_known() -> None:
    found = compare(outcome(Verdict.FAIL, "500 M_UNKNOWN"), KNOWN)
    assert found.verdict is Verdict.KNOWN_FAIL
    assert found.reason == "known: it is so"
    assert found.seen == "500 M_UNKNOWN"


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.RECORDED])
def test_a_listed_deviation_that_is_gone_is_an_unexpected_pass(verdict: Verdict) -> None:
    found = compare(outcome(verdict), KNOWN)
    assert found.verdict is Verdict.UNEXPECTED_PASS
    assert found.reason is not None
    assert "remove the entry" in found.reason


def test_a_flaky_entry_tolerates_either_outcome() -> None:
    flaky = Known("TXN-01", Verdict.FAIL, "races", flaky=True)
    assert compare(outcome(Verdict.PASS), flaky).verdict is Verdict.PASS
    assert compare(outcome(Verdict.FAIL, "x"), flaky).verdict is Verdict.KNOWN_FAIL


@pytest.mark.parametrize(
    ("found", "how"),
    [
        (outcome(Verdict.WARN, "500"), "warn instead of fail"),
        (outcome(Verdict.FAIL, "404"), "'500' is not in what was seen"),
        (outcome(Verdict.FAIL, None), "'500' is not in what was seen"),
    ],
)
def test_another_deviation_than_the_listed_one_fails(found: Outcome, how: str) -> None:
    judged = compare(found, KNOWN)
    assert judged.verdict is Verdict.FAIL
    assert judged.reason is not None
    assert how in judged.reason
    assert judged.seen == found.seen


@pytest.mark.parametrize(
    "verdict",
    [Verdict.INCONCLUSIVE, Verdict.BLOCKED, Verdict.ERROR, Verdict.NOT_CLAIMED, Verdict.SKIPPED],
)
def test_what_was_not_decided_stays_so(verdict: Verdict) -> None:
    found = outcome(verdict)
    assert compare(found, KNOWN) is found


def test_an_update_adds_new_failures_and_says_that_a_reason_is_owed() -> None:
    (entry,) = updated({}, [("TXN-02", outcome(Verdict.FAIL, "404"))], {"TXN-02": Verdict.FAIL})
    assert entry == Known("TXN-02", Verdict.FAIL, "TODO why: 404")


def test_an_update_removes_what_passes_now_but_not_what_is_flaky() -> None:
    flaky = Known("TXN-02", Verdict.FAIL, "races", flaky=True)
    raw = {"TXN-01": Verdict.PASS, "TXN-02": Verdict.PASS}
    outcomes = [("TXN-01", outcome(Verdict.UNEXPECTED_PASS)), ("TXN-02", outcome(Verdict.PASS))]
    assert updated({"TXN-01": KNOWN, "TXN-02": flaky}, outcomes, raw) == [flaky]


def test_an_update_keeps_what_this_run_did_not_decide() -> None:
    for verdict in (Verdict.INCONCLUSIVE, Verdict.SKIPPED, Verdict.ERROR):
        assert updated({"TXN-01": KNOWN}, [("TXN-01", outcome(verdict))], {"TXN-01": verdict}) == [KNOWN]
    assert updated({"TXN-01": KNOWN}, [("TXN-01", outcome(Verdict.SKIPPED))], {}) == [KNOWN]


def test_an_update_keeps_the_reason_of_a_known_deviation() -> None:
    outcomes = [("TXN-01", outcome(Verdict.KNOWN_FAIL, "500"))]
    assert updated({"TXN-01": KNOWN}, outcomes, {"TXN-01": Verdict.FAIL}) == [KNOWN]


def test_an_update_follows_a_deviation_that_has_changed() -> None:
    (entry,) = updated({"TXN-01": KNOWN}, [("TXN-01", outcome(Verdict.FAIL, "404"))], {"TXN-01": Verdict.WARN})
    assert entry == Known("TXN-01", Verdict.WARN, "it is so")


def test_warnings_are_not_added_by_an_update() -> None:
    assert updated({}, [("TXN-02", outcome(Verdict.WARN, "x"))], {"TXN-02": Verdict.WARN}) == []


def test_what_an_update_writes_makes_the_next_run_clean() -> None:
    found = outcome(Verdict.FAIL, "404")
    (entry,) = updated({}, [("TXN-02", found)], {"TXN-02": Verdict.FAIL})
    assert compare(found, entry).verdict is Verdict.KNOWN_FAIL
