"""What a check says becomes a verdict, a pytest outcome, and an entry in results.json."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from conformance.schemas import problems

TOY = Path(__file__).parent / "toy_homeserver.py"

CHECKS = """
    from conformance.requirement import requirement
    from conformance.verdict import *

    @requirement("TXN-02")
    def test_passes(run): pass

    @requirement("TXN-03")
    def test_fails(run):
        answer = run.client.call("GET", "/_matrix/client/v3/nothing", party="H", token="hq-secret-of-mine")
        expect(answer.ok, "200", answer, answer.exchange)

    @requirement("RETRY-01")
    def test_warns_because_it_is_a_should(run):
        expect(False, "a retry", "none")

    @requirement("TXN-07")
    def test_warns_because_it_is_strict(run):
        expect(False, "no prev_events", "prev_events")

    @requirement("TXN-08")
    def test_prefers(run):
        prefer(False, "something tidy", "a mess")

    @requirement("REG-04")
    def test_records(run):
        record("slashes are doubled")

    @requirement("REG-10")
    def test_records_only():
        raise Recorded("bracket classes work")

    @requirement("TXN-16")
    def test_is_inconclusive():
        raise Inconclusive("nothing was seen")

    @requirement("TXN-17")
    def test_is_blocked():
        raise Blocked("REG-01", "not loaded")

    @requirement("TXN-18")
    def test_errs(run):
        assert 1 == 2

    @requirement("EPH-01")
    def test_is_not_claimed(run):
        raise AssertionError("never run")

    @requirement("INTEREST-15")
    def test_waits_for_quiet_and_fails(run):
        yield
        expect(False, "silence", "noise")

    @requirement("INTEREST-14")
    def test_waits_for_quiet_and_passes(run):
        yield

    @requirement("REG-02")
    def test_is_a_noop_of_another_order(run): pass
