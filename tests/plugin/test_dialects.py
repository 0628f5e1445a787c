"""Whole runs in the dialects of 2015 and of r0."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conformance.appservice.registration import Registration, read
from conformance.appservice.roster import of_dialect
from conformance.catalogue import load
from conformance.catalogue.versions import OLD_DIALECTS, Version, applies
from conformance.cli import main
from conformance.dialects import DIALECTS, Dialect
from conformance.reference.homeserver import Homeserver
from tests.plugin.ports import free_block


def verdicts(pytester: pytest.Pytester) -> dict[str, str]:
    content = json.loads((pytester.path / "report" / "results.json").read_text())
    return {entry["id"]: entry["verdict"] for entry in content["requirements"]}


@pytest.mark.parametrize("spec", OLD_DIALECTS.values())
def test_the_reference_passes_in_every_dialect(pytester: pytest.Pytester, spec: str) -> None:
    options = ("--hs", "reference", "--spec", spec, "--backoff-wait", "6", "--conformance-report", "report")
    assert pytester.runpytest_subprocess(*options, "-q").ret == 0
    found = verdicts(pytester)
    version = Version.parse(spec)
    for requirement in load():
        if not applies(requirement, version):
            assert found[requirement.id] in ("not-claimed", "skipped"), requirement.id
        elif requirement.unobservable is None and requirement.timing in ("F", "Q"):
            assert found[requirement.id] in ("pass", "recorded"), requirement.id


@contextmanager
def running(stored: list[Registration], dialect: Dialect) -> Iterator[str]:
    homeserver = Homeserver(stored, "hq.test", time_scale=0.05, dialect=dialect)
    try:
        yield homeserver.start()
    finally:
        homeserver.stop()


def test_a_homeserver_by_url_is_registered_with_twice(pytester: pytest.Pytester) -> None:
    """Other base paths, and a homeserver that knows everybody from an earlier run."""
    directory = pytester.path / "files"
    words = ["registrations", str(directory), "--server-name", "hq.test", "--spec", "draft-003"]
    words += ["--port-base", free_block()]
    assert main(words) == 0
    moved = DIALECTS["draft-003"].with_bases("/client", "/appservice")
    stored = read(directory, {role.id: role.code for role in of_dialect(moved)})
    options = [
        "--as-registrations",
        "files",
        "--spec",
        "draft-003",
        "--only",
        "DRAFT",
        "--conformance-report",
        "report",
    ]
    options += ["--hs-client-path", "/client", "--hs-appservice-path", "/appservice", "--quiet-wait", "0.5", "-q"]
    with running(stored, moved) as url:
        for _ in range(2):
            result = pytester.runpytest_subprocess("--hs-url", url, *options, "--deliver-wait", "5")
            assert result.ret == 0
            assert verdicts(pytester)["DRAFT-REG-04"] == "pass"
            assert verdicts(pytester)["DRAFT-UNREG-01"] == "pass"
            for token in (each.as_token for each in stored):
                assert token not in (pytester.path / "report" / "journal.jsonl").read_text()


def test_tokens_that_nobody_has_stored_are_said_so(pytester: pytest.Pytester) -> None:
    words = ["registrations", str(pytester.path / "files"), "--server-name", "hq.test", "--spec", "draft-004"]
    assert main([*words, "--port-base", free_block()]) == 0
    with running([], DIALECTS["draft-004"]) as url:
        options = ("--hs-url", url, "--as-registrations", "files", "--spec", "draft-004", "--only", "DRAFT")
        result = pytester.runpytest_subprocess(*options)
    assert result.ret == 7
    result.stdout.fnmatch_lines(["no appservice could register itself: POST /_matrix/appservice/v1/register *"])


def test_a_homeserver_of_today_has_none_of_the_old_paths(pytester: pytest.Pytester) -> None:
    words = ["registrations", str(pytester.path / "files"), "--server-name", "hq.test", "--spec", "draft-004"]
    assert main([*words, "--port-base", free_block()]) == 0
    with running([], DIALECTS["modern"]) as url:
        options = ("--hs-url", url, "--as-registrations", "files", "--spec", "draft-004", "--only", "DRAFT")
        result = pytester.runpytest_subprocess(*options)
    assert result.ret == 7
    result.stdout.fnmatch_lines(["*its client-server API is elsewhere: GET /_matrix/client/api/v1/login *"])


def test_a_command_starts_a_homeserver_of_the_time(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """It answers nowhere where those of today do, and the files that it is given hold the tokens to store."""
    script = tmp_path / "serve.py"
    script.write_text(_SERVE)
    command = f"{sys.executable} {script} {{port}} {{registrations}} {{server_name}}"
    options = ("--spec", "draft-004", "--only", "DRAFT-REG-01,DRAFT-REG-07", "--quiet-wait", "0.5", "-q")
    result = pytester.runpytest_subprocess("--hs-command", command, *options)
    assert result.ret == 0
    result.assert_outcomes(passed=2)


_SERVE = """
import sys, time
from pathlib import Path
from conformance.appservice.registration import read_all
from conformance.dialects import DIALECTS
from conformance.reference.homeserver import Homeserver
from tests.plugin.ports import free_block
port, registrations, name = sys.argv[1:]
Homeserver(read_all(Path(registrations)), name, dialect=DIALECTS["draft-004"]).start(port=int(port))
time.sleep(600)
"""


def test_options_of_drafts_are_in_the_help(pytester: pytest.Pytester) -> None:
    text = pytester.runpytest_subprocess("--help").stdout.str()
    assert "--hs-client-path" in text
    assert "draft-003" in text
