"""DRAFT: what only the drafts of 2015 and r0 ask for (drafts: Registration, User Query, Room Alias Query, Examples).

Names of IDs have no slash here, so that a homeserver which decodes paths too early fails the worked example only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from conformance.appservice.fleet import Appservice, events_of
from conformance.appservice.routes import Kind
from conformance.appservice.script import Answer, Hold, always, answer
from conformance.dialects import BY_APPSERVICE
from conformance.example import play, script_of
from conformance.homeserver.client import NoAnswer, Response, segment
from conformance.homeserver.signup import Signup
from conformance.homeserver.users import User
from conformance.judges import credentials
from conformance.lanes.k import K
from conformance.lanes.lane import Lanes
from conformance.lanes.q import Q
from conformance.lanes.queries import Silence
from conformance.lanes.v1 import V1
from conformance.markers import matching_room
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.verdict import Blocked, Broken, Inconclusive, caution, control, expect, listing, prefer, record
from conformance.wire.exchange import Direction, Exchange

#: A moment long ago, in milliseconds: when Bob said "hello?" in the example of the drafts.
LONG_AGO = 1421416883133

_NOT_FOUND = answer(404, {"errcode": "HQ.CONFORMANCE.NOT_FOUND", "error": "no such entity"})


# Registration


@requirement("DRAFT-REG-01", last=True)
def test_an_appservice_registers_itself(run: Run, a: Appservice, human: User) -> None:
    """Every registration with a stored token is answered 200 and an `hs_token`, which every later request carries."""
    refused = run.journal.since(0, lambda e: e.party in run.unloaded and e.path.endswith("/register"))
    expect(not run.unloaded, "200 and an hs_token for every appservice", listing(run.unloaded.values(), 1), *refused)
    _hears(run, a, _says(human, _room_of(a, human)))
    human.provoke("POST", f"/join/{segment(run.alias(a.fresh_localpart()))}", json={})
    for member in run.fleet:
        if _enrolments(run, member) != 1:
            continue  # another registration may have brought another token
        for request in member.requests():
            shown = {credentials.bearer(request), *map(credentials.as_form, credentials.query_tokens(request))}
            right = member.registration.hs_token in shown
            expect(right, f"the hs_token that {member} got", "another" if any(shown) else "none", request)


@requirement("DRAFT-REG-02", last=True)
def test_a_namespace_that_is_no_regex_is_refused(run: Run, a: Appservice, human: User) -> Quiet:
    """A registration with an unbalanced bracket in any of its regexes is answered 400, and has no effect."""
    w = run.fleet["W"]
    good = _body(w)
    speaker = run.humans.registered(w.fresh_localpart())
    room = _room_of(a, speaker)
    speaker.set_alias(run.alias(w.fresh_localpart()), room)
    try:
        for kind in ("users", "aliases"):
            (regex,) = good["namespaces"][kind]
            for wrong in ("(", "["):
                for entries in ([regex + wrong], [regex, regex + wrong]):
                    refused = w.enroll({**good, "namespaces": {**good["namespaces"], kind: entries}})
                    expect(refused.status == 400, f"400 for {entries[-1]} in {kind}", refused, refused.exchange)
        text = _says(speaker, room)
        _hears(run, a, text)
        yield
        for request in w.requests():
            expect(text.encode() not in request.request_body, f"nothing pushed to {w}", "a message", request)
    finally:
        _heal(w)  # a homeserver that has taken what is no regex may fail at every event from now on


@requirement("DRAFT-REG-03")
def test_only_stored_tokens_register(run: Run) -> None:
    """A registration without `as_token` is answered 401, one with a token that nobody has stored 403."""
    stranger = f"hq-stranger-{run.names.fresh()}-{run.names.fresh()}"
    run.redactor.add(stranger, "as_token that nobody has stored")
    good = _body(run.fleet["W"])
    without = {key: value for key, value in good.items() if key != "as_token"}
    for what, status, body in (
        ("without as_token", 401, without),
        ("with a token that is not stored", 403, {**good, "as_token": stranger}),
        ("with the beginning of a stored token", 403, {**good, "as_token": good["as_token"][:-1]}),
    ):
        refused = run.client.call("POST", run.client.dialect.admin_path("register"), party="stranger", json=body)
        expect(refused.status == status, f"{status} for a registration {what}", refused, refused.exchange)


@requirement("DRAFT-REG-04")
def test_events_are_delivered_from_the_registration_on(run: Run, a: Appservice) -> Quiet:
    """What is of interest is delivered from the 200 on; what was sent before never is."""
    e, mark = run.fleet["E"], run.names.run  # an earlier run may have registered it, for other names
    speaker = run.humans.registered(e.fresh_localpart())
    room = _room_of(a, speaker)
    speaker.set_alias(run.alias(e.fresh_localpart()), room)
    before = _says(speaker, room)
    _hears(run, a, before)
    body = _body(e)
    body["namespaces"] = {
        kind: [regex.replace("hqe-", f"hqe-{mark}") for regex in regexes]
        for kind, regexes in body["namespaces"].items()
    }
    enrolled = run.enroll(e, body)
    if not enrolled.ok:
        raise Blocked("DRAFT-REG-01", f"E could not register itself: answered {enrolled}", enrolled.exchange)
    after = _says(speaker, room)
    _hears(run, a, after)
    heard = _heard(run, e, after)
    expect(heard, f"a message of interest at {e} after its registration", "nothing", enrolled.exchange)
    yield
    for request in e.requests():
        expect(before.encode() not in request.request_body, "nothing from before the registration", "that", request)


@requirement("DRAFT-REG-05")
def test_regexes_match_without_sigil(run: Run, a: Appservice, human: User) -> None:
    """`hqa-.*` in `users` covers `@hqa-...`, and in `aliases` `#hqa-...`."""
    _must_match(run, a, human)


@requirement("DRAFT-REG-06")
def test_regexes_match_with_sigil_and_rooms_are_claimed(run: Run, a: Appservice, c: Appservice, human: User) -> None:
    """`@hqa-.*` covers `@hqa-...`, `#hqa-.*` an alias, and what matches an entry of `rooms` a room's ID."""
    _must_match(run, a, human)
    room = matching_room(c, human)
    human.send(room)
    heard = _heard(run, c, _says(human, room))
    expect(heard, f"a message in {room}, which its rooms cover, at {c}", "nothing", *_bodies(run, c))


