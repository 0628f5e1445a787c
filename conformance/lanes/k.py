"""K: a query about a user that gets no response.

It may hold up the pushes to every appservice of a homeserver. So that no other requirement is blamed for it, it has a
homeserver to itself: a second one, where the suite starts homeservers; otherwise it begins when all other lanes and
all quick checks are over.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from conformance.appservice import roster
from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.homeserver.client import segment
from conformance.homeserver.process import TargetFailed
from conformance.judges.transactions import carries
from conformance.lanes.beside import beside
from conformance.lanes.lane import Scene
from conformance.lanes.queries import LOOK, TEXT, Call, Calls, Deed, Promptness, QueryLane, Silence, made, say_close
from conformance.verdict import Undecided
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Run

#: Messages that are sent while a user query hangs.
_MESSAGES = 5


@dataclass(frozen=True)
class Pushes:
    """Messages that interest another appservice only, sent while a user query hung."""

    appservice: Appservice
    sent: list[str]
    #: Those that did not reach it within T_deliver.
    missing: list[str]
    #: Where in the journal the first was sent.
    since: int
    #: Whether the query still hung when the last had been sent.
    still_hung: bool


class K(QueryLane):
    """An appservice that is asked about a user and never answers, and two that are well."""

    name = "K"
    silent = "Q"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.user = Scene[Silence]()
        self.user_meanwhile = Scene[Promptness]()
        self.pushes = Scene[list[Pushes]]()
        # Where appservices register themselves the second homeserver would know none.
        self.aside = run.another is not None and run.client.dialect.admission is None
        #: The codes of those that are well.
        self._bystanders = ["A", "B"]

    def play(self) -> None:
        """One invite of a user about whom the appservice is asked in vain."""
        with ExitStack() as ends:
            if not self._has_its_own(ends):
                self._wait_until_alone()
            self.status = f"a user query hangs, for {self.run.budgets.block:.0f} s at most"
            say_close(self.appservice(self.silent))
            self.user.set(self._hung_user())

    def _has_its_own(self, ends: ExitStack) -> bool:
        """Play on a homeserver of its own, where there can be a second one."""
        if not self.aside:
            return False
        self.status = "starting a homeserver of its own"
        try:
            self.run, _ = beside(self.run, "hung", roster.HUNG, "KH", ends)
        except TargetFailed:  # such as one whose port or database is fixed
            self.aside = False
            return False
        one, self.silent, other = (role.code for role in roster.HUNG)
        self._bystanders = [one, other]
        return True

    def _wait_until_alone(self) -> None:
        self.status = "waiting for the others"
        lanes = self.run.lanes
        while not lanes.others_are_over(self):
            self.pause(LOOK)

    def _hung_user(self) -> Silence:
        human, ghost = self.human, self.appservice(self.silent).unregistered().user_id
        calls = self._prepared(self.user_meanwhile, self._invites)
        room = self._prepared(self.pushes, self._room_of_bystanders)
        path = f"/rooms/{segment(human.create_room())}/invite"
        with self._hanging(Call(Kind.USER, ghost, human, path, {"user_id": ghost})) as (call, hangs):
            self._compare(self.user_meanwhile, calls, hangs)
            self._push(room, hangs)
            found = self._observed(call, ghost, unless_answered_early=True)
        if room is not None and not self.aside:  # what was held up must be over when the run goes on
            event = human.send(room)
            for code in self._bystanders:
                self.until(partial(_carries, code, event), 0, self.run.budgets.block)
        return found

    def _invites(self) -> Calls:
        """Invites of a registered ghost of another appservice, and messages: twice."""
        other, names = self._other, self.run.names
        lots: list[list[Deed]] = []
        for _ in range(2):
            ghost, room = self.appservice(self._bystanders[0]).ghost(), segment(other.create_room())
            invited = {"user_id": ghost.user_id}
            lots.append(
                [
                    ("an invite of a ghost of another appservice", other, "POST", f"/rooms/{room}/invite", invited),
                    ("a message", other, "PUT", f"/rooms/{room}/send/m.room.message/{names.fresh('t')}", TEXT),
                    ("another message", other, "PUT", f"/rooms/{room}/send/m.room.message/{names.fresh('t')}", TEXT),
                ]
            )
        return Calls([made(each) for each in lots[0]], lots[1])

    def _push(self, room: str | None, hangs: Callable[[], bool]) -> None:
        """Send messages that interest others only while something hangs, and see whether they arrive."""
        if room is None:
            return
        marker = self.run.journal.marker()
        try:
            sent = [self._other.send(room) for _ in range(_MESSAGES)]
            still_hung = hangs()
            found = []
            for code in self._bystanders:
                member = self.appservice(code)
                missing = member.still_missing(sent, marker)
                found.append(Pushes(member, sent, sorted(missing), marker, still_hung))
        except Undecided as error:
            self.pushes.fail(error)
            return
        self.pushes.set(found)

    def _room_of_bystanders(self) -> str:
        room = self.room_of(*(self.appservice(code) for code in self._bystanders))
        self._other.join(room)
        return room


def _carries(code: str, event: str, exchange: Exchange) -> bool:
    return exchange.party == code and carries(exchange, event)
