"""Outages: appservices that fail, are cut off or hang, and come back (AS: Pushing events)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Reply, Script, always, answer
from conformance.judges.attempts import Attempt, attempts
from conformance.judges.backoff import Spacing
from conformance.judges.transactions import acknowledged, carries
from conformance.lanes.lane import Lane
from conformance.verdict import Inconclusive
from conformance.wire.exchange import Exchange
from conformance.wire.lateness import Lateness

#: Seconds in which a request on the legacy route follows at once, if it does.
_FALLBACK = 0.2

#: An attempt is overdue when the first gap of another outage has passed so many times.
OVERDUE = 8

#: Seconds after an answer in which a request on the legacy route is taken for the fallback at least.
_FALLBACK_LATE = 3.0


@dataclass
class Outage:
    """A time in which an appservice accepted nothing, and what the homeserver did."""

    appservice: Appservice
    #: Where in the journal it began.
    since: int
    #: T_quiet, in seconds: a fallback that comes within is part of its attempt.
    fallback_within: float
    #: How late threads of this machine woke up, in seconds.
    lateness: Lateness = field(default_factory=Lateness)
    #: The events sent before and during the outage, in order of sending.
    sent: list[str] = field(default_factory=list)
    #: Those that were sent after the first attempt had failed.
    late: list[str] = field(default_factory=list)
    #: When the appservice was well again, in seconds of the journal's clock; None while it is not.
    healed: float | None = None
    #: Where in the journal that was.
    healed_at: int | None = None

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts since it began, those after it among them."""
        found = self.appservice.transactions(self.since)
        return attempts(found, self.appservice.route, self.fallback_within)

    @property
    def failed(self) -> list[Attempt]:
        """The attempts that began while it lasted."""
        return [each for each in self.attempts if self.healed is None or each.started < self.healed]

    @property
    def after(self) -> list[Attempt]:
        """The attempts that began after it."""
        return [each for each in self.attempts if self.healed is not None and each.started >= self.healed]

    @property
    def pending(self) -> list[Attempt]:
        """All attempts of the transaction that failed first, also those after the outage."""
        found = self.attempts
        return [each for each in found if each.txn_id == found[0].txn_id] if found else []

    @property
    def spacing(self) -> Spacing:
        """How the failed attempts are spaced."""
        started = [each.started for each in self.failed]
        error = self.lateness.worst(started[0], started[-1]) if started else 0.0
        return Spacing.of(started, error)

    def delivered(self, event_id: str) -> list[Exchange]:
        """The acknowledged transactions with an event."""
        return [exchange for exchange, _ in self.appservice.deliveries(event_id, self.since) if acknowledged(exchange)]

    def missing(self, sent: set[str]) -> set[str]:
        """Which of some events no acknowledged transaction has had so far."""
        left = set(sent)
        for exchange in self.appservice.transactions(self.since):
            if acknowledged(exchange):
                left -= {event for event in left if carries(exchange, event)}
        return left


