"""The kill matrix as text: a table for terminals, JSON for programs, Markdown for the documentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from conformance.catalogue import load
from conformance.kill_matrix import Case
from conformance.reference.defects import Defect, Variant

_INTRODUCTION = """\
# The kill matrix

Every check of the suite is shown able to fail: the reference homeserver has defects, each of which breaks one rule,
and the suite has to blame exactly the requirements that the defect breaks. *May fail too* are requirements that fall
with it. The variants at the end differ from the reference where the specification leaves a homeserver free; nothing
may be blamed for them.

Run one of them with `pytest --hs reference --defect ID`, all of them with `as-conformance kill-matrix`.
"""

_REGISTRY = """\
This page says what is declared: `as-conformance kill-matrix --full --list --format markdown` wrote it, and a test keeps
it so. Whether the suite agrees is for a run to tell. In CI it is one of the first defect of each requirement that does
not make the homeserver wait.
"""


def line(case: Case) -> str:
    """A case on one line."""
    if not case.right:
        return f"WRONG  {case.subject.id}: {'; '.join(case.problems)}"
    blamed = f" blamed {', '.join(case.deviating)}" if case.deviating else " nothing blamed"
    return f"right  {case.subject.id}:{blamed} ({case.seconds:.1f} s)"


def table(cases: Sequence[Case]) -> str:
    """A line for each case that is not right, and the sums."""
    wrong = [line(case) for case in cases if not case.right]
    return "\n".join([*wrong, summary(cases)]) + "\n"


def summary(cases: Sequence[Case]) -> str:
    """The sums."""
    broken = sum(isinstance(case.subject, Defect) for case in cases)
    counts = {
        "missed": sum(bool(case.missed) and not case.survived for case in cases),
        "blamed wrongly": sum(bool(case.blamed_wrongly) for case in cases),
        "survived": sum(case.survived for case in cases),
        "lost": sum(bool(case.lost) for case in cases),
        "suite failed": sum(bool(case.failure or case.errors) for case in cases),
    }
    told = ", ".join(f"{what} {count}" for what, count in counts.items())
    return f"{broken} defects, {len(cases) - broken} variants: right {sum(case.right for case in cases)}; {told}"


def as_json(cases: Sequence[Case]) -> str:
    """Everything (schema: ``schemas/kill-matrix.schema.json``)."""
    return json.dumps({"format": 1, "cases": [_entry(case) for case in cases]}, indent=2, ensure_ascii=False) + "\n"


def _entry(case: Case) -> dict[str, Any]:
    return {
        "id": case.subject.id,
        "kind": "defect" if isinstance(case.subject, Defect) else "variant",
        "sentence": case.subject.sentence,
        "breaks": list(case.breaks),
        "also": list(case.also),
        "deviating": case.deviating,
        "missed": case.missed,
        "blamed_wrongly": case.blamed_wrongly,
        "survived": case.survived,
        "lost": case.lost,
        "errors": case.errors,
        "failure": case.failure,
        "right": case.right,
        "seconds": round(case.seconds, 2),
    }


def markdown(cases: Sequence[Case]) -> str:
    """What a run of defects and variants showed, by area."""
    told = ["as declared" if case.right else "; ".join(case.problems) for case in cases]
    return _page([case.subject for case in cases], summary(cases) + ".", told)


def registry(subjects: Sequence[Defect | Variant]) -> str:
    """The page of the documentation: what there is, without a run."""
    return _page(subjects, _REGISTRY.rstrip(), None)


def _page(subjects: Sequence[Defect | Variant], remark: str, blamed: Sequence[str] | None) -> str:
    columns = ["Breaks", "Defect", "What is wrong", "May fail too", *(["Blamed"] if blamed is not None else [])]
    lines = [_INTRODUCTION, remark]
    broken = [(place, each) for place, each in enumerate(subjects) if isinstance(each, Defect)]
    for area in load().areas:
        of_area = [(place, each) for place, each in broken if each.area == area.name]
        if of_area:
            lines += ["", f"## {area.name}: {area.title}", "", _cells(*columns), "|---" * len(columns) + "|"]
        for place, each in of_area:
            cells = (", ".join(each.breaks), f"`{each.id}`", each.sentence, ", ".join(each.also))
            lines.append(_cells(*cells, *([blamed[place]] if blamed is not None else [])))
    lines += ["", "## Variants", "", "| Variant | How it differs | Cannot be decided then |", "|---|---|---|"]
    for one in subjects:
        if not isinstance(one, Defect):
            lines.append(_cells(f"`{one.id}`", one.sentence, ", ".join(one.loses)))
    return "\n".join(lines) + "\n"


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