@requirement("DRAFT-REG-07")
def test_exclusive_objects_close_a_namespace(a: Appservice, human: User, signup: Signup) -> None:
    """An entry `{exclusive: true, regex}` closes users and aliases to humans; one that is not exclusive does not."""
    signup.must_be_open()
    for prefix in ("hqa-", "hqa2-"):
        closed = signup.first(a.fresh_localpart(prefix))
        expect(closed.response.refused and not closed.proceeds, f"4xx for {closed.localpart}", closed, closed.exchange)
    opened = signup.first(a.fresh_localpart("hqopen-"))
    prefer(opened.proceeds, f"{opened.localpart}, in a namespace that is not exclusive, free", opened, opened.exchange)
    room = human.create_room()
    human.set_alias(human.alias(a.fresh_localpart("free-")), room)
    alias = human.alias(a.fresh_localpart())
    made = human.call("PUT", f"/directory/room/{segment(alias)}", json={"room_id": room})
    prefer(made.refused, f"4xx when {human} makes {alias}", made, made.exchange)


@requirement("DRAFT-UNREG-01", last=True)
def test_nothing_is_delivered_after_an_unregistration(run: Run, a: Appservice, human: User) -> Quiet:
    """An appservice unregisters with 200: no event that is sent afterwards reaches it."""
    u = run.appservice("U")
    room = _room_of(a, human)
    u.ghost().join(room)
    human.send(room)
    _hears(run, u, _says(human, room))
    try:
        left = u.leave()
        expect(left.ok, "200 for an unregistration with a registered token", left, left.exchange)
        texts = [_says(human, room) for _ in range(2)]
        for text in texts:
            _hears(run, a, text)
        yield
        for request in u.requests():
            late = [text for text in texts if text.encode() in request.request_body]
            expect(not late, f"nothing at {u} after its unregistration", "a message", left.exchange, request)
    finally:
        _heal(u)  # a homeserver that has half done it may fail at every event from now on


