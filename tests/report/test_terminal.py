"""What the terminal shows says everything needed, in reasonable lines, and nothing a terminal would obey."""

from __future__ import annotations

import pytest

from conformance.catalogue import load
from conformance.report.results import Outcome, Results
from conformance.report.terminal import LETTERS, area_lines, details
from conformance.verdict import Verdict
from conformance.wire.exchange import Direction
from conformance.wire.journal import Journal
from conformance.wire.redaction import Redactor

CATALOGUE = load()


@pytest.fixture
def redactor() -> Redactor:
    made = Redactor()
    made.add("s3cret", "access token of H")
    return made


def shown(outcome: Outcome, redactor: Redactor) -> list[str]:
    return list(details(CATALOGUE["TXN-01"], outcome, "http://hs:8008", redactor))


def test_every_verdict_has_a_letter_and_a_word_of_its_own() -> None:
    assert set(LETTERS) == set(Verdict)
    for values in zip(*LETTERS.values(), strict=True):
        assert len(set(values)) == len(LETTERS)


def test_there_is_a_line_for_every_area_that_was_judged_and_a_total(redactor: Redactor) -> None:
    results = Results(CATALOGUE, redactor)
    results.add("TXN-01", Outcome(Verdict.PASS))
    results.add("TXN-02", Outcome(Verdict.FAIL, "a", "b"))
    results.add("REG-01", Outcome(Verdict.WARN, "a", "b"))
    heading, *lines = area_lines(results)
    assert [line.split()[0] for line in lines] == ["REG", "TXN", "total"]
    assert heading.split()[:3] == ["area", "passed", "failed"]
    assert lines[1].split()[1:3] == ["1", "1"]
    assert lines[2].split()[1:3] == ["1", "1"]
    assert len({len(line) for line in (heading, *lines)}) == 1


def test_every_verdict_is_counted_in_some_column(redactor: Redactor) -> None:
    for verdict in Verdict:
        results = Results(CATALOGUE, redactor)
        results.add("TXN-01", Outcome(Verdict.PASS))
        results.add("TXN-02", Outcome(verdict, reason="x"))
        *_, total = area_lines(results)
        area = sum(1 for each in CATALOGUE if each.area == "TXN")
        assert sum(int(cell) for cell in total.split()[1:] if cell != "-") == area, verdict


def test_a_deviation_shows_requirement_expected_seen_and_exchanges_with_curl(redactor: Redactor) -> None:
    journal = Journal()
    call = journal.open(
        Direction.TO_HOMESERVER, "H", "PUT", "/_matrix/x?access_token=s3cret", (("Authorization", "Bearer s3cret"),)
    )
    push = journal.open(Direction.TO_APPSERVICE, "A", "PUT", "/transactions/1", ())
    lines = shown(Outcome(Verdict.FAIL, "200", "500", evidence=(call, push)), redactor)
    requirement = CATALOGUE["TXN-01"]
    assert lines[0].startswith(f"FAIL TXN-01 ({requirement.level}, {requirement.section}, since {requirement.since}")
    text = "\n".join(lines)
    assert "expected    200" in text
    assert "seen        500" in text
    assert "exchange    #1 to-homeserver H PUT /_matrix/x?access_token=<access token of H>" in text
    assert "exchange    #2 to-appservice A PUT /transactions/1" in text
    assert text.count("curl -i -X PUT") == 1
    assert "http://hs:8008/_matrix/x" in text
    assert "s3cret" not in text


def test_long_texts_are_wrapped_and_long_words_left_whole(redactor: Redactor) -> None:
    word = "x" * 300
    lines = shown(Outcome(Verdict.INCONCLUSIVE, reason=f"{'some words ' * 40}{word} end"), redactor)
    assert any(word in line for line in lines)
    assert all(len(line) <= 118 for line in lines if word not in line)


def test_the_lines_of_a_reason_stay_lines_with_their_indentation(redactor: Redactor) -> None:
    lines = shown(Outcome(Verdict.ERROR, reason="it died; its last log lines:\n    one\n\n    two"), redactor)
    start = next(number for number, line in enumerate(lines) if "it died" in line)
    assert [line.strip() for line in lines[start + 1 :]] == ["one", "", "two"]
    assert lines[start + 1].startswith(" " * 16 + "    one") or lines[start + 1].startswith("        ")


def test_nothing_that_a_terminal_would_obey_is_shown(redactor: Redactor) -> None:
    call = Journal().open(Direction.TO_HOMESERVER, "H", "POST", "/x", (), request_body=b"\x1b]0;title\x07\xc2\x9b1m")
    evil = "500 \x1b[2J\u202eerrcode\x07\ud800"
    lines = shown(Outcome(Verdict.FAIL, "200", evil, evidence=(call,)), redactor)
    assert all(line.isprintable() for line in lines)
    assert "500 \\x1b[2J\\u202eerrcode\\x07\\ud800" in "\n".join(lines)
