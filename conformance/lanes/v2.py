"""V2: one transaction at a time, an outage by cut connections with a backlog, and a second outage after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from conformance.appservice.routes import Kind
from conformance.appservice.script import Hold, Reply, always, answer, reset
from conformance.judges.transactions import acknowledged, carries
from conformance.lanes.lane import Scene
from conformance.lanes.outages import ERROR, Outage, OutageLane
from conformance.verdict import Inconclusive
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Run


@dataclass(frozen=True)
class SlowTransactions:
    """V2 answers late during a burst."""

    sent: list[str]
    exchanges: list[Exchange]


@dataclass(frozen=True)
class Backlog:
    """V2 resets every connection while events pile up; then it is well."""

    outage: Outage
    #: Whether there was a second attempt.
    retried: bool
    #: Events that had not arrived when nothing more came.
    missing: set[str]
    #: Whether any attempt had come by then, of these or of something sent after the outage.
    came_back: bool


@dataclass(frozen=True)
class Relapse:
    """V2 accepts one transaction after an outage and fails again; then it is well."""

    outage: Outage
    #: The transaction that failed when V2 failed again; None when there was none.
    failed: Exchange | None
    #: Events that had not arrived when nothing more came.
    missing: set[str]
    #: Whether something that was sent later has arrived by then.
    moved_on: bool


@dataclass(frozen=True)
class Again:
    """After the backlog: one event at once, and then a second outage."""

    #: The event sent after the recovery, and whether it came within T_deliver.
    event: str
    prompt: bool
    first: Outage
    #: A second outage; when that began with a long gap, a third one too.
    others: list[Outage]
    #: Whether the second attempt of the last outage came only when something new was to be pushed.
    needs_traffic: bool

    @property
    def usual(self) -> float:
        """Seconds that the first gap of another outage may have: twice that of the first, or as long as any of it."""
        gaps = self.first.spacing.gaps
        return max(2 * gaps[0], *gaps) + 0.5


class V2(OutageLane):
    """The second victim."""

    name = "V2"
    owns = ("V2",)

    #: Events of the backlog; events of the burst.
    EVENTS, BURST = 20, 10

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.slow = Scene[SlowTransactions]()
        self.backlog = Scene[Backlog]()
        self.again = Scene[Again]()
        self.relapse = Scene[Relapse]()

    def play(self) -> None:
        """Slow answers; a backlog; a second outage."""
        v2 = self.appservice("V2")
        room = self.room_of(v2)
        if self.wants("ORDER-03"):
            self.slow.set(self._slow(room))
        if not self.wants("RETRY-02", "RETRY-08", "RETRY-09", "TXN-13", "ORDER-04"):
            return
        backlog = self._backlog(room)
        self.backlog.set(backlog)
        if self.wants("RETRY-09"):
            self.again.set(self._again(room, backlog.outage))
        if self.wants("RETRY-08"):
            self.relapse.set(self._relapse(room))

    def _slow(self, room: str) -> SlowTransactions:
        v2, budgets = self.appservice("V2"), self.run.budgets
        delay = min(1.0, budgets.backoff / 30)
        self.status = f"answering {delay:g} s late"
        burst = Outage(v2, self.run.journal.marker(), budgets.quiet)
        hold = Hold(4.0)  # however long the burst takes: a second transaction would come while the first is open
        with v2.scripted(Kind.TRANSACTION, always(answer(delay=delay, hold=hold))):
            human = self.human
            try:
                burst.sent += [human.send(room) for _ in range(self.BURST)]
            finally:
                hold.release()
            if self.await_all(burst, set(burst.sent), delay + budgets.deliver):
                raise Inconclusive("not all events of a burst arrived at V2, which answered late")
        return SlowTransactions(burst.sent, v2.transactions(burst.since))

    def _backlog(self, room: str) -> Backlog:
        v2, human = self.appservice("V2"), self.human
        listener = v2.listener
        assert listener is not None
        # A connection that is reused would be resent by the homeserver's HTTP library without any backoff.
        listener.close_each = True
        self.drain(v2, room)
        with self.outage(v2, reset()) as outage:
            outage.sent.append(human.send(room))
            self.first_failure(outage)
            self._send(outage, room, 2)
            pending = outage.sent[0]
            retried = self.await_attempts(outage, 2, self.run.budgets.backoff, "cut off", pending)
            self._send(outage, room, 2)
            if retried:
                self.await_attempts(outage, 3, self.run.budgets.backoff, "cut off", pending)
            self._send(outage, room, self.EVENTS - len(outage.sent))
        self.recovery(outage, outage.sent[0], self.recovery_time(outage))
        missing = self.await_all(outage, set(outage.sent), self.run.budgets.deliver)
        if missing and not outage.after and self.moved_on(outage, room):
            missing = self.await_all(outage, set(outage.sent), self.run.budgets.deliver)
        listener.close_each = False
        return Backlog(outage, retried, missing, bool(outage.after))

    def _relapse(self, room: str) -> Relapse:
        v2 = self.appservice("V2")
        self.drain(v2, room)
        back, well, accepted = False, False, set[str]()

        def script(exchange: Exchange) -> Reply:
            txn_id = v2.route(exchange).subject
            if back and not accepted:
                accepted.add(txn_id)
            return answer() if well or txn_id in accepted else ERROR

        def fails_again(exchange: Exchange) -> bool:
            is_other = v2.is_push(exchange) and v2.route(exchange).subject not in accepted
            return bool(accepted) and is_other and exchange.answer_until is not None

        with self.outage(v2, script) as outage:
            outage.sent.append(self.human.send(room))
            self.first_failure(outage)
            self._send(outage, room, 3)
            back = True
            self.status = "well for one transaction"
            came = self.until(lambda e: v2.is_push(e) and acknowledged(e), outage.since, self.recovery_time(outage))
            failed = None if came is None else self.until(fails_again, came.number, self.run.budgets.deliver)
            self._let_the_last_attempt_fail(outage)  # on the other route too
            well = True
        missing = self.await_all(outage, set(outage.sent), self.recovery_time(outage))
        moved_on = not missing or self.moved_on(outage, room)
        if missing and moved_on:
            missing = self.await_all(outage, set(outage.sent), self.run.budgets.deliver)
        return Relapse(outage, failed, missing, moved_on)

    def _send(self, outage: Outage, room: str, count: int) -> None:
        for _ in range(count):
            event = self.human.send(room)
            outage.sent.append(event)
            outage.late.append(event)

    def _again(self, room: str, first: Outage) -> Again:
        v2 = self.appservice("V2")
        event = self.human.send(room)
        marker = first.since
        came = self.until(
            lambda e: e.party == "V2" and acknowledged(e) and carries(e, event),
            marker,
            self.run.budgets.deliver,
        )
        others: list[Outage] = []
        again = Again(event, came is not None, first, others, needs_traffic=False)
        listener = v2.listener
        assert listener is not None
        listener.close_each = True
        while came is not None and len(others) < 2 and not again.needs_traffic:
            with self.outage(v2, reset()) as other:  # like the first: other failures may have gaps of their own
                others.append(other)
                other.sent.append(self.human.send(room))
                self.first_failure(other)
                # A gap that goes on where the last outage ended must not be taken for one that lasts for ever.
                longest = max((gap for each in (first, *others) for gap in each.spacing.gaps), default=0.0)
                limit = 2 * again.usual + 1.0 + 4 * longest if first.spacing.gaps else self.run.budgets.backoff
                if not self.await_attempts(other, 2, max(limit, self.run.budgets.deliver), "failing again"):
                    self.human.send(room)
                    needs_traffic = self.await_attempts(other, 2, 1.0, "failing again", other.sent[0])
                    again = replace(again, needs_traffic=needs_traffic)
            if not first.spacing.gaps or (other.spacing.gaps and other.spacing.gaps[0] <= again.usual):
                break
            if not self.recovery(other, other.sent[0], self.recovery_time(other)):
                break
        listener.close_each = False
        return again
