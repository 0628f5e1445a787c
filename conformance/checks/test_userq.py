"""USERQ: what appservices are asked about users (AS: Querying).

Whoever invites an unknown user makes the homeserver ask, before the invite is answered or when it is pushed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Answer, Hold, always, answer
from conformance.catalogue.versions import Version
from conformance.homeserver.client import NoAnswer, Response, segment
from conformance.homeserver.users import User
from conformance.judges import order
from conformance.lanes.k import K
from conformance.lanes.lane import Lanes
from conformance.lanes.q import Q
from conformance.lanes.queries import Silence, prompt
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.verdict import Blocked, Broken, Inconclusive, control, expect, listing, record
from conformance.wire.exchange import Exchange


@requirement("USERQ-01", shared=True, before=Q)
def test_the_invite_of_an_unknown_user_makes_the_homeserver_ask(run: Run, q: Appservice, human: User) -> None:
    """A GET of `/_matrix/app/v1/users/{userId}` arrives at the appservice whose namespace the user is in."""
    ghost, marker = q.unregistered(), run.journal.marker()
    human.provoke("POST", f"/rooms/{segment(human.create_room())}/invite", json={"user_id": ghost.user_id})
    query = _query_naming(q, ghost.localpart, marker)
    calls = run.journal.since(marker, lambda each: each.path.endswith("/invite"))
    if query is None:
        raise Broken(f"a query about {ghost} at {q} within {run.budgets.deliver:g} s", "none", *calls)
    route = q.route(query)
    expect(route.right_method, "a GET", query.method, query)
    expect(not route.legacy, "the query at /_matrix/app/v1/users/ first", query.raw_path, query)


@requirement("USERQ-01", shared=True, before=Q)
def test_every_invite_of_an_unknown_user_makes_the_homeserver_ask(
    run: Run, q: Appservice, a: Appservice, human: User
) -> None:
    """Whoever invites, a ghost of another appservice too; and when a room is created as well."""
    _must_ask(run, q, human)
    room, ghost, guest, marker = human.create_room(), a.ghost(), a.ghost(), run.journal.marker()
    ghost.join(room)
    human.promote(room, ghost)  # inviting may need power in a public room
    ghost.invite(room, guest)
    human.create_room(invite=[guest.user_id])
    for user, path in ((ghost, f"/rooms/{segment(room)}/invite"), (human, "/createRoom")):
        unknown = q.unregistered().user_id
        body = {"invite": [unknown]} if path == "/createRoom" else {"user_id": unknown}
        user.provoke("POST", path, json=body)
        asked = q.await_request(Kind.USER, marker, subject=unknown)
        expect(asked, f"a query about {unknown}, whom {user} invites by {path}, at {q}", "none", *_calls(run, marker))


@requirement("USERQ-01", shared=True, before=Q)
def test_every_user_who_is_invited_is_asked_about(run: Run, q: Appservice, human: User) -> None:
    """When a room is made for three unknown users the appservice, which makes each when asked, is asked about all."""
    _must_ask(run, q, human)
    left, marker = {ghost.user_id: ghost for ghost in (q.unregistered() for _ in range(3))}, run.journal.marker()
    holds = {user_id: Hold() for user_id in left}
    with ExitStack() as scripts:
        for user_id, hold in holds.items():
            scripts.callback(hold.release)
            scripts.enter_context(q.scripted(Kind.USER, always(answer(hold=hold)), subject=user_id))
        with human.calling("POST", "/createRoom", json={"invite": [*left]}) as call:
            try:
                while left and (query := q.await_query(left, marker, run.budgets.deliver)) is not None:
                    ghost = left.pop(q.route(query).subject)
                    made = q.register(ghost.localpart)
                    control(made.ok, f"{ghost} cannot be registered when asked about (USERQ-07): {made}", made.exchange)
                    holds[ghost.user_id].release()
            finally:
                scripts.close()
            made = call.result()
    control(len(left) < len(holds), f"no query about any of three users: the room is answered {made}", made.exchange)
    seen = f"none about {listing(left)}"
    expect(not left, "a query about each of three users invited to a new room", seen, made.exchange)


@requirement("USERQ-02", before=Q)
def test_the_user_id_in_a_query_is_percent_encoded(run: Run, q: Appservice, human: User) -> None:
    """Decoding what stands after `/users/` gives exactly the user ID, whatever characters it may have."""
    endings = ["/x", "=x", ".x", "_x", "/=./x=2fy=20"]
    if run.version is None or run.version >= _PLUS_SINCE:
        endings += ["+x", "+/=2b+"]
    room = human.create_room()
    _must_ask(run, q, human)
    unasked = []
    for ending in endings:
        name, marker = run.names.fresh("hqq-"), run.journal.marker()
        ghost = run.user_id(name + ending)
        human.provoke("POST", f"/rooms/{segment(room)}/invite", json={"user_id": ghost})
        query = _query_naming(q, name, marker)
        if query is None:
            unasked.append(ghost)
            continue
        raw = query.raw_path.partition("/users/")[2]
        expect(unquote(raw) == ghost, f"{ghost} encoded after /users/", raw, query)
        expect("/" not in raw or not run.strict, "a slash in a user ID as %2F", raw, query)
    control(not unasked, f"nothing was asked about {listing(unasked)}")


@requirement("USERQ-03", before=Q)
def test_nobody_is_asked_about_users_outside_all_namespaces(run: Run, q: Appservice, human: User) -> Quiet:
    """The invite of an unknown user whom no namespace covers is no business of any appservice."""
    marker = run.journal.marker()
    names = [run.names.fresh(prefix) for prefix in ("nobody-", "hqq", "x-hqq-")]
    for name in names:
        path = f"/rooms/{segment(human.create_room())}/invite"
        human.provoke("POST", path, json={"user_id": run.user_id(name)})
    _must_ask(run, q, human)
    yield
    for member in run.fleet:
        for name in names:
            member.must_not_be_asked(Kind.USER, marker, "a user outside all namespaces", subject=run.user_id(name))


@requirement("USERQ-04", before=Q)
def test_only_those_are_asked_whose_namespace_it_is(run: Run, q: Appservice, human: User) -> Quiet:
    """Of an unknown user in Q's namespace only Q is asked."""
    marker = run.journal.marker()
    ghost = _must_ask(run, q, human)
    yield
    for member in run.fleet:
        if member is not q:
            member.must_not_be_asked(Kind.USER, marker, f"{ghost}, whom only {q} is interested in", subject=ghost)


