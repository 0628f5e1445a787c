"""`as-conformance compare`: on which requirements do runs differ?"""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.catalogue import load
from conformance.cli import main
from conformance.report.results import Outcome, Results, as_json, write
from conformance.verdict import Verdict
from conformance.wire.redaction import Redactor


def written(directory: Path, software: str, **verdicts: Verdict) -> Path:
    """The report of a run with these verdicts, by requirement with an underscore."""
    results = Results(load(), Redactor())
    for name, verdict in verdicts.items():
        results.add(name.replace("_", "-"), Outcome(verdict, "this", "that"))
    directory.mkdir()
    content = as_json(
        results,
        suite_version="0",
        target={"name": software, "version": "1", "url": "http://x", "claimed_versions": []},
        reading="lenient",
        spec="v1.19",
        started_at=0.0,
        duration=1.0,
        waits=[],
        notes=[],
    )
    write(directory / "results.json", content)
    return directory


def test_what_differs_is_shown_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = written(tmp_path / "a", "Synapse", TXN_01=Verdict.PASS, TXN_02=Verdict.PASS)
    other = written(tmp_path / "b", "Dendrite", TXN_01=Verdict.PASS, TXN_02=Verdict.FAIL)
    assert main(["compare", str(one), str(other / "results.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:2]] == [["Synapse", "1", "Dendrite", "1"], ["TXN-02", "pass", "fail"]]
    assert lines[2] == f"1 requirements differ, {len(load().ids()) - 1} do not"


def test_runs_of_one_homeserver_are_called_by_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(written(tmp_path / each, "Synapse", TXN_01=Verdict.PASS)) for each in ("a", "b", "c")]
    assert main(["compare", *paths]) == 0
    assert capsys.readouterr().out == f"0 requirements differ, {len(load().ids())} do not\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "cannot read"), ("{", "is not JSON"), ("{}", "is no results file")],
)
def test_bad_files_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, told: str
) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 4
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1


def test_one_run_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path)]) == 4
    assert "nothing to compare with" in capsys.readouterr().err
