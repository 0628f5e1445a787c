"""L: an appservice that refuses transactions on the present route and accepts them on the legacy one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from conformance.appservice.routes import Kind
from conformance.appservice.script import Answer, Reply, answer
from conformance.appservice.thirdparty import unrecognized
from conformance.homeserver.client import segment
from conformance.judges.transactions import acknowledged, carries
from conformance.lanes.lane import Lane, Scene
from conformance.verdict import Blocked, Inconclusive
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Run

#: Refusals in a row on the present route, or on the legacy one, after which no other is expected to be tried.
_ENOUGH = 5

#: Events that are sent while both routes work, and seconds between them where a homeserver keeps to the old one.
_EVENTS, _APART = 6, 6.0


@dataclass(frozen=True)
class Asked:
    """An unknown user of L's was invited."""

    user: str
    #: The first query on the present route, and the first on the legacy one.
    current: Exchange | None
    legacy: Exchange | None


@dataclass(frozen=True)
class Refused:
    """L refuses transactions on the present route with a status."""

    #: In words.
    status: str
    event: str
    #: The requests with the event on the present route, and those for it on the legacy one.
    current: list[Exchange]
    legacy: list[Exchange]


@dataclass(frozen=True)
class Next:
    """What was sent when the legacy route had accepted a transaction."""

    event: str
    #: The acknowledged transaction with it.
    delivered: Exchange | None


@dataclass(frozen=True)
class Updated:
    """L answers on both routes, and then, if need be, on the present one only."""

    #: The transactions with events that were sent meanwhile.
    transactions: list[Exchange]
    #: The first of them on the present route.
    current: Exchange | None
    #: Those that were refused on the legacy route.
    refused: list[Exchange]


