"""V4: one long outage, watched for its backoff; a ping after one; ephemeral data in one; pings in a slow recovery."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.appservice.fleet import ephemeral_of
from conformance.appservice.routes import Kind
from conformance.appservice.script import always, answer
from conformance.homeserver.client import NoAnswer, Response, segment
from conformance.judges.backoff import HOT_ATTEMPTS, HOT_SECONDS, Spacing
from conformance.judges.ephemeral import typists
from conformance.judges.transactions import carries
from conformance.lanes.lane import Scene
from conformance.lanes.outages import ERROR, Outage, OutageLane
from conformance.verdict import Inconclusive, Undecided
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Run


@dataclass(frozen=True)
class LongOutage:
    """V4 answers 500, with one event to be pushed and nothing else that interests it."""

    outage: Outage
    #: For how many seconds it was watched.
    watched: float


@dataclass(frozen=True)
class Recovery:
    """V4 is well again, and nothing tells the homeserver so: a ping would, and might wake a queue that was given up."""

    outage: Outage
    #: The acknowledged transaction with the event; None when it did not come within twice the last gap and T_deliver.
    delivered: Exchange | None
    allowed: float


@dataclass(frozen=True)
class Pinged:
    """V4 is well again after a short outage, and has itself pinged before the next attempt."""

    ping: Response | NoAnswer
    #: Whether an attempt followed at once.
    at_once: bool


@dataclass(frozen=True)
class Typing:
    """V4 fails a transaction that says who types, and nobody does any more when it is tried again."""

    outage: Outage
    #: The acknowledged transaction with an event that was sent in the outage; None when it did not come in time.
    delivered: Exchange | None


@dataclass(frozen=True)
class SlowRecovery:
    """Two pings while V4, just recovered, still has the first transaction open."""

    pings: list[Response | NoAnswer]
    #: Whether the transaction was still open when the second ping was asked for.
    in_flight: bool


class V4(OutageLane):
    """The fourth victim."""

    name = "V4"
    owns = ("V4",)

    #: Attempts after which the outage has been watched enough; where the gaps have not grown by then, these.
    ATTEMPTS, MORE = 5, 16

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.long = Scene[LongOutage]()
        self.recovered = Scene[Recovery]()
        self.pinged = Scene[Pinged]()
        self.typing = Scene[Typing]()
        self.slow = Scene[SlowRecovery]()

    def play(self) -> None:
        """The long outage and the recovery; then a ping, ephemeral data in an outage, and pings in a slow end."""
        v4 = self.appservice("V4")
        room = self.room_of(v4)
        if self.wants("RETRY-05", "RETRY-06", "RETRY-07"):
            self._long(room)
        if self.wants("RETRY-14"):
            self.drain(v4, room)
            self.pinged.set(self._pinged(room))
        if self.wants("EPH-21"):
            try:
                self._someone_types(room)
            except Undecided as error:  # what comes after it does not need it
                self.typing.fail(error)
        if self.wants("PING-19"):
            self.drain(v4, room)
            self._slow_recovery(room)

    def _long(self, room: str) -> None:
        v4, budgets = self.appservice("V4"), self.run.budgets
        with self.outage(v4, ERROR) as outage:
            event = self.human.send(room)
            outage.sent.append(event)
            self.first_failure(outage)
            deadline = time.monotonic() + budgets.backoff
            self.await_attempts(outage, self.ATTEMPTS, budgets.backoff)
            while (left := deadline - time.monotonic()) > 0 and self._may_grow_yet(outage):
                self.await_attempts(outage, len(outage.failed) + 1, left)
            early = HOT_SECONDS * budgets.scale - (time.monotonic() - outage.failed[0].started)
            if early > 0:
                self.await_attempts(outage, HOT_ATTEMPTS + 1, early)
            self.long.set(LongOutage(outage, outage.spacing.times[-1]))
        allowed = self.recovery_time(outage)
        delivered = self.recovery(outage, event, allowed)
        self.recovered.set(Recovery(outage, delivered, allowed))

    def _may_grow_yet(self, outage: Outage) -> bool:
        """Whether growth cannot be seen yet: some homeservers begin with several gaps of one length."""
        spacing = outage.spacing
        problem = Spacing(spacing.times).lenient_problem() if spacing.enough else None
        return problem is not None and len(outage.failed) < self.MORE

    def _pinged(self, room: str) -> Pinged:
        v4 = self.appservice("V4")
        with self.outage(v4, ERROR) as outage:
            event = self.human.send(room)
            outage.sent.append(event)
            self.first_failure(outage)
        marker = self.run.journal.marker()
        ping = self._ping()
        soon = 1.0 * self.run.budgets.scale
        found = self.until(lambda e: e.party == "V4" and v4.route(e).kind is Kind.TRANSACTION, marker, soon)
        self.recovery(outage, event, self.recovery_time(outage))
        return Pinged(ping, found is not None)

    def _ping(self) -> Response | NoAnswer:
        v4 = self.appservice("V4")
        path = f"/_matrix/client/v1/appservice/{segment(v4.registration.id)}/ping"
        try:
            return v4.sender.call("POST", path, json={"transaction_id": self.run.names.fresh()})
        except NoAnswer as error:
            return error

    def _someone_types(self, room: str) -> None:
        v4, me = self.appservice("V4"), str(self.human)
        self.drain(v4, room)
        marker = self.run.journal.marker()
        self._type(room, True)  # at its first sign of life there is presence to be pushed as well
        if self._told_of_me(marker) is None:
            raise Inconclusive("typing in a room with a ghost is not pushed to V4 (EPH-01)")
        self._type(room, False)
        self.drain(v4, room)
        with self.outage(v4, ERROR) as outage:
            self._type(room, True)
            if not self.await_attempts(outage, 1, self.run.budgets.deliver, event=me):
                raise Inconclusive("typing is not pushed to V4 when its outage has begun")
            self._type(room, False)
            event = self.human.send(room)
            outage.sent.append(event)
        self.typing.set(Typing(outage, self.recovery(outage, event, self.recovery_time(outage))))

    def _type(self, room: str, typing: bool) -> None:
        path = f"/rooms/{segment(room)}/typing/{segment(str(self.human))}"
        body = {"typing": True, "timeout": 60_000} if typing else {"typing": False}
        self.human.do("type" if typing else "stop typing", "PUT", path, json=body)

    def _told_of_me(self, marker: int) -> Exchange | None:
        """The first transaction since a marker that says that the human types."""
        return self.until(
            lambda e: (
                e.party == "V4"
                and e.received is not None
                and any(str(self.human) in (typists(item) or ()) for item in ephemeral_of(e))
            ),
            marker,
            self.run.budgets.deliver,
        )

    def _slow_recovery(self, room: str) -> None:
        v4, budgets = self.appservice("V4"), self.run.budgets
        with self.outage(v4, ERROR) as outage:
            event = self.human.send(room)
            outage.sent.append(event)
            self.first_failure(outage)
        self.status = "recovering slowly"
        delay = min(1.5, budgets.backoff / 10)
        with v4.scripted(Kind.TRANSACTION, always(answer(delay=delay))):
            opened = self.until(
                lambda e: e.party == "V4" and carries(e, event) and e.received is not None,
                outage.healed_at or 0,
                self.recovery_time(outage),
            )
            first = self._ping()
            in_flight = opened is not None and opened.answer_from is None
            second = self._ping()
            if opened is not None:
                self.answered(opened)
        self.slow.set(SlowRecovery([first, second], in_flight))
