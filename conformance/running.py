"""The pytest hooks of a session that has a target: what is collected, how a check becomes a verdict, what is written.

A check that waits for its quiet window (see :mod:`conformance.requirement`) is run up to its yield in its place; the
rest is run, and everything reported, once the window is over. Meanwhile the checks after it run.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _pytest.reports import TestReport
from _pytest.runner import runtestprotocol

from conformance import __version__
from conformance import settings as settings_module
from conformance.appservice import registration as registration_files
from conformance.appservice import roster
from conformance.appservice.fleet import Fleet, listen
from conformance.appservice.registration import BadRegistration, Registration
from conformance.catalogue import load
from conformance.catalogue.versions import LATEST, Version, applies, bounds, newest
from conformance.homeserver.client import Client, NoAnswer
from conformance.homeserver.humans import Humans
from conformance.homeserver.process import TargetFailed
from conformance.homeserver.synapse import Synapse
from conformance.homeserver.target import SERVER_NAME, ByCommand, ByUrl, Managed, Target
from conformance.homeserver.users import Names
from conformance.lanes.lane import Lane
from conformance.preflight import preflight
from conformance.report import baseline, results, terminal
from conformance.report.results import Outcome, Results, Wait
from conformance.run import Run, TargetGone
from conformance.settings import Settings
from conformance.verdict import (
    Blocked,
    Broken,
    Deviation,
    Findings,
    Inconclusive,
    Recorded,
    Undecided,
    Verdict,
    collect,
)
from conformance.wire import jsonl
from conformance.wire.exchange import Direction, Exchange
from conformance.wire.journal import HarnessFailure, Journal
from conformance.wire.redaction import Redactor

CHECKS = Path(__file__).parent / "checks"

#: Exit status: the target could not be tested.
UNTESTABLE = 7

#: How each verdict looks to pytest.
_PYTEST_OUTCOME = {
    Verdict.PASS: "passed",
    Verdict.WARN: "passed",
    Verdict.RECORDED: "passed",
    Verdict.FAIL: "failed",
    Verdict.ERROR: "failed",
    Verdict.UNEXPECTED_PASS: "failed",
}

#: Exchanges shown for a deviation when the check names none.
_EVIDENCE_BY_DEFAULT = 3

#: How often ports are chosen for the fleet.
_PORT_TRIES = 5

#: Seconds between two looks at a lane, and between two words about it.
_LOOK, _SAY = 0.1, 15.0

run_key = pytest.StashKey[Run]()
_outcome_key = pytest.StashKey[Outcome]()
_findings_key = pytest.StashKey[Findings]()
_begin_key = pytest.StashKey[int]()


def activate(config: pytest.Config) -> None:
    """Register the hooks of a session with a target, and collect the packaged checks unless paths are given.

    :raises pytest.UsageError: options that make no sense.
    """
    if hasattr(config, "workerinput") or getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("the suite overlaps its waits by itself: run it without pytest-xdist's -n")
    settings = settings_module.read(config)
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(CHECKS)]
    # Whatever names the project around us gives its tests, ours are these.
    for name, pattern in (("python_files", "test_*.py"), ("python_functions", "test_*")):
        if pattern not in config.getini(name):
            config.addinivalue_line(name, pattern)
    config.pluginmanager.register(Session(config, settings), "as-conformance-session")


@dataclass(frozen=True)
class _Held:
    """A check in its quiet window."""

    item: pytest.Item
    reports: list[TestReport]
    findings: Findings


class Session:
    """The state of one conformance session, and its hooks."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.redactor = Redactor()
        self.journal = Journal()
        self.results = Results(load(), self.redactor)
        #: How many checks of each requirement have yet to be run.
        self._checks_left: Counter[str] = Counter()
        #: Verdicts before the baseline had its say.
        self.raw: dict[str, Verdict] = {}
        self.run: Run | None = None
        self.version: Version | None = settings.version
        self.untestable: str | None = None
        #: Why the suite itself failed, if it did.
        self.failure: str | None = None
        self._held: list[_Held] = []
        #: Whether namespaces may be fuzzed, and whether a check does so.
        self._may_fuzz = bool(settings.fuzzing.examples) and settings.dialect.is_modern
        self._fuzzes = False
        self._summing_up = False
        self._target: Target | None = None
        self._directory: Path | None = None

    # Collection

    def pytest_report_header(self) -> list[str]:
        """Say what will be tested, and by which rules."""
        given = self.settings
        target = given.url or given.name or given.command
        reading = "strict" if given.strict else "lenient"
        lines = [
            f"as-conformance {__version__}: {target}; reading {reading}; "
            f"version {given.version or 'the newest that the homeserver claims'}"
        ]
        if self._fuzzes:
            fuzzing = given.fuzzing
            lines.append(f"fuzzing of namespaces: --fuzz-seed {fuzzing.seed} --fuzz-examples {fuzzing.examples}")
        if given.baseline is not None:
            lines.append(f"baseline: {given.baseline}, {len(given.known)} entries")
        return lines

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Select by --only, and put the checks into catalogue order, those about the whole run last."""
        order = {requirement_id: place for place, requirement_id in enumerate(self.results.catalogue.ids())}
        chosen, left_out, unfuzzed = [], [], []
        for item in items:
            ids = requirement_ids(item)
            unknown = [each for each in ids if each not in order]
            if unknown:
                raise pytest.UsageError(f"{item.nodeid} decides {unknown[0]}, which is no requirement")
            if ids and self.settings.only is not None and not self.settings.only.intersection(ids):
                left_out.append(item)
                continue
            if ids and _marker(item).kwargs.get("fuzz"):
                if not self._may_fuzz:
                    unfuzzed.append(item)
                    continue
                self._fuzzes = True
            chosen.append(item)
            for each in ids:
                requirement = self.results.catalogue[each]
                item.user_properties += [("requirement", each), ("level", str(requirement.level))]
        chosen.sort(key=lambda item: (_turn(item), min((order[i] for i in requirement_ids(item)), default=0)))
        if left_out or unfuzzed:
            self.config.hook.pytest_deselected(items=[*left_out, *unfuzzed])
        for item in unfuzzed:
            self.results.skipped.update(dict.fromkeys(requirement_ids(item), "fuzzing is turned off"))
        items[:] = chosen

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Remember what --only, -k or --lf left out, so that it does not look as if there were no check."""
        for item in items:
            self.results.skipped.update(dict.fromkeys(requirement_ids(item), "not selected"))

    # The run

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Start the fleet and the target around the checks."""
        collected = [item for item in session.items if requirement_ids(item)]
        if self.config.option.collectonly or not collected or session.testsfailed:
            return (yield)
        if self.config.getoption("tbstyle") == "auto":
            self.config.option.tbstyle = "no"  # the summary shows each deviation with more than a traceback
        for item in collected:
            ids = requirement_ids(item)
            self._checks_left.update(ids)
            self.results.skipped.update(dict.fromkeys(ids, "the run ended before its check"))
        with ExitStack() as ends:
            ends.enter_context(_interrupted_by_sigterm())
            try:
                self._start(ends)
                self._start_lanes(collected)
            except BadRegistration as error:
                raise pytest.UsageError(self.redactor.text(str(error))) from error
            except TargetFailed as error:
                self.untestable = self.redactor.text(str(error))
                session.items.clear()
            return (yield)

    def _start(self, ends: ExitStack) -> None:
        given = self.settings
        self._directory = Path(tempfile.mkdtemp(prefix="as-conformance-"))
        registrations, fleet = self._start_fleet()
        ends.callback(fleet.stop)
        self._target = target = self._make_target(registrations, self._directory)
        ends.callback(target.stop)
        target.start()
        client = Client(target.url, self.journal, given.dialect)
        ends.callback(client.close)
        names = Names()
        run = Run(
            target=target,
            fleet=fleet,
            journal=self.journal,
            redactor=self.redactor,
            client=client,
            humans=Humans(client, names, self.redactor, given.admission),
            names=names,
            budgets=given.budgets,
            strict=given.strict,
            version=given.version,
            notes=list(fleet.notes),
            plan=given.fuzzing,
            another=None if isinstance(target, ByUrl) else self._another,
            restartable=target if isinstance(target, ByUrl) and target.restartable else None,
        )
        run.lateness.start()
        ends.callback(run.lateness.stop)
        preflight(run)
        run.version = self.version = given.version or newest(run.claimed) or LATEST
        self.run = run
        self.config.stash[run_key] = run
        ends.callback(run.lanes.stop)

    def _start_fleet(self) -> tuple[list[Registration], Fleet]:
        """The fleet, listening."""
        given = self.settings

        def made(registrations: list[Registration]) -> Fleet:
            return Fleet(registrations, self.journal, given.bind, given.budgets.deliver, given.dialect)

        tries = 1 if given.registrations is not None else _PORT_TRIES
        registrations, fleet = listen(self._registrations, made, tries)
        for each in registrations:
            self.redactor.add(each.as_token, f"as_token of {each.code}")
            self.redactor.add(each.hs_token, f"hs_token of {each.code}")
        return registrations, fleet

    def _registrations(self) -> list[Registration]:
        roles = roster.of_dialect(self.settings.dialect)
        if self.settings.registrations is not None:
            known = (*roles, *roster.FUZZED) if self._fuzzes else roles
            return registration_files.read(self.settings.registrations, {role.id: role.code for role in known})
        if self.settings.command is not None:  # which may refuse to start with a file that it cannot read
            roles = tuple(role for role in roles if role not in roster.OPTIONAL)
        if self._fuzzes:
            roles = (*roles, *roster.fuzzed(self.settings.fuzzing.seed, SERVER_NAME))
        host = self.settings.bind
        if self.settings.dialect.is_modern and host == "127.0.0.1":
            unsure = self.settings.command is not None
            roles = (*roles, *(role for role in roster.elsewhere() if not (unsure and role.host.startswith("["))))
        return roster.enlist(SERVER_NAME, f"http://{host}", roster.free_ports(host), roles)

    def _make_target(self, registrations: list[Registration], directory: Path) -> Target:
        if self.settings.url is not None:
            return ByUrl(self.settings.url, self.settings.restart_command)
        if self.settings.command is not None:
            target = ByCommand(self.settings.command, SERVER_NAME, directory, registrations)
            target.dialect = self.settings.dialect
            return target
        if self.settings.name == "reference":
            return self._make_reference(registrations)
        return Synapse(directory, registrations)

    def _another(self, name: str, registrations: Sequence[Registration]) -> Managed:
        """A further homeserver like the target, with a directory of its own."""
        assert self._directory is not None
        directory = self._directory / name
        directory.mkdir()
        if self.settings.command is not None:
            return ByCommand(self.settings.command, SERVER_NAME, directory, registrations)
        if self.settings.name == "reference":
            from conformance.homeserver.reference import ReferenceProcess

            token = self.settings.admission.registration_token
            assert token is not None
            return ReferenceProcess(directory, registrations, token, self.settings.defect)
        return Synapse(directory, registrations)

    def _make_reference(self, registrations: list[Registration]) -> Target:
        from conformance.homeserver.reference import Reference

        token = self.settings.admission.registration_token
        assert token is not None
        self.redactor.add(token, "registration token")
        return Reference(registrations, token, self.settings.defect, self.settings.dialect)

    # Lanes

    def _start_lanes(self, items: list[pytest.Item]) -> None:
        """Have those lanes play whose requirements are judged; each when the checks that come before it are done."""
        assert self.run is not None
        assert self.version is not None
        wanted: dict[type[Lane], set[str]] = {}
        for item in items:
            lane = _marker(item).kwargs.get("lane")
            ids = [each for each in requirement_ids(item) if applies(self.results.catalogue[each], self.version)]
            if lane is not None and ids:
                wanted.setdefault(lane, set()).update(ids)
        self.run.lanes.begin(wanted)
        self._let_lanes_go(items)

    def _let_lanes_go(self, items: Sequence[pytest.Item]) -> None:
        """Start the lanes that no check is before any more."""
        if self.run is not None:
            before = {_marker(item).kwargs.get("before") for item in items if requirement_ids(item)}
            self.run.lanes.start(lane for lane in self.run.lanes if type(lane) not in before)

    def _wait_for_lanes(self, kind: type[Lane] | None = None) -> None:
        """Wait until all lanes, or one of them, are over, saying what for. They end by their own deadlines."""
        assert self.run is not None
        waited = 0.0
        while playing := [lane for lane in self.run.lanes.playing if kind in (None, type(lane))]:
            if self._time_is_over():
                self.run.lanes.stop()
                return
            playing[0].join(_LOOK)
            waited += _LOOK
            if waited >= _SAY and self.config.get_verbosity() >= 0:
                waited = 0.0
                self._say("; ".join(self.run.lanes.statuses()))

    def _time_is_over(self) -> bool:
        """Whether the run has lasted as long as it may, however much the homeserver keeps it busy."""
        return time.monotonic() - self.journal.began > self.settings.overall

    def _say(self, text: str) -> None:
        """Tell who waits at the terminal what for."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and text:
            moment = time.monotonic() - self.journal.began
            reporter.ensure_newline()
            reporter.write_line(f"+{moment:.0f} s, waiting for the homeserver: {text}")

    # One check

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a check; report it now, or when its quiet window is over."""
        if not requirement_ids(item):
            return None
        if judged_last(item) or _lane(item) is not None:
            self._end_quick_checks(item.session)
        if judged_last(item):
            self._finish_held(item.session, wait=True)
            self._wait_for_lanes()
        if (lane := _lane(item)) is not None and not _stopping(item.session):
            self._wait_for_lanes(lane)
        if not _stopping(item.session):
            findings = item.stash[_findings_key] = Findings()
            item.stash[_begin_key] = self.journal.marker()
            deferred = bool(_marker(item).kwargs.get("deferred"))
            if not deferred:
                item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
            if findings.rest is not None:
                self._held.append(_Held(item, reports, findings))
            else:
                if deferred:
                    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
                _report(item, reports)
            if _marker(item).kwargs.get("before") is not None:
                self._let_lanes_go(item.session.items[item.session.items.index(item) + 1 :])
        self._finish_held(item.session, wait=nextitem is None)
        return True

    def _end_quick_checks(self, session: pytest.Session) -> None:
        """Tell the lanes, once, that no quick check is left that they could disturb."""
        assert self.run is not None
        if not self.run.lanes.quick_checks_over.is_set():
            self._finish_held(session, wait=True)
            self.run.lanes.quick_checks_over.set()

    def _finish_held(self, session: pytest.Session, wait: bool) -> None:
        """Finish the checks whose quiet window is over; with `wait`, all of them."""
        while self._held and not _stopping(session):
            held = self._held[0]
            left = held.findings.since + self.settings.budgets.quiet - time.monotonic()
            if left > 0:
                if not wait:
                    return
                time.sleep(left)
            self._held.pop(0)
            self._finish(held)

    def _finish(self, held: _Held) -> None:
        item = held.item
        rest, held.findings.rest = held.findings.rest, None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)

        def second_half() -> None:
            assert rest is not None
            collect(held.findings)
            try:
                next(rest)
            except StopIteration:
                return
            raise TypeError(f"{item.nodeid} yields twice")

        call = pytest.CallInfo.from_call(second_half, when="call", reraise=(KeyboardInterrupt, pytest.exit.Exception))
        report = item.ihook.pytest_runtest_makereport(item=item, call=call)
        _report(item, [report if each.when == "call" else each for each in held.reports])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Leave out what the homeserver does not claim, and everything once it is gone."""
        if not requirement_ids(item) or self.run is None:
            return
        assert self.version is not None
        self.run.check_alive()
        if self._time_is_over() and not judged_last(item):
            raise Inconclusive(f"the run has lasted {self.settings.overall:g} s: see --overall-wait")
        collect(item.stash[_findings_key])
        judged = [self.results.catalogue[each] for each in requirement_ids(item)]
        if not any(applies(each, self.version) for each in judged):
            each = judged[0]
            raise _NotClaimed(f"holds {bounds(each)}; judged by {self.version}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, TestReport, TestReport]:
        """Turn what a check said into its verdict, and the verdict into what pytest knows."""
        report = yield
        ids = requirement_ids(item)
        if not ids or self.run is None or call.when == "teardown":
            return report
        findings = item.stash[_findings_key]
        if call.when == "setup" and call.excinfo is None:
            return report
        if call.excinfo is None and findings.rest is not None:
            return report  # the second half decides
        if call.excinfo is not None and call.excinfo.errisinstance((KeyboardInterrupt, pytest.exit.Exception)):
            return report
        worst: Outcome | None = None
        for each in ids:
            outcome = self._outcome(each, item, call, findings)
            self._checks_left[each] -= 1
            self.raw[each] = results.worse(outcome.verdict, self.raw.get(each))
            if each in self.settings.known and not self._is_one_of_several_that_passes(each, outcome):
                outcome = baseline.compare(outcome, self.settings.known[each])
            self.results.add(each, outcome)
            worst = worst or outcome
        assert worst is not None
        item.stash[_outcome_key] = worst
        self._show(report, worst, ids[0], call)
        return report

    def _is_one_of_several_that_passes(self, requirement_id: str, outcome: Outcome) -> bool:
        """Whether a check passes whose requirement others judge too, which deviate or have yet to be run."""
        deviates = self.raw[requirement_id] in (Verdict.FAIL, Verdict.WARN)
        passes = outcome.verdict in (Verdict.PASS, Verdict.RECORDED)
        return passes and (deviates or self._checks_left[requirement_id] > 0)

    def _outcome(
        self, requirement_id: str, item: pytest.Item, call: pytest.CallInfo[Any], findings: Findings
    ) -> Outcome:
        assert self.run is not None
        error = None if call.excinfo is None else call.excinfo.value
        try:
            # What looks like a finding may be a homeserver that has just died.
            self.run.check_alive(ask=isinstance(error, NoAnswer | Inconclusive))
        except TargetGone as gone:
            error = gone
        verdict, deviation, reason, evidence = self._judge(requirement_id, error, findings)
        if isinstance(error, Exception) and verdict is Verdict.ERROR and not isinstance(error, TargetGone):
            assert call.excinfo is not None
            reason = f"{reason}\n{call.excinfo.getrepr(style='short')}"
        if deviation is not None:
            evidence = deviation.evidence or self._last_exchanges(item)
        return Outcome(
            verdict=verdict,
            expected=deviation.expected if deviation else None,
            seen=deviation.seen if deviation else None,
            reason=reason,
            evidence=evidence,
            duration=call.duration,
        )

    def _judge(
        self, requirement_id: str, error: BaseException | None, findings: Findings
    ) -> tuple[Verdict, Deviation | None, str | None, tuple[Exchange, ...]]:
        """Verdict, deviation, reason and evidence."""
        requirement = self.results.catalogue[requirement_id]
        strict = self.settings.strict
        noted = "; ".join(findings.records) or None
        if isinstance(error, NoAnswer):
            call = error.exchange
            error = Broken(f"an answer to {call.method} {call.path}", str(call.failure), call)
        if isinstance(error, Broken):
            tolerated = not strict and (requirement.level == "SHOULD" or requirement.strict)
            return (Verdict.WARN if tolerated else Verdict.FAIL), error.deviation, noted, ()
        if isinstance(error, Undecided):
            verdict = {Blocked: Verdict.BLOCKED, Recorded: Verdict.RECORDED}.get(type(error), Verdict.INCONCLUSIVE)
            return verdict, None, error.reason, error.evidence
        if isinstance(error, _NotClaimed):
            return Verdict.NOT_CLAIMED, None, str(error), ()
        if isinstance(error, TargetGone):
            return Verdict.ERROR, None, str(error), ()
        if error is not None:
            return Verdict.ERROR, None, f"the suite failed, not the homeserver: {type(error).__name__}: {error}", ()
        if findings.preferences or findings.cautions:
            seen = [*findings.preferences, *findings.cautions]
            deviation = Deviation(
                "; ".join(each.expected for each in seen),
                "; ".join(each.seen for each in seen),
                tuple(exchange for each in seen for exchange in each.evidence),
            )
            return (Verdict.FAIL if strict and findings.preferences else Verdict.WARN), deviation, noted, ()
        if requirement.level == "MAY":
            return Verdict.RECORDED, None, noted, tuple(findings.evidence)
        return Verdict.PASS, None, noted, tuple(findings.evidence)

    def _last_exchanges(self, item: pytest.Item) -> tuple[Exchange, ...]:
        calls = self.journal.since(item.stash[_begin_key], lambda each: each.direction is Direction.TO_HOMESERVER)
        return tuple(calls[-_EVIDENCE_BY_DEFAULT:])

    def _show(self, report: TestReport, outcome: Outcome, requirement_id: str, call: pytest.CallInfo[Any]) -> None:
        """Give a report the outcome that pytest knows for a verdict."""
        report.outcome = _PYTEST_OUTCOME.get(outcome.verdict, "skipped")  # type: ignore[assignment]
        if outcome.verdict is Verdict.ERROR:
            report.when = "setup"  # what pytest and JUnit call an error rather than a failure
        elif call.when == "setup":
            report.when = "call"  # a verdict that a fixture reached
        if outcome.verdict is Verdict.KNOWN_FAIL:
            report.wasxfail = outcome.reason or ""
        elif hasattr(report, "wasxfail"):
            del report.wasxfail
        text = "\n".join(self._details(requirement_id, outcome))
        if report.outcome == "skipped":
            path, line, _ = report.location
            report.longrepr = (path, (line or 0) + 1, f"{requirement_id} {outcome.verdict}: {outcome.reason or text}")
        else:
            report.longrepr = text if report.outcome == "failed" else None

    def _details(self, requirement_id: str, outcome: Outcome) -> list[str]:
        assert self.run is not None
        requirement = self.results.catalogue[requirement_id]
        return list(terminal.details(requirement, outcome, self.run.client.base_url, self.redactor))

    # Reports

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
        """A letter and a word for each verdict."""
        if isinstance(report, pytest.CollectReport):
            return None
        ids = [value for name, value in report.user_properties if name == "requirement"]
        if not ids or self.run is None or report.when == "teardown":
            return None
        decided = report.when == "call" or report.outcome == "failed"
        if not decided or str(ids[0]) not in self.results.outcomes:
            return None
        verdict = self.results.outcomes[str(ids[0])].verdict
        letter, word = terminal.LETTERS[verdict]
        category = "error" if verdict is Verdict.ERROR else _PYTEST_OUTCOME.get(verdict, "skipped")
        if verdict is Verdict.KNOWN_FAIL:
            category = "xfailed"
        if category == "skipped" and self._summing_up:
            return category, letter, "UNDECIDED"  # pytest writes that before several of them; their reasons name them
        return category, letter, f"{word} {' '.join(str(each) for each in ids)}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The line per area, then every deviation."""
        self._summing_up = True
        if self.untestable is not None:
            terminalreporter.section("as-conformance: nothing could be tested", sep="=", red=True)
            terminalreporter.write_line(self.untestable)
            return
        if self.failure is not None:
            terminalreporter.section("as-conformance: the suite failed, not the homeserver", sep="=", red=True)
            terminalreporter.write_line(self.failure)
        if self.run is None:
            return
        self._write_details(terminalreporter)
        name, version = self.run.software
        terminalreporter.section(f"conformance of {name} {version or ''}".rstrip(), sep="=")
        claimed = newest(self.run.claimed)
        terminalreporter.write_line(
            f"judged by {self.version}, claims {claimed or 'no known version'}, "
            f"reading {'strict' if self.settings.strict else 'lenient'}"
        )
        for note in self.run.notes:
            terminalreporter.write_line(f"note: {note}")
        for line in terminal.reading_lines(self.run.fuzz.lines()):
            terminalreporter.write_line(line)
        for line in terminal.area_lines(self.results):
            terminalreporter.write_line(line)
        if self.settings.report is not None:
            terminalreporter.write_line(f"report: {self.settings.report}")

    def _write_details(self, terminalreporter: pytest.TerminalReporter) -> None:
        shown = [Verdict.FAIL, Verdict.UNEXPECTED_PASS, Verdict.ERROR, Verdict.KNOWN_FAIL, Verdict.WARN]
        if terminalreporter.verbosity > 0:
            shown += [Verdict.RECORDED, Verdict.INCONCLUSIVE, Verdict.BLOCKED]
        if terminalreporter.verbosity < 0:
            shown = shown[:3]
        for requirement, outcome in sorted(
            self.results.with_verdict(*shown), key=lambda pair: shown.index(pair[1].verdict)
        ):
            terminalreporter.write_line("")
            for line in self._details(requirement.id, outcome):
                terminalreporter.write_line(line)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write what was found, however the session ended."""
        for held in self._held:
            self.results.skipped.update(
                dict.fromkeys(requirement_ids(held.item), "the run ended within its quiet window")
            )
        self._held.clear()
        if self.untestable is not None:
            session.exitstatus = UNTESTABLE
        try:
            self.journal.check()
        except HarnessFailure as error:
            self.failure = self.redactor.text(str(error))
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        if self.settings.report is not None and not self.config.option.collectonly:
            self._write_report(session, self.settings.report)
        if self.settings.update_baseline and self.settings.baseline is not None and self.run is not None:
            outcomes = [(each.id, self.results.of(each)) for each in self.results.catalogue]
            entries = baseline.updated(self.settings.known, outcomes, self.raw)
            baseline.write(self.settings.baseline, entries)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _write_report(self, session: pytest.Session, directory: Path) -> None:
        try:
            results.write(directory / "results.json", self._content())
            jsonl.write(directory / "journal.jsonl", self.journal, self.journal.began, self.redactor)
            self._keep_homeserver_files(directory / "homeserver")
            for name, found in (self.run.fuzz.counterexamples if self.run else {}).items():
                registration_files.write(directory / "counterexamples" / name, found)
        except OSError as error:
            self.failure = f"cannot write the report to {directory}: {error.strerror or error}"
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def _keep_homeserver_files(self, directory: Path) -> None:
        """Keep logs and configurations of managed homeservers, but no registrations, keys or databases."""
        if self._directory is None:
            return
        for path in sorted(self._directory.rglob("*")):
            if path.suffix not in (".log", ".yaml") or path.parent.name == "registrations":
                continue
            kept = directory / path.relative_to(self._directory)
            kept.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8", errors="backslashreplace")
            kept.write_text(self.redactor.text(text), encoding="utf-8")

    def _content(self) -> dict[str, Any]:
        run = self.run
        name, version = run.software if run else (self.settings.name or "unknown", None)
        target = self._target
        reading = terminal.reading_lines(run.fuzz.lines()) if run else []
        return results.as_json(
            self.results,
            suite_version=__version__,
            target={
                "name": name,
                "version": version,
                "url": target.url if target is not None else (self.settings.url or ""),
                "claimed_versions": list(run.claimed) if run else [],
            },
            reading="strict" if self.settings.strict else "lenient",
            spec=str(self.version or "newest claimed"),
            started_at=self.journal.began_at,
            duration=time.monotonic() - self.journal.began,
            waits=[Wait(each.name, each.seconds, each.longest_wait) for each in (run.lanes if run else ())],
            notes=[*(run.notes if run else []), *reading, *filter(None, (self.untestable, self.failure))],
        )


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, which CI systems send, end the run as Ctrl-C does: results written, homeserver stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _NotClaimed(Exception):
    """The version that is judged does not have the requirement."""


def _marker(item: pytest.Item) -> pytest.Mark:
    marker = item.get_closest_marker("requirement")
    assert marker is not None
    return marker


def requirement_ids(item: pytest.Item) -> tuple[str, ...]:
    """The requirements that a check decides; none for a test that is no check."""
    marker = item.get_closest_marker("requirement")
    return tuple(str(each) for each in marker.args) if marker is not None else ()


def judged_last(item: pytest.Item) -> bool:
    """Whether a check judges the whole run and so comes after all others."""
    marker = item.get_closest_marker("requirement")
    return marker is not None and bool(marker.kwargs.get("last"))


def _lane(item: pytest.Item) -> type[Lane] | None:
    """The lane that a check waits for."""
    lane: type[Lane] | None = _marker(item).kwargs.get("lane")
    return lane


def _turn(item: pytest.Item) -> int:
    """When a check comes: before a lane begins, with the quick ones, when a lane has observed something, at the end."""
    if not requirement_ids(item):
        return 1
    if judged_last(item):
        return 3
    kwargs = _marker(item).kwargs
    return 2 if kwargs.get("lane") is not None else 0 if kwargs.get("before") is not None else 1


def _report(item: pytest.Item, reports: list[TestReport]) -> None:
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _stopping(session: pytest.Session) -> bool:
    return bool(session.shouldfail or session.shouldstop)