class L(Lane):
    """The appservice of old."""

    name = "L"
    owns = ("L",)

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.asked = Scene[Asked]()
        self.unrecognized = Scene[Refused]()
        self.next = Scene[Next]()
        self.errors = Scene[list[Refused]]()
        self.updated = Scene[Updated]()
        #: What L answers to transactions on either route.
        self.current: Reply = answer()
        self.legacy: Reply = answer()

    def play(self) -> None:
        """A query; meanwhile transactions that are refused as unrecognized and by errors, and a new version of L."""
        member = self.appservice("L")
        with member.scripted(Kind.TRANSACTION, lambda e: self.legacy if member.route(e).legacy else self.current):
            if not self.wants("LEGACY-03"):
                self._transactions()
                return
            marker, ghost = self.run.journal.marker(), member.unregistered().user_id
            room = self.human.create_room()
            self.human.provoke("POST", f"/rooms/{segment(room)}/invite", json={"user_id": ghost})
            until = time.monotonic() + self.run.budgets.deliver
            try:
                if self.wants("LEGACY-02", "LEGACY-10", "LEGACY-12", "LEGACY-13"):
                    self._transactions()
            finally:
                self.asked.set(self._asked_about(ghost, marker, until))

    def _asked_about(self, ghost: str, marker: int, until: float) -> Asked:
        """The queries about a user, waiting for the one on the legacy route for T_deliver in all."""
        member = self.appservice("L")

        def is_query(exchange: Exchange, legacy: bool) -> bool:
            if exchange.party != "L" or exchange.received is None:
                return False
            route = member.route(exchange)
            return route.kind is Kind.USER and route.legacy is legacy and ghost.partition(":")[0] in exchange.path

        self.status = "waiting for a query on the legacy route"
        repeated = self.until(lambda e: is_query(e, True), marker, max(0.0, until - time.monotonic()))
        return Asked(ghost, self.until(lambda e: is_query(e, False), marker, 0.0), repeated)

    def _transactions(self) -> None:
        member, human = self.appservice("L"), self.human
        room = self.room_of(member)
        refused = self._refused(room, "404", unrecognized(), first=True)
        self.unrecognized.set(refused)
        if not refused.legacy:
            raise Blocked(
                "LEGACY-02", "refused transactions are not repeated on the legacy route", *refused.current[:1]
            )
        event = human.send(room)
        self.status = "waiting for an event after a transaction on the legacy route"
        # The way to the legacy route may be as long as it was for the first (LEGACY-02).
        way = refused.legacy[0].started - refused.current[0].started if refused.current else 0.0
        delivered = self._delivered(event, self.run.budgets.deliver + 2 * max(0.0, way))
        self.next.set(Next(event, delivered))
        if delivered is None:
            raise Blocked("LEGACY-13", "nothing follows a transaction on the legacy route", *refused.legacy[:1])
        if self.wants("LEGACY-02"):
            found = [self._refused(room, name, reply) for name, reply in UNKNOWN.items()]
            self.errors.set([*found, *(self._refused(room, str(each), _error(each)) for each in (500, 501))])
        if self.wants("LEGACY-12"):
            self.updated.set(self._updated(room))

    def _refused(self, room: str, name: str, reply: Reply, first: bool = False) -> Refused:
        """Refuse one event on the present route until it comes on the other, or has been refused often enough."""
        member, marker = self.appservice("L"), self.run.journal.marker()
        self.current = reply
        event = self.human.send(room)
        self.status = f"refusing with {name}, waiting for the legacy route"

        def carriers(legacy: bool) -> list[Exchange]:
            found = [each for each in member.transactions(marker) if not member.route(each).legacy]
            found = [each for each in found if carries(each, event)]
            if not legacy:
                return found
            ids = {member.route(each).subject for each in found}
            others = [each for each in member.transactions(marker) if member.route(each).legacy]
            return [e for e in others if carries(e, event) or member.route(e).subject in ids]

        def decided(exchange: Exchange) -> bool:
            if exchange.party != "L" or exchange.answer_until is None:
                return False
            return any(map(acknowledged, carriers(True))) or len(carriers(False)) >= _ENOUGH

        self.until(decided, marker, self.run.budgets.backoff)
        current, legacy = carriers(False), carriers(True)
        for each, later in pairwise(current):
            self.imposed(later.started - each.started)
        if not current and not legacy:
            raise Inconclusive(f"{event} was pushed to {member} on neither route")
        if not legacy and not first:
            self.current = answer()
            self._delivered(event, self.run.budgets.backoff)
        return Refused(name, event, current, legacy)

    def _updated(self, room: str) -> Updated:
        """Answer on both routes; should only the legacy one be used all the time, refuse that."""
        member, marker = self.appservice("L"), self.run.journal.marker()
        self.current = answer()
        sent: list[str] = []

        def carriers() -> list[Exchange]:
            found = member.transactions(marker)
            return [each for each in found if any(carries(each, event) for event in sent)]

        def on_the_present(exchange: Exchange) -> bool:
            return exchange.party == "L" and exchange in carriers() and not member.route(exchange).legacy

        self.status = "answering on both routes"
        for _ in range(_EVENTS):
            sent.append(self.human.send(room))
            self._delivered(sent[-1], self.run.budgets.deliver)
            found = self.until(on_the_present, marker, _APART * self.run.budgets.scale)
            if found is not None:
                return Updated(carriers(), found, [])
        self.legacy, since = unrecognized(), self.run.journal.marker()
        self.status = "answering on the present route only"
        sent.append(self.human.send(room))
        found = self.until(on_the_present, since, self.run.budgets.backoff)
        refused = [each for each in member.transactions(since) if member.route(each).legacy and each.status == 404]
        self.legacy = answer()
        return Updated(carriers(), found, refused)

    def _delivered(self, event: str, within: float) -> Exchange | None:
        """The acknowledged transaction with an event."""
        return self.until(lambda e: e.party == "L" and acknowledged(e) and carries(e, event), 0, within)


#: What appservices that know the legacy routes only may answer on others: v1.6 has 404 and 405 for that, web frameworks
#: have pages of their own.
UNKNOWN: dict[str, Reply] = {
    "405": answer(405, {"errcode": "M_UNRECOGNIZED", "error": "unknown method"}),
    "404 with a page": Answer(404, b"<!DOCTYPE html><pre>Cannot PUT it</pre>", (("Content-Type", "text/html"),)),
}


def _error(status: int) -> Reply:
    return answer(status, {"errcode": "M_UNKNOWN", "error": "no such thing"})
