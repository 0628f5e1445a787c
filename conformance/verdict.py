"""How a check says what it found.

A check that returns has seen its requirement hold. Otherwise it says so with one of these:

* :func:`expect` / :class:`Broken` - the rule was seen broken. What that means (fail or warn) depends on the level of
  the requirement and on the reading; nothing else can accuse a homeserver.
* :func:`prefer` - a part of the rule that only the strict reading insists on was seen broken; the check goes on.
* :func:`caution` - the same where even the strict reading only warns.
* :func:`record` - what the homeserver does, noted beside the verdict (MAY rows: that is the verdict).
* :class:`Recorded` - the same as the end of a check of another level.
* :class:`Inconclusive` - the observation could not be made.
* :class:`Blocked` - another requirement failed first.
* ``yield`` (see :mod:`conformance.requirement`) - wait for the quiet window while other checks run.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from conformance.wire.exchange import Exchange


class Verdict(StrEnum):
    """What a requirement ended with."""

    PASS = "pass"
    FAIL = "fail"
    WARN = "warn"
    RECORDED = "recorded"
    INCONCLUSIVE = "inconclusive"
    NOT_CLAIMED = "not-claimed"
    BLOCKED = "blocked"
    ERROR = "error"
    SKIPPED = "skipped"
    KNOWN_FAIL = "known-fail"
    UNEXPECTED_PASS = "unexpected-pass"


@dataclass(frozen=True)
class Deviation:
    """What was seen instead of what was expected, and the exchanges that show it."""

    expected: str
    seen: str
    evidence: tuple[Exchange, ...] = ()


class Broken(Exception):
    """A requirement was seen broken: the only way to accuse a homeserver."""

    def __init__(self, expected: str, seen: str, *evidence: Exchange) -> None:
        super().__init__(f"expected {expected}; seen: {seen}")
        self.deviation = Deviation(expected, seen, evidence)


class Undecided(Exception):
    """A check that cannot decide: the reason, and the exchanges that show it."""

    def __init__(self, reason: str, *evidence: Exchange) -> None:
        super().__init__(reason)
        self.reason = reason
        self.evidence = evidence


class Inconclusive(Undecided):
    """The observation could not be made in the time allowed, or its positive control failed."""


class Recorded(Undecided):
    """The row is only recorded (in this reading): what the homeserver does."""


class Blocked(Undecided):
    """A precondition that is another requirement failed."""

    def __init__(self, requirement: str, reason: str, *evidence: Exchange) -> None:
        super().__init__(f"{requirement}: {reason}", *evidence)
        self.requirement = requirement


@dataclass
class Findings:
    """What a running check has said so far."""

    preferences: list[Deviation] = field(default_factory=list)
    cautions: list[Deviation] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    evidence: list[Exchange] = field(default_factory=list)
    #: The rest of a check that waits for its quiet window, and since when.
    rest: Generator[None, None, None] | None = None
    since: float = 0.0


_findings: ContextVar[Findings | None] = ContextVar("findings", default=None)


def collect(findings: Findings | None) -> None:
    """Have what is said from now on collected in `findings`; the plugin calls this around every check."""
    _findings.set(findings)


def current() -> Findings:
    """The findings of the check that is running.

    :raises LookupError: no check is running.
    """
    findings = _findings.get()
    if findings is None:
        raise LookupError("no check is running: prefer() and record() belong into checks")
    return findings


def expect(holds: object, expected: str, seen: object, *evidence: Exchange) -> None:
    """Accuse the homeserver unless `holds`.

    :raises Broken: it does not hold.
    """
    if not holds:
        raise Broken(expected, str(seen), *evidence)


def prefer(holds: object, expected: str, seen: object, *evidence: Exchange) -> None:
    """Note a deviation that the strict reading fails and the lenient one only warns of, unless `holds`."""
    if not holds:
        current().preferences.append(Deviation(expected, str(seen), evidence))


def caution(holds: object, expected: str, seen: object, *evidence: Exchange) -> None:
    """Note a deviation that is a warning in both readings, unless `holds`."""
    if not holds:
        current().cautions.append(Deviation(expected, str(seen), evidence))


def record(what: str, *evidence: Exchange) -> None:
    """Note what the homeserver does where the specification leaves it free."""
    current().records.append(what)
    current().evidence.extend(evidence)


def control(holds: object, reason: str, *evidence: Exchange) -> None:
    """A positive control or a piece of set-up: without it the check cannot decide.

    :raises Inconclusive: it does not hold.
    """
    if not holds:
        raise Inconclusive(reason, *evidence)


def listing(items: Iterable[object], limit: int = 5) -> str:
    """A short enumeration for messages: the first `limit` items and how many more there are."""
    shown = [str(item) for item in items]
    more = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {more} more" if more > 0 else "")
