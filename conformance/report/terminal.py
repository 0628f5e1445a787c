"""What the terminal shows at the end: a line per area, then every deviation with what is needed to look into it."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from conformance.catalogue import Requirement
from conformance.report.results import Outcome, Results
from conformance.verdict import Verdict
from conformance.wire.curl import curl
from conformance.wire.exchange import Direction
from conformance.wire.redaction import Redactor

#: Letter and word of each verdict while the run goes on.
LETTERS: dict[Verdict, tuple[str, str]] = {
    Verdict.PASS: (".", "PASS"),
    Verdict.FAIL: ("F", "FAIL"),
    Verdict.WARN: ("W", "WARN"),
    Verdict.RECORDED: ("r", "RECORDED"),
    Verdict.INCONCLUSIVE: ("i", "INCONCLUSIVE"),
    Verdict.NOT_CLAIMED: ("n", "NOT CLAIMED"),
    Verdict.BLOCKED: ("b", "BLOCKED"),
    Verdict.ERROR: ("E", "ERROR"),
    Verdict.SKIPPED: ("s", "SKIPPED"),
    Verdict.KNOWN_FAIL: ("k", "KNOWN"),
    Verdict.UNEXPECTED_PASS: ("X", "UNEXPECTED PASS"),
}

#: Columns of the line per area: heading and the verdicts counted under it.
_COLUMNS: tuple[tuple[str, frozenset[Verdict]], ...] = (
    ("passed", frozenset({Verdict.PASS, Verdict.RECORDED})),
    ("failed", frozenset({Verdict.FAIL, Verdict.UNEXPECTED_PASS})),
    ("known", frozenset({Verdict.KNOWN_FAIL})),
    ("warned", frozenset({Verdict.WARN})),
    ("error", frozenset({Verdict.ERROR})),
    ("not decided", frozenset({Verdict.INCONCLUSIVE, Verdict.BLOCKED})),
    ("not claimed", frozenset({Verdict.NOT_CLAIMED})),
    ("not run", frozenset({Verdict.SKIPPED})),
)

_WIDTH = 118


def area_lines(results: Results) -> Iterator[str]:
    """A table with a line for every area that had an outcome, and a total."""
    counts: dict[str, Counter[Verdict]] = {}
    for requirement in results.catalogue:
        counts.setdefault(requirement.area, Counter())[results.of(requirement).verdict] += 1
    yield "".join([f"{'area':<10}", *(f"{heading:>13}" for heading, _ in _COLUMNS)])
    total: Counter[Verdict] = Counter()
    for area, counted in counts.items():
        if set(counted) <= {Verdict.SKIPPED}:
            continue
        total += counted
        yield _area_line(area, counted)
    yield _area_line("total", total)


def _area_line(name: str, counted: Counter[Verdict]) -> str:
    cells = (sum(counted[verdict] for verdict in verdicts) for _, verdicts in _COLUMNS)
    return "".join([f"{name:<10}", *(f"{cell or '-':>13}" for cell in cells)])


def reading_lines(told: Sequence[str]) -> list[str]:
    """How the homeserver reads regular expressions, as far as open cases have shown it; nothing of it is judged."""
    return ["How this server reads regexes:", *(f"  {line}" for line in told)] if told else []


def details(requirement: Requirement, outcome: Outcome, base_url: str, redactor: Redactor) -> Iterator[str]:
    """Everything about one deviation: requirement, expected, seen, exchanges, and curl for calls to the homeserver."""
    _, word = LETTERS[outcome.verdict]
    yield f"{word} {requirement.id} ({requirement.level}, {requirement.section}, since {requirement.since})"
    yield from _field("requirement", requirement.text)
    for name in ("expected", "seen", "reason"):
        text = getattr(outcome, name)
        if text:
            yield from _field(name, text)
    for exchange in outcome.evidence:
        yield from _field("exchange", redactor.text(str(exchange)))
        if exchange.direction is Direction.TO_HOMESERVER:
            yield _printable(f"    {'curl':<12}{curl(exchange, base_url, redactor)}")


def _field(name: str, text: str) -> Iterator[str]:
    paragraphs = text.splitlines() or [""]
    for number, paragraph in enumerate(paragraphs):
        label = name if number == 0 else ""
        lines = textwrap.wrap(
            paragraph,
            _WIDTH,
            initial_indent=f"    {label:<12}",
            subsequent_indent=" " * 16,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=number == 0,
        )
        yield from map(_printable, lines or [""])


def _printable(line: str) -> str:
    """A line whose characters that a terminal might obey, or cannot show, are escaped: homeservers choose some."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
