"""What Q and K have in common: calls that wait for a query to an appservice which gives no response."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Hold, Reply, Script, answer
from conformance.homeserver.client import NoAnswer, Response
from conformance.homeserver.users import User
from conformance.lanes.lane import Lane, Scene
from conformance.lanes.v3 import Timed, timed_call
from conformance.verdict import Blocked, Inconclusive, Undecided, control, expect
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Budgets

T = TypeVar("T")
P = TypeVar("P")

#: Seconds between two looks at whether something is over.
LOOK = 0.05

#: Times that a call may take longer than before.
_TIMES = 10.0

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
    #: Seconds since the first request in which another was waited for.
    watched: float = 0.0

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


#: What is called, by whom, method, path, body.
Deed = tuple[str, User, str, str, dict[str, str]]

#: What others send meanwhile.
TEXT = {"msgtype": "m.text", "body": "meanwhile"}


@dataclass(frozen=True)
class Calls:
    """Calls that were made before a hang, and those to be made in it."""

    before: list[Timed]
    later: list[Deed]


@dataclass(frozen=True)
class Call:
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


class QueryLane(Lane):
    """Calls that wait, and what others can do meanwhile."""

    #: The code of the appservice that gives no response.
    silent: str

    @contextmanager
    def _hanging(self, caused: Call) -> Iterator[tuple[Future[Response], Callable[[], bool]]]:
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
    def _scripted(self, caused: Call, script: Script) -> Iterator[None]:
        q = self.appservice(self.silent)
        if caused.kind is not Kind.PING:
            with q.scripted(caused.kind, script, subject=caused.subject):
                yield
            return

        def for_this_ping(exchange: Exchange) -> Reply:
            return script(exchange) if caused.subject.encode() in exchange.request_body else answer()

        with q.scripted(Kind.PING, for_this_ping):
            yield

    def _calling(self, caused: Call) -> AbstractContextManager[Future[Response]]:
        return caused.user.calling("POST", caused.path, json=caused.body, timeout=self.run.budgets.block)

    def _await_request(self, caused: Call) -> None:
        """Wait until the homeserver asks, T_deliver at most."""
        self.until(lambda each: self._is_about(each, caused.subject), 0, self.run.budgets.deliver)

    def _observed(self, call: Future[Response], subject: str, unless_answered_early: bool = False) -> Silence:
        """Wait until the call is answered, T_block at most.

        :param unless_answered_early: also wait for a second request when the client was not made to wait.
        """
        deadline = time.monotonic() + self.run.budgets.block
        while time.monotonic() < deadline:
            if call.done() and not (unless_answered_early and self._another_may_come(call, subject)):
                break
            self.pause(LOOK)
        requests = self._about(subject)
        watched = time.monotonic() - requests[0].started if requests else 0.0
        self.imposed(watched)
        open_still = any(each.answer_until is None for each in requests)
        answered = outcome(call)
        still_waiting = open_still or isinstance(answered, NoAnswer)
        return Silence(subject, requests, answered, still_waiting=still_waiting, watched=watched)

    def _another_may_come(self, call: Future[Response], subject: str) -> bool:
        """Whether the only request was still open when the client had its answer, and may yet be repeated.

        Once the homeserver has given it up, it has as long for another as it took for that, T_deliver at least.
        """
        requests = self._about(subject)
        answered = None if call.exception() else call.result().exchange.answer_until
        if len(requests) != 1 or answered is None:
            return False
        given_up = requests[0].answer_until
        if given_up is None:
            return True
        pause = max(self.run.budgets.deliver, given_up - requests[0].started)
        return given_up > answered and time.monotonic() < given_up + pause

    def _about(self, subject: str) -> list[Exchange]:
        return self.run.journal.since(0, lambda each: self._is_about(each, subject))

    def _is_about(self, exchange: Exchange, subject: str) -> bool:
        if exchange.party != self.silent or exchange.received is None:
            return False
        route = self.appservice(self.silent).route(exchange)
        if route.legacy:  # a fallback to that route is no second attempt
            return False
        return route.subject == subject or (route.kind is Kind.PING and subject.encode() in exchange.request_body)

    # What others do meanwhile

    def _prepared(self, scene: Scene[T], prepare: Callable[[], P]) -> P | None:
        """What a scene needs before the hang; when it cannot be had, that scene is lost and no other."""
        try:
            return prepare()
        except Undecided as error:
            scene.fail(error)
            return None

    def _compare(self, scene: Scene[Promptness], calls: Calls | None, hangs: Callable[[], bool]) -> None:
        """Make the other lot of calls while something hangs."""
        if calls is None:
            return
        during, hung = [], []
        for each in calls.later:
            hung.append(hangs())
            during.append(made(each))
        scene.set(Promptness(calls.before, during, hung))

    @cached_property
    def _other(self) -> User:
        """Another client than the one whose call waits, where there is one."""
        return self.run.humans.another()


def made(deed: Deed) -> Timed:
    """Make a call and take its time."""
    what, user, method, path, body = deed
    return timed_call(what, user, method, path, json=body)


def outcome(call: Future[Response]) -> Response | NoAnswer:
    """What a call was answered, waiting for it."""
    try:
        return call.result()
    except NoAnswer as error:
        return error