class OutageLane(Lane):
    """A lane that makes an appservice fail."""

    @contextmanager
    def outage(self, member: Appservice, reply: Reply | Script) -> Iterator[Outage]:
        """An outage: transactions on both routes get a reply other than 200 until the end of the block."""
        outage = self._outage(member)
        script = reply if callable(reply) else always(reply)
        with member.scripted(Kind.TRANSACTION, script):
            yield outage
            self._let_the_last_attempt_fail(outage)
        outage.healed_at, outage.healed = self.run.journal.marker(), time.monotonic()

    def _outage(self, member: Appservice) -> Outage:
        within = max(_FALLBACK_LATE, self.run.budgets.quiet)
        return Outage(member, self.run.journal.marker(), within, self.run.lateness)

    def _let_the_last_attempt_fail(self, outage: Outage) -> None:
        """An outage ends between two attempts, not between a request and its fallback to the other route."""
        found = outage.failed
        if not found:
            return
        last = found[-1].exchanges[-1]
        self.until(lambda e: e is last and e.answer_until is not None, 0, _FALLBACK)
        if len(found[-1].exchanges) == 1 and last.status is not None:
            code, txn_id = outage.appservice.code, found[-1].txn_id.encode()
            fallback = self.until(lambda e: e.party == code and txn_id in e.target.encode(), last.number, _FALLBACK)
            if fallback is not None:
                self.until(lambda e: e is fallback and e.answer_until is not None, 0, _FALLBACK)

    @contextmanager
    def fails_once(self, member: Appservice, *replies: Reply) -> Iterator[Outage]:
        """The first transaction gets each of these replies once on each route; whatever comes after is accepted."""
        outage = self._outage(member)
        left = {legacy: list(replies) for legacy in (True, False)}
        ids: set[str] = set()

        def script(exchange: Exchange) -> Reply:
            route = member.route(exchange)
            ids.add(route.subject)
            if len(ids) > 1 or not left[route.legacy] or (route.legacy and outage.healed is not None):
                return answer()
            return left[route.legacy].pop(0)

        with member.scripted(Kind.TRANSACTION, script):
            yield outage
        outage.healed_at, outage.healed = self.run.journal.marker(), time.monotonic()

    def await_attempts(
        self, outage: Outage, count: int, within: float, what: str = "failing", event: str | None = None
    ) -> bool:
        """Wait until there were so many attempts (with an event), at most some seconds; whether there were."""
        deadline = time.monotonic() + within
        while True:
            found = [each for each in outage.failed if event is None or carries(each.first, event)]
            self.status = self._waiting_for(outage, found, what)
            if len(found) >= count:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            seen = self.run.journal.marker()
            self.until(outage.appservice.is_push, seen, min(left, 1.0))

    def _waiting_for(self, outage: Outage, found: list[Attempt], what: str) -> str:
        if not found:
            return f"{what}: waiting for a first attempt"
        spacing = Spacing.of([each.started for each in found])
        moment = spacing.times[-1]
        expected = f", next expected near +{moment + 2 * spacing.gaps[-1]:.0f} s" if spacing.gaps else ""
        return f"{what}: attempt {len(found)} at +{moment:.1f} s{expected}"

    def recovery(self, outage: Outage, event_id: str, within: float) -> Exchange | None:
        """The acknowledged transaction with an event after an outage; None when it did not come in time."""
        self.status = f"recovering: at most {within:.0f} s"
        for gap in outage.spacing.gaps:
            self.imposed(gap)
        return self.until(
            lambda exchange: (
                exchange.party == outage.appservice.code and acknowledged(exchange) and carries(exchange, event_id)
            ),
            outage.since,
            within,
        )

    def recovery_time(self, outage: Outage) -> float:
        """Seconds that the next attempt may take after an outage: twice its last gap, and T_deliver."""
        gaps = outage.spacing.gaps
        return 2 * (gaps[-1] if gaps else self.run.budgets.backoff / 4) + self.run.budgets.deliver

    def await_all(self, outage: Outage, sent: set[str], quiet: float) -> set[str]:
        """Wait until some events have been acknowledged; which were not when nothing came for `quiet` seconds."""
        while True:
            seen = self.run.journal.marker()
            missing = outage.missing(sent)
            if not missing:
                return set()
            progress = partial(self._is_progress, outage, seen, missing)
            came = self.until(progress, outage.since, quiet)
            if came is None:
                return outage.missing(sent)

    def _is_progress(self, outage: Outage, seen: int, missing: set[str], exchange: Exchange) -> bool:
        """A new request, or the acknowledgement of one that was on its way."""
        if not outage.appservice.is_push(exchange):
            return False
        on_its_way = acknowledged(exchange) and any(carries(exchange, event) for event in missing)
        return exchange.number > seen or on_its_way

    def moved_on(self, outage: Outage, room: str) -> bool:
        """Send something new after an outage; whether that is delivered within T_deliver.

        Where nothing has come since the appservice is well, this tells a homeserver that has forgotten what it had to
        push from one that only waits long.
        """
        event = self.human.send(room)
        outage.late.append(event)
        return self.recovery(outage, event, self.run.budgets.deliver) is not None

    def drain(self, member: Appservice, room: str) -> None:
        """Make sure that an appservice is well and that nothing is waiting for it.

        :raises Inconclusive: a marker does not arrive.
        """
        self.status = f"draining {member.code}"
        self.arrives(member, self.human.send(room), self.run.budgets.backoff)

    def first_failure(self, outage: Outage) -> None:
        """Wait for the first failed attempt.

        :raises Inconclusive: nothing was pushed at all.
        """
        if not self.await_attempts(outage, 1, self.run.budgets.deliver):
            raise Inconclusive(f"nothing was pushed to {outage.appservice} when its outage began")


ERROR = answer(500, {"errcode": "M_UNKNOWN", "error": "out of order"})
