"""The results of several runs side by side: the requirements on which they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class BadResults(Exception):
    """A results file that cannot be used; one sentence."""


@dataclass(frozen=True)
class Comparison:
    """Verdicts of the same requirements in several runs."""

    #: What each run is called: software and version, or its file.
    runs: tuple[str, ...]
    #: The verdicts by requirement, one for each run, where they are not all the same.
    differing: dict[str, tuple[str, ...]]
    #: How many requirements had the same verdict in all runs.
    same: int

    def __str__(self) -> str:
        """A table, a column for each run."""
        rows = [("", *self.runs), *((each, *verdicts) for each, verdicts in self.differing.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        told = f"{len(self.differing)} requirements differ, {self.same} do not"
        return "\n".join([*(lines if self.differing else []), told])


def read(path: Path) -> dict[str, Any]:
    """The content of a results file, or of the one in a report's directory.

    :raises BadResults: unreadable, or no results.
    """
    from conformance.schemas import problems

    file = path / "results.json" if path.is_dir() else path
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadResults(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise BadResults(f"{file} is not JSON ({error})") from error
    wrong = problems("results", content)
    if wrong:
        raise BadResults(f"{file} is no results file: {wrong[0]}")
    return content


def compare(paths: Sequence[Path]) -> Comparison:
    """What the results in some files differ in.

    :raises BadResults: one of them cannot be used.
    """
    contents = [read(path) for path in paths]
    verdicts = [{each["id"]: each["verdict"] for each in content["requirements"]} for content in contents]
    ids = dict.fromkeys(requirement for each in verdicts for requirement in each)
    rows = {requirement: tuple(each.get(requirement, "-") for each in verdicts) for requirement in ids}
    differing = {requirement: row for requirement, row in rows.items() if len(set(row)) > 1}
    return Comparison(_names(paths, contents), differing, len(rows) - len(differing))


def _names(paths: Sequence[Path], contents: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    targets = [each["target"] for each in contents]
    names = [f"{target['name']} {target['version'] or ''}".rstrip() for target in targets]
    return tuple(names) if len(set(names)) == len(names) else tuple(str(path) for path in paths)
