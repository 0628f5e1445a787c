"""The catalogue as a table, as JSON and as Markdown."""

from __future__ import annotations

import dataclasses
import json

import pytest

from conformance.catalogue import load
from conformance.catalogue.printing import as_json, markdown, table


def test_a_table_has_a_heading_and_one_line_per_requirement() -> None:
    lines = table([load()["TXN-13"], load()["AUTH-08"]], width=120).splitlines()
    assert [line.split()[:5] for line in lines] == [
        ["ID", "LEVEL", "SINCE", "T", "NEEDS"],
        ["TXN-13", "MUST", "r0.0.0", "B", "V2"],
        ["AUTH-08", "MUST", "r0.1.1-v1.3", "F", "A"],
    ]
    assert lines[1].endswith("  Nothing is added to a transaction that is being retried.")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_table_is_no_wider_than_it_may_be(width: int) -> None:
    lines = table(load(), width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == 408


def test_a_text_that_was_cut_says_so() -> None:
    row = table([load()["AUTH-01"]], width=80).splitlines()[1]
    assert len(row) == 80
    assert row.endswith("…")


def test_a_table_fits_the_terminal_when_no_width_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    assert max(map(len, table(load()).splitlines())) == 90


def test_a_narrow_terminal_still_shows_some_text() -> None:
    assert "Nothing is added to…" in table([load()["TXN-13"]], width=10)


def test_a_table_of_nothing_is_its_heading() -> None:
    assert table([], width=80).split() == ["ID", "LEVEL", "SINCE", "T", "NEEDS", "REQUIREMENT"]


def test_what_only_the_strict_reading_fails_has_a_star() -> None:
    assert "implied*" in table([load()["TXN-07"]], width=80)


def test_the_whole_fleet_is_called_all() -> None:
    assert table([load()["AUTH-10"]], width=80).splitlines()[1].split()[4] == "all"


def test_json_has_every_field_of_every_requirement() -> None:
    rows = json.loads(as_json(load()))
    assert len(rows) == 407
    wanted = json.loads(json.dumps(dataclasses.asdict(load()["AUTH-08"])))
    assert next(row for row in rows if row["id"] == "AUTH-08") == wanted
    assert (wanted["until"], wanted["needs"]) == ("v1.3", ["A"])


def test_markdown_has_a_table_for_each_area() -> None:
    text = markdown(load())
    assert text.count("\n## ") == 23
    assert text.startswith("## REG: What a registration file must do\n\n| ID | Level |")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ID |")]
    assert len(rows) == 407
    assert {row.count(" | ") for row in rows} == {5}
    assert text.endswith(" |\n")


def test_markdown_survives_the_characters_that_build_its_tables() -> None:
    odd = dataclasses.replace(load()["TXN-13"], text="Either | or \\ both.")
    assert "Either \\| or \\\\ both." in markdown([odd])


def test_markdown_of_nothing_is_empty() -> None:
    assert markdown([]).strip() == ""
