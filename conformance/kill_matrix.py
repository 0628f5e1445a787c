"""The kill matrix: every defect of the reference homeserver against the suite, and what the suite made of it.

Each case is a whole run of the suite in a process of its own. What the run blames is compared with what the defect says
of itself: a declared requirement that did not deviate was *missed*, one that deviated without being declared was
*blamed wrongly*, and a defect that nothing deviated for has *survived*.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from conformance.catalogue import load
from conformance.catalogue.versions import LATEST, OLD_DIALECTS, Version, applies
from conformance.reference.defects import Defect, Variant, defects, variants

#: The case without any defect.
CONFORMING = Variant("conforming", "The reference homeserver as it is.", ())

#: The same in each of the old dialects.
CONFORMING_THEN = tuple(
    Variant(f"conforming-{name}", f"The reference homeserver as it is, with --spec {name}.", (), spec=name)
    for name in OLD_DIALECTS.values()
)

#: Requirements that no homeserver shows which has the legacy login API and claims the newest version.
UNSHOWN = ("ADMIN-18", "ADMIN-19", "ADMIN-20", "AUTH-08")

#: Rows that take seconds each: in the targeted mode they run for their own defects only.
_LONG = frozenset({"ADMIN-21", "ADMIN-22", "TXN-17"})

#: How the catalogue marks rows that wait for nothing but a quiet window: lanes play for their own defects only.
_QUICK = frozenset({"F", "Q", "-"})

#: Waits of a case, in seconds: the reference needs some ten milliseconds for a delivery.
_WAITS = ("--deliver-wait", "2", "--quiet-wait", "0.3", "--backoff-wait", "6", "--block-wait", "12")

#: Seconds after which a case is given up, and a slow one: a defect must not hang the suite either.
_PATIENCE, _PATIENCE_WITH_SLOW = 300.0, 1800.0

_DEVIATING = ("fail", "warn")
_DECIDED = (*_DEVIATING, "pass", "recorded")


@dataclass(frozen=True)
class Case:
    """A defect or a variant, and what the suite made of it."""

    subject: Defect | Variant
    #: Verdicts by requirement, of those that were run.
    verdicts: dict[str, str] = field(default_factory=dict)
    #: Why there are none.
    failure: str | None = None
    seconds: float = 0.0

    @property
    def breaks(self) -> tuple[str, ...]:
        """The requirements that must deviate."""
        return self.subject.breaks if isinstance(self.subject, Defect) else ()

    @property
    def also(self) -> tuple[str, ...]:
        """Those that may."""
        return self.subject.also if isinstance(self.subject, Defect) else ()

    @property
    def deviating(self) -> list[str]:
        """The requirements that were blamed: for a defect failures and warnings, for a variant failures."""
        counted = _DEVIATING if isinstance(self.subject, Defect) else _DEVIATING[:1]
        return [each for each, verdict in self.verdicts.items() if verdict in counted]

    @property
    def missed(self) -> list[str]:
        """Requirements that had to be blamed and were not."""
        return [each for each in self.breaks if each not in self.deviating] if self.failure is None else []

    @property
    def blamed_wrongly(self) -> list[str]:
        """Requirements that were blamed and must not be."""
        return [each for each in self.deviating if each not in self.breaks + self.also]

    @property
    def survived(self) -> bool:
        """Whether it is a defect and nothing was blamed."""
        return isinstance(self.subject, Defect) and self.failure is None and not self.deviating

    @property
    def lost(self) -> list[str]:
        """For a variant: requirements that it does not say it loses, and that were not decided."""
        if isinstance(self.subject, Defect):
            return []
        if "*" in self.subject.loses:
            return []
        excused = {*UNSHOWN, *self.subject.loses}
        catalogue, version = load(), _version(self.subject)
        judged = {id: verdict for id, verdict in self.verdicts.items() if applies(catalogue[id], version)}
        undecided = (each for each, verdict in judged.items() if verdict not in _DECIDED)
        return [each for each in undecided if each not in excused]

    @property
    def errors(self) -> list[str]:
        """Requirements on which the suite itself failed."""
        return [each for each, verdict in self.verdicts.items() if verdict == "error"]

    @property
    def right(self) -> bool:
        """Whether the suite made of it what it had to."""
        wrong = self.failure or self.missed or self.blamed_wrongly or self.survived or self.lost or self.errors
        return not wrong

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words."""
        told = [f"not run: {self.failure}"] if self.failure else []
        told += ["survived"] if self.survived else []
        for what, ids in (
            ("missed", self.missed),
            ("blamed wrongly", self.blamed_wrongly),
            ("lost", self.lost),
            ("the suite failed on", self.errors),
        ):
            told += [f"{what}: {', '.join(ids)}"] if ids and not (what == "missed" and self.survived) else []
        return told


def subjects(ids: Sequence[str] = (), area: str | None = None, full: bool = True) -> list[Defect | Variant]:
    """What is to be run: named defects and variants, those of an area, or all; slow variants in the full mode only.

    :raises KeyError: there is none of that name.
    """
    conforming = {each.id: each for each in (CONFORMING, *CONFORMING_THEN)}
    known: dict[str, Defect | Variant] = {**conforming, **variants(), **defects()}
    if ids:
        return [known[each] for each in ids]
    if area is not None:
        return [each for each in known.values() if isinstance(each, Defect) and each.area == area]
    order = {requirement: place for place, requirement in enumerate(load().ids())}
    if not full:
        known = {name: each for name, each in known.items() if not (isinstance(each, Variant) and each.slow)}
    return sorted(known.values(), key=lambda each: min((order[i] for i in getattr(each, "breaks", ())), default=-1))


