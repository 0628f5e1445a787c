"""The kill matrix: what it says about a run, and a small one that is really run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.kill_matrix import CONFORMING, UNSHOWN, Case, first_of_each, killers, rows, subjects
from conformance.reference.defects import Defect, Variant
from conformance.reference.policy import Policy
from conformance.report import killing
from conformance.schemas import problems

DEFECT = Defect("is-broken", "It is broken.", Policy, ("TXN-01", "TXN-02"), ("TXN-03",))
VARIANT = Variant("differs", "It differs.", (Policy,), ("PING-01",))


def case(subject: Defect | Variant = DEFECT, failure: str | None = None, **verdicts: str) -> Case:
    """A case with verdicts, `TXN_01="fail"`."""
    return Case(subject, {name.replace("_", "-"): verdict for name, verdict in verdicts.items()}, failure, 1.5)


def test_a_defect_that_breaks_what_it_declares_is_right() -> None:
    for also in ("pass", "fail", "warn", "inconclusive"):
        found = case(TXN_01="fail", TXN_02="warn", TXN_03=also, TXN_04="inconclusive", TXN_05="pass")
        assert found.right, also
        assert found.problems == []


def test_a_declared_requirement_that_passes_is_missed() -> None:
    for verdict in ("pass", "inconclusive", "blocked", "recorded", "not-claimed"):
        found = case(TXN_01="fail", TXN_02=verdict)
        assert (found.missed, found.right, found.problems) == (["TXN-02"], False, ["missed: TXN-02"])


def test_a_declared_requirement_that_was_not_run_is_missed() -> None:
    assert case(TXN_01="fail").missed == ["TXN-02"]


def test_an_undeclared_requirement_that_deviates_is_blamed_wrongly() -> None:
    for verdict in ("fail", "warn"):
        found = case(TXN_01="fail", TXN_02="fail", PING_01=verdict)
        assert (found.blamed_wrongly, found.right) == (["PING-01"], False)
        assert found.problems == ["blamed wrongly: PING-01"]


def test_a_defect_that_nothing_deviates_for_has_survived() -> None:
    found = case(TXN_01="pass", TXN_02="inconclusive")
    assert (found.survived, found.right, found.problems) == (True, False, ["survived"])


def test_an_error_of_the_suite_is_never_right() -> None:
    found = case(TXN_01="fail", TXN_02="fail", PING_01="error")
    assert (found.errors, found.right, found.problems) == (["PING-01"], False, ["the suite failed on: PING-01"])


def test_a_run_that_failed_is_neither_missed_nor_survived() -> None:
    found = case(failure="exit status 3")
    assert (found.missed, found.survived, found.right) == ([], False, False)
    assert found.problems == ["not run: exit status 3"]


def test_a_variant_may_warn_but_neither_fail_nor_lose_more_than_it_says() -> None:
    good = {"TXN_01": "pass", "TXN_02": "warn", "TXN_03": "recorded", "PING_01": "inconclusive"}
    good |= {each.replace("-", "_"): "not-claimed" for each in UNSHOWN}
    assert case(VARIANT, **good).right
    failing = case(VARIANT, **good | {"TXN_01": "fail"})
    assert (failing.blamed_wrongly, failing.right) == (["TXN-01"], False)
    for verdict in ("inconclusive", "blocked", "not-claimed"):
        losing = case(VARIANT, **good | {"TXN_01": verdict})
        assert (losing.lost, losing.right, losing.problems) == (["TXN-01"], False, ["lost: TXN-01"])


def test_a_defect_is_run_against_its_areas_and_what_it_declares_or_against_everything() -> None:
    crossing = Defect("x", "X.", Policy, ("SYNC-01",), ("PING-02",))
    assert rows(crossing, full=False) == ["PING-02", "SYNC-01", "SYNC-02", "SYNC-03", "SYNC-04"]
    assert rows(crossing, full=True) is None
    assert rows(VARIANT, full=False) is None
    burst = Defect("y", "Y.", Policy, ("ADMIN-21",))
    assert "ADMIN-21" in (rows(burst, full=False) or ())
    assert "ADMIN-22" not in (rows(burst, full=False) or ())


def test_the_matrix_begins_with_the_conforming_homeserver_and_goes_by_the_catalogue() -> None:
    everything = subjects()
    assert everything[0] is CONFORMING
    first = [each.breaks[0] for each in everything if isinstance(each, Defect)]
    areas = list(dict.fromkeys(each.rpartition("-")[0] for each in first))
    assert areas[:2] == ["REG", "AUTH"]
    assert {each.area for each in subjects(area="PING") if isinstance(each, Defect)} == {"PING"}
    assert not [each for each in subjects(full=False) if isinstance(each, Variant) and each.slow]


def test_a_quick_look_has_one_defect_for_each_quick_requirement_and_no_variant() -> None:
    quick, everything = first_of_each(subjects()), subjects()
    assert quick[0] is CONFORMING
    defects = [each for each in quick[1:] if isinstance(each, Defect)]
    assert len(defects) == len(quick) - 1 < len(everything) / 2
    broken = {requirement for each in defects for requirement in each.breaks}
    assert {"REG-08", "AUTH-01", "TXN-05", "INTEREST-01", "EPH-01", "3PN-01", "INV-01"} <= broken
    assert not {"RETRY-05", "TXN-14", "USERQ-13"} & broken
    assert len(broken) > 250


def test_killers_are_listed_for_every_requirement() -> None:
    found = dict(killers([case(TXN_01="fail", TXN_02="fail")]))
    assert [each.subject.id for each in found["TXN-02"]] == ["is-broken"]
    assert found["TXN-03"] == []


def test_reports_say_what_is_wrong() -> None:
    cases = [case(TXN_01="fail", TXN_02="fail"), case(TXN_01="fail", TXN_02="pass"), case(VARIANT)]
    text = killing.table(cases)
    assert "WRONG  is-broken: missed: TXN-02" in text
    assert "2 defects, 1 variants: right 2; missed 1, blamed wrongly 0, survived 0, lost 0, suite failed 0" in text
    content = json.loads(killing.as_json(cases))
    assert problems("kill-matrix", content) == []
    assert [entry["right"] for entry in content["cases"]] == [True, False, True]
    page = killing.markdown(cases)
    assert "| TXN-01, TXN-02 | `is-broken` | It is broken. | TXN-03 | as declared |" in page
    assert "| TXN-01, TXN-02 | `is-broken` | It is broken. | TXN-03 | missed: TXN-02 |" in page
    assert "| `differs` | It differs. | PING-01 |" in page


def test_a_defect_is_caught_and_its_neighbours_are_not_blamed(tmp_path: Path) -> None:
    words = ["kill-matrix", "--defect", "invites-for-ghosts-are-not-pushed", "--format", "json"]
    run = subprocess.run(
        [sys.executable, "-m", "conformance.cli", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    content = json.loads(run.stdout)
    assert problems("kill-matrix", content) == []
    (entry,) = content["cases"]
    assert (entry["deviating"], entry["right"]) == (["INTEREST-01"], True)
    assert run.stderr.startswith("right  invites-for-ghosts-are-not-pushed: blamed INTEREST-01")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--defect", "no-such"], "there is no defect or variant 'no-such'; --list names them all"),
        (["--area", "nowhere"], "there are no defects of an area nowhere"),
        (["--jobs", "0"], "--jobs 0: at least one"),
    ],
)
def test_wrong_options_are_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kill-matrix", *words]) == 4
    assert capsys.readouterr().err == f"as-conformance kill-matrix: {said}\n"


def test_defects_and_variants_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kill-matrix", "--list"]) == 0
    assert "batches-of-one: Every transaction has one event.\n" in capsys.readouterr().out
