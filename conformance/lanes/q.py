"""Q: queries and a ping that get no response.

A user query that hangs may hold up the pushes to every appservice of a homeserver. So that no other requirement is
blamed for it, it begins when all other lanes and all quick checks are over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Hold, Reply, Script, answer, closed_unanswered
from conformance.homeserver.client import NoAnswer, Response, segment
from conformance.homeserver.users import User
from conformance.lanes.lane import Lane, RunEnded, Scene
from conformance.lanes.v3 import Timed, timed_call
from conformance.verdict import Blocked, Inconclusive, Undecided, control, expect
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Budgets, Run

T = TypeVar("T")
P = TypeVar("P")

#: Seconds between two looks at whether something is over.
_LOOK = 0.05

#: Times that a call may take longer than before.
_TIMES = 10.0

#: Messages that are sent while a user query hangs.
_MESSAGES = 5

#: Seconds of --block-wait from which on the absence of anything says something.
PATIENT = 240.0


@dataclass(frozen=True)
class Silence:
    """Requests that got no response, and the call that caused them."""

    #: The user ID or the alias that was asked about, or the ping's `transaction_id`.
    subject: str
    #: The requests about it, T_block long.
    requests: list[Exchange]
    #: What the call was answered; the exception when that took longer than T_block.
    call: Response | NoAnswer
    #: Whether the appservice created what it was asked about, when it was asked again.
    created: bool = False
    #: Whether the homeserver still waited for a response, or had the client wait, when the suite gave up.
    still_waiting: bool = False

    def must_have_been_asked(self, requirement: str) -> None:
        """There was a query at all, which is the subject of another requirement.

        :raises Blocked: there was none.
        """
        if not self.requests:
            raise Blocked(requirement, f"nobody is asked about {self.subject}", self.call.exchange)

    def must_have_been_given_up(self, budgets: Budgets) -> None:
        """The homeserver came to an end by itself, or had more time for it than any homeserver takes.

        :raises Inconclusive: it may only have more patience than the suite.
        """
        patient = budgets.block >= PATIENT * budgets.scale
        waited = f"the homeserver still waited at the end of --block-wait {budgets.block:g} s"
        control(patient or not self.still_waiting, waited, self.call.exchange, *self.requests[:2])

    def must_have_succeeded_in_the_end(self, what: str) -> None:
        """The second query was answered 200, and so the call must have been accepted.

        :param what: the call, for messages ("the join").
        :raises Broken: it was not.
        :raises Inconclusive: there was no second query, or nobody waited for its answer.
        """
        control(self.created, "there was no second query in time", *self.requests[:2])
        answered = any(each.status == 200 for each in self.requests)
        control(answered, "no query was waited for until it was answered", *self.requests[:3])
        accepted = not isinstance(self.call, NoAnswer) and self.call.ok
        expected = f"{what} accepted after the second query was answered 200"
        expect(accepted, expected, self.call, self.call.exchange, *self.requests[:2])


@dataclass(frozen=True)
class Promptness:
    """The same calls of another client before and during a hang."""

    before: list[Timed]
    during: list[Timed]
    #: For each of these whether the request still hung when it began.
    hung: list[bool]

    def must_be_prompt(self, scale: float) -> None:
        """No call of another client may be held up by the request that hangs.

        :raises Broken: one was.
        :raises Inconclusive: it hung too short a time.
        """
        for before, during, hung in zip(self.before, self.during, self.hung, strict=True):
            if isinstance(before.response, NoAnswer):
                raise Inconclusive(f"{before.what} was not answered before either", before.response.exchange)
            allowed, evidence = max(prompt(scale), _TIMES * before.seconds), during.response.exchange
            slow = during.seconds > allowed or isinstance(during.response, NoAnswer)
            expected = f"{during.what} answered within {allowed:.1f} s while a query hangs"
            expect(not (hung and slow), expected, f"{during.response} after {during.seconds:.1f} s", evidence)
            same = isinstance(during.response, Response) and during.response.status == before.response.status
            expect(same or not hung, f"{during.what} answered {before.response} as before", during.response, evidence)
        control(all(self.hung), "the query was over before all calls were made")


def prompt(scale: float) -> float:
    """Seconds in which a call has to be answered; where the homeserver's waits are short, what a busy machine takes."""
    return max(1.5, 5.0 * scale)