def first_of_each(chosen: Sequence[Defect | Variant]) -> list[Defect | Variant]:
    """The conforming homeserver, and the first defect for each requirement that waits for nothing.

    Variants and the defects that need lanes take longest; they are for the whole matrix.
    """
    slow = {each.id for each in load() if each.timing not in _QUICK}
    shown: set[str] = set()
    left: list[Defect | Variant] = [each for each in chosen if each is CONFORMING]
    for each in chosen:
        if isinstance(each, Defect) and not shown.issuperset(each.breaks) and slow.isdisjoint(each.breaks + each.also):
            left.append(each)
            shown.update(each.breaks)
    return left


def rows(subject: Defect | Variant, full: bool) -> list[str] | None:
    """The requirements that a case runs: all (None), or a defect's areas and what it declares."""
    if full or isinstance(subject, Variant):
        return None
    areas = {each.partition("-")[0] for each in subject.breaks}
    version = _version(subject)
    near = {each.id for each in load() if each.area in areas and each.timing in _QUICK and applies(each, version)}
    near -= _LONG
    return sorted(near | {*subject.breaks, *subject.also, *subject.needs})


def _version(subject: Defect | Variant) -> Version:
    """The version by which a case is judged."""
    return LATEST if subject.spec is None else Version.parse(subject.spec)


def run(
    chosen: Sequence[Defect | Variant], full: bool, jobs: int, told: Callable[[Case], None] = lambda case: None
) -> list[Case]:
    """Run cases side by side, each in a process of its own; in the order given.

    :param jobs: how many at once.
    :param told: called with each case as it ends.
    """
    import conformance.running  # noqa: F401  # loaded once, for all processes that are forked from this one

    context = multiprocessing.get_context("fork")
    waiting, done = list(enumerate(chosen)), dict[int, Case]()
    running: dict[ForkProcess, tuple[int, float, tempfile.TemporaryDirectory[str]]] = {}

    def overdue(process: ForkProcess) -> bool:
        place, began, _ = running[process]
        slow = isinstance(chosen[place], Variant) and getattr(chosen[place], "slow", False)
        return time.monotonic() - began > (_PATIENCE_WITH_SLOW if slow else _PATIENCE)

    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                place, subject = waiting.pop(0)
                directory = tempfile.TemporaryDirectory(prefix="as-conformance-kill-")
                process = context.Process(target=_play, args=(subject, rows(subject, full), directory.name))
                process.start()
                running[process] = (place, time.monotonic(), directory)
            wait_for([process.sentinel for process in running], timeout=1.0)
            for process in [each for each in running if not each.is_alive() or overdue(each)]:
                place, began, directory = running.pop(process)
                hangs = process.is_alive()
                if hangs:
                    process.kill()
                process.join()
                seconds = time.monotonic() - began
                failure = f"not over after {seconds:.0f} s" if hangs else None
                done[place] = _read(chosen[place], Path(directory.name), process.exitcode, failure, seconds)
                directory.cleanup()
                told(done[place])
    finally:
        for process, (_, _, directory) in running.items():
            process.kill()
            process.join()
            directory.cleanup()
    return [done[place] for place in sorted(done)]


def _play(subject: Defect | Variant, only: list[str] | None, directory: str) -> None:
    """One run of the suite, in a process of its own."""
    import pytest

    os.environ.pop("PYTEST_ADDOPTS", None)
    os.chdir(directory)
    Path("pytest.ini").write_text("[pytest]\n")  # of whatever project this is called in
    with Path("output").open("w") as output:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(output.fileno(), stream.fileno() if _has_file(stream) else 1)
    words = ["--hs", "reference", *_WAITS, "--conformance-report", "report", "-q", "-p", "no:cacheprovider"]
    words += ["--defect", subject.id] if subject not in (CONFORMING, *CONFORMING_THEN) else []
    words += ["--spec", subject.spec] if subject.spec is not None else []
    words += ["--only", ",".join(only)] if only is not None else []
    code = int(pytest.main(words))
    with suppress(ValueError):
        sys.stdout.flush()
    os._exit(code)  # threads of the homeserver may still wait for something


def _has_file(stream: Any) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _read(subject: Defect | Variant, directory: Path, code: int | None, failure: str | None, seconds: float) -> Case:
    path = directory / "report" / "results.json"
    if failure is None and code not in (0, 1):
        output = (directory / "output").read_text(errors="replace") if (directory / "output").exists() else ""
        failure = f"exit status {code}: {' / '.join(output.strip().splitlines()[-3:])}"
    if failure is not None or not path.exists():
        return Case(subject, failure=failure or "no results", seconds=seconds)
    entries = json.loads(path.read_text(encoding="utf-8"))["requirements"]
    verdicts = {entry["id"]: entry["verdict"] for entry in entries if entry["verdict"] != "skipped"}
    return Case(subject, verdicts, seconds=seconds)


def killers(cases: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    """For each requirement of the catalogue the defects that break it."""
    for requirement in load().ids():
        yield requirement, [case for case in cases if requirement in case.breaks]
