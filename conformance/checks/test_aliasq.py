"""ALIASQ: what appservices are asked about room aliases (AS: Querying).

Whoever joins an unknown alias makes the homeserver ask, and waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Answer, Hold, always, answer
from conformance.homeserver.client import ANSWER_WITHIN, NoAnswer, Response, segment
from conformance.homeserver.users import User
from conformance.lanes.lane import Lanes
from conformance.lanes.q import Q
from conformance.lanes.queries import prompt
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.verdict import Blocked, Broken, Inconclusive, control, expect, listing, prefer, record
from conformance.wire.exchange import Exchange

_NOT_FOUND = answer(404, {"errcode": "HQ.CONFORMANCE.NOT_FOUND", "error": "no such alias"})


@requirement("ALIASQ-01", shared=True, before=Q)
def test_the_join_of_an_unknown_alias_makes_the_homeserver_ask(run: Run, q: Appservice, human: User) -> None:
    """A GET of `/_matrix/app/v1/rooms/{roomAlias}` arrives before the join is answered."""
    name, marker = q.fresh_localpart(), run.journal.marker()
    join = human.call("POST", f"/join/{segment(run.alias(name))}", json={})
    query = _query_naming(q, name, marker)
    if query is None:
        raise Broken(f"a query about #{name} at {q} before the join is answered", "none", join.exchange)
    route = q.route(query)
    expect(route.right_method, "a GET", query.method, query)
    expect(not route.legacy, "the query at /_matrix/app/v1/rooms/ first", query.raw_path, query)
    early = query.started <= (join.exchange.answer_until or 0.0)
    expect(early, "a query before the join is answered", f"{join} before it", join.exchange, query)


@requirement("ALIASQ-01", shared=True, before=Q)
def test_every_join_of_an_unknown_alias_makes_the_homeserver_ask(
    run: Run, q: Appservice, a: Appservice, human: User
) -> None:
    """Whoever joins, a ghost of another appservice too; and whatever servers the join names."""
    _must_ask(run, q, human)
    ghost, here = a.ghost(), run.server_name
    for user, query in ((ghost, {}), (human, {"via": here}), (human, {"server_name": here})):
        name, marker = q.fresh_localpart(), run.journal.marker()
        join = user.call("POST", f"/join/{segment(run.alias(name))}", json={}, query=query)
        asked = _query_naming(q, name, marker)
        expect(asked, f"a query about #{name}, which {user} joins, at {q}", f"none, {join}", join.exchange)


@requirement("ALIASQ-02", before=Q)
def test_the_alias_in_a_query_is_percent_encoded(run: Run, q: Appservice, human: User) -> None:
    """Decoding what stands after `/rooms/` gives exactly the alias, whatever characters it may have."""
    _must_ask(run, q, human)
    unasked = []
    for ending in ("-MixedCase", "/x", "#x", " x", "?x=y", "%x", "%2fx%20", "é☃👻", "+&=;@!'x"):
        name, marker = q.fresh_localpart(), run.journal.marker()
        alias = run.alias(name + ending)
        human.provoke("POST", f"/join/{segment(alias)}", json={})
        query = _query_naming(q, name, marker)
        if query is None:
            unasked.append(alias)
            continue
        raw = query.target.partition("/rooms/")[2]
        raw = raw.partition("?access_token=")[0]  # allowed for the sake of old appservices
        stray = re.search(r"[#? ]|%(?![0-9A-Fa-f]{2})|[^\x21-\x7e]", raw)
        expect(stray is None, f"{alias!r} percent-encoded after /rooms/", raw, query)
        expect(unquote(raw) == alias, f"{alias!r} encoded after /rooms/", raw, query)
        expect("/" not in raw or not run.strict, "a slash in an alias as %2F", raw, query)
    control(not unasked, f"nothing was asked about {listing(unasked)}")


@requirement("ALIASQ-03", before=Q)
def test_nobody_is_asked_about_aliases_outside_all_namespaces(run: Run, q: Appservice, human: User) -> Quiet:
    """The join of an unknown alias that no namespace covers fails, and is no business of any appservice."""
    marker = run.journal.marker()
    aliases = [run.alias(run.names.fresh(prefix)) for prefix in ("free-", "hqq", "x-hqq-")]
    for alias in aliases:
        join = human.call("POST", f"/join/{segment(alias)}", json={})
        expect(join.refused, f"a 4xx for the join of {alias}, which does not exist", join, join.exchange)
    _must_ask(run, q, human)
    yield
    for member in run.fleet:
        for alias in aliases:
            member.must_not_be_asked(Kind.ALIAS, marker, "an alias outside all namespaces", subject=alias)


@requirement("ALIASQ-04", before=Q)
def test_only_those_are_asked_whose_namespace_it_is(run: Run, q: Appservice, human: User) -> Quiet:
    """Of an unknown alias in Q's namespace only Q is asked."""
    marker = run.journal.marker()
    alias = _must_ask(run, q, human)
    yield
    for member in run.fleet:
        if member is not q:
            member.must_not_be_asked(Kind.ALIAS, marker, f"{alias}, which only {q} is interested in", subject=alias)


