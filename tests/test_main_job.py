"""The main job: a whole conformance run against the real Synapse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.schemas import problems

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.synapse


def test_a_run_against_synapse_of_what_is_quick_is_green_and_decides_nearly_all_of_it(tmp_path: Path) -> None:
    report = tmp_path / "report"
    # `tox -e synapse` runs everything; outages, restarts, bursts and queries that hang take minutes.
    areas = "AUTH,IDENT,TS,NSUSER,NSALIAS,INTEREST,SYNC,ROOMDIR"
    words = ["--hs", "synapse", "--only", areas, "--baseline", str(ROOT / "synapse-baseline.toml")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--conformance-report", str(report)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    content = json.loads((report / "results.json").read_text())
    assert problems("results", content) == []
    assert content["summary"]["error"] == 0
    decided = ("pass", "known-fail", "warn", "recorded")
    assert sum(content["summary"][each] for each in decided) >= 100
    with (report / "journal.jsonl").open() as lines:
        assert [problem for line in lines for problem in problems("journal-entry", json.loads(line))] == []
    assert {path.name for path in report.iterdir()} == {"results.json", "journal.jsonl", "homeserver"}
