"""V1: outages by HTTP errors, events altered in one, lost acknowledgements, and single failures of all kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.appservice.routes import Kind
from conformance.appservice.script import Ending, Hold, Reply, answer, closed_unanswered, half_a_head, redirect
from conformance.homeserver.client import segment
from conformance.judges.attempts import Attempt
from conformance.judges.transactions import carries
from conformance.lanes.lane import Scene
from conformance.lanes.outages import ERROR, OVERDUE, Outage, OutageLane
from conformance.verdict import Blocked
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Run


@dataclass(frozen=True)
class FirstOutage:
    """V1 answers 500 to everything, with one event to be pushed and no other traffic that interests it."""

    outage: Outage
    #: Whether a second attempt came without anything new to push.
    retried_by_itself: bool
    #: Whether one came after another event had been sent.
    retried_after_traffic: bool
    #: The acknowledged transaction with the event, after the outage.
    recovered: Exchange | None


@dataclass(frozen=True)
class Meanwhile:
    """What happened elsewhere during that outage."""

    #: The event that interests A and V1, and whether it reached A.
    event: str
    reached_a: bool
    #: The unknown ghost of V1 that was invited, and the query about it.
    ghost: str
    query: Exchange | None


@dataclass(frozen=True)
class Single:
    """One failure of a transaction, and the attempts with its event."""

    name: str
    event: str
    attempts: list[Attempt]
    #: The acknowledged transaction with it.
    delivered: Exchange | None
    #: Whether no further attempt may be expected: something later was delivered, or attempts used to come much sooner.
    forgotten: bool


@dataclass(frozen=True)
class Altered:
    """An outage during which the event that is pending is redacted, or overwritten and redacted."""

    #: What the event is: "a message", "a state event".
    what: str
    outage: Outage
    event: str
    #: What was done to it meanwhile: the redaction, and before it the new state if it is one.
    later: list[str]


class V1(OutageLane):
    """The first victim."""

    name = "V1"
    owns = ("V1",)

    #: Statuses that are no acknowledgement either.
    STATUSES = (302, 308, 400, 401, 403, 404, 405, 408, 409, 410, 413, 422, 429, 502, 503, 504)
    #: Failures of one class after those of another.
    MIXED = ((500, 400), (400, 500), (None, 403))
    #: Where the redirect leads to: nobody listens on the discard port.
    NOWHERE = "http://127.0.0.1:9/nowhere"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.first = Scene[FirstOutage]()
        self.meanwhile = Scene[Meanwhile]()
        #: A transaction of several events failed, where the homeserver has batched them.
        self.batch = Scene[Outage]()
        self.altered = Scene[list[Altered]]()
        self.lost_answers = Scene[list[Single]]()
        self.statuses = Scene[list[Single]]()

    def play(self) -> None:
        """One outage; then lost acknowledgements; then one failure for each status."""
        v1 = self.appservice("V1")
        # Checks that came before have made it fail, and its first retry may be due late.
        room = self.room_of(v1, within=self.run.budgets.backoff)
        if self.wants("RETRY-01", "RETRY-04", "RETRY-11", "RETRY-13", "TXN-11", "TXN-12", "TXN-15", "DRAFT-TXN-03"):
            self._first_outage(room)
            self.drain(v1, room)
        if self.wants("TXN-12"):
            self.batch.set(self._batch(room))
            self.drain(v1, room)
        if self.wants("TXN-14"):
            self.altered.set([self._altered(room, state) for state in (False, True)])
            self.drain(v1, room)
        if self.wants("TXN-15"):
            faults: dict[str, Reply] = {
                "closed without an answer": closed_unanswered(),
                "closed within the head of the answer": half_a_head(Ending.FIN),
            }
            self.lost_answers.set([self._single(room, name, reply) for name, reply in faults.items()])
        if self.wants("RETRY-04"):
            found = []
            for statuses in (*((status,) for status in self.STATUSES), *self.MIXED):
                name = ", then ".join(str(each or "nothing") for each in statuses)
                found.append(self._single(room, name, *map(self._failure, statuses)))
                if found[-1].delivered is None:
                    break  # decided
            self.statuses.set(found)

    def _failure(self, status: int | None) -> Reply:
        """An answer that is no acknowledgement; None: the connection is closed without one."""
        if status is None:
            return closed_unanswered()
        if status in (302, 308):
            return redirect(self.NOWHERE, status)
        return answer(status, {"errcode": "M_FORBIDDEN" if status == 403 else "M_UNKNOWN", "error": "no"})

    def _first_outage(self, room: str) -> None:
        v1, budgets = self.appservice("V1"), self.run.budgets
        shared = self.room_of(v1, self.appservice("A")) if self.wants("RETRY-11") else ""
        with self.outage(v1, ERROR) as outage:
            event = self.human.send(room)
            outage.sent.append(event)
            self.first_failure(outage)
            alone = self.await_attempts(outage, 2, budgets.backoff)
            nudged = alone
            if not alone:
                self.human.send(room)
                nudged = self.await_attempts(outage, 2, budgets.deliver, "failing, given something new to push")
            if nudged and self.wants("TXN-12"):
                self.await_attempts(outage, 3, budgets.backoff)
            if self.wants("RETRY-11", "RETRY-13"):
                self.meanwhile.set(self._meanwhile(shared))
        recovered = self.recovery(outage, event, self.recovery_time(outage))
        self.first.set(FirstOutage(outage, alone, nudged, recovered))
        if not nudged:
            raise Blocked(
                "RETRY-01", "no failed transaction is ever tried again", *(e.first for e in outage.attempts[:1])
            )

    def _meanwhile(self, shared: str) -> Meanwhile:
        v1, human, journal = self.appservice("V1"), self.human, self.run.journal
        event, reached = "", False
        if shared:
            marker = journal.marker()
            event = human.send(shared)
            within = self.run.budgets.deliver
            found = self.until(lambda e: e.party == "A" and carries(e, event), marker, within)
            reached = found is not None
        ghost, marker = v1.unregistered(), journal.marker()
        room = human.create_room()
        human.provoke("POST", f"/rooms/{segment(room)}/invite", json={"user_id": ghost.user_id})
        query = v1.await_request(Kind.USER, marker, subject=ghost.user_id)
        return Meanwhile(event, reached, ghost.user_id, query)

    def _batch(self, room: str) -> Outage:
        """Fail a transaction of all that waited behind an open one, once."""
        v1, human, held, failing = self.appservice("V1"), self.human, Hold(self.run.budgets.deliver), False

        def script(exchange: Exchange) -> Reply:
            return ERROR if failing else answer(hold=held)

        with self.outage(v1, script) as outage:
            first = human.send(room)
            self.until(lambda e: e.party == "V1" and carries(e, first), outage.since, self.run.budgets.deliver)
            for number in range(3):
                outage.sent += [human.send(room), human.set_state(room, "org.hq.subject", {"number": number})]
            outage.since, failing = self.run.journal.marker(), True  # what was open is no attempt of this outage
            held.release()
            self.first_failure(outage)
        self.recovery(outage, outage.sent[-1], self.recovery_time(outage))
        return outage

    def _altered(self, room: str, state: bool) -> Altered:
        """Fail a transaction, change its event, and see what the next attempt has."""
        v1, human, kind = self.appservice("V1"), self.human, "org.hq.subject"
        if state:
            human.set_state(room, kind, {"of": "before"})
        self.drain(v1, room)
        with self.outage(v1, ERROR) as outage:
            event = human.set_state(room, kind, {"of": "the outage"}) if state else human.send(room, "to be redacted")
            outage.sent.append(event)
            self.first_failure(outage)
            if state:
                outage.late.append(human.set_state(room, kind, {"of": "later"}))
            outage.late.append(human.redact(room, event))
            self.await_attempts(outage, len(outage.failed) + 1, self.run.budgets.backoff, "failing, its event redacted")
        self.recovery(outage, outage.late[-1], self.recovery_time(outage))
        return Altered("a state event" if state else "a message", outage, event, outage.late)

    def _single(self, room: str, name: str, *replies: Reply) -> Single:
        """Fail the transaction of an event in these ways, one after the other, on both routes; then accept."""
        v1 = self.appservice("V1")
        with self.fails_once(v1, *replies) as outage:
            event = self.human.send(room)
            outage.sent.append(event)
            self.first_failure(outage)
            self.status = f"failed once with {name}: recovering"
            delivered = self.recovery(outage, event, self.run.budgets.backoff)
        forgotten = delivered is None and (self.moved_on(outage, room) or self._overdue)
        carrying = [each for each in outage.attempts if carries(each.first, event)]
        return Single(name, event, carrying, delivered, forgotten)

    @property
    def _overdue(self) -> bool:
        """Whether T_backoff is many times what the first attempt of the first outage took."""
        gaps = self.first.get().outage.spacing.gaps if self.first.done else ()
        return bool(gaps) and OVERDUE * gaps[0] <= self.run.budgets.backoff
