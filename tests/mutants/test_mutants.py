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

#: Areas of which the first mutant is tried with the other tests: about how appservices are told, act, and own names.
BRIEFLY = ("interest", "ident", "nsuser", "ping", "userq")

#: Areas whose outages are played together, so that a bug in retries may be blamed on any of them.
OUTAGES = {"RETRY", "TXN", "ORDER", "EPH"}

#: What the unbroken Synapse deviates in without a word in its baseline, as these rows only warn or are newer than what
#: it claims: another verdict says that something else is broken.
DEVIATIONS = {
    "USERQ-08": "warn",
    "USERQ-12": "warn",
    "USERQ-13": "warn",
    "USERQ-18": "warn",
    "ALIASQ-13": "warn",
    "ALIASQ-14": "warn",
    "3PN-15": "warn",
    "3PN-16": "warn",
    "3PN-17": "warn",
    "3PN-19": "warn",
    "LEGACY-02": "warn",
    "LEGACY-03": "warn",
    "LEGACY-04": "warn",
    "LEGACY-05": "warn",
    "LEGACY-06": "warn",
    "LEGACY-07": "warn",
    "RESTART-02": "warn",
    "RESTART-03": "warn",
    "RESTART-04": "warn",
    "RESTART-05": "warn",
    "RESTART-06": "warn",
    "RESTART-07": "warn",
    "DEVICE-04": "fail",
    "DEVICE-09": "warn",
}

#: The requirements by ID.
CATALOGUE = {each.id: each for each in load_catalogue()}


def _waits(mutant: Mutant) -> set[str]:
    """The kinds of waits (backoffs, time-outs, restarts) that decide what a mutant breaks."""
    return {CATALOGUE[each].timing for each in mutant.breaks} - {"F", "Q", "-"}


def _params() -> Iterator[object]:
    """Every mutant; all but the first of some areas are marked as the long job: each takes half a minute."""
    areas = set(BRIEFLY)
    for each in load().values():
        brief = each.area in areas and not _waits(each)
        marks = [] if brief else [pytest.mark.mutants]
        if brief:
            areas.remove(each.area)
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
    deviating = {
        each for each, verdict in verdicts.items() if verdict in ("fail", "warn") and DEVIATIONS.get(each) != verdict
    }
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