@requirement("USERQ-05", shared=True, before=Q)
def test_namespaces_that_are_not_exclusive_are_asked_about_too(
    run: Run, a: Appservice, b: Appservice, human: User
) -> None:
    """Of an unknown user in a namespace that A and B share, neither exclusively, at least one of them is asked."""
    _must_ask(run, a, human)
    ghost, marker = a.unregistered("hqopen-").user_id, run.journal.marker()
    human.provoke("POST", f"/rooms/{segment(human.create_room())}/invite", json={"user_id": ghost})
    asked = run.journal.wait_for(
        lambda e: e.party in ("A", "B") and run.fleet[e.party].route(e).subject == ghost, marker, run.budgets.deliver
    )
    expect(asked, f"a query about {ghost} at {a} or {b}", "none at either", *_calls(run, marker))


@requirement("USERQ-05", shared=True, before=Q)
def test_whoever_shares_a_namespace_is_asked(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """Of an unknown user of whom both A and B may know each is asked, as long as none does."""
    _must_ask(run, a, human)
    for _ in range(2):
        ghost, marker = a.unregistered("hqopen-").user_id, run.journal.marker()
        invite = human.call("POST", f"/rooms/{segment(human.create_room())}/invite", json={"user_id": ghost})
        control(invite.status < 500, f"the invite of an unknown user is answered {invite} (USERQ-11)", invite.exchange)
        asked = {member.code: member.await_request(Kind.USER, marker, subject=ghost) for member in (a, b)}
        control(any(asked.values()), "neither A nor B is asked about a user of whom both may know")
        silent = [code for code, query in asked.items() if query is None]
        evidence = [query for query in asked.values() if query is not None]
        expect(not silent, f"{ghost} asked about at A and at B, of whom none knows it", f"not at {silent}", *evidence)


@requirement("USERQ-06", before=Q)
def test_nobody_is_asked_about_a_user_that_exists(run: Run, q: Appservice, human: User) -> Quiet:
    """The invite of a registered ghost causes no query."""
    marker = run.journal.marker()
    ghost, room = q.ghost(), human.create_room()
    human.invite(room, ghost)
    q.await_event(human.member_event(room, ghost))
    _must_ask(run, q, human)
    yield
    q.must_not_be_asked(Kind.USER, marker, "a ghost that is registered", subject=ghost.user_id)


@requirement("USERQ-07", before=Q)
def test_the_appservice_can_act_while_it_is_asked(run: Run, q: Appservice, human: User) -> None:
    """While a user query is open the user can be registered and set up, and the homeserver answers."""

    def deeds(ghost: User) -> dict[str, Callable[..., Response]]:
        profile = f"/profile/{segment(ghost.user_id)}/displayname"
        body = {"type": "m.login.application_service", "username": ghost.localpart, "inhibit_login": True}
        return {
            "/register": partial(q.sender.call, "POST", "/register", json=body),
            "PUT displayname": partial(ghost.call, "PUT", profile, json={"displayname": "G"}),
            "GET whoami": ghost.whoami,
            "GET versions": partial(ghost.call, "GET", "/_matrix/client/versions"),
        }

    patience: dict[str, float] = {}
    for what, do in deeds(q.unregistered()).items():
        try:
            twin = do()
        except NoAnswer as error:
            raise Inconclusive(f"{what} is not answered when nothing is asked either", error.exchange) from error
        control(twin.ok, f"{what} is answered {twin} when nothing is asked either", twin.exchange)
        seconds = (twin.exchange.answer_until or 0.0) - twin.exchange.started
        patience[what] = max(prompt(run.budgets.scale), 10 * seconds)
    ghost = q.unregistered()
    with _asked(run, q, human, ghost.user_id, answer(hold=Hold())) as asked:
        for what, do in deeds(ghost).items():
            done = do(timeout=patience[what])
            expect(done.ok, f"{what} to succeed while a query about the user is open", done, done.exchange, asked.query)


@requirement("USERQ-08", before=Q)
def test_the_client_waits_for_the_answer_to_a_user_query(run: Run, q: Appservice, human: User) -> None:
    """The invite is answered only when the appservice has answered the query about the user."""
    ghost, hold = q.unregistered(), Hold()
    with _asked(run, q, human, ghost.user_id, answer(hold=hold)) as asked:
        wait([asked.call], timeout=4 * run.budgets.scale)
        registered = q.register(ghost.localpart)
        control(registered.ok, f"{ghost} could not be registered: {registered}", registered.exchange)
        hold.release()
        invite = asked.call.result()
    run.journal.wait_for_end(asked.query, run.budgets.deliver)
    told, answered = invite.exchange.answer_until or 0.0, asked.query.answer_from
    given_up = answered is None and told >= (asked.query.answer_until or told)
    control(not given_up, f"the homeserver gave the query up by itself: {asked.query.failure}", asked.query)
    expected = "the invite answered after the query about the user"
    expect(answered and told >= answered, expected, f"{invite} while it was open", asked.query, invite.exchange)


@requirement("USERQ-09", shared=True, before=Q)
def test_an_invite_succeeds_when_the_appservice_creates_the_user(run: Run, q: Appservice, human: User) -> None:
    """The user is registered while asked about, and the query answered 200: the invite succeeds and is pushed."""
    _invites_work(q, human)
    asked, invite, ghost = _created(run, q, human)
    expect(invite.ok, "the invite accepted, as the user exists now", invite, invite.exchange, asked.query)
    state = f"/rooms/{segment(asked.room)}/state/m.room.member/{segment(ghost.user_id)}"
    member = human.call("GET", state)
    membership = member.json.get("membership")
    # A homeserver may accept invites for its users.
    invited = membership in ("invite", "join")
    expect(invited, f"{ghost} invited", membership or member, member.exchange, invite.exchange)
    q.must_receive(human.member_event(asked.room, ghost), "the invite of a user that the appservice has just created")


@requirement("USERQ-09", shared=True, before=Q)
def test_all_who_invite_a_user_succeed(run: Run, q: Appservice, human1: User, human2: User) -> None:
    """Two invite the same unknown user to two rooms at the same time: the user is created once, and both succeed."""
    _invites_work(q, human1)
    ghost, hold, room = q.unregistered(), Hold(), human2.create_room()
    with (
        _asked(run, q, human1, ghost.user_id, answer(hold=hold)) as asked,
        human2.calling("POST", f"/rooms/{segment(room)}/invite", json={"user_id": ghost.user_id}) as second,
    ):
        try:
            # The second is under way: it asks too, or waits with the first, which nobody sees.
            run.journal.wait_for(
                lambda e: e.party == q.code and q.route(e).subject == ghost.user_id,
                asked.query.number,
                min(run.budgets.quiet, 0.3),
            )
            registered = q.register(ghost.localpart)
            control(registered.ok, f"{ghost} could not be registered: {registered}", registered.exchange)
        finally:
            hold.release()
        invites = asked.call.result(), second.result()
    for invite in invites:
        expect(invite.ok, "both invites accepted, as the user exists now", invite, invite.exchange, asked.query)


@requirement("USERQ-10", before=Q)
def test_the_homeserver_creates_no_user_by_itself(run: Run, q: Appservice, human: User) -> Quiet:
    """The appservice says that the user exists, but creates none: then there is none."""
    q.ghost()  # registering works
    ghost = q.unregistered()
    with _asked(run, q, human, ghost.user_id, answer()):
        pass
    run.markers.pass_by("Q")
    yield
    _must_be_free(q, ghost, "200 by an appservice that did not create the user")


@requirement("USERQ-11", before=Q)
def test_a_user_of_whom_the_appservice_knows_nothing_is_not_created(run: Run, q: Appservice, human: User) -> Quiet:
    """The appservice answers 404, or fails: there is no such user until it is registered; 404 is no server error."""
    _invites_work(q, human)
    ghosts = {status: q.unregistered() for status in (404, 403, 500)}
    for status, ghost in ghosts.items():
        reply = answer(status, {"errcode": "HQ.CONFORMANCE.NO", "error": "no such user"})
        with _asked(run, q, human, ghost.user_id, reply) as asked:
            pass
        if status == 404:  # what comes of the other two is not said
            invite = asked.call.result()
            expect(invite.status < 500, "no server error for the invite", invite, invite.exchange, asked.query)
    run.markers.pass_by("Q")
    yield
    for status, ghost in ghosts.items():
        _must_be_free(q, ghost, str(status))
        path = f"/rooms/{segment(human.create_room())}/invite"
        invite = human.call("POST", path, json={"user_id": ghost.user_id})
        expect(invite.ok, f"the invite of {ghost} accepted now that it is registered", invite, invite.exchange)


@requirement("USERQ-12", shared=True, lane=Q)
def test_a_user_query_that_is_cut_is_tried_again(run: Run, lanes: Lanes) -> None:
    """The appservice is asked again when it closed the connection without an answer."""
    silence = lanes[Q].user_again.get()
    silence.must_have_been_asked("USERQ-01")
    expected = f"a second query within {run.budgets.block:g} s when the first was closed"
    expect(len(silence.requests) > 1, expected, "none", *silence.requests[:2], silence.call.exchange)


@requirement("USERQ-12", shared=True, lane=K)
def test_a_user_query_without_a_response_is_tried_again(run: Run, lanes: Lanes) -> None:
    """The appservice is asked again when it never answered."""
    silence = lanes[K].user.get()
    silence.must_have_been_asked("USERQ-01")
    if len(silence.requests) == 1:
        silence.must_have_been_given_up(run.budgets)
    seen = f"none within {silence.watched:.0f} s of the first"
    expected = "a second query when the first was never answered"
    expect(len(silence.requests) > 1, expected, seen, *silence.requests[:2], silence.call.exchange)


@requirement("USERQ-13", lane=K)
def test_an_invite_whose_query_is_never_answered_times_out(run: Run, lanes: Lanes) -> None:
    """The appservice never answers the query about the user: the client is answered 408."""
    silence = lanes[K].user.get()
    silence.must_have_been_asked("USERQ-01")
    if isinstance(silence.call, NoAnswer):
        silence.must_have_been_given_up(run.budgets)
    answered = str(silence.call) if isinstance(silence.call, NoAnswer) else f"{silence.call} after {_seconds(silence)}"
    timed_out = not isinstance(silence.call, NoAnswer) and silence.call.status == 408
    expect(timed_out, "408 for the invite", answered, silence.call.exchange, *silence.requests[:2])
    record(f"the client is answered 408 after {_seconds(silence)} and {len(silence.requests)} queries")


@requirement("USERQ-14", lane=Q)
def test_an_invite_succeeds_when_a_repeated_query_does(lanes: Lanes) -> None:
    """The first query is closed without an answer; at the second the user is created: the invite succeeds."""
    silence = lanes[Q].user_again.get()
    silence.must_have_been_asked("USERQ-01")
    silence.must_have_succeeded_in_the_end("the invite")


@requirement("USERQ-15", before=Q)
def test_a_user_is_asked_about_before_its_invite_is_pushed(run: Run, q: Appservice, human: User) -> None:
    """The appservice must be able to create the user before an event about it arrives."""
    ghost, hold = q.unregistered(), Hold()
    with _asked(run, q, human, ghost.user_id, answer(hold=hold)) as asked:
        since, about = asked.query.number, ghost.user_id.encode()
        run.journal.wait_for(lambda e: e.party == q.code and about in e.request_body, since, run.budgets.quiet)
        registered = q.register(ghost.localpart)
        control(registered.ok, f"{ghost} could not be registered: {registered}", registered.exchange)
        hold.release()
        invite = asked.call.result()
    control(invite.ok, f"the invite was answered {invite}", invite.exchange)
    pushed = q.exchange_with(human.member_event(asked.room, ghost))
    run.journal.wait_for_end(asked.query, run.budgets.deliver)
    answered = asked.query.answer_from
    control(answered, f"the homeserver gave the query up by itself: {asked.query.failure}", asked.query)
    expected = "the invite pushed after the answer to the query"
    expect(answered and pushed.started >= answered, expected, "it was pushed before", asked.query, pushed)


@requirement("USERQ-16", lane=K)
def test_a_hung_user_query_delays_no_other_client(run: Run, lanes: Lanes) -> None:
    """While a user query hangs, another client's invites and messages are answered promptly."""
    lanes[K].user.get().must_have_been_asked("USERQ-01")
    lanes[K].user_meanwhile.get().must_be_prompt(run.budgets.scale)


@requirement("USERQ-17", before=Q)
def test_nobody_is_asked_about_a_sender_user(run: Run, q: Appservice, human: User) -> Quiet:
    """An appservice's sender user exists: it can be invited, and nobody is asked about it."""
    _invites_work(q, human)
    marker = run.journal.marker()
    path = f"/rooms/{segment(human.create_room())}/invite"
    invite = human.call("POST", path, json={"user_id": q.sender.user_id})
    expect(invite.ok, f"the invite of {q.sender} accepted", invite, invite.exchange)
    _must_ask(run, q, human)
    yield
    for member in run.fleet:
        member.must_not_be_asked(Kind.USER, marker, "an appservice's sender user", subject=q.sender.user_id)


@requirement("USERQ-18", lane=K)
def test_a_hung_user_query_delays_no_pushes_to_others(run: Run, lanes: Lanes) -> None:
    """While a query hangs, what interests only another appservice is pushed to that, in order."""
    silence = lanes[K].user.get()
    silence.must_have_been_asked("USERQ-01")
    for pushes in lanes[K].pushes.get():
        control(pushes.still_hung, "the query was over before the messages were sent", *silence.requests[:1])
        member, within = pushes.appservice, f"within {run.budgets.deliver:g} s"
        expected = f"{len(pushes.sent)} messages at {member} {within} while a query to another hangs"
        expect(not pushes.missing, expected, f"{len(pushes.missing)} were missing then", *silence.requests[:2])
        arrived = order.arrivals(event for _, event in member.received(pushes.since))
        inversion = order.first_inversion(pushes.sent, arrived)
        told = order.in_words(pushes.sent, arrived, inversion) if inversion else ""
        expect(inversion is None, "the messages of a room in order", told, *silence.requests[:1])


#: The version since which user IDs may have a plus sign.
_PLUS_SINCE = Version.parse("v1.8")

_NOT_FOUND = answer(404, {"errcode": "HQ.CONFORMANCE.NOT_FOUND", "error": "no such user"})


@dataclass(frozen=True)
class _Asked:
    """An invite that waits for its answer, and the query that it has caused."""

    room: str
    query: Exchange
    call: Future[Response]


@contextmanager
def _asked(run: Run, q: Appservice, human: User, ghost: str, reply: Answer) -> Iterator[_Asked]:
    """Have a human invite an unknown user, whom the appservice is asked about; what holds the answer is released.

    :raises Blocked: it is not asked.
    """
    room, marker = human.create_room(), run.journal.marker()
    with (
        q.scripted(Kind.USER, always(reply), subject=ghost),
        human.calling("POST", f"/rooms/{segment(room)}/invite", json={"user_id": ghost}) as call,
    ):
        try:
            query = q.await_request(Kind.USER, marker, subject=ghost)
            if query is None:
                name = ghost[1:].partition(":")[0]
                row = "USERQ-01" if _query_naming(q, name, marker, 0.0) is None else "USERQ-02"
                raise Blocked(row, f"{q} is not asked about {ghost}", *_calls(run, marker))
            yield _Asked(room, query, call)
        finally:
            if reply.hold is not None:
                reply.hold.release()


def _must_ask(run: Run, appservice: Appservice, human: User) -> str:
    """The control: an unknown user of an appservice's exclusive namespace, whom it is asked about.

    :raises Blocked: it is not.
    """
    ghost = appservice.unregistered().user_id
    with _asked(run, appservice, human, ghost, _NOT_FOUND):
        return ghost


def _created(run: Run, q: Appservice, human: User) -> tuple[_Asked, Response, User]:
    """Have a human invite an unknown user, whom the appservice creates when asked.

    :raises Blocked: it is not asked.
    """
    ghost, hold = q.unregistered(), Hold()
    with _asked(run, q, human, ghost.user_id, answer(hold=hold)) as asked:
        registered = q.register(ghost.localpart)
        control(registered.ok, f"{ghost} could not be registered: {registered}", registered.exchange)
        hold.release()
        return asked, asked.call.result(), ghost


def _query_naming(q: Appservice, name: str, marker: int, timeout: float | None = None) -> Exchange | None:
    """The first query in whose target a name occurs, however the rest is encoded."""
    whole = re.compile(re.escape(name) + r"(?!\d)")
    return q.journal.wait_for(
        lambda e: e.party == q.code and q.route(e).kind is Kind.USER and whole.search(e.target) is not None,
        marker,
        q.deliver_wait if timeout is None else timeout,
    )


def _calls(run: Run, marker: int) -> list[Exchange]:
    """The last call that invites since a marker, as evidence."""
    return run.journal.since(marker, lambda each: each.raw_path.endswith(("/invite", "/createRoom")))[-1:]


def _invites_work(q: Appservice, human: User) -> None:
    """The control: a registered ghost can be invited, and that is pushed."""
    ghost, room = q.ghost(), human.create_room()
    human.invite(room, ghost)
    q.await_event(human.member_event(room, ghost))


def _must_be_free(q: Appservice, ghost: User, answered: str) -> None:
    registered = q.register(ghost.localpart)
    expected = f"{ghost} not created by the homeserver after {answered}, so that it can be registered"
    expect(registered.ok, expected, registered, registered.exchange)


def _seconds(silence: Silence) -> str:
    return f"{silence.call.exchange.seconds or 0.0:.1f} s"
