"""The wheel works by itself: data inside, plugin found, from an empty environment and any directory."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOY = ROOT / "tests" / "plugin" / "toy_homeserver.py"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which only the wheel has been installed."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    venv.create(directory / "environment", with_pip=True)
    python = directory / "environment" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True, capture_output=True)
    return python


def test_a_check_runs_from_the_installed_wheel(environment: Path, tmp_path: Path) -> None:
    command = ["--hs-command", f"{sys.executable} {TOY} {{port}} {{registrations}}", "--only", "REG-01"]
    run = subprocess.run(
        [environment, "-m", "pytest", *command, "--conformance-report", str(tmp_path / "report")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    entries = json.loads((tmp_path / "report" / "results.json").read_text())["requirements"]
    assert [entry["id"] for entry in entries if entry["verdict"] == "pass"] == ["REG-01"]
    assert len(entries) >= 400


def test_schemas_and_fixtures_are_in_the_wheel(environment: Path, tmp_path: Path) -> None:
    code = "from conformance.schemas import *; print(len(names()), len(list(data_dir('fixtures').rglob('*.yaml'))))"
    run = subprocess.run([environment, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    schemas, fixtures = map(int, run.stdout.split())
    assert schemas == len(list((ROOT / "schemas").glob("*.schema.json")))
    assert fixtures == len(list((ROOT / "fixtures").rglob("*.yaml")))


def test_the_console_script_is_installed(environment: Path, tmp_path: Path) -> None:
    script = environment.parent / "as-conformance"
    run = subprocess.run([script, "requirements", "--area", "REG"], capture_output=True, text=True, check=True)
    assert "REG-13" in run.stdout
