"""V4: one long outage, watched for its backoff; a ping in it; and pings while it recovers slowly."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.appservice.routes import Kind
from conformance.appservice.script import always, answer
from conformance.homeserver.client import NoAnswer, Response, segment
from conformance.judges.backoff import HOT_ATTEMPTS, HOT_SECONDS
from conformance.lanes.lane import Scene
from conformance.lanes.outages import ERROR, Outage, OutageLane
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
    """V4 is well again."""

    outage: Outage
    #: The ping that was asked for in the outage, answered 200, and whether an attempt followed within a second.
    ping: Response | NoAnswer | None
    at_once: bool
    #: The acknowledged transaction with the event; None when it did not come within twice the last gap and T_deliver.
    delivered: Exchange | None
    allowed: float


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

    #: Attempts after which the outage has been watched enough.
    ATTEMPTS = 5

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.long = Scene[LongOutage]()
        self.recovered = Scene[Recovery]()
        self.slow = Scene[SlowRecovery]()

    def play(self) -> None:
        """The long outage, the ping in it, the recovery; then pings in a slow one."""
        v4 = self.appservice("V4")
        room = self.room_of(v4)
        if self.wants("RETRY-05", "RETRY-06", "RETRY-07", "RETRY-14"):
            self._long(room)
        if self.wants("PING-19"):
            self.drain(v4, room)
            self._slow_recovery(room)

    def _long(self, room: str) -> None:
        v4, budgets = self.appservice("V4"), self.run.budgets
        with self.outage(v4, ERROR) as outage:
            event = self.human.send(room)
            outage.sent.append(event)
            self.first_failure(outage)
            self.await_attempts(outage, self.ATTEMPTS, budgets.backoff)
            early = HOT_SECONDS * budgets.scale - (time.monotonic() - outage.failed[0].started)
            if early > 0:
                self.await_attempts(outage, HOT_ATTEMPTS + 1, early)
            self.long.set(LongOutage(outage, outage.spacing.times[-1]))
        ping, at_once = None, False
        if self.wants("RETRY-14"):
            marker = self.run.journal.marker()
            ping = self._ping()
            soon = min(1.0, (outage.spacing.gaps or (1.0,))[0] / 2)
            found = self.until(lambda e: e.party == "V4" and v4.route(e).kind is Kind.TRANSACTION, marker, soon)
            at_once = found is not None
        allowed = self.recovery_time(outage)
        delivered = self.recovery(outage, event, allowed)
        self.recovered.set(Recovery(outage, ping, at_once, delivered, allowed))

    def _ping(self) -> Response | NoAnswer:
        v4 = self.appservice("V4")
        path = f"/_matrix/client/v1/appservice/{segment(v4.registration.id)}/ping"
        try:
            return v4.sender.call("POST", path, json={"transaction_id": self.run.names.fresh()})
        except NoAnswer as error:
            return error

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
                lambda e: e.party == "V4" and event.encode() in e.request_body and e.received is not None,
                outage.healed_at or 0,
                self.recovery_time(outage),
            )
            first = self._ping()
            in_flight = opened is not None and opened.answer_from is None
            second = self._ping()
            if opened is not None:
                self.answered(opened)
        self.slow.set(SlowRecovery([first, second], in_flight))
