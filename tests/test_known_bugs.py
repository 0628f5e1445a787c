"""docs/known-bugs.md: what it says is caught is caught by a check that there is."""

from __future__ import annotations

import re
from pathlib import Path

from conformance.catalogue import AREAS, load
from tests.test_checks import checked_requirements

PAGE = Path(__file__).parent.parent / "docs" / "known-bugs.md"
TEXT = PAGE.read_text(encoding="utf-8")
ID = re.compile(rf"\b(?:{'|'.join(AREAS)})(?:-[A-Z]+)?-\d\d\b")

#: The cells of each row, without the heads of the tables.
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith(("| Report ", "| Area "))
]


def test_every_id_is_a_requirement_that_has_a_check() -> None:
    named = set(ID.findall(TEXT))
    assert len(named) > 100
    assert named - set(load().ids()) == set()
    assert named - checked_requirements() == set()


def test_every_id_stands_as_code() -> None:
    assert ID.findall(re.sub(r"`[^`]*`", "", TEXT)) == []


def test_every_report_is_linked_and_names_a_check_or_says_why_there_is_none() -> None:
    reports = [row for row in ROWS if len(row) == 3]
    assert len(reports) > 100
    for report, _, caught in reports:
        assert re.match(r"\[[^]]+\]\(https://[^)]+\)", report), report
        assert ID.search(caught) or caught.startswith(("Not judged: ", "Out of scope: ")), report


def test_no_report_is_listed_twice() -> None:
    links = [link for row in ROWS if len(row) == 3 for link in re.findall(r"\((https://[^)]+)\)", row[0])]
    links = [link for link in links if "CHANGE" not in link]
    shared = {"https://github.com/mautrix/telegram/issues/548", "https://github.com/matrix-org/matrix-spec/issues/243"}
    assert sorted(link for link in set(links) - shared if links.count(link) > 1) == []
