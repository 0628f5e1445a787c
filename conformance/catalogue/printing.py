"""The catalogue as text: a table for terminals, JSON for programs, Markdown for documents."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Sequence
from itertools import groupby

from conformance.catalogue import ALL_APPSERVICES, Requirement, load

_HEADINGS = ("ID", "LEVEL", "SINCE", "T", "NEEDS")
#: Text is cut, but never to less than this, however narrow the terminal is.
_LEAST_TEXT = 20


def table(requirements: Iterable[Requirement], width: int | None = None) -> str:
    """One line per requirement, its text cut to the width.

    :param width: columns; None: those of the terminal.
    """
    shown = list(requirements)
    rows: list[Sequence[str]] = [_HEADINGS, *map(_cells, shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    left = (width or shutil.get_terminal_size().columns) - sum(widths) - 2 * len(widths)
    texts = ["REQUIREMENT", *(_cut(requirement.text, max(left, _LEAST_TEXT)) for requirement in shown)]
    lines = (
        "  ".join([*(cell.ljust(size) for cell, size in zip(row, widths, strict=True)), text])
        for row, text in zip(rows, texts, strict=True)
    )
    return "\n".join(lines) + "\n"


def as_json(requirements: Iterable[Requirement]) -> str:
    """A list of objects with every field of the model."""
    rows = [dataclasses.asdict(requirement) for requirement in requirements]
    return json.dumps(rows, ensure_ascii=False, indent=2) + "\n"


def markdown(requirements: Iterable[Requirement]) -> str:
    """A heading and a table for each area."""
    titles = {area.name: area.title for area in load().areas}
    lines: list[str] = []
    for area, rows in groupby(requirements, key=lambda requirement: requirement.area):
        lines += ["", f"## {area}: {titles.get(area, area)}", ""]
        lines += ["| ID | Level | Since | Requirement | Left open | Specification |", "|---|---|---|---|---|---|"]
        lines += (_markdown_row(requirement) for requirement in rows)
    return "\n".join(lines[1:]) + "\n"


def _markdown_row(requirement: Requirement) -> str:
    level = requirement.level + (" (strict)" if requirement.strict else "")
    left_open = " ".join(filter(None, (requirement.not_asserted, requirement.unobservable)))
    cells = (requirement.id, level, _versions(requirement), requirement.text, left_open, requirement.section)
    return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"


def _cells(requirement: Requirement) -> Sequence[str]:
    needs = "all" if requirement.needs == ALL_APPSERVICES else ",".join(requirement.needs) or "-"
    level = requirement.level + ("*" if requirement.strict else "")
    return (requirement.id, level, _versions(requirement), requirement.timing, needs)


def _versions(requirement: Requirement) -> str:
    return requirement.since if requirement.until is None else f"{requirement.since}-{requirement.until}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