@requirement("ALIASQ-05", shared=True, before=Q)
def test_namespaces_that_are_not_exclusive_are_asked_about_too(run: Run, q: Appservice, human: User) -> None:
    """Of an unknown alias in a namespace that is not exclusive the appservice is asked."""
    _must_ask(run, q, human)
    alias, marker = run.alias(q.fresh_localpart("hqqopen-")), run.journal.marker()
    human.provoke("POST", f"/join/{segment(alias)}", json={})
    query = q.await_request(Kind.ALIAS, marker, subject=alias)
    expect(query, f"a query about {alias} at {q}", "none", *_joins(run, marker))


@requirement("ALIASQ-05", shared=True, before=Q)
def test_whoever_shares_a_namespace_is_asked(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """Of an unknown alias that A and B may have each is asked as long as none has it, and what it makes is found."""
    _must_ask(run, a, human)
    for maker, other in ((a, b), (b, a)):
        alias, hold, marker = run.alias(maker.fresh_localpart("hqopen-")), Hold(), run.journal.marker()
        with (
            other.scripted(Kind.ALIAS, always(_NOT_FOUND), subject=alias),
            maker.scripted(Kind.ALIAS, always(answer(hold=hold)), subject=alias),
            human.calling("POST", f"/join/{segment(alias)}", json={}) as call,
        ):
            try:
                query = maker.await_request(Kind.ALIAS, marker, subject=alias)
                room = _creating(maker)(alias) if query else ""
            finally:
                hold.release()
            join = call.result()
        asked = other.requests(Kind.ALIAS, marker, alias)
        control(query or asked, "neither A nor B is asked about an alias that both may have", join.exchange)
        control(
            query or join.status < 500, f"the join of an unknown alias is answered {join} (ALIASQ-10)", join.exchange
        )
        expect(
            query, f"a query about {alias} at {maker} too, as {other} does not know it", "none", *asked, join.exchange
        )
        right = join.ok and join.json.get("room_id") == room
        expect(right, f"the join of {alias} into the room that {maker} made", join, join.exchange, *asked)


@requirement("ALIASQ-05", shared=True, fuzz=True)
def test_generated_namespaces_are_asked_about(run: Run) -> None:
    """An appservice is asked about unknown aliases in its generated namespaces, exclusive or not."""
    run.fuzz.accuse_as_well(run.fuzz.of_queries, "ALIASQ-05")


@requirement("ALIASQ-06", before=Q)
def test_a_join_leads_into_the_room_that_is_created_when_asked(run: Run, q: Appservice, human: User) -> None:
    """The room is made while the query is open: the join succeeds, and leads into it."""
    _joins_work(human, q, run)
    _must_join(run, *_mapped(run, q, human, _creating(q)), human)


@requirement("ALIASQ-07", before=Q)
def test_a_join_leads_into_the_room_that_is_mapped_when_asked(run: Run, q: Appservice, human: User) -> None:
    """The alias is given to a room that there is already while the query is open: the join leads into that room."""
    _joins_work(human, q, run)
    _must_join(run, *_mapped(run, q, human, _giving(q, q.sender.create_room())), human)


@requirement("ALIASQ-08", before=Q)
def test_the_client_waits_for_the_answer_to_an_alias_query(run: Run, q: Appservice, human: User) -> None:
    """The join is answered only when the appservice has answered the query about the alias."""
    alias, hold = run.alias(q.fresh_localpart()), Hold()
    with _asked(run, q, human, alias, replace(_NOT_FOUND, hold=hold)) as asked:
        wait([asked.call], timeout=4 * run.budgets.scale)
        hold.release()
        join = asked.call.result()
    run.journal.wait_for_end(asked.query, run.budgets.deliver)
    told, answered = join.exchange.answer_until or 0.0, asked.query.answer_from
    given_up = answered is None and told >= (asked.query.answer_until or told)
    control(not given_up, f"the homeserver gave the query up by itself: {asked.query.failure}", asked.query)
    expected = "the join answered after the query about the alias"
    expect(answered and told >= answered, expected, f"{join} while it was open", asked.query, join.exchange)


@requirement("ALIASQ-09", before=Q)
def test_the_appservice_can_act_while_it_is_asked(run: Run, q: Appservice, human: User) -> None:
    """While an alias query is open the room and its users can be made and set up, and the homeserver answers."""
    usual: dict[str, float] = {}
    try:
        for what, done in _deeds(run, q, q.fresh_localpart()):
            control(done.ok, f"{what} is answered {done} when nothing is asked either", done.exchange)
            usual[what] = (done.exchange.answer_until or 0.0) - done.exchange.started
    except NoAnswer as error:
        raise Inconclusive(f"{error}, with nothing asked", error.exchange) from error
    name = q.fresh_localpart()
    with _asked(run, q, human, run.alias(name), answer(hold=Hold())) as asked:
        for what, done in _deeds(run, q, name, usual):
            expect(done.ok, f"{what} to succeed while an alias query is open", done, done.exchange, asked.query)


@requirement("ALIASQ-10", before=Q)
def test_an_alias_of_which_the_appservice_knows_nothing_does_not_exist(run: Run, q: Appservice, human: User) -> None:
    """The appservice answers 404: the join fails, and the alias leads nowhere until it is made."""
    alias = _must_fail(run, q, human, _NOT_FOUND)
    _joins_work(human, q, run)
    room = _creating(q)(alias)
    join = human.call("POST", f"/join/{segment(alias)}", json={})
    right = join.ok and join.json.get("room_id") == room
    expect(right, f"the join of {alias} into {room} once that has been made", join, join.exchange)


@requirement("ALIASQ-11", before=Q)
def test_a_room_that_is_promised_and_not_made_ends_the_join(run: Run, q: Appservice, human: User) -> None:
    """The appservice says that the alias exists, but makes no room: the join fails all the same."""
    with _asked(run, q, human, run.alias(q.fresh_localpart()), answer()) as asked:
        join = asked.call.result()
    expect(not join.ok, "the join of an alias without a room refused", join, join.exchange, asked.query)
    fault = join.status >= 500 and run.strict
    expect(not fault, "no server error for a promise of the appservice", join, join.exchange, asked.query)


@requirement("ALIASQ-12", before=Q)
def test_a_query_that_is_forbidden_is_no_success(run: Run, q: Appservice, human: User) -> None:
    """The appservice answers 403, or 401: the join fails, and the alias leads nowhere."""
    for status in (403, 401):
        _must_fail(run, q, human, answer(status, {"errcode": "HQ.CONFORMANCE.FORBIDDEN", "error": "no"}))


@requirement("ALIASQ-13", lane=Q)
def test_an_alias_query_without_a_response_is_tried_again(run: Run, lanes: Lanes) -> None:
    """The appservice is asked again when it closed the connection without an answer, and when it never answered."""
    for what, silence in (("was closed", lanes[Q].alias_again.get()), ("was never answered", lanes[Q].alias.get())):
        silence.must_have_been_asked("ALIASQ-01")
        if isinstance(silence.call, NoAnswer):
            silence.must_have_been_given_up(run.budgets)
        expected = f"a second query before the join is answered when the first {what}"
        seen = f"one query, then the join was answered {silence.call}"
        expect(len(silence.requests) > 1, expected, seen, *silence.requests[:2], silence.call.exchange)


@requirement("ALIASQ-14", lane=Q)
def test_a_join_whose_query_is_never_answered_times_out(run: Run, lanes: Lanes) -> None:
    """The appservice never answers the query about the alias: the client is answered 408, and no room."""
    silence = lanes[Q].alias.get()
    silence.must_have_been_asked("ALIASQ-01")
    evidence = (silence.call.exchange, *silence.requests[:2])
    if isinstance(silence.call, NoAnswer):
        silence.must_have_been_given_up(run.budgets)
        expect(False, f"408 for the join within {run.budgets.block:g} s", "it never times out", *evidence)
        return
    waited = f"{silence.call.exchange.seconds or 0.0:.1f} s"
    expect(silence.call.status == 408, "408 for the join", f"{silence.call} after {waited}", *evidence)
    expect("room_id" not in silence.call.json, "no room_id in a 408", silence.call.json.get("room_id"), *evidence)
    record(f"the client is answered 408 after {waited} and {len(silence.requests)} queries")


@requirement("ALIASQ-15", lane=Q)
def test_a_join_succeeds_when_a_repeated_query_does(lanes: Lanes) -> None:
    """The first query is closed without an answer; at the second the room is made: the join leads into it."""
    silence = lanes[Q].alias_again.get()
    silence.must_have_been_asked("ALIASQ-01")
    silence.must_have_succeeded_in_the_end("the join")


@requirement("ALIASQ-16", lane=Q)
def test_a_hung_alias_query_delays_no_other_client(run: Run, lanes: Lanes) -> None:
    """While an alias query hangs, another client's joins and messages are answered promptly."""
    lanes[Q].alias.get().must_have_been_asked("ALIASQ-01")
    lanes[Q].alias_meanwhile.get().must_be_prompt(run.budgets.scale)


@requirement("ALIASQ-17", before=Q)
def test_all_who_wait_for_an_alias_get_in(run: Run, q: Appservice, human1: User, human2: User) -> None:
    """Two users join the same unknown alias at the same time: both get into the room that is made once."""
    _joins_work(human1, q, run)
    alias, hold = run.alias(q.fresh_localpart()), Hold()
    with (
        _asked(run, q, human1, alias, answer(hold=hold)) as asked,
        human2.calling("POST", f"/join/{segment(alias)}", json={}) as second,
    ):
        try:
            another = asked.query.number
            run.journal.wait_for(
                lambda e: e.party == q.code and q.route(e).subject == alias, another, min(run.budgets.quiet, 0.3)
            )
            room = _creating(q)(alias)
        finally:
            hold.release()
        joins = asked.call.result(), second.result()
    for join in joins:
        expect(join.status == 200, "200 for both joins", join, join.exchange, asked.query)
        expect(join.json.get("room_id") == room, f"both joins into {room}", join.json.get("room_id"), join.exchange)


@requirement("ALIASQ-18", before=Q)
def test_the_join_that_caused_a_query_is_pushed(run: Run, q: Appservice, human: User, human1: User) -> None:
    """The join, and the messages after it, reach the appservice by the alias that it has just made."""
    room, alias = human1.create_room(), run.alias(q.fresh_localpart())
    q.sender.set_alias(alias, room)
    human1.send(room)
    q.await_event(human1.send(room))
    for make in (_creating(q), _giving(q, human1.create_room())):
        _, join, made = _mapped(run, q, human, make)
        control(join.ok and join.json.get("room_id") == made, f"the join was answered {join}", join.exchange)
        q.must_receive(human.member_event(made, human), "the join that the appservice was asked because of")
        q.must_receive(human.send(made), "a message after that join")


@requirement("ALIASQ-19", before=Q)
def test_nobody_is_asked_about_an_alias_that_exists(run: Run, q: Appservice, human: User) -> Quiet:
    """The join of an alias that the homeserver knows succeeds, whatever the appservice would say about it."""
    marker, alias = run.journal.marker(), run.alias(q.fresh_localpart())
    room = q.sender.create_room()
    human.join(q.sender.create_room())
    q.sender.set_alias(alias, room)
    join = human.call("POST", f"/join/{segment(alias)}", json={})
    expect(join.status == 200, f"200 for the join of {alias}, which exists", join, join.exchange)
    expect(join.json.get("room_id") == room, f"the join to lead into {room}", join.json.get("room_id"), join.exchange)
    _must_ask(run, q, human)
    yield
    if run.strict:
        q.must_not_be_asked(Kind.ALIAS, marker, "an alias that exists", subject=alias)


@dataclass(frozen=True)
class _Asked:
    """A join that waits for its answer, and the query that it has caused."""

    query: Exchange
    call: Future[Response]


@contextmanager
def _asked(run: Run, q: Appservice, human: User, alias: str, reply: Answer) -> Iterator[_Asked]:
    """Have a human join an unknown alias, which the appservice is asked about; what holds the answer is released.

    :raises Blocked: it is not asked.
    """
    marker = run.journal.marker()
    with (
        q.scripted(Kind.ALIAS, always(reply), subject=alias),
        human.calling("POST", f"/join/{segment(alias)}", json={}) as call,
    ):
        try:
            query = q.await_request(Kind.ALIAS, marker, subject=alias)
            if query is None:
                name = alias[1:].partition(":")[0]
                row = "ALIASQ-01" if _query_naming(q, name, marker, 0.0) is None else "ALIASQ-02"
                raise Blocked(row, f"{q} is not asked about {alias}", *_joins(run, marker))
            yield _Asked(query, call)
        finally:
            if reply.hold is not None:
                reply.hold.release()


def _must_ask(run: Run, q: Appservice, human: User) -> str:
    """The control: an unknown alias in the appservice's exclusive namespace, which it is asked about.

    :raises Blocked: it is not.
    """
    alias = run.alias(q.fresh_localpart())
    with _asked(run, q, human, alias, _NOT_FOUND):
        return alias


def _mapped(run: Run, q: Appservice, human: User, make: Callable[[str], str]) -> tuple[_Asked, Response, str]:
    """Have a human join an unknown alias, which leads to a room when the query about it is answered 200.

    :param make: given the alias, makes it and returns the room.
    """
    alias, hold = run.alias(q.fresh_localpart()), Hold()
    with _asked(run, q, human, alias, answer(hold=hold)) as asked:
        room = make(alias)
        hold.release()
        return asked, asked.call.result(), room


def _creating(q: Appservice) -> Callable[[str], str]:
    """Make a new public room with an alias."""
    return lambda alias: q.sender.create_room(room_alias_name=alias[1:].partition(":")[0])


def _giving(q: Appservice, room: str) -> Callable[[str], str]:
    """Give an alias to a room that there is."""

    def give(alias: str) -> str:
        q.sender.set_alias(alias, room)
        return room

    return give


def _must_join(run: Run, asked: _Asked, join: Response, room: str, human: User) -> None:
    """The join led into the room.

    :raises Broken: it did not.
    """
    expect(join.status == 200, "200 for the join, as the alias exists now", join, join.exchange, asked.query)
    expect(join.json.get("room_id") == room, f"the join to lead into {room}", join.json.get("room_id"), join.exchange)
    joined = human.call("GET", "/joined_rooms")
    control(isinstance(joined.json.get("joined_rooms"), list), f"/joined_rooms is answered {joined}", joined.exchange)

    def listed() -> bool | None:
        return room in (human.call("GET", "/joined_rooms").json.get("joined_rooms") or ()) or None

    expect(run.eventually(listed), f"{human} joined to {room}", "not among the joined rooms", join.exchange)


def _must_fail(run: Run, q: Appservice, human: User, reply: Answer) -> str:
    """The join of an unknown alias has to fail; the alias."""
    alias = run.alias(q.fresh_localpart())
    with _asked(run, q, human, alias, reply) as asked:
        join = asked.call.result()
    what = f"the join of an alias about which the appservice answers {reply.status}"
    expect(not join.ok, f"no success of {what}", join, join.exchange, asked.query)
    # That the appservice does not take the homeserver's token may well be a fault of the server to the client.
    judged = expect if reply.status == 404 else prefer
    judged(join.refused, f"a 4xx for {what}", join, join.exchange, asked.query)
    found = human.call("GET", f"/directory/room/{segment(alias)}")
    expect(not found.ok, f"{alias} to lead nowhere", found.json.get("room_id"), found.exchange, asked.query)
    return alias


def _joins_work(human: User, q: Appservice, run: Run) -> None:
    """The control: an alias that there is can be joined."""
    alias = run.alias(q.fresh_localpart())
    q.sender.create_room(room_alias_name=alias[1:].partition(":")[0])
    human.join(alias)


def _deeds(
    run: Run, q: Appservice, name: str, usual: Mapping[str, float] | None = None
) -> Iterator[tuple[str, Response]]:
    """What an appservice does to make a room with an alias and its users.

    :param usual: how many seconds each takes otherwise; it is given ten times as long then, 5 s at least.
    """
    ghost = q.unregistered()

    def call(what: str, user: User, method: str, path: str, body: dict[str, Any]) -> tuple[str, Response]:
        patience = ANSWER_WITHIN if usual is None else max(prompt(run.budgets.scale), 10 * usual[what])
        return what, user.call(method, path, json=body, timeout=patience)

    yield call("/register", q.sender, "POST", "/register", q.dialect.ghost(ghost.localpart))
    room_setup = q.dialect.room({"preset": "public_chat", "room_alias_name": name})
    made = call("/createRoom", q.sender, "POST", "/createRoom", room_setup)
    yield made
    room = segment(str(made[1].json.get("room_id")))
    yield call("the join of a ghost", ghost, "POST", f"/join/{room}", {})
    text = {"msgtype": "m.text", "body": "welcome"}
    yield call("a message", ghost, "PUT", f"/rooms/{room}/send/m.room.message/{run.names.fresh('t')}", text)
    yield call("a name", q.sender, "PUT", f"/rooms/{room}/state/m.room.name", {"name": name})
    yield call("a topic", q.sender, "PUT", f"/rooms/{room}/state/m.room.topic", {"topic": name})


def _query_naming(q: Appservice, name: str, marker: int, timeout: float | None = None) -> Exchange | None:
    """The first query in whose target a name occurs, however the rest is encoded."""
    whole = re.compile(re.escape(name) + r"(?!\d)")
    return q.journal.wait_for(
        lambda e: e.party == q.code and q.route(e).kind is Kind.ALIAS and whole.search(e.target) is not None,
        marker,
        q.deliver_wait if timeout is None else timeout,
    )


def _joins(run: Run, marker: int) -> list[Exchange]:
    """The joins since a marker, as evidence."""
    return run.journal.since(marker, lambda each: "/join/" in each.raw_path)[-1:]
