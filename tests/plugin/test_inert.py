"""Where no target is named the plugin does nothing and costs nothing."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = ("requests", "jsonschema", "h11", "conformance.running", "conformance.catalogue", "conformance.appservice")


def test_nothing_heavy_is_imported_without_a_target(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import sys

        def test_modules():
            loaded = [name for name in {HEAVY} if name in sys.modules]
            # Other plugins of this environment may import what they like.
            assert [name for name in loaded if name.startswith("conformance")] == []
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:pytest_httpserver")
    result.assert_outcomes(passed=1)


def test_an_unrelated_session_pays_less_than_15_ms(pytester: pytest.Pytester) -> None:
    code = (
        "import time, sys, pytest, _pytest.config.argparsing as a\n"
        "begin = time.perf_counter()\n"
        "import conformance.plugin as plugin\n"
        "plugin.pytest_addoption(a.Parser(_ispytest=True))\n"
        "print(time.perf_counter() - begin)\n"
    )
    # The best of five: what else the machine does is not the plugin's cost.
    costs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(costs) < 0.015


def test_all_options_are_in_one_group_of_the_help(pytester: pytest.Pytester) -> None:
    output = pytester.runpytest_subprocess("--help").stdout.str()
    group = output.partition("conformance of a Matrix homeserver's Application Service API:")[2].partition("\n\n")[0]
    for option in ("--hs-url", "--hs ", "--hs-command", "--as-registrations", "--spec", "--only", "--baseline "):
        assert option in group


def test_options_may_stand_in_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nhs = nonsense\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == 4
    assert "--hs nonsense: there is no such homeserver" in result.stderr.str()


def test_the_command_line_wins_over_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nhs = nonsense\n")
    result = pytester.runpytest_subprocess("--hs", "other")
    assert "--hs other: there is no such homeserver" in result.stderr.str()


def test_the_packaged_checks_are_collected_whatever_the_project_around_names_its_tests(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\npython_files = check_*.py\npython_functions = check_*\ntestpaths = nowhere\n")
    result = pytester.runpytest_subprocess("--hs", "synapse", "--co", "-q", "--only", "REG-01,INTEREST-14")
    assert result.ret == 0, result.stderr.str()
    assert len([line for line in result.stdout.lines if "::" in line]) == 2


def test_it_refuses_to_run_on_several_workers(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "def pytest_addoption(parser):\n    parser.addoption('--workers', dest='numprocesses', default=2)\n"
    )
    result = pytester.runpytest_subprocess("--hs", "synapse")
    assert result.ret == 4
    assert "run it without pytest-xdist's -n" in result.stderr.str()


def test_a_session_begins_within_a_second(pytester: pytest.Pytester) -> None:
    begin = time.monotonic()
    pytester.runpytest_subprocess("--hs", "synapse", "--co", "-q", "--only", "REG-01")
    assert time.monotonic() - begin < 10  # a second on an idle machine
