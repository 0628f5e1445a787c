"""V3: it hangs."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conformance.appservice.script import never_answered
from conformance.homeserver.client import NoAnswer, Response, segment
from conformance.homeserver.users import User
from conformance.lanes.lane import Scene
from conformance.lanes.outages import Outage, OutageLane
from conformance.verdict import Inconclusive

if TYPE_CHECKING:
    from conformance.run import Run


@dataclass(frozen=True)
class Timed:
    """A call to the homeserver and how long its answer took."""

    what: str
    seconds: float
    response: Response | NoAnswer


@dataclass(frozen=True)
class Hang:
    """V3 reads transactions and never answers."""

    outage: Outage
    #: Whether there was a second attempt within T_block.
    retried: bool


@dataclass(frozen=True)
class Calls:
    """The same calls before and during the hang."""

    before: list[Timed]
    during: list[Timed]


class V3(OutageLane):
    """The third victim."""

    name = "V3"
    owns = ("V3",)

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.hang = Scene[Hang]()
        self.calls = Scene[Calls]()

    def play(self) -> None:
        """The same calls before the hang and in it."""
        v3 = self.appservice("V3")
        room = self.room_of(v3)
        self._hang(room)

    def _hang(self, room: str) -> None:
        v3 = self.appservice("V3")
        listener = v3.listener
        assert listener is not None
        listener.close_each = True
        self.drain(v3, room)
        human, unrelated = self.human, self.human.create_room()
        before = self._timed_calls(human, room, unrelated)
        self.drain(v3, room)
        with self.outage(v3, never_answered()) as outage:
            # The message that V3 is to be sent may itself wait for V3: that is RETRY-10 too.
            with human.calling("PUT", self._message_path(room), json={"msgtype": "m.text", "body": "hang"}) as call:
                self.first_failure(outage)
                if self.wants("RETRY-10"):
                    self.pause(
                        min(1.0, 10 * self.run.budgets.scale)
                    )  # a homeserver has noticed by now, if it ever does
                    self.calls.set(Calls(before, self._timed_calls(human, room, unrelated)))
            outage.sent.append(self._event_id(call))
            retried = True
            if self.wants("RETRY-03"):
                self.status = "hanging"
                retried = self.await_attempts(outage, 2, self.run.budgets.block, "hanging", outage.sent[0])
                for gap in outage.spacing.gaps:
                    self.imposed(gap)
        listener.close_each = False
        self.hang.set(Hang(outage, retried))

    def _message_path(self, room: str) -> str:
        return f"/rooms/{segment(room)}/send/m.room.message/{self.run.names.fresh('t')}"

    def _event_id(self, call: Future[Response]) -> str:
        """The event that a message was answered with.

        :raises Inconclusive: it was not answered.
        """
        try:
            answer = call.result()
        except NoAnswer as error:
            raise Inconclusive(f"the message that V3 was sent was not answered: {error}", error.exchange) from error
        if not isinstance(event := answer.json.get("event_id"), str):
            raise Inconclusive(f"a message was answered {answer}", answer.exchange)
        return event

    def _timed_calls(self, human: User, room: str, unrelated: str) -> list[Timed]:
        """Messages into an unrelated room and into V3's, and a sync."""
        calls = {
            "a message in an unrelated room": (human, unrelated),
            "a message in a room of V3": (human, room),
        }
        timed = []
        for what, (user, where) in calls.items():
            body = {"msgtype": "m.text", "body": what}
            timed.append(timed_call(what, user, "PUT", self._message_path(where), json=body))
        timed.append(timed_call("a sync", human, "GET", "/sync", query={"timeout": "0"}))
        return timed


def timed_call(what: str, user: User, method: str, path: str, **options: Any) -> Timed:
    """A call, and how long its answer takes, without what a limit of its rate (429) told the client to wait before."""
    try:
        response: Response | NoAnswer = user.call(method, path, **options)
    except NoAnswer as error:
        response = error
    return Timed(what, response.exchange.seconds or 0.0, response)
