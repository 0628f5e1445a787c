"""Every mutant of Synapse is caught by the requirements it breaks, and no other requirement is blamed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.catalogue import load as load_catalogue
from tests.mutants import Mutant, load

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.synapse
@pytest.mark.mutants
@pytest.mark.parametrize("mutant", load().values(), ids=lambda mutant: str(mutant.name))
def test_a_broken_synapse_is_blamed_for_what_is_broken(mutant: Mutant, tmp_path: Path) -> None:
    """Run the areas concerned against the mutant and compare what deviates with what it breaks."""
    catalogue = load_catalogue()
    areas = {catalogue[each].area for each in mutant.breaks}
    deviating = _deviating(mutant, ",".join(sorted(areas | set(mutant.breaks))), tmp_path)
    usual = _usual()
    assert set(mutant.breaks) <= deviating, "missed"
    assert deviating - usual <= set(mutant.breaks) | set(mutant.also), "blamed wrongly"


def _usual() -> set[str]:
    """What the unbroken Synapse deviates in."""
    import tomllib

    return {entry["id"] for entry in tomllib.loads((ROOT / "synapse-baseline.toml").read_text())["known"]}


def _deviating(mutant: Mutant, only: str, directory: Path) -> set[str]:
    command = f"{sys.executable} -m tests.mutants {mutant.name} {{port}} {{registrations}} {{data}}"
    words = ["--hs-command", command, "--only", only, "--conformance-report", str(directory), "--deliver-wait", "5"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    argv = [sys.executable, "-m", "pytest", *words]
    run = subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    entries = json.loads((directory / "results.json").read_text())["requirements"]
    assert not [entry for entry in entries if entry["verdict"] == "error"], run.stdout
    return {entry["id"] for entry in entries if entry["verdict"] in ("fail", "warn")}
