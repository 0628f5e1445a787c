"""The console script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conformance.appservice.registration import read
from conformance.appservice.roster import CODES_BY_ID, FUZZED, OPTIONAL, ROSTER
from conformance.cli import main
from conformance.namespaces.cells import cells_of


def test_registrations_are_written_and_can_be_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registrations", str(tmp_path / "new"), "--server-name", "example.org", "--port-base", "25000"]) == 0
    written = read(tmp_path / "new", CODES_BY_ID)
    assert [each.code for each in written] == [role.code for role in ROSTER]
    assert written[0].url == "http://127.0.0.1:25000"
    assert len({each.port for each in written if each.port}) == len(ROSTER) - 1
    said = capsys.readouterr().out
    assert "app_service_config_files" in said
    assert "Dendrite" in said
    assert f"pytest --hs-url http://localhost:8008 --as-registrations {tmp_path / 'new'}" in said


def test_registrations_that_not_every_homeserver_can_read_are_written_when_asked_for(tmp_path: Path) -> None:
    words = ["registrations", str(tmp_path), "--server-name", "example.org", "--port-base", "25000"]
    assert main([*words, "--posix"]) == 0
    content = json.loads((tmp_path / "as-conformance-p.yaml").read_text())
    assert content["namespaces"]["users"] == [{"exclusive": True, "regex": "@hqp-[[:digit:]]{3}-.*"}]
    everybody = {role.id: role.code for role in (*ROSTER, *OPTIONAL)}
    assert [each.code for each in read(tmp_path, everybody)] == [role.code for role in (*ROSTER, *OPTIONAL)]


def test_generated_namespaces_are_written_when_a_seed_is_given(tmp_path: Path) -> None:
    words = ["registrations", str(tmp_path), "--server-name", "[::1]:8448", "--port-base", "25000", "--fuzz-seed", "7"]
    assert main(words) == 0
    first, second, third = (json.loads((tmp_path / f"as-conformance-f{n}.yaml").read_text()) for n in (1, 2, 3))
    assert first["namespaces"] != second["namespaces"]
    assert third["url"] is None
    found = read(tmp_path, {role.id: role.code for role in FUZZED})
    assert len(cells_of(found, "users")) > 50
    assert any(entry["regex"].endswith(r":\[::1\]:8448") for entry in first["namespaces"]["users"])


def test_the_server_name_stands_escaped_in_v1s_regex(tmp_path: Path) -> None:
    main(["registrations", str(tmp_path), "--server-name", "hs-1.example.org:8448"])
    content = json.loads((tmp_path / "as-conformance-v1.yaml").read_text())
    assert content["namespaces"]["users"][0]["regex"] == r"@hqv1-.*:hs-1\.example\.org:8448"


def test_the_fleet_may_be_elsewhere_than_the_homeserver(tmp_path: Path) -> None:
    main(["registrations", str(tmp_path), "--server-name", "x.org", "--as-url", "http://[::1]", "--port-base", "3000"])
    assert json.loads((tmp_path / "as-conformance-a.yaml").read_text())["url"] == "http://[::1]:3000"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--as-url", "http://127.0.0.1:80"], "wants scheme and host without a port"),
        (["--as-url", "127.0.0.1"], "wants scheme and host without a port"),
        (["--as-url", "http://h/path"], "leave it out"),
        (["--port-base", "65530"], "not a port with"),
        (["--port-base", "0"], "not a port with"),
    ],
)
def test_wrong_options_are_one_sentence_and_exit_code_4(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["registrations", str(tmp_path), "--server-name", "example.org", *arguments]) == 4
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_server_name_with_a_sigil_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registrations", str(tmp_path), "--server-name", "@bob:example.org"]) == 4
    assert "not a server name" in capsys.readouterr().err


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["registrations", str(tmp_path / "file"), "--server-name", "example.org"]) == 4
    assert "cannot write registration files" in capsys.readouterr().err


def test_requirements_prints_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["requirements", "--area", "sync", "--format", "json"]) == 0
    assert [row["id"] for row in json.loads(capsys.readouterr().out)] == ["SYNC-01", "SYNC-02", "SYNC-03", "SYNC-04"]
    assert main(["requirements"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 400


def test_an_unknown_area_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["requirements", "--area", "TXM"]) == 4
    assert "there is no area TXM; there are REG, AUTH" in capsys.readouterr().err


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 4
    assert "usage: as-conformance" in capsys.readouterr().err
