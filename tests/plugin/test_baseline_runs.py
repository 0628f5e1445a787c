"""A run with a baseline: as listed is known, a pass or another deviation fails, and --baseline-update keeps reasons."""

from __future__ import annotations

import tomllib
from datetime import date, timedelta

import pytest

from tests.plugin.test_verdicts import run_checks

TOMORROW = date.today() + timedelta(days=1)


def run_with(pytester: pytest.Pytester, baseline: str, *arguments: str) -> tuple[pytest.RunResult, dict[str, str]]:
    """Run the usual checks against the toy with a baseline: the result and the verdicts."""
    path = pytester.path / "baseline.toml"
    path.write_text(baseline)
    result, entries, _ = run_checks(pytester, "--baseline", str(path), "--only", "TXN-02,TXN-03,TXN-07", *arguments)
    return result, {each: entries[each]["verdict"] for each in ("TXN-02", "TXN-03", "TXN-07")}


KNOWN_FAIL = """
[[known]]
id = "TXN-03"
verdict = "fail"
reason = "see the tracker"
seen = "404"
"""


def test_a_listed_failure_is_known_and_the_run_is_green(pytester: pytest.Pytester) -> None:
    result, verdicts = run_with(pytester, KNOWN_FAIL)
    assert verdicts["TXN-03"] == "known-fail"
    assert result.ret == 0
    result.assert_outcomes(passed=2, xfailed=1)
    result.stdout.fnmatch_lines(["KNOWN TXN-03 *", "    reason      known: see the tracker"])


def test_a_listed_warning_is_known(pytester: pytest.Pytester) -> None:
    entry = '[[known]]\nid = "TXN-07"\nverdict = "warn"\nreason = "old format"\n'
    _, verdicts = run_with(pytester, KNOWN_FAIL + entry)
    assert verdicts["TXN-07"] == "known-fail"


def test_a_pass_of_what_is_listed_fails_the_run(pytester: pytest.Pytester) -> None:
    entry = '[[known]]\nid = "TXN-02"\nverdict = "fail"\nreason = "old bug"\n'
    result, verdicts = run_with(pytester, KNOWN_FAIL + entry)
    assert verdicts["TXN-02"] == "unexpected-pass"
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the baseline lists it as fail (old bug): remove the entry*"])


def test_failing_in_another_way_fails_the_run(pytester: pytest.Pytester) -> None:
    result, verdicts = run_with(pytester, KNOWN_FAIL.replace('"404"', '"500"'))
    assert verdicts["TXN-03"] == "fail"
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*differs from the baseline: '500' is not in what was seen (see the tracker)*"])


def test_warning_where_a_failure_is_listed_fails_the_run(pytester: pytest.Pytester) -> None:
    entry = '[[known]]\nid = "TXN-07"\nverdict = "fail"\nreason = "x"\n'
    _, verdicts = run_with(pytester, KNOWN_FAIL + entry)
    assert verdicts["TXN-07"] == "fail"


def test_flaky_tolerates_either(pytester: pytest.Pytester) -> None:
    entry = '[[known]]\nid = "TXN-02"\nverdict = "fail"\nreason = "now and then"\nflaky = true\n'
    result, verdicts = run_with(pytester, KNOWN_FAIL + "flaky = true\n" + entry)
    assert (verdicts["TXN-02"], verdicts["TXN-03"]) == ("pass", "known-fail")
    assert result.ret == 0


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('id = "TXN-99"\nverdict = "fail"\nreason = "x"', "TXN-99, which is no requirement"),
        ('id = "TXN-02"\nverdict = "fail"\nreason = "x"\nexpires = 2020-01-01', "expired on 2020-01-01"),
        ('id = "TXN-02"\nverdict = "pass"\nreason = "x"', "known/0/verdict"),
        ('id = "TXN-02"\nverdict = "fail"', "reason"),
        ('id = "TXN-02', "is no TOML"),
    ],
)
def test_an_entry_that_cannot_be_is_an_error_that_names_it(pytester: pytest.Pytester, entry: str, said: str) -> None:
    path = pytester.path / "baseline.toml"
    path.write_text(f"[[known]]\n{entry}\n")
    result = pytester.runpytest_subprocess("--hs", "synapse", "--baseline", str(path))
    assert result.ret == 4
    assert said in result.stderr.str()
    assert "Traceback" not in result.stderr.str()


def test_an_entry_that_expires_later_holds(pytester: pytest.Pytester) -> None:
    _, verdicts = run_with(pytester, KNOWN_FAIL + f"expires = {TOMORROW}\n")
    assert verdicts["TXN-03"] == "known-fail"


def test_an_update_adds_failures_prunes_passes_and_keeps_reasons(pytester: pytest.Pytester) -> None:
    stale = '[[known]]\nid = "TXN-02"\nverdict = "fail"\nreason = "old bug"\n'
    other = '[[known]]\nid = "RETRY-05"\nverdict = "warn"\nreason = "not decided in this run"\n'
    run_with(pytester, KNOWN_FAIL + stale + other, "--baseline-update")
    written = tomllib.loads((pytester.path / "baseline.toml").read_text())["known"]
    assert {entry["id"]: entry["reason"] for entry in written} == {
        "TXN-03": "see the tracker",
        "RETRY-05": "not decided in this run",
    }


def test_an_update_without_a_file_writes_one(pytester: pytest.Pytester) -> None:
    path = pytester.path / "new.toml"
    run_checks(pytester, "--baseline", str(path), "--baseline-update")
    (entry,) = tomllib.loads(path.read_text())["known"]
    assert entry["id"] == "TXN-03"
    assert entry["verdict"] == "fail"
    assert "TODO" in entry["reason"]


SHARED = """
    from conformance.requirement import requirement
    from conformance.verdict import *

    @requirement("TXN-03", shared=True)
    def test_one_side(run): {one}

    @requirement("TXN-03", shared=True)
    def test_the_other_side(run): {other}
"""


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ("pass", "expect(False, 'this', '404')", "known-fail"),
        ("expect(False, 'this', '404')", "pass", "known-fail"),
        ("pass", "pass", "unexpected-pass"),
        ("pass", "raise Inconclusive('dark')", "inconclusive"),
    ],
)
def test_a_requirement_of_several_checks_passes_when_all_of_them_do(
    pytester: pytest.Pytester, one: str, other: str, verdict: str
) -> None:
    (pytester.path / "baseline.toml").write_text(KNOWN_FAIL)
    checks = SHARED.format(one=one, other=other)
    result, entries, _ = run_checks(pytester, "--baseline", str(pytester.path / "baseline.toml"), checks=checks)
    assert entries["TXN-03"]["verdict"] == verdict
    assert result.ret == int(verdict == "unexpected-pass")
