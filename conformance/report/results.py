"""What every requirement ended with, and the file that says so (schema `results`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conformance.catalogue import Catalogue, Requirement
from conformance.verdict import Verdict
from conformance.wire.exchange import Exchange
from conformance.wire.redaction import Redactor

#: Version of the format of results.json.
FORMAT = 1

#: From the worst to the best: what counts when two checks decide one requirement.
_WORST_FIRST = (
    Verdict.ERROR,
    Verdict.FAIL,
    Verdict.UNEXPECTED_PASS,
    Verdict.KNOWN_FAIL,
    Verdict.WARN,
    Verdict.BLOCKED,
    Verdict.INCONCLUSIVE,
    Verdict.RECORDED,
    Verdict.PASS,
    Verdict.NOT_CLAIMED,
    Verdict.SKIPPED,
)


def worse(one: Verdict, other: Verdict | None) -> Verdict:
    """The worse of two verdicts of one requirement."""
    return one if other is None or _WORST_FIRST.index(one) < _WORST_FIRST.index(other) else other


@dataclass(frozen=True)
class Outcome:
    """What one check said about its requirement."""

    verdict: Verdict
    expected: str | None = None
    seen: str | None = None
    reason: str | None = None
    evidence: tuple[Exchange, ...] = ()
    #: Seconds.
    duration: float | None = None


@dataclass
class Results:
    """An outcome for every requirement of the catalogue."""

    catalogue: Catalogue
    redactor: Redactor
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    #: Why requirements have no outcome, by id; the rest has no check yet.
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, requirement_id: str, outcome: Outcome) -> None:
        """Note an outcome, its secrets replaced; the worst counts when there is one already."""
        clean = self._clean
        outcome = replace(
            outcome, expected=clean(outcome.expected), seen=clean(outcome.seen), reason=clean(outcome.reason)
        )
        before = self.outcomes.get(requirement_id)
        if before is None or worse(outcome.verdict, before.verdict) is not before.verdict:
            self.outcomes[requirement_id] = outcome

    def _clean(self, text: str | None) -> str | None:
        return None if text is None else self.redactor.text(text)

    def of(self, requirement: Requirement) -> Outcome:
        """The outcome of a requirement; `skipped` with its reason when no check decided it."""
        found = self.outcomes.get(requirement.id)
        if found is not None:
            return found
        reason = self.skipped.get(requirement.id) or requirement.unobservable or "no check yet"
        return Outcome(Verdict.SKIPPED, reason=reason)

    def with_verdict(self, *verdicts: Verdict) -> list[tuple[Requirement, Outcome]]:
        """The requirements that ended so, in catalogue order."""
        pairs = ((requirement, self.of(requirement)) for requirement in self.catalogue)
        return [(requirement, outcome) for requirement, outcome in pairs if outcome.verdict in verdicts]

    def summary(self) -> dict[str, int]:
        """How many requirements ended with each verdict."""
        counted = Counter(self.of(requirement).verdict for requirement in self.catalogue)
        return {verdict.value: counted[verdict] for verdict in Verdict}


@dataclass(frozen=True)
class Wait:
    """A lane: how long it played, and the longest single wait that the homeserver imposed, in seconds."""

    name: str
    seconds: float
    longest: float


def as_json(
    results: Results,
    *,
    suite_version: str,
    target: dict[str, Any],
    reading: str,
    spec: str,
    started_at: float,
    duration: float,
    notes: Iterable[str],
    waits: Iterable[Wait] = (),
) -> dict[str, Any]:
    """The content of results.json. `started_at` is seconds since the epoch, `duration` seconds."""
    return {
        "format": FORMAT,
        "suite": {"name": "matrix-appservice-conformance", "version": suite_version},
        "target": target,
        "reading": reading,
        "spec": spec,
        "started": datetime.fromtimestamp(started_at, UTC).isoformat(timespec="milliseconds"),
        "duration_s": round(duration, 3),
        "requirements": [_entry(requirement, results.of(requirement)) for requirement in results.catalogue],
        "waits": [
            {"name": each.name, "seconds": round(each.seconds, 3), "longest_server_wait_s": round(each.longest, 3)}
            for each in waits
        ],
        "summary": results.summary(),
        "notes": [results.redactor.text(note) for note in notes],
    }


def _entry(requirement: Requirement, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": requirement.id,
        "area": requirement.area,
        "level": requirement.level,
        "verdict": outcome.verdict.value,
        "title": requirement.text,
        "expected": outcome.expected,
        "seen": outcome.seen,
        "reason": outcome.reason,
        "evidence": [exchange.number for exchange in outcome.evidence],
        "duration_s": None if outcome.duration is None else round(outcome.duration, 4),
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file.

    :raises OSError: it cannot be written.
    """
    # A lone surrogate, which UTF-8 has no form for, becomes its JSON escape.
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
