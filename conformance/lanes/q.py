"""Q: queries about aliases and a ping that get no response, and queries that get one at the second try."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Hold, Reply, answer, closed_unanswered
from conformance.homeserver.client import segment
from conformance.lanes.lane import RunEnded, Scene
from conformance.lanes.queries import (
    LOOK,
    TEXT,
    Call,
    Calls,
    Deed,
    Promptness,
    QueryLane,
    Silence,
    made,
    outcome,
    say_close,
)
from conformance.verdict import Inconclusive, control
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Run

T = TypeVar("T")


class Q(QueryLane):
    """The appservice that is asked: all of its silences that disturb nobody, at once."""

    name = "Q"
    silent = "Q"
    owns = ("Q",)

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.ping = Scene[Silence]()
        self.alias = Scene[Silence]()
        self.alias_again = Scene[Silence]()
        self.alias_meanwhile = Scene[Promptness]()
        self.user_again = Scene[Silence]()

    def play(self) -> None:
        """A ping and an alias query that hang, and queries that are answered when they are repeated."""
        say_close(self.appservice("Q"))
        beside = []
        self.status = "hanging"
        if self.wants("PING-09"):
            beside.append(self._beside(self.ping, self._hung_ping))
        if self.wants("ALIASQ-13", "ALIASQ-14", "ALIASQ-16", "DRAFT-ALIASQ-06"):
            beside.append(self._beside(self.alias, self._hung_alias))
        if self.wants("ALIASQ-13", "ALIASQ-15"):
            beside.append(self._beside(self.alias_again, self._cut_alias))
        if self.wants("USERQ-12", "USERQ-14"):
            beside.append(self._beside(self.user_again, self._cut_user))
        while any(each.is_alive() for each in beside):
            self.pause(LOOK)

    def _beside(self, scene: Scene[T], observe: Callable[[], T]) -> threading.Thread:
        """Observe a scene in a thread of its own."""

        def play() -> None:
            try:
                scene.set(observe())
            except RunEnded:
                scene.fail(Inconclusive("the run ended while the homeserver was waited for"))
            except BaseException as error:  # the check that waits must learn of it, whatever it is
                scene.fail(error)

        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        return thread

    def _hung_ping(self) -> Silence:
        q, name = self.appservice("Q"), self.run.names.fresh("hung-")
        path = f"/_matrix/client/v1/appservice/{segment(q.registration.id)}/ping"
        with self._hanging(Call(Kind.PING, name, q.sender, path, {"transaction_id": name})) as (call, _):
            return self._observed(call, name)

    def _hung_alias(self) -> Silence:
        human, alias = self.human, self._unknown_alias()
        calls = self._prepared(self.alias_meanwhile, self._joins)
        with self._hanging(Call(Kind.ALIAS, alias, human, f"/join/{segment(alias)}", {})) as (call, hangs):
            self._compare(self.alias_meanwhile, calls, hangs)
            return self._observed(call, alias)

    # Requests that are cut once and answered then

    def _cut_alias(self) -> Silence:
        human, alias = self.human, self._unknown_alias()
        name = alias[1:].partition(":")[0]
        caused = Call(Kind.ALIAS, alias, human, f"/join/{segment(alias)}", {})
        return self._cut(caused, lambda q: q.sender.create_room(room_alias_name=name), answered_is_over=True)

    def _cut_user(self) -> Silence:
        human, ghost = self.human, self.appservice("Q").unregistered()
        path = f"/rooms/{segment(human.create_room())}/invite"
        caused = Call(Kind.USER, ghost.user_id, human, path, {"user_id": ghost.user_id})

        def register(q: Appservice) -> None:
            answered = q.register(ghost.localpart)
            control(answered.ok, f"Q could not register {ghost} while it was asked: {answered}", answered.exchange)

        return self._cut(caused, register, answered_is_over=False)

    def _cut(self, caused: Call, create: Callable[[Appservice], object], answered_is_over: bool) -> Silence:
        """Close the first connection without a response; when asked again, create what is asked for and say so."""
        q, hold, block = self.appservice("Q"), Hold(self.run.budgets.block), self.run.budgets.block
        cut: set[bool] = set()

        def script(exchange: Exchange) -> Reply:
            legacy = q.route(exchange).legacy
            if legacy in cut:
                return answer(hold=hold)
            cut.add(legacy)
            return closed_unanswered()

        created, deadline = False, time.monotonic() + block
        with self._scripted(caused, script), self._calling(caused) as call:
            try:
                self._await_request(caused)
                # A client that waited and has been told needs no other query.
                while len(self._about(caused.subject)) == 1 and not (answered_is_over and call.done()):
                    if time.monotonic() > deadline:
                        break
                    self.pause(LOOK)
                if len(self._about(caused.subject)) > 1:
                    create(q)
                    created = True
            finally:
                hold.release()
            answered = outcome(call)
        return Silence(caused.subject, self._about(caused.subject), answered, created)

    def _joins(self) -> Calls:
        """Joins of an alias that exists and of one that A is asked about, and a message: twice."""
        human, other, names = self.human, self._other, self.run.names
        lots: list[list[Deed]] = []
        for _ in range(2):
            room, alias = human.create_room(), self.run.alias(names.fresh("free-"))
            human.set_alias(alias, room)
            unknown = self.run.alias(self.appservice("A").fresh_localpart())
            own = other.create_room()
            lots.append(
                [
                    ("a join of an alias that exists", other, "POST", f"/join/{segment(alias)}", {}),
                    ("a join of an unknown alias of A", other, "POST", f"/join/{segment(unknown)}", {}),
                    ("a message", other, "PUT", f"/rooms/{segment(own)}/send/m.room.message/{names.fresh('t')}", TEXT),
                ]
            )
        return Calls([made(each) for each in lots[0]], lots[1])

    def _unknown_alias(self) -> str:
        return self.run.alias(self.appservice("Q").fresh_localpart())
