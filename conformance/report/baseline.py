"""Known deviations of one homeserver: they still run, and count both ways (`--baseline`).

The file is TOML, a table for each row (schema `baseline`)::

    [[known]]
    id = "IDENT-20"
    verdict = "fail"               # or "warn"
    reason = "transaction IDs are kept per token: <link to the issue>"
    seen = "the same event"        # optional: must stand in what was seen
    expires = 2027-06-01           # optional: an error from that day on
    flaky = true                   # optional: either outcome is tolerated

As listed: known. A pass: an unexpected pass, which fails the run, so that the file never outlives the bug. Deviating
in another way than listed: a fail.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from conformance.catalogue import Catalogue
from conformance.report.results import Outcome
from conformance.verdict import Verdict


class BadBaseline(Exception):
    """A baseline file that cannot be used; the message names the entry."""


@dataclass(frozen=True)
class Known:
    """One listed deviation."""

    id: str
    verdict: Verdict
    reason: str
    seen: str | None = None
    expires: date | None = None
    flaky: bool = False


def read(path: Path, catalogue: Catalogue, today: date) -> dict[str, Known]:
    """The entries of a file by requirement.

    :raises BadBaseline: unreadable, malformed, an id that names nothing or stands twice, or an expired entry.
    """
    from conformance.schemas import problems

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadBaseline(f"cannot read the baseline {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadBaseline(f"the baseline {path} is no TOML: {error}") from error
    wrong = problems("baseline", _jsonable(content))
    if wrong:
        raise BadBaseline(f"the baseline {path} is not as it should be: {wrong[0]}")
    entries: dict[str, Known] = {}
    for item in content.get("known", []):
        entry = Known(**{**item, "verdict": Verdict(item["verdict"])})
        if entry.id not in catalogue:
            raise BadBaseline(f"the baseline {path} lists {entry.id}, which is no requirement")
        if entry.id in entries:
            raise BadBaseline(f"the baseline {path} lists {entry.id} twice")
        if entry.expires is not None and entry.expires <= today:
            raise BadBaseline(
                f"the entry for {entry.id} in the baseline {path} expired on {entry.expires}: "
                "look whether the homeserver still deviates, then remove or renew it"
            )
        entries[entry.id] = entry
    return entries


def _jsonable(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _jsonable(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_jsonable(value) for value in content]
    return content.isoformat() if isinstance(content, date) else content


def compare(outcome: Outcome, entry: Known) -> Outcome:
    """An outcome in the light of what is listed for its requirement."""
    if outcome.verdict in (Verdict.PASS, Verdict.RECORDED):
        if entry.flaky:
            return replace(outcome, reason=f"listed as flaky in the baseline: {entry.reason}")
        return replace(
            outcome,
            verdict=Verdict.UNEXPECTED_PASS,
            reason=f"the baseline lists it as {entry.verdict.value} ({entry.reason}): remove the entry",
        )
    if outcome.verdict not in (Verdict.FAIL, Verdict.WARN):
        return outcome  # not decided in this run
    if outcome.verdict is not entry.verdict:
        how = f"{outcome.verdict.value} instead of {entry.verdict.value}"
    elif entry.seen is not None and entry.seen not in (outcome.seen or ""):
        how = f"{entry.seen!r} is not in what was seen"
    else:
        return replace(outcome, verdict=Verdict.KNOWN_FAIL, reason=f"known: {entry.reason}")
    return replace(outcome, verdict=Verdict.FAIL, reason=f"differs from the baseline: {how} ({entry.reason})")


def updated(
    entries: Mapping[str, Known], outcomes: Iterable[tuple[str, Outcome]], raw: Mapping[str, Verdict]
) -> list[Known]:
    """The entries that describe a run: new failures added, what passes now removed, reasons kept.

    :param raw: the verdict of each requirement before it was compared with the baseline. What this run did not
        decide keeps its entry.
    """
    kept = []
    for requirement_id, outcome in outcomes:
        entry, verdict = entries.get(requirement_id), raw.get(requirement_id)
        if entry is not None and verdict in (Verdict.PASS, Verdict.RECORDED) and not entry.flaky:
            continue
        if entry is None:
            if verdict is Verdict.FAIL:
                kept.append(Known(requirement_id, verdict, f"TODO why: {outcome.seen}"))
        elif verdict in (Verdict.FAIL, Verdict.WARN) and outcome.verdict is not Verdict.KNOWN_FAIL:
            kept.append(replace(entry, verdict=verdict, seen=None))
        else:
            kept.append(entry)
    return kept


def write(path: Path, entries: Iterable[Known]) -> None:
    """Write a baseline file.

    :raises OSError: it cannot be written.
    """
    import tomli_w

    tables = []
    for entry in entries:
        table = {"id": entry.id, "verdict": entry.verdict.value, "reason": entry.reason}
        optional = {"seen": entry.seen, "expires": entry.expires, "flaky": entry.flaky or None}
        tables.append(table | {key: value for key, value in optional.items() if value is not None})
    path.write_text(tomli_w.dumps({"known": tables}), encoding="utf-8")
