"""Restarts: a homeserver that is stopped in order, or crashes, and is started again (AS: Pushing events).

Where the suite starts homeservers, a second one is started beside the run, on its own data and with its own
registrations. A homeserver that somebody else runs is restarted by a command, when everything else is over.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from conformance.appservice import roster
from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Hold, Reply, always, answer
from conformance.homeserver.client import NoAnswer, Response, segment
from conformance.homeserver.process import TargetFailed
from conformance.homeserver.target import CommandFailed, Overstayed, Restartable
from conformance.homeserver.users import User
from conformance.judges.attempts import Attempt
from conformance.judges.transactions import carries
from conformance.lanes.beside import beside
from conformance.lanes.lane import Scene
from conformance.lanes.outages import ERROR, Outage, OutageLane
from conformance.verdict import Blocked, Inconclusive, Undecided
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Run

#: Seconds in which a homeserver has noted an acknowledgement, so that nothing is pending any more.
_NOTED = 1.0

#: Seconds between two looks at whether the other lanes are over.
_LOOK = 0.25


@dataclass(frozen=True)
class Parts:
    """Which appservice plays which part."""

    #: Healthy all the time: its transaction IDs are compared.
    steady: str
    #: Has a ghost and an alias from before.
    keeper: str
    #: Answers 500 until the homeserver has stopped.
    down: str
    #: Has a transaction under way and events behind it when the homeserver is stopped, or crashes.
    slow: str
    crashed: str
    #: Is healthy when the homeserver crashes in the middle of a burst.
    burst: str
    #: Has one transaction under way at a crash.
    overtaken: str
    #: Answers 500 before and after a stop.
    altered: str


_BESIDE = Parts("R1", "R1", "R2", "R3", "R4", "R5", "R6", "R7")
_AT_THE_END = Parts("X", "A", "V1", "V3", "V6", "V2", "V5", "V4")


@dataclass(frozen=True)
class Ids:
    """Transactions of the appservices before and after restarts."""

    appservices: list[Appservice]
    #: Transactions of one event that the steady one acknowledged before the first stop.
    singles: list[Exchange]
    #: The restarts, for messages.
    restarts: list[str]
    #: Where in the journal the first restart was.
    restarted_at: int


@dataclass(frozen=True)
class Kept:
    """Whether the events of an outage that was there before a stop arrived after it."""

    outage: Outage
    #: The last attempt before the stop that carries the first event.
    before: Attempt
    #: Whether there was one after the start before anything new was to be pushed, and how long that was, in seconds.
    in_silence: bool
    silence: float
    #: The first attempt after the start that carries it.
    after: Attempt | None
    #: Whether that came when something new had been sent, and soon.
    woken: bool
    #: Those of its events that never arrived.
    missing: set[str]


@dataclass(frozen=True)
class UnderWay:
    """Events that were waiting behind a transaction, and those that never arrived after the restart."""

    appservice: Appservice
    sent: list[str]
    missing: set[str]
    #: The transaction that was under way.
    first: Exchange


@dataclass(frozen=True)
class Overtaken:
    """One event under way at a crash, and two that were sent after the start."""

    appservice: Appservice
    old: str
    new: list[str]
    #: The first transactions with each of them after the start; None where there was none.
    arrivals: dict[str, Exchange | None]


@dataclass(frozen=True)
class Retold:
    """The attempts of one transaction before and after a stop."""

    #: Its events: a state event that replaced another one, and a message.
    events: list[str]
    before: list[Attempt]
    after: list[Attempt]


@dataclass(frozen=True)
class Burst:
    """Events that were acknowledged just before a crash, and those that never arrived after it."""

    appservice: Appservice
    sent: list[str]
    missing: set[str]


@dataclass(frozen=True)
class Property:
    """What appservices had before the first restart, asked for again after the last."""

    #: What was asked for, and the homeserver's answers before and after.
    answers: dict[str, tuple[Response, Response]]
    #: Rooms from before that were interesting then, why, and what of a message after the restarts was pushed.
    heard: dict[str, Exchange | None]
    #: Whether a message in a room from after the restarts was pushed.
    hears: bool


class _NotInOrder(Inconclusive):
    """The homeserver had to be killed where it was to end in order."""


class Restarts(OutageLane):
    """A life, its end, and the next one, several times."""

    name = "restarts"
    aside = True

    #: Crashes in the middle of a burst, and events in one.
    CRASHES, BURST = 3, 20
    #: Transactions of one event before the first stop, and events that wait behind a slow transaction.
    SINGLES, WAITING = 5, 5
    #: Seconds that an appservice takes for an answer in a burst: well within what a healthy one may take.
    BUSY = 0.25
    #: Seconds (scaled) after the signal until a slow appservice answers.
    SLOW = 3.0

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.ids = Scene[Ids]()
        self.kept = Scene[Kept]()
        self.slow = Scene[UnderWay]()
        self.crashed = Scene[UnderWay]()
        self.overtaken = Scene[Overtaken]()
        self.retold = Scene[Retold]()
        self.bursts = Scene[list[Burst]]()
        self.property = Scene[Property]()
        self._target: Restartable
        self._parts = _BESIDE
        self._members: list[Appservice] = []
        #: How it was stopped so far, where in the journal that was first, and when it was up again.
        self._restarts: list[str] = []
        self._restarted_at = 0
        self._up_at = 0.0
        #: Rooms that interested the keeper before the first stop, by why.
        self._interesting: dict[str, str] = {}
        #: Who sends the bursts, and where.
        self._talk: tuple[User, str] | None = None

    def play(self) -> None:
        """Two orderly ends, then crashes."""
        with ExitStack() as ends:
            self._target = self._there(ends)
            belongings, steady = None, None
            with self._undecided(self.property):
                belongings = self._belongings() if self.wants("RESTART-08") else None
            with self._undecided(self.ids):
                steady = self._steady() if self.wants("RESTART-01") else None
            try:
                self._stop(signal.SIGTERM, ExitStack())
                if steady is not None:
                    with self._undecided(self.ids):
                        self._three_more(steady[0])
                if self.wants("RETRY-15", "RESTART-02", "RESTART-05", "RESTART-07"):
                    self._orderly_end()
            except _NotInOrder as error:  # crashes do not need it
                for each in (self.ids, self.slow, self.kept, self.retold):
                    each.fail(error)
                steady = None
            if not self._target.can_crash:
                for scene in (self.crashed, self.overtaken, self.bursts):
                    scene.fail(Inconclusive("--hs-restart-command has no {signal}: the homeserver cannot be crashed"))
            elif self.wants("RESTART-01", "RESTART-03", "RESTART-04", "RESTART-06", "RESTART-08"):
                with self._undecided(self.ids):
                    if steady is not None:
                        self._three_more(steady[0])
                self._crashes()
                if steady is not None:
                    with self._undecided(self.ids):
                        self._three_more(steady[0])
            with self._undecided(self.property):
                self.property.set(self._compare(belongings or {}))
            if steady is not None:
                self.ids.set(Ids(self._members, steady[1], self._restarts, self._restarted_at))

    @contextmanager
    def _undecided(self, scene: Scene[Any]) -> Iterator[None]:
        """A scene that cannot be observed is no reason to leave out the others."""
        try:
            yield
        except Undecided as error:
            scene.fail(error)
        except NoAnswer as error:
            scene.fail(Inconclusive(f"a call was not answered: {error}", error.exchange))

    # Where

    def _there(self, ends: ExitStack) -> Restartable:
        """The homeserver that is restarted: a second one, or the target when nobody else needs it any more.

        :raises Inconclusive: neither can be had.
        """
        run = self.run
        if run.another is not None:
            return self._beside(ends)
        if run.restartable is None:
            raise Inconclusive("the homeserver cannot be restarted: give --hs-restart-command, or have it started")
        self.status = "waiting for the others"
        while not run.lanes.others_are_over(self):
            self.pause(_LOOK)
        self._parts = _AT_THE_END
        self._members = [member for member in run.fleet if member.code not in run.unloaded]
        return run.restartable

    def _beside(self, ends: ExitStack) -> Restartable:
        self.status = "starting a second homeserver"
        # From here on this lane acts on it.
        try:
            self.run, target = beside(self.run, "restarted", roster.RESTARTED, "RH", ends)
        except TargetFailed as error:
            raise Inconclusive(f"a second homeserver could not be started: {error}") from error
        self._members = list(self.run.fleet)
        return target

    def _stop(self, how: signal.Signals, healing: ExitStack, answered: Hold | None = None) -> int:
        """Stop the homeserver, heal the appservices, start it again; where in the journal it was down.

        :param answered: what a slow appservice waits for: released a moment after an orderly end has begun, and when
            a crash is over.
        """
        down_at = 0
        self._restarts.append("a crash" if how is signal.SIGKILL else "an orderly stop")
        self.status = f"restarting the homeserver after {self._restarts[-1]}"
        timer = threading.Timer(self.SLOW * self.run.budgets.scale, answered.release) if answered else None
        if timer is not None and how is signal.SIGTERM:
            timer.start()

        def meanwhile() -> None:
            nonlocal down_at
            down_at = self.run.journal.marker()
            self.run.restarted_at.append(down_at)
            if answered is not None:
                answered.release()
            healing.close()

        try:
            self._target.restart(how, meanwhile)
        except Overstayed as error:
            raise _NotInOrder(str(error)) from error
        except CommandFailed:
            raise  # an error of the run: nobody is to think that restarts were looked at
        except TargetFailed as error:
            raise Inconclusive(f"the homeserver did not come back after {self._restarts[-1]}: {error}") from error
        finally:
            if timer is not None:
                timer.cancel()
        self._up_at = time.monotonic()
        self._restarted_at = self._restarted_at or down_at
        return down_at

    # The first stop: what was acknowledged

    def _steady(self) -> tuple[str, list[Exchange]]:
        """A room, and some transactions of one event each of it, with nothing pending."""
        member = self.appservice(self._parts.steady)
        room = self.room_of(member)
        singles = [self.arrives(member, self.human.send(room)) for _ in range(self.SINGLES)]
        self.pause(min(_NOTED, self.run.budgets.quiet))
        return room, singles

    def _three_more(self, room: str) -> None:
        member = self.appservice(self._parts.steady)
        for _ in range(3):
            self.arrives(member, self.human.send(room))

    # The second stop: what was pending

    def _orderly_end(self) -> None:
        """An appservice that is down, one that is slow, and one that stays down, across one orderly stop."""
        healing, hold = ExitStack(), Hold(2 * self.run.budgets.deliver)
        down, altered, waiting = None, None, None
        with ExitStack() as staying_down, healing:
            if self.wants("RETRY-15", "RESTART-05"):
                with self._undecided(self.kept):
                    down = self._go_down(self.appservice(self._parts.down), healing)
            if self.wants("RESTART-07"):
                with self._undecided(self.retold):
                    altered = self._state_and_message(self.appservice(self._parts.altered), staying_down)
            if self.wants("RESTART-02"):
                with self._undecided(self.slow):
                    waiting = self._queue_behind(self.appservice(self._parts.slow), hold, healing)
            since = self._stop(signal.SIGTERM, healing, hold)
            self.status = "silent, with transactions pending from before the restart"
            silence = self._silence(down[0]) if down is not None else 0.0
            silent = self._in_silence(down[0], since, silence) if down is not None else None
            # What comes with new traffic only is RESTART-05's subject.
            self._up_at = time.monotonic()
            if waiting is not None:
                self.slow.set(self._under_way(*waiting))
            if down is not None:
                self.kept.set(self._kept(*down, since, silent, silence))
            if altered is not None:
                self.retold.set(self._retold(*altered, since))

    def _go_down(self, member: Appservice, healing: ExitStack) -> tuple[Outage, str]:
        """Three events of a room for an appservice that answers 500; the first is tried again at least once."""
        room = self.room_of(member)
        outage = healing.enter_context(self.outage(member, ERROR))
        outage.sent += [self.human.send(room) for _ in range(3)]
        self.first_failure(outage)
        if not self.await_attempts(outage, 2, self.run.budgets.backoff):
            raise Blocked("RETRY-01", "a failed transaction is not tried again", *(e.first for e in outage.attempts))
        return outage, room

    def _state_and_message(self, member: Appservice, staying_down: ExitStack) -> tuple[Outage, str, list[str]]:
        """A transaction that fails, with a state event that replaces another one, and a message if they are batched."""
        room, human = self.room_of(member), self.human
        human.set_state(room, "m.room.topic", {"topic": "before"})
        self.drain(member, room)
        plug = Hold(self.run.budgets.deliver)
        failing = False

        def script(exchange: Exchange) -> Reply:
            return ERROR if failing else answer(hold=plug)

        outage = staying_down.enter_context(self.outage(member, script))
        held = human.send(room)
        self._await_request(member, held)
        events = [human.set_state(room, "m.room.topic", {"topic": "after"}), human.send(room)]
        # The plug was no failure: what counts begins after it, with what may come as soon as it is released.
        outage.since, failing = self.run.journal.marker(), True
        plug.release()
        outage.sent += events
        found = self.until(
            lambda e: e.party == member.code and carries(e, events[0]) and e.status is not None,
            0,
            self.run.budgets.deliver,
        )
        if found is None:
            raise Inconclusive(f"no transaction with a state event was pushed to {member} when its outage began")
        outage.late.append(human.send(room))
        return outage, room, events

    def _retold(self, outage: Outage, room: str, events: list[str], since: int) -> Retold:
        """Wait for an attempt after the start, if need be with something new to push; then let it succeed."""
        self.status = "waiting for the next attempt of a transaction from before the restart"

        def attempted(within: float) -> bool:
            code, event = outage.appservice.code, events[0]
            return self.until(lambda e: e.party == code and carries(e, event), since, within) is not None

        if not attempted(self.run.budgets.backoff / 2):
            self.human.send(room)
            attempted(self.run.budgets.deliver)
        found = [each for each in outage.attempts if carries(each.first, events[0])]
        return Retold(
            events,
            [each for each in found if each.first.number <= since],
            [each for each in found if each.first.number > since],
        )

    def _silence(self, outage: Outage) -> float:
        """Seconds in which the next attempt is due: four times as many as between those before the stop, which is more
        than doubling; half of T_backoff at least, T_backoff at most.
        """
        starts = [each.first.started for each in outage.attempts]
        longest = max((later - earlier for earlier, later in pairwise(starts)), default=0.0)
        return min(self.run.budgets.backoff, max(self.run.budgets.backoff / 2, 4 * longest))

    def _in_silence(self, outage: Outage, since: int, silence: float) -> Exchange | None:
        """The first attempt after the start, with nothing new to push; None when none came within some seconds."""
        return self.until(partial(_carries, outage.appservice.code, outage.sent[0]), since, silence)

    def _kept(self, outage: Outage, room: str, since: int, silent: Exchange | None, silence: float) -> Kept:
        """Wait for all events of an outage, if need be with something new to push."""
        sent_at = time.monotonic()
        if silent is None:
            self.human.send(room)
            if self._in_silence(outage, since, self.run.budgets.deliver) is None:
                # Nothing wakes it up: it may only have more patience than has been waited so far.
                self._in_silence(outage, since, self.run.budgets.backoff - silence)
                self._up_at = time.monotonic()
        missing = self._await_sent(outage.appservice, outage.sent)
        found = [each for each in outage.attempts if carries(each.first, outage.sent[0])]
        before = [each for each in found if each.first.number <= since]
        after = [each for each in found if each.first.number > since]
        woken = silent is None and bool(after) and after[0].started < sent_at + silence / 4
        return Kept(outage, before[-1], silent is not None, silence, after[0] if after else None, woken, missing)

    # Crashes: what was under way, and what had just been acknowledged

    def _crashes(self) -> None:
        """Crashes in a burst; at the first also two appservices with a transaction under way."""
        hold, waiting, old, sent = Hold(4 * self.run.budgets.deliver), None, None, None
        with ExitStack() as healing:
            if self.wants("RESTART-03"):
                with self._undecided(self.crashed):
                    waiting = self._queue_behind(self.appservice(self._parts.crashed), hold, healing)
            if self.wants("RESTART-06"):
                with self._undecided(self.overtaken):
                    old = self._one_under_way(self.appservice(self._parts.overtaken), hold, healing)
            if self.wants("RESTART-04"):
                with self._undecided(self.bursts):
                    sent = self._burst(healing)
            since = self._stop(signal.SIGKILL, healing, hold)
        if old is not None:
            with self._undecided(self.overtaken):
                self.overtaken.set(self._overtaken(*old, since))
        if waiting is not None:
            self.crashed.set(self._under_way(*waiting))
        if sent is not None:
            with self._undecided(self.bursts):
                self.bursts.set(self._more_bursts(sent))

    def _more_bursts(self, sent: list[str]) -> list[Burst]:
        """What became of a burst, and the same again until something is lost."""
        bursts = [self._after_burst(sent)]
        while len(bursts) < self.CRASHES and not bursts[-1].missing:
            with ExitStack() as healing:
                sent = self._burst(healing)
                self._stop(signal.SIGKILL, healing)
            bursts.append(self._after_burst(sent))
        return bursts

    def _after_burst(self, sent: list[str]) -> Burst:
        """Send something new, and wait for what was there before."""
        assert self._talk is not None
        talker, room = self._talk
        talker.send(room)
        member = self.appservice(self._parts.burst)
        return Burst(member, sent, self._await_sent(member, sent))

    def _queue_behind(
        self, member: Appservice, hold: Hold, healing: ExitStack
    ) -> tuple[Appservice, str, list[str], Exchange]:
        """One event under way to an appservice that takes its time, and more that wait behind it."""
        room = self.room_of(member)
        healing.enter_context(member.scripted(Kind.TRANSACTION, always(answer(hold=hold))))
        sent = [self.human.send(room)]
        first = self._await_request(member, sent[0])
        sent += [self.human.send(room) for _ in range(self.WAITING)]
        return member, room, sent, first

    def _under_way(self, member: Appservice, room: str, sent: list[str], first: Exchange) -> UnderWay:
        """Send something new, and wait for what was there before."""
        self.human.send(room)
        return UnderWay(member, sent, self._await_sent(member, sent), first)

    def _one_under_way(self, member: Appservice, hold: Hold, healing: ExitStack) -> tuple[Appservice, str, str]:
        room = self.room_of(member)
        healing.enter_context(member.scripted(Kind.TRANSACTION, always(answer(hold=hold))))
        event = self.human.send(room)
        self._await_request(member, event)
        return member, room, event

    def _overtaken(self, member: Appservice, room: str, old: str, since: int) -> Overtaken:
        """Send two more events at once after the start, and see when each arrives."""
        new = [self.human.send(room) for _ in range(2)]
        arrivals = {
            event: self.until(partial(_carries, member.code, event), since, self._patience) for event in (*new, old)
        }
        return Overtaken(member, old, new, arrivals)

    def _burst(self, healing: ExitStack) -> list[str]:
        """Events as fast as a user can send them, to an appservice that takes a moment for each transaction."""
        member = self.appservice(self._parts.burst)
        if self._talk is None:
            room, talker = self.room_of(member), self.run.humans.another()
            talker.join(room)
            self._talk = talker, room
        talker, room = self._talk
        self.drain(member, room)
        busy = answer(delay=self.BUSY)
        healing.enter_context(member.scripted(Kind.TRANSACTION, always(busy)))
        return [talker.send(room) for _ in range(self.BURST)]

    # Waiting

    def _await_request(self, member: Appservice, event: str) -> Exchange:
        """The first transaction with an event.

        :raises Inconclusive: it does not come.
        """
        found = self.until(partial(_carries, member.code, event), 0, self.run.budgets.deliver)
        if found is None:
            raise Inconclusive(f"{event} did not reach {member} within {self.run.budgets.deliver:g} s")
        return found

    @property
    def _patience(self) -> float:
        """Seconds left of the T_deliver that healthy appservices are given since the start, T_quiet at least."""
        budgets = self.run.budgets
        return max(budgets.quiet, self._up_at + budgets.deliver - time.monotonic())

    def _await_sent(self, member: Appservice, sent: list[str]) -> set[str]:
        """Which of some events have not been acknowledged when nothing comes any more."""
        return self.await_all(Outage(member, 0, self.run.budgets.quiet), set(sent), self._patience)

    # What belongs to appservices

    def _belongings(self) -> dict[str, tuple[Callable[[], Response], Response]]:
        """Questions about a ghost, an alias, exclusive names and all senders, and their answers."""
        keeper, human = self.appservice(self._parts.keeper), self.human
        ghost, room, names = keeper.ghost(), human.create_room(), self.run.names
        ghost.do("set its name", "PUT", f"/profile/{segment(ghost.user_id)}/displayname", json={"displayname": "Kept"})
        alias = self.run.alias(keeper.fresh_localpart())
        keeper.sender.do(f"create {alias}", "PUT", f"/directory/room/{segment(alias)}", json={"room_id": room})

        keeper_hears = {"one of its ghosts is in": self.room_of(keeper), "one of its aliases leads into": room}
        for why, each in keeper_hears.items():
            with suppress(Undecided):  # a room that does not interest it now will not do so later
                self.arrives(keeper, human.send(each))
                self._interesting[why] = each

        def claimed() -> Response:
            path = f"/directory/room/{segment(self.run.alias(names.fresh(keeper.prefix)))}"
            return human.call("PUT", path, json={"room_id": room})

        questions: dict[str, Callable[[], Response]] = {
            f"the sender of {member}": partial(member.sender.call, "GET", "/account/whoami") for member in self._members
        }
        questions |= {
            "a ghost": partial(ghost.call, "GET", "/account/whoami"),
            "the name of a ghost": partial(human.call, "GET", f"/profile/{segment(ghost.user_id)}/displayname"),
            "a ghost that exists": partial(keeper.register, ghost.localpart),
            "an alias": partial(human.call, "GET", f"/directory/room/{segment(alias)}"),
            "an alias in an exclusive namespace, for a human": claimed,
        }
        return {what: (ask, ask()) for what, ask in questions.items()}

    def _compare(self, before: dict[str, tuple[Callable[[], Response], Response]]) -> Property:
        self.status = "asking for what was there before the restarts"
        answers = {what: (answered, ask()) for what, (ask, answered) in before.items()}
        keeper, within = self.appservice(self._parts.keeper), self.run.budgets.deliver
        heard = {
            why: self.until(partial(_carries, keeper.code, self.human.send(room)), 0, within)
            for why, room in self._interesting.items()
        }
        hears = True
        if None in heard.values():
            try:
                self.room_of(keeper)
            except Undecided:
                hears = False
        return Property(answers, heard, hears)


def _carries(code: str, event: str, exchange: Exchange) -> bool:
    return exchange.party == code and exchange.received is not None and carries(exchange, event)
