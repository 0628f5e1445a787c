"""The journal as a file keeps to its schema and to no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.schemas import problems
from conformance.wire.exchange import Direction, Exchange, Phase
from conformance.wire.journal import Journal
from conformance.wire.jsonl import BODY_CAP, entry, write
from conformance.wire.redaction import Redactor


@pytest.fixture
def journal() -> Journal:
    return Journal()


def written(journal: Journal, path: Path, redactor: Redactor | None = None) -> list[dict[str, Any]]:
    """What stands in the file, every line found valid."""
    write(path, journal, journal.began, redactor or Redactor())
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        assert problems("journal-entry", line) == []
    return lines


def ask(journal: Journal, **fields: Any) -> Exchange:
    return journal.open(Direction.TO_APPSERVICE, "A", "PUT", "/x", (("A", "b"),), **fields)


def test_an_exchange_in_every_phase_is_a_valid_line(journal: Journal, tmp_path: Path) -> None:
    ask(journal)
    journal.update(ask(journal), phase=Phase.PENDING, request_body=b"{}", notes=("a note",))
    journal.update(ask(journal), phase=Phase.DONE, failure="connection closed without an answer")
    moment = journal.began + 1.5
    journal.update(
        ask(journal, started=journal.began + 1.0, kernel_stamp=True),
        phase=Phase.DONE,
        status=200,
        response_headers=(("C", "d"), ("C", "e")),
        response_body=b"{}",
        answer_from=moment,
        answer_until=moment,
    )
    arriving, pending, failed, done = written(journal, tmp_path / "journal.jsonl")
    assert [each["phase"] for each in (arriving, pending, failed, done)] == ["arriving", "pending", "done", "done"]
    assert pending["notes"] == ["a note"]
    assert failed["failure"] == "connection closed without an answer"
    assert failed["response"] is None
    assert (done["started_s"], done["answer_until_s"]) == (1.0, 1.5)
    assert done["response"]["headers"] == [["C", "d"], ["C", "e"]]


def test_a_long_body_is_cut_and_its_true_length_kept(journal: Journal, tmp_path: Path) -> None:
    ask(journal, request_body=b"x" * (BODY_CAP + 1))
    (line,) = written(journal, tmp_path / "journal.jsonl")
    assert len(line["request"]["body"]) == BODY_CAP
    assert line["request"]["body_bytes"] == BODY_CAP + 1


def test_a_secret_at_the_cut_is_not_left_in_half(journal: Journal) -> None:
    redactor = Redactor()
    redactor.add("s3cr3t-token", "label")
    body = b"x" * (BODY_CAP - 6) + b"s3cr3t-token"
    assert "s3c" not in entry(ask(journal, request_body=body), journal.began, redactor)["request"]["body"]


def test_no_secret_is_written_wherever_it_stood(journal: Journal, tmp_path: Path) -> None:
    redactor = Redactor()
    redactor.add("s3cr3t", "hs_token of A")
    exchange = journal.open(
        Direction.TO_APPSERVICE,
        "A",
        "GET",
        "/x?access_token=s3cr3t",
        (("Authorization", "Bearer s3cr3t"),),
        request_body=b'{"password": "hunter2"}',
    )
    journal.update(exchange, status=200, response_headers=(("Set-Cookie", "s=hunter2"),), response_body=b'"s3cr3t"')
    text = json.dumps(written(journal, tmp_path / "journal.jsonl", redactor))
    assert "s3cr3t" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize("body", [b"\xff\x00", "ü\U0001f600\u2028".encode(), b"\\ud800", b"\r\n"])
def test_any_body_is_one_line(journal: Journal, tmp_path: Path, body: bytes) -> None:
    ask(journal, request_body=body)
    write(tmp_path / "journal.jsonl", journal, journal.began, Redactor())
    assert (tmp_path / "journal.jsonl").read_bytes().count(b"\n") == 1
    assert len(list(map(json.loads, (tmp_path / "journal.jsonl").read_text(encoding="utf-8").split("\n")[:-1]))) == 1


def test_texts_that_no_file_can_hold_are_escaped(journal: Journal, tmp_path: Path) -> None:
    exchange = ask(journal)
    journal.update(exchange, response_headers=(("X", "a\udcffb"),), status=200, target="/x\udcff")
    assert len(written(journal, tmp_path / "journal.jsonl")) == 1
