"""The third line of the README: a running homeserver, with registration files written beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.appservice.registration import Registration, read
from conformance.appservice.roster import CODES_BY_ID
from conformance.cli import main
from conformance.homeserver.synapse import Synapse
from conformance.homeserver.target import SERVER_NAME
from tests.plugin.ports import free_block

pytestmark = pytest.mark.synapse


def written(directory: Path, server_name: str = SERVER_NAME) -> list[Registration]:
    """The registrations that the console script writes."""
    words = ["registrations", str(directory), "--server-name", server_name, "--port-base", free_block()]
    assert main(words) == 0
    return read(directory, CODES_BY_ID)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Synapse, Path]]:
    """A Synapse that somebody else started with the files in a directory."""
    directory = tmp_path_factory.mktemp("by-url")
    target = Synapse(directory, written(directory / "files"))
    target.start()
    yield target, directory / "files"
    target.stop()


def test_a_homeserver_by_url_is_judged_twice_without_a_restart(
    pytester: pytest.Pytester, running: tuple[Synapse, Path]
) -> None:
    target, files = running
    for _ in range(2):  # the second time its data is dirty
        result = pytester.runpytest_subprocess(
            *("--hs-url", target.url, "--as-registrations", files, "--only", "REG-01,REG-03,INTEREST-02"),
            *("--conformance-report", "report"),
        )
        assert result.ret == 0, result.stdout.str()
        content = json.loads((pytester.path / "report" / "results.json").read_text())
        assert content["target"]["name"] == "Synapse"
        assert content["summary"]["pass"] == 3


def test_registrations_written_for_another_server_name_are_noticed(pytester: pytest.Pytester, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    target = Synapse(tmp_path / "data", written(tmp_path / "files", server_name="elsewhere.test"))
    target.start()
    try:
        result = pytester.runpytest_subprocess("--hs-url", target.url, "--as-registrations", tmp_path / "files")
    finally:
        target.stop()
    assert result.ret == 7
    assert f"write them again with --server-name {SERVER_NAME}" in " ".join(result.stdout.str().split())


def test_a_file_the_homeserver_has_not_loaded_blocks_its_rows(
    pytester: pytest.Pytester, running: tuple[Synapse, Path], tmp_path: Path
) -> None:
    target, files = running
    for path in files.iterdir():
        content = json.loads(path.read_text())
        if content["id"] == "hq-second":
            content["as_token"] = "hq-as-b-that-nobody-loaded"
        (tmp_path / path.name).write_text(json.dumps(content))
    result = pytester.runpytest_subprocess(
        *("--hs-url", target.url, "--as-registrations", tmp_path, "--only", "REG-01,REG-03,INTEREST-14"),
        *("--conformance-report", "report"),
    )
    assert result.ret == 1
    entries = json.loads((pytester.path / "report" / "results.json").read_text())["requirements"]
    verdicts = {entry["id"]: entry["verdict"] for entry in entries}
    assert (verdicts["REG-01"], verdicts["REG-03"], verdicts["INTEREST-14"]) == ("fail", "blocked", "pass")
