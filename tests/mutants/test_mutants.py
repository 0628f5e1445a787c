"""Every mutant of Synapse is caught by the requirements it breaks, and no other requirement is blamed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.catalogue import load as load_catalogue
from tests.mutants import Mutant, load
from tests.test_checks import checked_requirements

ROOT = Path(__file__).parent.parent.parent

#: Rows that take seconds: run where they are meant only.
SLOW = {"ADMIN-21", "ADMIN-22", "TXN-17"}

#: Areas whose outages are played together, so that a bug in retries may be blamed on any of them.
OUTAGES = {"RETRY", "TXN", "ORDER", "EPH"}

#: The requirements by ID.
CATALOGUE = {each.id: each for each in load_catalogue()}


def _waits(mutant: Mutant) -> set[str]:
    """The kinds of waits (backoffs, time-outs, restarts) that decide what a mutant breaks."""
    return {CATALOGUE[each].timing for each in mutant.breaks} - {"F", "Q", "-"}


def _params() -> Iterator[object]:
    """Every mutant; those that take waits, and all but the first other one of each area, are marked as the long job."""
    areas: set[str] = set()
    for each in load().values():
        marks = [pytest.mark.mutants] if each.area in areas or _waits(each) else []
        if not _waits(each):
            areas.add(each.area)
        yield pytest.param(each, id=f"{each.area}-{each.name}", marks=marks)


def rows(mutant: Mutant) -> set[str]:
    """What is judged: all quick rows of the areas concerned, and those that wait for what it breaks."""
    areas, waits = {each.rpartition("-")[0] for each in mutant.breaks}, _waits(mutant)
    beside = areas | (OUTAGES if "B" in waits else set())
    quick = {each.id for each in CATALOGUE.values() if each.area in areas and each.timing in ("F", "Q", "-")}
    waiting = {each.id for each in CATALOGUE.values() if each.area in beside and each.timing in waits}
    return quick - SLOW | waiting | set(mutant.breaks)


def test_mutants_break_requirements_that_have_a_check() -> None:
    assert {requirement for each in load().values() for requirement in each.breaks} <= checked_requirements()


@pytest.mark.synapse
@pytest.mark.parametrize("mutant", list(_params()))
def test_a_broken_synapse_is_blamed_for_what_is_broken(mutant: Mutant, tmp_path: Path) -> None:
    """Run the areas concerned against the mutant and compare what deviates with what it breaks."""
    verdicts = _verdicts(mutant, ",".join(sorted(rows(mutant))), tmp_path)
    deviating = {each for each, verdict in verdicts.items() if verdict in ("fail", "warn")}
    # In what the unbroken Synapse does too, a mutant of the same effect cannot be told from it.
    known = {each for each, verdict in verdicts.items() if verdict == "known-fail"}
    assert set(mutant.breaks) <= deviating | known, "missed"
    assert deviating <= set(mutant.breaks) | set(mutant.also), "blamed wrongly"


def _verdicts(mutant: Mutant, only: str, directory: Path) -> dict[str, str]:
    command = f"{sys.executable} -m tests.mutants {mutant.name} {{port}} {{registrations}} {{data}}"
    words = ["--hs-command", command, "--only", only]
    words += ["--deliver-wait", "5", "--backoff-wait", "60", "--block-wait", "75"]
    words += ["--conformance-report", str(directory), "--baseline", str(ROOT / "synapse-baseline.toml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "pytest", "-p", "no:xdist", *words]
    run = subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    entries = json.loads((directory / "results.json").read_text())["requirements"]
    assert not [entry for entry in entries if entry["verdict"] == "error"], run.stdout
    return {entry["id"]: entry["verdict"] for entry in entries}