@requirement("DRAFT-UNREG-02", last=True)
def test_an_unknown_token_unregisters_nobody(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """An unregistration with a token that nobody has is refused, and everybody still receives events."""
    room = _room_of(a, human)
    b.ghost().join(room)
    human.send(room)
    for member in (a, b):
        _hears(run, member, _says(human, room))
    unknown = f"hq-stranger-{run.names.fresh()}-{run.names.fresh()}"
    run.redactor.add(unknown, "as_token that nobody has")
    path = run.client.dialect.admin_path("unregister")
    refused = run.client.call("POST", path, party="stranger", json={"as_token": unknown})
    expect(not refused.ok, "no 2xx for an unregistration with an unknown token", refused, refused.exchange)
    text = _says(human, room)
    for member in (a, b):
        heard = _heard(run, member, text)
        expect(heard, f"a message at {member} after another's unregistration", "nothing", refused.exchange)


# User queries


@requirement("DRAFT-USERQ-01")
def test_a_user_is_created_with_the_profile_of_the_answer(run: Run, q: Appservice, human: User) -> None:
    """The appservice answers with a profile, and does nothing else: the user exists with that name and avatar."""
    profile = {"display_name": f"Name {run.names.fresh()}", "avatar_url": f"mxc://{run.server_name}/hqavatar"}
    ghost = q.unregistered()
    with _invited(run, q, human, ghost, answer(200, {"profile": profile})) as asked:
        invite = asked.call.result()

    def shown() -> Response | None:
        found = human.call("GET", f"/profile/{segment(ghost.user_id)}")
        return found if found.json.get("displayname") == profile["display_name"] else None

    told = run.eventually(shown) or human.call("GET", f"/profile/{segment(ghost.user_id)}")
    evidence = (asked.query, invite.exchange, told.exchange)
    expect(told.ok, f"{ghost}, of whom the appservice answered 200, to exist", told, *evidence)
    for key, word in (("display_name", "displayname"), ("avatar_url", "avatar_url")):
        expect(told.json.get(word) == profile[key], f"{word} {profile[key]}", told.json.get(word), *evidence)


@requirement("DRAFT-USERQ-02")
def test_a_user_of_whom_the_appservice_knows_nothing_is_not_created(run: Run, q: Appservice, human: User) -> Quiet:
    """The appservice answers 404: there is no such user afterwards."""
    q.ghost()  # registering works
    ghost = q.unregistered()
    with _invited(run, q, human, ghost, _NOT_FOUND):
        pass
    run.markers.pass_by("Q")
    yield
    _must_be_free(q, ghost, "404")


@requirement("DRAFT-USERQ-03")
def test_the_appservice_creates_the_user(run: Run, q: Appservice, human: User) -> Quiet:
    """The appservice answers 200 and creates nobody: there is no such user, whatever the answer says of it."""
    q.ghost()  # registering works
    ghosts = [q.unregistered(), q.unregistered()]
    for ghost, said in zip(ghosts, ({}, {"profile": {"display_name": "A name"}}), strict=True):
        with _invited(run, q, human, ghost, answer(200, said)):
            pass
    run.markers.pass_by("Q")
    yield
    for ghost in ghosts:
        _must_be_free(q, ghost, "200 by an appservice that created nobody")


@requirement("DRAFT-USERQ-04")
def test_the_client_is_not_answered_before_the_appservice_has(run: Run, q: Appservice, human: User) -> None:
    """While the query about an invited user is open, the invite is not answered."""
    hold = Hold()
    with _invited(run, q, human, q.unregistered(), Answer(404, _NOT_FOUND.body, hold=hold)) as asked:
        wait([asked.call], timeout=4 * run.budgets.scale)
        hold.release()
        invite = asked.call.result()
        q.journal.wait_for(lambda e: e is asked.query and e.answer_until is not None, 0, run.budgets.deliver)
    told, answered = invite.exchange.answer_until or 0.0, asked.query.answer_from
    given_up = answered is None and told >= (asked.query.answer_until or told)
    control(not given_up, f"the homeserver gave the query up by itself: {asked.query.failure}", asked.query)
    expected = "the invite answered after the query about the user"
    expect(answered and told >= answered, expected, f"{invite} while it was open", asked.query, invite.exchange)


@requirement("DRAFT-USERQ-05", lane=K)
def test_an_unanswered_user_query_ends_in_408(lanes: Lanes) -> None:
    """The appservice never answers: it is asked a few times, and the invite is then answered 408."""
    _must_end_in_408(lanes[K].user.get(), "invite")


# Alias queries


@requirement("DRAFT-ALIASQ-01")
def test_a_room_is_created_with_the_state_of_the_answer(run: Run, q: Appservice, human: User) -> None:
    """The room has the alias and the state of the answer, with its senders and times; join rules too can be given."""
    sender, mark = q.ghost(), run.names.fresh()
    given = {"m.room.name": {"name": f"Room {mark}"}, "m.room.join_rules": {"join_rule": "public", "hq.mark": mark}}
    state = [_event(sender, kind, content, LONG_AGO, state_key="") for kind, content in given.items()]
    made = _joined(run, q, human, events=[], state=state)
    expect(made.join.ok, "the join of an alias that was answered 200", made.join, *made.evidence)
    leads = human.resolve(made.alias)
    expect(leads == made.room, f"{made.alias} to lead to {made.room}", leads, *made.evidence)
    found = human.do("read the room's state", "GET", f"/rooms/{segment(made.room)}/state")
    for event in state:
        kind = event["type"]
        shown = [run.client.dialect.seen(each) for each in found.value or () if each.get("type") == kind]
        content = [each.get("content") for each in shown]
        expect(content == [event["content"]], f"the {kind} of the answer", content, *made.evidence, found.exchange)
        sent = (shown[0].get("sender"), shown[0].get("origin_server_ts"))
        expect(sent == (sender.user_id, LONG_AGO), f"{kind} of {sender} at {LONG_AGO}", sent, found.exchange)


@requirement("DRAFT-ALIASQ-02")
def test_scrollback_of_the_answer_is_in_the_room(run: Run, q: Appservice, human: User) -> None:
    """The messages of the answer are in the room in their order, with their senders and times, before the join."""
    senders = [q.ghost(), q.ghost()]
    events = [
        _event(sender, "m.room.message", {"msgtype": "m.text", "body": run.names.fresh("said ")}, LONG_AGO + place)
        for place, sender in enumerate([*senders, senders[0]])
    ]
    made = _joined(run, q, human, events=events, state=[])
    _must_have_led_somewhere(made)
    shown = human.timeline(made.room)
    wanted = [each["content"] for each in events]
    found = [each for each in shown if each.get("content") in wanted]
    bodies = listing(each["content"]["body"] for each in found)
    in_order = [each["content"] for each in found] == wanted
    expect(in_order, "the messages of the answer, each once, in order", bodies or "none", *made.evidence)
    for event, each in zip(events, found, strict=True):
        sent = (each.get("sender"), each.get("origin_server_ts"))
        asked = (event["user_id"], event["origin_server_ts"])
        expect(sent == asked, f"{event['content']['body']!r} by {asked[0]} at {asked[1]}", sent, *made.evidence)
    joins = [place for place, each in enumerate(shown) if each.get("state_key") == human.user_id]
    control(joins, "the join itself is not in the room's history", *made.evidence)
    expect(shown.index(found[-1]) < joins[0], "the messages before the join", "one after it", *made.evidence)


@requirement("DRAFT-ALIASQ-03")
def test_the_id_of_a_room_may_be_fixed(run: Run, q: Appservice, human: User) -> None:
    """Recorded: whether the room has its alias as ID. Two aliases never have one room."""
    made = [_joined(run, q, human, events=[], state=[]) for _ in range(2)]
    for each in made:
        _must_have_led_somewhere(each)
    one, other = made
    expect(one.room != other.room, f"two rooms for {one.alias} and {other.alias}", one.room, *other.evidence)
    record("fixed room IDs" if one.room == f"!{one.alias[1:]}" else f"room IDs of their own, such as {one.room}")


@requirement("DRAFT-ALIASQ-04")
def test_unknown_senders_of_scrollback_are_asked_about(run: Run, q: Appservice, human: User) -> None:
    """An unknown sender in the answer is asked about before the join is answered, also when only its state is."""
    for kind, where in (("m.room.message", "events"), ("m.room.name", "state")):
        ghost, marker = q.unregistered(), run.journal.marker()
        content = {"msgtype": "m.text", "body": "hello?", "name": "A name"}
        event = _event(ghost, kind, content, LONG_AGO, **({"state_key": ""} if where == "state" else {}))
        with q.scripted(Kind.USER, always(answer(200, {"profile": {"display_name": "Bob"}})), subject=ghost.user_id):
            made = _joined(run, q, human, **{"events": [], "state": [], where: [event]})
            query = q.await_request(Kind.USER, marker, subject=ghost.user_id, timeout=run.budgets.quiet)
        expected = f"a query about {ghost}, who sent one of the {where}, before the join is answered"
        answered = made.join.exchange.answer_until or 0.0
        in_time = query is not None and query.started <= answered
        expect(in_time, expected, "one after it" if query else "none", *made.evidence, *filter(None, (query,)))


@requirement("DRAFT-ALIASQ-05")
def test_a_query_within_a_query_does_not_lock(run: Run, q: Appservice, human: User) -> None:
    """While an alias query is open the appservice sends as an unknown ghost, of whom it is asked, and all this ends."""
    ghost, name, marker = q.unregistered(), q.fresh_localpart(), run.journal.marker()
    alias, outer, inner = run.alias(name), Hold(), Hold()
    with (
        q.scripted(Kind.ALIAS, always(answer(hold=outer)), subject=alias),
        q.scripted(Kind.USER, always(answer(hold=inner)), subject=ghost.user_id),
        human.calling("POST", f"/join/{segment(alias)}", json={}) as joining,
    ):
        try:
            asked = q.await_request(Kind.ALIAS, marker, subject=alias)
            control(asked, f"{q} is not asked about {alias}")
            room = q.sender.create_room(room_alias_name=name)
            path = f"/rooms/{segment(room)}/send/m.room.message/{run.names.fresh('t')}"
            with ghost.calling("PUT", path, json={"msgtype": "m.text", "body": "hello?"}) as sending:
                try:
                    nested = q.await_request(Kind.USER, marker, subject=ghost.user_id)
                    seen = sending.result() if sending.done() else "none"
                    expect(nested, f"a query about {ghost}, as whom {q} sends", seen, *filter(None, (asked,)))
                    registered = q.register(ghost.localpart)
                    control(registered.ok, f"{ghost} cannot be registered: {registered}", registered.exchange)
                    ghost.join(room)
                finally:
                    inner.release()
            sent = _in_time(sending, "the message of the ghost")
        finally:
            outer.release()
    joined = _in_time(joining, "the join")
    expect(sent.ok, f"the message of {ghost} sent, once it is registered", sent, sent.exchange)
    expect(joined.ok, "the join accepted, once the room has been made", joined, joined.exchange)


@requirement("DRAFT-ALIASQ-06", lane=Q)
def test_an_unanswered_alias_query_ends_in_408(lanes: Lanes) -> None:
    """The appservice never answers: it is asked a few times, and the join is then answered 408."""
    _must_end_in_408(lanes[Q].alias.get(), "join")


# Pushing


@requirement("DRAFT-TXN-01")
def test_a_transaction_is_put_below_the_url(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """`PUT <url>/transactions/<id>?access_token=<hs_token>` with `{events: [...]}`, whatever path the url has."""
    for member in (a, b):
        request = _hears(run, member, _says(human, _room_of(member, human)))
        below = f"{member.registration.base_path}/transactions/"
        expect(request.method == "PUT", "a PUT", request.method, request)
        right = request.raw_path.startswith(below) and len(request.raw_path) > len(below)
        expect(right, f"the path {below} and an id", request.raw_path, request)
        tokens = [credentials.as_form(each) for each in credentials.query_tokens(request)]
        right = tokens == [member.registration.hs_token]
        expect(right, "the hs_token as access_token in the query", "another" if tokens else "none", request)
        expect(events_of(request), "a list of events in the body", "none", request)


@requirement("DRAFT-TXN-02")
def test_a_pushed_event_has_what_the_example_shows(run: Run, a: Appservice, human: User) -> None:
    """Content, type, room and sender (`user_id`) are those of the message, and the homeserver adds the time."""
    room = _room_of(a, human)
    text = _says(human, room)
    request = _hears(run, a, text)
    (event,) = [each for each in events_of(request) if text in str(each.get("content"))]
    content = {"msgtype": "m.text", "body": text}
    wanted = {"content": content, "user_id": human.user_id, "room_id": room, "type": "m.room.message"}
    for key, value in wanted.items():
        expect(event.get(key) == value, f"{key} {value}", event.get(key), request)
    ts = event.get("origin_server_ts")
    expect(isinstance(ts, int) and not isinstance(ts, bool), "an integer origin_server_ts", ts, request)


@requirement("DRAFT-TXN-03", lane=V1)
def test_a_failed_transaction_must_be_retried(run: Run, lanes: Lanes) -> None:
    """A transaction that was answered 500 is tried again, without any further traffic."""
    first = lanes[V1].first.get()
    evidence = [each.first for each in first.outage.attempts[:3]]
    seen = "one only after something new had been sent" if first.retried_after_traffic else "none"
    expect(first.retried_by_itself, f"a second attempt within {run.budgets.backoff:g} s", seen, *evidence)


@requirement("DRAFT-TXN-04")
def test_rooms_are_of_interest_by_alias_and_by_id(run: Run, a: Appservice, c: Appservice, human: User) -> None:
    """Messages are pushed from a room without ghosts: by an alias in the namespace, or by its ID where that counts."""
    _hears(run, a, _says(human, _room_of(a, human)))
    room, alias = human.create_room(), run.alias(a.fresh_localpart())
    a.sender.set_alias(alias, room)
    human.send(room)
    heard = _heard(run, a, _says(human, room))
    expect(heard, f"a message in the room of {alias} at {a}", "nothing", *_bodies(run, a))
    if _body(c)["namespaces"]["rooms"]:
        room = matching_room(c, human)
        human.send(room)
        heard = _heard(run, c, _says(human, room))
        expect(heard, f"a message in {room} at {c}", "nothing", *_bodies(run, c))


# The client-server API's extensions


@requirement("DRAFT-IDENT-01")
def test_the_query_says_who_acts(a: Appservice, human: User) -> None:
    """With the `as_token` as `access_token` and a ghost's `user_id`, what is sent is the ghost's."""
    room = human.create_room()
    for ghost in (a.ghost(), a.ghost()):
        ghost.join(room)
        sent = _send(ghost, room, text := f"message {a.sender.names.fresh()}", {})
        expect(sent.ok, f"a message as {ghost}", sent, sent.exchange)
        sender = _found(human, room, text, sent).get("sender")
        expect(sender == ghost.user_id, f"a message of {ghost}", f"one of {sender}", sent.exchange)


@requirement("DRAFT-TS-01")
def test_a_message_has_the_sender_and_the_time_that_are_asked_for(a: Appservice, human: User) -> None:
    """`user_id` and `ts` in the query are the sender and the `origin_server_ts` of the message."""
    ghost, room = a.ghost(), human.create_room()
    ghost.join(room)
    for ts in (LONG_AGO, LONG_AGO + 1201683):
        sent = _send(ghost, room, text := f"message {a.sender.names.fresh()}", {"ts": str(ts)})
        expect(sent.ok, f"a message as {ghost} with ts", sent, sent.exchange)
        event = _found(human, room, text, sent)
        seen = (event.get("sender"), event.get("origin_server_ts"))
        expect(seen == (ghost.user_id, ts), f"a message of {ghost} at {ts}", seen, sent.exchange)


@requirement("DRAFT-TS-02")
def test_ts_means_nothing_where_no_event_is_sent(a: Appservice, human: User) -> None:
    """A join, an invite and a new room with `ts` have the time at which they were made."""
    ghost, other = a.ghost(), a.ghost()
    room = ghost.create_room()  # it may invite there
    human.join(room)
    query, base = {"ts": str(LONG_AGO)}, f"/rooms/{segment(room)}"
    for actor, path, body in (
        (other, f"/join/{segment(room)}", {}),
        (ghost, f"{base}/invite", {"user_id": a.ghost().user_id}),
        (other, f"{base}/leave", {}),
        (ghost, "/createRoom", a.dialect.room({"preset": "public_chat"})),
    ):
        done = actor.call("POST", path, json=body, query=query)
        expect(done.ok or done.refused, f"2xx or 4xx for {path}?ts=", done, done.exchange)
        if done.refused:  # is it the ts? The same without it must be possible
            actor.do("do without ts what was refused with it", "POST", path, json=body)
            continue
        made = done.json.get("room_id", room)
        if path == "/createRoom":
            human.join(made)
        old = [each.get("type") for each in human.timeline(made) if each.get("origin_server_ts") == LONG_AGO]
        expect(not old, f"only events of the present time after {path}?ts=", listing(old), done.exchange)


@requirement("DRAFT-ADMIN-01")
def test_the_key_user_names_a_ghost(run: Run, a: Appservice, human: User) -> None:
    """`{type, user}` registers the ghost with that localpart."""
    localpart, room = a.fresh_localpart(), human.create_room()
    made = a.sender.call("POST", "/register", json={"type": BY_APPSERVICE, "user": localpart})
    expect(made.ok, f"the ghost {localpart} registered by the key user", made, made.exchange)
    told = made.json.get("user_id")
    expect(told in (None, run.user_id(localpart)), f"user_id {run.user_id(localpart)}", told, made.exchange)
    joined = a.as_user(run.user_id(localpart)).call("POST", f"/join/{segment(room)}", json={})
    expect(
        joined.ok, f"{run.user_id(localpart)} to be there and to join a room", joined, made.exchange, joined.exchange
    )


@requirement("DRAFT-ADMIN-02")
def test_an_appservice_controls_its_namespace(run: Run, a: Appservice, human: User) -> None:
    """An appservice creates, re-points and deletes aliases of its namespace, whoever made them, and makes users."""
    for maker in (a.sender, a.ghost()):
        alias, rooms = run.alias(a.fresh_localpart()), [human.create_room(), human.create_room()]
        path = f"/directory/room/{segment(alias)}"
        made = maker.call("PUT", path, json={"room_id": rooms[0]})
        expect(made.ok, f"{alias} created by {maker}", made, made.exchange)
        _must_lead(human, alias, rooms[0], made)
        moved = a.sender.call("PUT", path, json={"room_id": rooms[1]})
        if not moved.ok:  # to change may be to delete and to create
            gone = a.sender.call("DELETE", path)
            expect(gone.ok, f"{alias} deleted, as it cannot be changed", gone, moved.exchange, gone.exchange)
            moved = a.sender.call("PUT", path, json={"room_id": rooms[1]})
        expect(moved.ok, f"{alias} pointed at another room", moved, moved.exchange)
        _must_lead(human, alias, rooms[1], moved)
        gone = a.sender.call("DELETE", path)
        expect(gone.ok, f"{alias} deleted", gone, gone.exchange)
        _must_lead(human, alias, None, gone)
    user = a.register(a.fresh_localpart())
    expect(user.ok, "a user of its namespace created", user, user.exchange)


# ID conventions of r0

_PEOPLE = ("irc://irc.example.org/alice,isuser", "irc://irc.example.org/bob,isuser", "xmpp://example.net/carol")
_PLACES = ("irc://irc.example.org/%23matrix", "irc://irc.example.org/%23python", "xmpp://example.net/room")


@requirement("DRAFT-IDCONV-01")
def test_a_uri_of_a_user_becomes_a_user_id(run: Run, human: User) -> None:
    """Each URI is answered with a full user ID of this homeserver."""
    for uri in _PEOPLE:
        told = _translated(human, "user", uri)
        right = told.ok and _is_id("@", told.json.get("user_id"), run.server_name)
        seen = f"{told} {told.json.get('user_id', '')}"
        expect(right, f"200 and a user_id @...:{run.server_name} for {uri}", seen, told.exchange)


@requirement("DRAFT-IDCONV-02")
def test_a_uri_of_a_room_becomes_an_alias(run: Run, human: User) -> None:
    """Each URI is answered with a full alias of this homeserver."""
    for uri in _PLACES:
        told = _translated(human, "alias", uri)
        right = told.ok and _is_id("#", told.json.get("alias"), run.server_name)
        seen = f"{told} {told.json.get('alias', '')}"
        expect(right, f"200 and an alias #...:{run.server_name} for {uri}", seen, told.exchange)


@requirement("DRAFT-IDCONV-03")
def test_translations_are_functions_and_lose_nothing(human: User) -> None:
    """The same URI gives the same ID again, and no two URIs give the same one."""
    for what, key, uris in (("user", "user_id", _PEOPLE), ("alias", "alias", _PLACES)):
        answers = [_translated(human, what, uri) for uri in uris]
        evidence = [each.exchange for each in answers]
        ids = [each.json.get(key) for each in answers]
        control(all(isinstance(each, str) for each in ids), f"no {key} for each URI", *evidence)
        again = [_translated(human, what, uri).json.get(key) for uri in uris]
        expect(again == ids, f"the same {key} for a URI each time", listing(again), *evidence)
        expect(len(set(ids)) == len(ids), f"another {key} for another URI", listing(ids), *evidence)


@requirement("DRAFT-IDCONV-04")
def test_users_and_rooms_are_translated_alike(human: User) -> None:
    """Heuristic: the name of the network stands in both IDs, or in neither."""
    for person, place, network in zip(_PEOPLE[1:], _PLACES[1:], ("irc.example.org", "example.net"), strict=True):
        user, room = _translated(human, "user", person), _translated(human, "alias", place)
        ids = [str(user.json.get("user_id", "")), str(room.json.get("alias", ""))]
        control(all(ids), f"no IDs for {person} and {place}", user.exchange, room.exchange)
        alike = len({network in each for each in ids}) == 1
        caution(alike, f"{network} in both IDs or in neither", listing(ids), user.exchange, room.exchange)
        record(f"{person} is {ids[0]}, {place} is {ids[1]}")


# The worked example


@requirement("DRAFT-EX-01")
def test_the_worked_example_of_the_later_drafts(run: Run, human: User) -> None:
    """The five steps of the IRC example, in which the appservice makes the room and the ghost while it is asked."""
    _must_play(run, human, "draft-004")


@requirement("DRAFT-EX-02")
def test_the_worked_example_of_the_second_draft(run: Run, human: User) -> None:
    """The five steps of the IRC example, in which the homeserver makes the room and the ghost out of the answers."""
    _must_play(run, human, "draft-001")


def _must_play(run: Run, human: User, name: str) -> None:
    bridge = run.appservice("I")
    for step in play(run, bridge, human, script_of(name).renamed(run.names.fresh())):
        expect(step.problem is None, f"step {step.number}: {step.expected}", step.problem, *step.evidence)


# What the checks share


def _body(member: Appservice) -> dict[str, Any]:
    admission = member.dialect.admission
    return {} if admission is None else admission.body(member.registration)


def _heal(member: Appservice) -> None:
    """Register an appservice well again, for those that come after it."""
    with suppress(NoAnswer):
        member.enroll()


def _bodies(run: Run, member: Appservice) -> list[Exchange]:
    """How an appservice registered itself, as evidence."""
    return run.journal.since(
        0, lambda e: e.party == member.code and e.path.endswith("/register") and b'"url"' in e.request_body
    )[-1:]


def _enrolments(run: Run, member: Appservice) -> int:
    return len(
        run.journal.since(
            0,
            lambda e: (
                e.direction is Direction.TO_HOMESERVER and e.party == member.code and b'"hs_token"' in e.response_body
            ),
        )
    )


def _room_of(member: Appservice, human: User) -> str:
    """A room with a ghost of the appservice, and a first message in it."""
    room = human.create_room()
    member.ghost().join(room)
    human.send(room)
    return room


def _says(user: User, room: str) -> str:
    """Send a message; its text, which no other message has."""
    user.send(room, text := f"message {user.names.fresh()} of {user.localpart}.")
    return text


def _heard(run: Run, member: Appservice, text: str) -> Exchange | None:
    """The first request to an appservice with a text in its body, on whatever route: the first draft names none."""
    return run.journal.wait_for(
        lambda e: (
            e.direction is Direction.TO_APPSERVICE
            and e.party == member.code
            and e.received is not None
            and text.encode() in e.request_body
        ),
        0,
        run.budgets.deliver,
    )


def _hears(run: Run, member: Appservice, text: str) -> Exchange:
    """The same as a control.

    :raises Inconclusive: it did not arrive.
    """
    found = _heard(run, member, text)
    if found is None:
        raise Inconclusive(f"a message did not reach {member} within {run.budgets.deliver:g} s: no positive control")
    return found


def _must_match(run: Run, a: Appservice, human: User) -> None:
    """A's users and aliases must be of interest to it; the control is an appservice whose regexes match in any case."""
    s = run.appservice("S")
    for what, concern in (("users", _concern_by_user), ("aliases", _concern_by_alias)):
        control(concern(run, s, human), f"nothing about its {what} reached {s}, whose regexes match in any case")
        found = concern(run, a, human)
        expect(found, f"something about a name that {a}'s {what} cover at {a}", "nothing", *_bodies(run, a))


def _concern_by_user(run: Run, member: Appservice, human: User) -> Exchange | None:
    """What reaches an appservice when a user of its namespace is registered, invited, joins and is spoken to."""
    ghost, room = member.unregistered(), human.create_room()
    member.register(ghost.localpart)  # whatever that is answered, the invite concerns it
    human.provoke("POST", f"/rooms/{segment(room)}/invite", json={"user_id": ghost.user_id})
    ghost.provoke("POST", f"/join/{segment(room)}", json={})
    human.send(room)
    return _named(run, member, ghost.localpart) or _heard(run, member, _says(human, room))


def _concern_by_alias(run: Run, member: Appservice, human: User) -> Exchange | None:
    """What reaches an appservice when an alias of its namespace is unknown, made, and its room is spoken in."""
    name, room = member.fresh_localpart(), human.create_room()
    path = f"/directory/room/{segment(run.alias(name))}"
    human.provoke("POST", f"/join/{segment(run.alias(f'{name}-unknown'))}", json={})
    member.sender.provoke("PUT", path, json={"room_id": room})
    human.send(room)
    return _named(run, member, name) or _heard(run, member, _says(human, room))


def _named(run: Run, member: Appservice, name: str) -> Exchange | None:
    """A request to an appservice in which a name occurs, now."""
    found = run.journal.since(0, lambda e: e.direction is Direction.TO_APPSERVICE and e.party == member.code)
    return next((each for each in found if name in each.target or name.encode() in each.request_body), None)


@dataclass(frozen=True)
class _Asked:
    """An invite that waits for its answer, and the query that it has caused."""

    query: Exchange
    call: Future[Response]


@contextmanager
def _invited(run: Run, q: Appservice, human: User, ghost: User, reply: Answer) -> Iterator[_Asked]:
    """Have a human invite an unknown user, whom the appservice is asked about; what holds the answer is released.

    :raises Inconclusive: it is not asked.
    """
    path, marker = f"/rooms/{segment(human.create_room())}/invite", run.journal.marker()
    with (
        q.scripted(Kind.USER, always(reply), subject=ghost.user_id),
        human.calling("POST", path, json={"user_id": ghost.user_id}) as call,
    ):
        try:
            query = q.await_request(Kind.USER, marker, subject=ghost.user_id)
            if query is None:
                raise Inconclusive(f"{q} is not asked about {ghost}, whom a human invites")
            yield _Asked(query, call)
        finally:
            if reply.hold is not None:
                reply.hold.release()


def _must_be_free(q: Appservice, ghost: User, answered: str) -> None:
    registered = q.register(ghost.localpart)
    expected = f"{ghost} not created by the homeserver after {answered}, so that it can be registered"
    expect(registered.ok, expected, registered, registered.exchange)


def _must_end_in_408(silence: Silence, what: str) -> None:
    """A query that is never answered is made a few times, and the client is then answered 408."""
    control(silence.requests, f"nobody is asked about {silence.subject}", silence.call.exchange)
    evidence = (silence.call.exchange, *silence.requests[:2])
    control(not isinstance(silence.call, NoAnswer), f"the {what} is not answered within --block-wait", *evidence)
    tries = len(silence.requests)
    expect(tries > 1, "a few queries before the homeserver gives up", f"{tries}, then {silence.call}", *evidence)
    timed_out = not isinstance(silence.call, NoAnswer) and silence.call.status == 408
    expect(timed_out, f"408 for the {what} after {tries} queries", silence.call, *evidence)
    record(f"408 after {tries} queries")


def _event(sender: User, kind: str, content: dict[str, Any], ts: int, **more: str) -> dict[str, Any]:
    """An event as it stands in the answer to an alias query."""
    return {"content": content, "origin_server_ts": ts, "user_id": sender.user_id, "type": kind, **more}


@dataclass(frozen=True)
class _Made:
    """An alias that a human joined, and what came of it."""

    alias: str
    join: Response
    evidence: tuple[Exchange, ...]

    @property
    def room(self) -> str:
        return str(self.join.json.get("room_id"))


def _joined(run: Run, q: Appservice, human: User, **content: Any) -> _Made:
    """Have a human join an unknown alias, for which the appservice answers with events and state.

    :raises Inconclusive: it is not asked.
    """
    alias, marker = run.alias(q.fresh_localpart()), run.journal.marker()
    with q.scripted(Kind.ALIAS, always(answer(200, content)), subject=alias):
        join = human.call("POST", f"/join/{segment(alias)}", json={})
    query = q.await_request(Kind.ALIAS, marker, subject=alias, timeout=0.0)
    if query is None:
        raise Inconclusive(f"{q} was not asked about {alias}, which a human joined: {join}", join.exchange)
    return _Made(alias, join, (query, join.exchange))


def _must_have_led_somewhere(made: _Made) -> None:
    if not made.join.ok:
        raise Blocked("DRAFT-ALIASQ-01", f"the join was answered {made.join}", *made.evidence)


def _in_time(call: Future[Response], what: str) -> Response:
    """The answer to a call that nothing holds up any more."""
    try:
        return call.result()
    except NoAnswer as error:
        raise Broken(f"{what} answered, once the queries have been", str(error), error.exchange) from error


def _send(user: User, room: str, text: str, query: dict[str, str]) -> Response:
    """Send a message without a transaction ID, as in the examples; with one where that is refused."""
    path, body = f"/rooms/{segment(room)}/send/m.room.message", {"msgtype": "m.text", "body": text}
    sent = user.call("PUT", path, json=body, query=query)
    if sent.status in (400, 404, 405):
        return user.call("PUT", f"{path}/{segment(user.names.fresh('t'))}", json=body, query=query)
    return sent


def _found(observer: User, room: str, text: str, sent: Response) -> dict[str, Any]:
    """A message by its text, as somebody in the room sees it."""
    for event in observer.timeline(room):
        if event.get("content", {}).get("body") == text:
            return event
    raise Inconclusive(f"a message that was answered {sent} is not in the room's history", sent.exchange)


def _must_lead(human: User, alias: str, room: str | None, done: Response) -> None:
    leads = human.resolve(alias)
    expect(leads == room, f"{alias} to lead to {room or 'nothing'}", leads or "nothing", done.exchange)


def _translated(human: User, what: str, uri: str) -> Response:
    return human.call("GET", f"/_matrix/app/r0/{what}", query={"uri": uri})


def _is_id(sigil: str, given: object, server_name: str) -> bool:
    return isinstance(given, str) and bool(re.fullmatch(f"{sigil}[^:]+:{re.escape(server_name)}", given))