@dataclass(frozen=True)
class Pushes:
    """Messages that interest A only, sent while a user query hung."""

    sent: list[str]
    #: Those that did not reach A within T_deliver.
    missing: list[str]
    #: Where in the journal the first was sent.
    since: int
    #: Whether the query still hung when the last had been sent.
    still_hung: bool


#: What is called, by whom, method, path, body.
_Deed = tuple[str, User, str, str, dict[str, str]]

_TEXT = {"msgtype": "m.text", "body": "meanwhile"}


@dataclass(frozen=True)
class _Calls:
    """Calls that were made before a hang, and those to be made in it."""

    before: list[Timed]
    later: list[_Deed]


@dataclass(frozen=True)
class _Call:
    """A call that makes the homeserver ask Q."""

    kind: Kind
    subject: str
    user: User
    path: str
    body: dict[str, str]


def say_close(q: Appservice) -> None:
    """Have every answer of Q end its connection, for the rest of the run.

    Requests that are cut are then on fresh connections: no HTTP client repeats them by itself.
    """
    listener = q.listener
    assert listener is not None
    if not listener.close_each:
        listener.close_each = True
        listener.close_idle()


class Q(Lane):
    """The appservice that is asked and gives no response."""

    name = "Q"
    owns = ("Q",)

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.ping = Scene[Silence]()
        self.alias = Scene[Silence]()
        self.alias_again = Scene[Silence]()
        self.alias_meanwhile = Scene[Promptness]()
        self.user = Scene[Silence]()
        self.user_again = Scene[Silence]()
        self.user_meanwhile = Scene[Promptness]()
        self.pushes = Scene[Pushes]()

    def play(self) -> None:
        """All that disturbs nobody at once; then, alone, the user query that hangs."""
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
        if self.wants("USERQ-12", "USERQ-13", "USERQ-16", "USERQ-18", "DRAFT-USERQ-05"):
            self._wait_until_alone()
            beside.append(self._beside(self.user, self._hung_user))
        while any(each.is_alive() for each in beside):
            self.pause(_LOOK)

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

    def _wait_until_alone(self) -> None:
        self.status = "waiting for the others"
        lanes = self.run.lanes
        while not lanes.others_are_over(self):
            self.pause(_LOOK)
        self.status = f"a user query hangs, for {self.run.budgets.block:.0f} s at most"

    # Requests that are never answered

    def _hung_ping(self) -> Silence:
        q, name = self.appservice("Q"), self.run.names.fresh("hung-")
        path = f"/_matrix/client/v1/appservice/{segment(q.registration.id)}/ping"
        with self._hanging(_Call(Kind.PING, name, q.sender, path, {"transaction_id": name})) as (call, _):
            return self._observed(call, name)

    def _hung_alias(self) -> Silence:
        human, alias = self.human, self._unknown_alias()
        calls = self._prepared(self.alias_meanwhile, self._joins)
        with self._hanging(_Call(Kind.ALIAS, alias, human, f"/join/{segment(alias)}", {})) as (call, hangs):
            self._compare(self.alias_meanwhile, calls, hangs)
            return self._observed(call, alias)

    def _hung_user(self) -> Silence:
        human, ghost = self.human, self.appservice("Q").unregistered().user_id
        calls = self._prepared(self.user_meanwhile, self._invites)
        room = self._prepared(self.pushes, self._room_of_a)
        path = f"/rooms/{segment(human.create_room())}/invite"
        with self._hanging(_Call(Kind.USER, ghost, human, path, {"user_id": ghost})) as (call, hangs):
            self._compare(self.user_meanwhile, calls, hangs)
            self._push(room, hangs)
            found = self._observed(call, ghost, unless_answered_early=True)
        if room is not None:  # what was held up must be over when the run goes on
            event = human.send(room).encode()
            self.until(lambda e: e.party == "A" and event in e.request_body, 0, self.run.budgets.block)
        return found

    @contextmanager
    def _hanging(self, caused: _Call) -> Iterator[tuple[Future[Response], Callable[[], bool]]]:
        """A call that waits, and whether something does; at the end whatever still hangs is answered 404."""
        hold = Hold(2 * self.run.budgets.block)
        held = answer(404, {"errcode": "HQ.CONFORMANCE.NOT_FOUND", "error": "too late"}, hold=hold)
        with self._scripted(caused, lambda exchange: held), self._calling(caused) as call:

            def hangs() -> bool:
                requests = self._about(caused.subject)
                return bool(requests) and (not call.done() or any(each.answer_until is None for each in requests))

            try:
                self._await_request(caused)
                yield call, hangs
            finally:
                hold.release()

    @contextmanager
    def _scripted(self, caused: _Call, script: Script) -> Iterator[None]:
        q = self.appservice("Q")
        if caused.kind is not Kind.PING:
            with q.scripted(caused.kind, script, subject=caused.subject):
                yield
            return

        def for_this_ping(exchange: Exchange) -> Reply:
            return script(exchange) if caused.subject.encode() in exchange.request_body else answer()

        with q.scripted(Kind.PING, for_this_ping):
            yield

    def _calling(self, caused: _Call) -> AbstractContextManager[Future[Response]]:
        return caused.user.calling("POST", caused.path, json=caused.body, timeout=self.run.budgets.block)

    def _await_request(self, caused: _Call) -> None:
        """Wait until the homeserver asks, T_deliver at most."""
        self.until(lambda each: self._is_about(each, caused.subject), 0, self.run.budgets.deliver)

    def _observed(self, call: Future[Response], subject: str, unless_answered_early: bool = False) -> Silence:
        """Wait until the call is answered, T_block at most.

        :param unless_answered_early: also wait for a second request when the client was not made to wait.
        """
        deadline = time.monotonic() + self.run.budgets.block
        while time.monotonic() < deadline:
            if call.done() and not (unless_answered_early and self._one_is_left(call, subject)):
                break
            self.pause(_LOOK)
        requests = self._about(subject)
        if requests:
            self.imposed(time.monotonic() - requests[0].started)
        open_still = any(each.answer_until is None for each in requests)
        outcome = _outcome(call)
        return Silence(subject, requests, outcome, still_waiting=open_still or isinstance(outcome, NoAnswer))

    def _one_is_left(self, call: Future[Response], subject: str) -> bool:
        """Whether the only request was still open when the client had its answer."""
        requests = self._about(subject)
        answered = None if call.exception() else call.result().exchange.answer_until
        if len(requests) != 1 or answered is None:
            return False
        given_up = requests[0].answer_until
        return given_up is None or given_up > answered

    def _about(self, subject: str) -> list[Exchange]:
        return self.run.journal.since(0, lambda each: self._is_about(each, subject))

    def _is_about(self, exchange: Exchange, subject: str) -> bool:
        if exchange.party != "Q" or exchange.received is None:
            return False
        route = self.appservice("Q").route(exchange)
        if route.legacy:  # a fallback to that route is no second attempt
            return False
        return route.subject == subject or (route.kind is Kind.PING and subject.encode() in exchange.request_body)

    # Requests that are cut once and answered then

    def _cut_alias(self) -> Silence:
        human, alias = self.human, self._unknown_alias()
        name = alias[1:].partition(":")[0]
        caused = _Call(Kind.ALIAS, alias, human, f"/join/{segment(alias)}", {})
        return self._cut(caused, lambda q: q.sender.create_room(room_alias_name=name), answered_is_over=True)

    def _cut_user(self) -> Silence:
        human, ghost = self.human, self.appservice("Q").unregistered()
        path = f"/rooms/{segment(human.create_room())}/invite"
        caused = _Call(Kind.USER, ghost.user_id, human, path, {"user_id": ghost.user_id})

        def register(q: Appservice) -> None:
            answered = q.register(ghost.localpart)
            control(answered.ok, f"Q could not register {ghost} while it was asked: {answered}", answered.exchange)

        return self._cut(caused, register, answered_is_over=False)

    def _cut(self, caused: _Call, create: Callable[[Appservice], object], answered_is_over: bool) -> Silence:
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
                    self.pause(_LOOK)
                if len(self._about(caused.subject)) > 1:
                    create(q)
                    created = True
            finally:
                hold.release()
            outcome = _outcome(call)
        return Silence(caused.subject, self._about(caused.subject), outcome, created)

    # What others do meanwhile

    def _prepared(self, scene: Scene[T], prepare: Callable[[], P]) -> P | None:
        """What a scene needs before the hang; when it cannot be had, that scene is lost and no other."""
        try:
            return prepare()
        except Undecided as error:
            scene.fail(error)
            return None

    def _compare(self, scene: Scene[Promptness], calls: _Calls | None, hangs: Callable[[], bool]) -> None:
        """Make the other lot of calls while something hangs."""
        if calls is None:
            return
        during, hung = [], []
        for each in calls.later:
            hung.append(hangs())
            during.append(_made(each))
        scene.set(Promptness(calls.before, during, hung))

    def _joins(self) -> _Calls:
        """Joins of an alias that exists and of one that A is asked about, and a message: twice."""
        human, other, names = self.human, self._other, self.run.names
        lots: list[list[_Deed]] = []
        for _ in range(2):
            room, alias = human.create_room(), self.run.alias(names.fresh("free-"))
            human.set_alias(alias, room)
            unknown = self.run.alias(self.appservice("A").fresh_localpart())
            own = other.create_room()
            lots.append(
                [
                    ("a join of an alias that exists", other, "POST", f"/join/{segment(alias)}", {}),
                    ("a join of an unknown alias of A", other, "POST", f"/join/{segment(unknown)}", {}),
                    ("a message", other, "PUT", f"/rooms/{segment(own)}/send/m.room.message/{names.fresh('t')}", _TEXT),
                ]
            )
        return _Calls([_made(each) for each in lots[0]], lots[1])

    def _invites(self) -> _Calls:
        """Invites of a ghost of A that is registered, and messages: twice."""
        other, names = self._other, self.run.names
        lots: list[list[_Deed]] = []
        for _ in range(2):
            ghost, room = self.appservice("A").ghost(), segment(other.create_room())
            lots.append(
                [
                    ("an invite of a ghost of A", other, "POST", f"/rooms/{room}/invite", {"user_id": ghost.user_id}),
                    ("a message", other, "PUT", f"/rooms/{room}/send/m.room.message/{names.fresh('t')}", _TEXT),
                    ("another message", other, "PUT", f"/rooms/{room}/send/m.room.message/{names.fresh('t')}", _TEXT),
                ]
            )
        return _Calls([_made(each) for each in lots[0]], lots[1])

    def _push(self, room: str | None, hangs: Callable[[], bool]) -> None:
        """Send messages that interest A only while something hangs, and see whether they arrive."""
        if room is None:
            return
        marker = self.run.journal.marker()
        try:
            sent = [self._other.send(room) for _ in range(_MESSAGES)]
            still_hung = hangs()
            missing = self.appservice("A").still_missing(sent, marker)
        except Undecided as error:
            self.pushes.fail(error)
            return
        self.pushes.set(Pushes(sent, sorted(missing), marker, still_hung))

    def _room_of_a(self) -> str:
        room = self.room_of(self.appservice("A"))
        self._other.join(room)
        return room

    @cached_property
    def _other(self) -> User:
        """Another client than the one whose call waits, where there is one."""
        return self.run.humans.another()

    def _unknown_alias(self) -> str:
        return self.run.alias(self.appservice("Q").fresh_localpart())


def _made(deed: _Deed) -> Timed:
    what, user, method, path, body = deed
    return timed_call(what, user, method, path, json=body)


def _outcome(call: Future[Response]) -> Response | NoAnswer:
    """What a call was answered, waiting for it."""
    try:
        return call.result()
    except NoAnswer as error:
        return error