"""


def run_checks(
    pytester: pytest.Pytester, *arguments: str, checks: str = CHECKS, misdeed: str = ""
) -> tuple[pytest.RunResult, dict[str, dict[str, Any]], dict[str, Any]]:
    """Run checks against the toy: the result, the entries of results.json by id, and the whole of it."""
    pytester.makepyfile(test_checks=checks)
    pytester.makeconftest("from conformance.checks.conftest import *")
    report = pytester.path / "report"
    result = pytester.runpytest_subprocess(
        *("--hs-command", f"{sys.executable} {TOY} {{port}} {{registrations}} {misdeed}"),
        *("--conformance-report", str(report), "--quiet-wait", "0.3", "test_checks.py", *arguments),
    )
    content = json.loads((report / "results.json").read_text())
    assert problems("results", content) == []
    return result, {entry["id"]: entry for entry in content["requirements"]}, content


def test_every_way_to_end_has_its_verdict_and_outcome(pytester: pytest.Pytester) -> None:
    result, entries, content = run_checks(pytester)
    verdicts = {key: entry["verdict"] for key, entry in entries.items() if entry["verdict"] != "skipped"}
    assert verdicts == {
        "REG-02": "pass",
        "REG-04": "recorded",
        "REG-10": "recorded",
        "TXN-02": "pass",
        "TXN-03": "fail",
        "TXN-07": "warn",
        "TXN-08": "warn",
        "TXN-16": "inconclusive",
        "TXN-17": "blocked",
        "TXN-18": "error",
        "RETRY-01": "warn",
        "EPH-01": "not-claimed",
        "INTEREST-14": "pass",
        "INTEREST-15": "warn",
    }
    result.assert_outcomes(passed=9, failed=1, skipped=3, errors=1)
    assert result.ret == 1
    assert content["summary"]["fail"] == 1
    assert entries["TXN-03"]["expected"] == "200"
    assert entries["TXN-03"]["seen"] == "404 M_UNRECOGNIZED"
    assert entries["TXN-03"]["evidence"]
    assert entries["TXN-01"]["reason"] == "no check yet"
    assert entries["REG-04"]["reason"] == "slashes are doubled"
    assert "assert 1 == 2" in entries["TXN-18"]["reason"]


def test_the_strict_reading_fails_what_the_lenient_one_warns_of(pytester: pytest.Pytester) -> None:
    _, entries, _ = run_checks(pytester, "--reading", "strict")
    assert {entries[each]["verdict"] for each in ("RETRY-01", "TXN-07", "TXN-08", "INTEREST-15")} == {"fail"}


def test_the_summary_has_a_line_per_area_and_all_about_a_failure(pytester: pytest.Pytester) -> None:
    result, _, _ = run_checks(pytester)
    result.stdout.fnmatch_lines(
        [
            "FAIL TXN-03 (implied, AS: *, since r0.0.0)",
            "    requirement *",
            "    expected    200",
            "    seen        404 M_UNRECOGNIZED",
            "    exchange    #* to-homeserver H GET /_matrix/client/v3/nothing -> 404",
            "    curl        curl -i -X GET * http://127.0.0.1:*/_matrix/client/v3/nothing",
            "WARN RETRY-01 (SHOULD, *",
            "area *passed *failed *",
            "TXN *",
        ]
    )


def test_secrets_are_nowhere(pytester: pytest.Pytester) -> None:
    result, _, _ = run_checks(pytester, "-vv")
    report = pytester.path / "report"
    files = [path for path in report.rglob("*") if path.is_file()]
    everything = result.stdout.str() + "".join(path.read_text() for path in files)
    assert "hq-secret-of-mine" not in everything
    assert "hq-as-a-" not in everything
    assert "hq-hs-a-" not in everything
    assert "Bearer <as_token of A>" in (report / "journal.jsonl").read_text()


def test_the_journal_is_as_its_schema_says(pytester: pytest.Pytester) -> None:
    run_checks(pytester)
    lines = (pytester.path / "report" / "journal.jsonl").read_text().splitlines()
    assert len(lines) > 10
    assert [problem for line in lines for problem in problems("journal-entry", json.loads(line))] == []


def test_verdicts_stream_as_letters_or_words(pytester: pytest.Pytester) -> None:
    short, _, _ = run_checks(pytester)
    assert "WW" in short.stdout.str()
    long, _, _ = run_checks(pytester, "-v")
    long.stdout.fnmatch_lines(["*::test_fails FAIL TXN-03*", "*::test_is_blocked BLOCKED TXN-17*"])


def test_quiet_shows_failures_only(pytester: pytest.Pytester) -> None:
    result, _, _ = run_checks(pytester, "-q")
    assert "FAIL TXN-03" in result.stdout.str()
    assert "WARN RETRY-01" not in result.stdout.str()


def test_collecting_only_starts_nothing(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--hs", "synapse", "--co", "-q", "--only", "REG-01")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["test_reg.py::test_*"])


def test_checks_come_in_catalogue_order(pytester: pytest.Pytester) -> None:
    result, _, _ = run_checks(pytester, "-v")
    words = [line for line in result.stdout.lines if "test_checks.py::" in line and "INTEREST" not in line]
    assert "REG-02" in words[0]
    assert "TXN-02" in words[3]


def test_only_selects_and_the_rest_says_so(pytester: pytest.Pytester) -> None:
    _, entries, _ = run_checks(pytester, "--only", "TXN-02,REG")
    assert entries["TXN-02"]["verdict"] == "pass"
    assert entries["TXN-03"]["verdict"] == "skipped"
    assert entries["TXN-03"]["reason"] == "not selected"


def test_what_pytests_own_options_leave_out_says_so_too(pytester: pytest.Pytester) -> None:
    _, entries, _ = run_checks(pytester, "-k", "test_passes")
    assert entries["TXN-02"]["verdict"] == "pass"
    assert entries["TXN-03"]["reason"] == "not selected"
    assert entries["TXN-01"]["reason"] == "no check yet"


def test_nothing_selected_is_pytests_exit_code_for_it(pytester: pytest.Pytester) -> None:
    result, _, _ = run_checks(pytester, "--only", "XSIGN-01")
    assert result.ret == 5


def test_an_unknown_requirement_in_a_check_is_named(pytester: pytest.Pytester) -> None:
    result, _, _ = run_checks(
        pytester,
        checks="""
        from conformance.requirement import requirement

        @requirement("TXN-99")
        def test_x(run): pass
        """,
    )
    assert result.ret == 4
    assert "decides TXN-99, which is no requirement" in result.stdout.str() + result.stderr.str()


def test_junit_carries_requirement_and_level(pytester: pytest.Pytester) -> None:
    run_checks(pytester, "--junitxml", "junit.xml")
    cases = ElementTree.parse(pytester.path / "junit.xml").getroot().iter("testcase")
    by_name = {case.get("name"): case for case in cases}
    failing = by_name["test_fails"]
    properties = {each.get("name"): each.get("value") for each in failing.iter("property")}
    assert properties == {"requirement": "TXN-03", "level": "implied"}
    assert failing.find("failure") is not None
    assert by_name["test_errs"].find("error") is not None
    assert by_name["test_is_blocked"].find("skipped") is not None


def test_stopping_at_the_first_failure_keeps_what_was_found(pytester: pytest.Pytester) -> None:
    result, entries, _ = run_checks(pytester, "-x")
    assert result.ret == 1
    assert entries["TXN-03"]["verdict"] == "fail"
    assert entries["TXN-18"]["reason"] == "the run ended before its check"


def test_the_last_failed_are_run_again(pytester: pytest.Pytester) -> None:
    run_checks(pytester)
    result, entries, _ = run_checks(pytester, "--lf")
    assert entries["TXN-03"]["verdict"] == "fail"
    assert entries["TXN-02"]["verdict"] == "skipped"
    result.assert_outcomes(failed=1, errors=1)


def test_a_homeserver_that_dies_half_way_is_an_error_of_the_rest(pytester: pytest.Pytester) -> None:
    result, entries, _ = run_checks(
        pytester,
        checks="""
        from conformance.requirement import requirement

        @requirement("REG-02")
        def test_first(run): pass

        @requirement("REG-03")
        def test_killer(run):
            run.client.call("GET", "/_toy/die", party="H")

        @requirement("REG-05")
        def test_next(run): pass

        @requirement("REG-08")
        def test_last(human): pass
        """,
    )
    assert result.ret == 1
    assert entries["REG-02"]["verdict"] == "pass"
    for each in ("REG-03", "REG-05", "REG-08"):
        assert entries[each]["verdict"] == "error"
        assert "the homeserver stopped answering at +" in entries[each]["reason"]
        assert "the toy dies" in entries[each]["reason"]


def test_a_call_without_an_answer_is_the_homeservers_fault_while_it_lives(pytester: pytest.Pytester) -> None:
    _, entries, _ = run_checks(
        pytester,
        checks="""
        from conformance.requirement import requirement

        @requirement("REG-02")
        def test_hangs(run):
            run.client.call("GET", "/_toy/hang", party="H", timeout=0.5)
        """,
    )
    assert entries["REG-02"]["verdict"] == "fail"
    assert entries["REG-02"]["seen"] == "no answer within 0.5 s"


def test_a_registration_that_is_not_loaded_blocks_its_rows_only(pytester: pytest.Pytester) -> None:
    _, entries, _ = run_checks(
        pytester,
        misdeed="forgets",
        checks="""
        from conformance.requirement import requirement

        @requirement("REG-02")
        def test_of_a(a): pass

        @requirement("REG-03")
        def test_of_b(b): pass
        """,
    )
    assert entries["REG-02"]["verdict"] == "pass"
    assert entries["REG-03"]["verdict"] == "blocked"
    assert entries["REG-03"]["reason"].startswith("REG-01: the registration 'hq-second' of appservice B is not loaded")


def test_closed_registration_without_users_says_what_to_give(pytester: pytest.Pytester) -> None:
    _, entries, _ = run_checks(
        pytester,
        misdeed="closed",
        checks="""
        from conformance.requirement import requirement

        @requirement("REG-02")
        def test_of_a_human(human): pass
        """,
    )
    assert entries["REG-02"]["verdict"] == "inconclusive"
    assert "open registration on the homeserver, or give --hs-user" in entries["REG-02"]["reason"]


def test_a_homeserver_that_never_reaches_the_fleet_cannot_be_tested(pytester: pytest.Pytester) -> None:
    result, _, content = run_checks(pytester, "--deliver-wait", "0.5", misdeed="deaf")
    assert result.ret == 7
    assert "no request of the homeserver reached the fleet within 0.5 s" in result.stdout.str()
    assert "no request of the homeserver reached the fleet" in content["notes"][0]


def test_a_homeserver_that_is_never_done_cannot_make_the_run_last_for_ever(pytester: pytest.Pytester) -> None:
    result, entries, _ = run_checks(
        pytester,
        "--overall-wait",
        "3",
        checks="""
        from conformance.lanes.lane import Lane, Scene
        from conformance.requirement import requirement

        class Endless(Lane):
            name = "endless"

            def __init__(self, run):
                super().__init__(run)
                self.end = Scene()

            def play(self):
                self.status = "waiting for the end"
                while True:
                    self.pause(0.1)

        @requirement("REG-02", lane=Endless)
        def test_waits(run):
            run.lanes[Endless].end.get()

        @requirement("REG-03", lane=Endless)
        def test_waits_too(run):
            run.lanes[Endless].end.get()
        """,
    )
    assert result.duration < 20
    assert entries["REG-02"]["verdict"] == "inconclusive"
    assert entries["REG-03"]["reason"] == "the run has lasted 3 s: see --overall-wait"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_keeps_what_was_found(pytester: pytest.Pytester, how: signal.Signals) -> None:
    pytester.makepyfile(
        test_checks="""
        import threading
        from conformance.requirement import requirement

        @requirement("REG-02")
        def test_first(run): pass

        @requirement("REG-03")
        def test_waits(run):
            print("waiting", flush=True)
            threading.Event().wait(30)
        """
    )
    pytester.makeconftest("from conformance.checks.conftest import *")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-s",
        "--hs-command",
        f"{sys.executable} {TOY} {{port}} {{registrations}}",
    ]
    # What a shell starts in the background ignores SIGINT, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        running = subprocess.Popen(
            [*command, "--conformance-report", "report", "test_checks.py"],
            cwd=pytester.path,
            stdout=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with running:
        assert running.stdout is not None
        for line in running.stdout:
            if "waiting" in line:
                break
        running.send_signal(how)
        output = running.stdout.read()
    assert running.returncode == 2, output
    content = json.loads((pytester.path / "report" / "results.json").read_text())
    entries = {entry["id"]: entry for entry in content["requirements"]}
    assert entries["REG-02"]["verdict"] == "pass"
    assert entries["REG-03"]["reason"] == "the run ended before its check"


def test_an_exception_in_the_fleets_thread_fails_the_run(pytester: pytest.Pytester) -> None:
    result, _, content = run_checks(
        pytester,
        checks="""
        from conformance.requirement import requirement

        @requirement("REG-02")
        def test_breaks_the_suite_unnoticed(run):
            run.journal.fail(ZeroDivisionError("in a script"))
        """,
    )
    assert result.ret == 3
    assert "the suite failed, not the homeserver" in result.stdout.str()
    assert "ZeroDivisionError('in a script')" in content["notes"][0]


def test_the_log_and_configuration_of_a_managed_homeserver_are_kept_without_keys(pytester: pytest.Pytester) -> None:
    run_checks(pytester, checks="def test_nothing(): pass", misdeed="")
    assert not (pytester.path / "report" / "homeserver").exists()
    run_checks(pytester)
    kept = {path.name for path in (pytester.path / "report" / "homeserver").iterdir()}
    assert kept == {"homeserver.log"}
