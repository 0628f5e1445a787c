"""INV: what holds for a whole run, and that appservices only listen (AS: Homeserver to application service API)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Answer, Ending, Fault, Hold, Reply, always, answer
from conformance.appservice.thirdparty import KNOWN_USER_FIELDS, found_users
from conformance.homeserver.client import CLIENT, Response, segment
from conformance.homeserver.users import User
from conformance.judges import errors
from conformance.judges.events import same
from conformance.judges.transactions import carries, is_transaction
from conformance.lanes.v1 import V1
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import Blocked, Broken, Inconclusive, caution, control, expect, prefer, record
from conformance.wire.exchange import Exchange

#: Appservices that no check makes fail a transaction.
_HEALTHY = ("A", "B", "C", "Q", "X")

#: Unknown keys, of every kind of value.
_EXTRA: dict[str, Any] = {"org.example.extra": {"list": [1, None, "é"]}, "extra": None, "more": [], "ok": False}


@requirement("INV-01", last=True)
def test_errors_have_the_standard_form(run: Run, a: Appservice, human: User) -> None:
    """Every error answer of the client-server API is a JSON object with a string `errcode` and a string `error`."""
    whoami = f"{CLIENT}/account/whoami"
    run.client.call("GET", whoami, party="suite")
    run.client.call("GET", whoami, party="suite", token="hq-nobodys-token")
    room, nowhere = human.create_room(), run.user_id(run.names.fresh("nobody-"))
    human.call("POST", "/createRoom", data=b"{no json", headers={"Content-Type": "application/json"})
    human.call("POST", f"/rooms/{segment(room)}/invite", json={})
    human.call("GET", f"/rooms/{segment(room)}/state/org.example.none/")
    human.call("GET", f"/rooms/{segment(room)}/event/{segment('$none')}")
    human.call("GET", f"/profile/{segment(nowhere)}")
    human.call("POST", f"/join/{segment(run.alias(run.names.fresh('free-')))}", json={})
    a.as_user(nowhere).call("GET", "/account/whoami")
    a.register(run.names.fresh("outside-"))
    unknown = run.client.call("GET", f"{CLIENT}/{run.names.fresh('nothing-')}", party="suite")
    # Where unknown endpoints have no standard answer, that is INV-03: one cannot be told from one that is not there.
    beside = (404, 405, unknown.status) if errors.problem(unknown.exchange) else ()
    judged = [each for each in run.journal if errors.is_error(each) and each is not unknown.exchange]
    judged = [each for each in judged if each.status not in beside or errors.problem(each) is None]
    control(judged, "no call was answered with an error")
    for exchange in judged:
        problem = errors.problem(exchange)
        expect(problem is None, "a JSON object with errcode and error", problem, exchange)
    terse = [exchange for exchange in judged if errors.lacks_error(exchange)]
    caution(not terse, "an error beside each errcode", f"none in {len(terse)} answers", *terse[:1])


@requirement("INV-02", last=True)
def test_only_known_routes_are_called(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """Only the routes of the specification are called on an appservice, each with its own method."""
    room = human.create_room()
    for member in (a, b):
        member.ghost().join(room)
        human.provoke("POST", f"/join/{segment(run.alias(member.fresh_localpart()))}", json={})
    human.send(room)  # the first after a join is INTEREST-30
    event = human.send(room)
    a.await_event(event)
    b.await_event(event)
    for member in run.fleet:
        for exchange in member.requests():
            route = member.route(exchange)
            if exchange.received is None or is_transaction(exchange, route):
                continue  # whatever is a transaction is the subject of TXN-01
            call = f"{exchange.method} {exchange.raw_path}"
            if route.kind is Kind.UNKNOWN and "/_matrix/app/unstable/" in exchange.raw_path:
                record(f"unstable: {call}", exchange)
            elif route.kind is not Kind.UNKNOWN or route.under_base:  # what is beside the url's path: REG-03
                known = route.kind is not Kind.UNKNOWN and route.right_method
                expect(known, "a known route with its method", call, exchange)


@requirement("INV-03")
def test_unknown_endpoints_are_said_to_be_unknown(a: Appservice) -> None:
    """A wrong method is answered 405 M_UNRECOGNIZED, an unknown endpoint 404 M_UNRECOGNIZED."""
    base = f"/_matrix/client/v1/appservice/{segment(a.registration.id)}"
    ping = a.sender.call("POST", f"{base}/ping", json={})
    wrong = 404 if ping.status in (404, 405) else 405  # before v1.7 there are no pings
    for method, path, status in (("GET", f"{base}/ping", wrong), ("POST", f"{base}/nothing", 404)):
        response = a.sender.call(method, path, json=None if method == "GET" else {})
        right = response.status == status and response.errcode == "M_UNRECOGNIZED"
        expect(right, f"{status} M_UNRECOGNIZED for {method} {path}", response, response.exchange)


@requirement("INV-04")
def test_external_urls_pass_through(a: Appservice, human: User) -> None:
    """`external_url` in the content of a ghost's events reaches clients and the appservice unchanged."""
    room, ghost = human.create_room(), a.ghost()
    ghost.join(room)
    url = "https://irc.example/logs/%23hq/2016?line=7&x=ü+y#l-7"
    message = {"msgtype": "m.text", "body": "linked", "external_url": url}
    human.promote(room, ghost)
    plain = message | {"external_url": "https://example.org/"}
    sent = {
        ghost.send_event(room, "m.room.message", message): message,
        ghost.send_event(room, "m.room.message", plain): plain,
        ghost.set_state(room, "org.example.hq", {"external_url": url}): {"external_url": url},
    }
    a.await_event(human.send(room))
    shown = {event.get("event_id"): event for event in human.timeline(room)}
    for event_id, content in sent.items():
        pushed, listed = a.await_event(event_id), shown.get(event_id)
        control(listed, f"{event_id} is not among the messages of its room")
        for who, event in (("H", human.event(room, event_id)), ("H", listed or {}), ("A", pushed)):
            seen, wanted = event.get("content", {}).get("external_url"), content["external_url"]
            expect(seen == wanted, f"the external_url {wanted} at {who}", seen, a.exchange_with(event_id))


def _invite_the_denied(run: Run, q: Appservice, human: User, denial: Reply) -> None:
    """USERQ-11: a user whom Q denies is not created, and the invite gets an answer."""
    ghost, room, marker = q.unregistered(), human.create_room(), run.journal.marker()
    with q.scripted(Kind.USER, always(denial), subject=ghost.user_id):
        invited = human.call("POST", f"/rooms/{segment(room)}/invite", json={"user_id": ghost.user_id})
        if q.await_request(Kind.USER, marker, subject=ghost.user_id) is None:
            raise Blocked("USERQ-01", "Q was not asked about an unknown user", invited.exchange)
        expect(invited.status < 500, "no server error for the invite of a stranger", invited, invited.exchange)
        run.markers.pass_by("Q")  # by then the homeserver has made of the denial what it makes of it
        made = q.register(ghost.localpart)
        expect(made.ok, f"{ghost} not created by the homeserver: free to register", made, made.exchange)


def _join_the_denied(run: Run, q: Appservice, human: User, denial: Reply) -> None:
    """ALIASQ-10: the join of an alias that Q denies fails, and there is no room for it."""
    alias, marker = run.alias(q.fresh_localpart()), run.journal.marker()
    with q.scripted(Kind.ALIAS, always(denial), subject=alias):
        joined = human.call("POST", f"/join/{segment(alias)}", json={})
        if not q.requests(Kind.ALIAS, marker, alias):
            raise Blocked("ALIASQ-01", "Q was not asked about an unknown alias", joined.exchange)
        expect(joined.refused, "a 4xx for the join of an alias that does not exist", joined, joined.exchange)
        room = human.resolve(alias)
        expect(room is None, f"no room for {alias}", room, joined.exchange)


@requirement("INV-05")
def test_a_404_needs_no_errcode_and_no_body(run: Run, q: Appservice, human: User) -> None:
    """An appservice's 404 says that there is no such user or alias, whatever its errcode, and without any body."""
    plain = answer(404, {"errcode": "M_NOT_FOUND", "error": "no such thing"})
    own = answer(404, {"errcode": "COM.EXAMPLE.MYAPPSERVICE_NOT_FOUND"})
    nothing = Answer(404, b"", ())
    for deny in (_invite_the_denied, _join_the_denied):
        try:
            deny(run, q, human, plain)
        except Broken as broken:
            raise Inconclusive(f"the same with M_NOT_FOUND: {broken}", *broken.deviation.evidence) from broken
        deny(run, q, human, own)
        deny(run, q, human, nothing)


def _join_the_created(run: Run, q: Appservice, human: User, body: dict[str, Any]) -> Response:
    """The join of an unknown alias, which Q makes a room for before it answers the query with `body`."""
    localpart, hold, marker = q.fresh_localpart(), Hold(10.0), run.journal.marker()
    alias = run.alias(localpart)
    with (
        q.scripted(Kind.ALIAS, always(answer(json=body, hold=hold)), subject=alias),
        human.calling("POST", f"/join/{segment(alias)}", json={}) as joining,
    ):
        try:
            if q.await_request(Kind.ALIAS, marker, subject=alias) is None:
                raise Blocked("ALIASQ-01", "Q was not asked about an unknown alias")
            q.sender.create_room(room_alias_name=localpart)
        finally:
            hold.release()
        return joining.result()


def _invite_the_created(run: Run, q: Appservice, human: User, body: dict[str, Any]) -> Response:
    """The invite of an unknown user, whom Q registers before it answers the query with `body`."""
    ghost, room, hold, marker = q.unregistered(), human.create_room(), Hold(10.0), run.journal.marker()
    with (
        q.scripted(Kind.USER, always(answer(json=body, hold=hold)), subject=ghost.user_id),
        human.calling("POST", f"/rooms/{segment(room)}/invite", json={"user_id": ghost.user_id}) as inviting,
    ):
        try:
            if q.await_request(Kind.USER, marker, subject=ghost.user_id) is None:
                raise Blocked("USERQ-01", "Q was not asked about an unknown user")
            q.register(ghost.localpart)
        finally:
            hold.release()
        invited = inviting.result()
    if invited.ok and not body:
        q.await_event(human.member_event(room, ghost))
    elif invited.ok:
        q.must_receive(human.member_event(room, ghost), "the invite of a user whom Q has just created")
    return invited


def _ping(member: Appservice) -> Response:
    return member.sender.call("POST", f"/_matrix/client/v1/appservice/{segment(member.registration.id)}/ping", json={})


@requirement("INV-06")
def test_unknown_keys_in_successful_answers_are_ignored(run: Run, b: Appservice, q: Appservice, human: User) -> None:
    """A 200 with unknown keys is a success like any other: for transactions, queries and pings."""
    room = human.create_room()
    q.ghost().join(room)
    human.send(room)  # the first after a join is INTEREST-30
    plain = human.send(room)
    q.await_event(plain)
    with q.scripted(Kind.TRANSACTION, always(answer(json=_EXTRA))):
        first = human.send(room)
        q.await_event(first)
        q.must_receive(human.send(room), "the event after a transaction that was answered with unknown keys")
    control(len(q.deliveries(plain)) == 1, "transactions answered with {} come again too (TXN-18)")
    again = [exchange for exchange, _ in q.deliveries(first)]
    expect(len(again) == 1, "no repetition of a transaction answered with unknown keys", "it came again", *again)
    if _ping(b).ok:  # not Q, whose lane may be scripting its pings
        with b.scripted(Kind.PING, always(answer(json=_EXTRA))):
            pinged = _ping(b)
        expect(pinged.ok, "a successful ping, answered with unknown keys", pinged, pinged.exchange)
    for create in (_join_the_created, _invite_the_created):
        plainly = create(run, q, human, {})
        control(plainly.ok, f"what Q creates is not taken after a plain {{}} either: {plainly}", plainly.exchange)
        extra = create(run, q, human, _EXTRA)
        expect(extra.ok, "a query answered with unknown keys taken as a success", extra, extra.exchange)


@requirement("INV-07", last=True)
def test_the_homeserver_has_survived(run: Run, human: User) -> None:
    """After all of this the homeserver answers, knows every appservice and delivers to each healthy one."""
    versions = run.client.call("GET", "/_matrix/client/versions", party="suite")
    expect(versions.status == 200, "200 for GET /versions", versions, versions.exchange)
    loaded = [member for member in run.fleet if member.code not in run.unloaded]
    for member in loaded:
        whoami = member.sender.call("GET", "/account/whoami")
        expect(whoami.status == 200, f"200 for whoami of {member}", whoami, whoami.exchange)
    room, marker, members = human.create_room(), run.journal.marker(), []
    for member in loaded:
        if member.code == "C":
            run.markers.pass_by("C")  # interested in rooms, not in users
        elif member.code in _HEALTHY:
            member.ghost().join(room)
            members.append(member)
    human.send(room)
    event = human.send(room)
    control(any(member.transactions() for member in members), "nothing was ever pushed to anybody")
    for member in members:
        came = not member.still_missing([event], marker)  # what is pushed of a room is INTEREST: anything will do
        came = came or any(pushed.get("room_id") == room for _, pushed in member.received(marker))
        if not came and not member.transactions():
            record(f"nothing was ever pushed to {member}")  # another row's subject: it has not stopped
            continue
        expect(came, f"an event of a room with its ghost at {member}, at the end of the run", "none")


def _sees(user: User, room: str, event_id: str, since: str, until: float) -> dict[str, Any] | None:
    """An event as it comes down a user's /sync; None when it has not by `until`."""
    while time.monotonic() < until:
        synced = user.do("sync", "GET", "/sync", query={"since": since, "timeout": "1000"}).json
        since = synced.get("next_batch", since)
        joined = ((synced.get("rooms") or {}).get("join") or {}).get(room) or {}
        for event in (joined.get("timeline") or {}).get("events") or ():
            if event.get("event_id") == event_id:
                return dict(event)
    return None


def _talks(run: Run, room: str, human: User, other: User) -> str:
    """H sends a message, H2 must see it unchanged and in time; its event ID."""
    since = other.do("sync", "GET", "/sync", query={"timeout": "0"}).json.get("next_batch", "")
    content = {"msgtype": "m.text", "body": f"unhindered {run.names.fresh()}"}
    path = f"/rooms/{segment(room)}/send/m.room.message/{run.names.fresh('t')}"
    wait = run.budgets.deliver
    sent = human.call("PUT", path, json=content, timeout=wait)
    expect(sent.ok, "a human's message accepted, whatever the appservice answers", sent, sent.exchange)
    seen = _sees(other, room, str(sent.json.get("event_id")), since, time.monotonic() + wait)
    if seen is None:
        raise Broken(f"the message at H2 within {wait:g} s", "not in any /sync", sent.exchange)
    right = same(seen.get("content"), content) and seen.get("sender") == human.user_id
    expect(right, "the message unchanged at H2", seen, sent.exchange)
    return str(seen["event_id"])


@requirement("INV-08", before=V1)
def test_appservices_cannot_hold_events_up(run: Run, v1: Appservice, q: Appservice, human: User, human2: User) -> None:
    """Whatever an appservice answers to a transaction, and however late, others see the events as they were sent."""
    room = human.create_room()
    human2.join(room)
    for member in (v1, q):
        member.ghost().join(room)
    human.send(room)  # the first after a join is INTEREST-30
    try:
        healthy = _talks(run, room, human, human2)
    except Broken as broken:
        raise Inconclusive(f"while all is well: {broken}", *broken.deviation.evidence) from broken
    v1.await_event(healthy)
    q.await_event(healthy)
    hold, marker = Hold(2 * run.budgets.deliver), run.journal.marker()
    try:
        with q.scripted(Kind.TRANSACTION, always(answer(hold=hold))):
            _talks(run, room, human, human2)
            pending = q.await_request(Kind.TRANSACTION, marker)
            control(pending and pending.status is None, "no transaction of Q waited for its answer")
    finally:
        hold.release()
    for reply in (answer(json={"events": []}), answer(403, {"errcode": "M_FORBIDDEN", "error": "no"})):
        marker = run.journal.marker()
        with v1.scripted(Kind.TRANSACTION, always(reply)):
            events = [_talks(run, room, human, human2)]
            attempt = v1.await_request(Kind.TRANSACTION, marker)
            control(attempt and _is_answered(run, attempt), f"V1 could not answer any transaction {reply.status}")
            events.append(_talks(run, room, human, human2))
        for event_id in events:
            event = human2.event(room, event_id)
            kept = str(event.get("content", {}).get("body", "")).startswith("unhindered")
            expect(kept, f"the message unchanged after V1 answered {reply.status}", event)


def _is_answered(run: Run, exchange: Exchange) -> bool:
    return run.journal.wait_for(lambda e: e is exchange and e.status is not None, 0, run.budgets.quiet) is not None


#: How an answer is written, and whether even the lenient reading insists on its being understood.
_Form = tuple[str, Callable[[bytes], bytes], bool]

_JSON = b"Content-Type: application/json\r\n"

#: Forms that any client of HTTP/1.1 understands (RFC 9112, 2.3, 6.3 and 8).
_FORMS: tuple[_Form, ...] = (
    (
        "in chunks",
        lambda body: (
            b"HTTP/1.1 200 OK\r\n" + _JSON + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"1\r\n%b\r\n%X\r\n%b\r\n0\r\n\r\n" % (body[:1], len(body) - 1, body[1:])
        ),
        True,
    ),
    (
        "of HTTP/1.0",
        lambda body: b"HTTP/1.0 200 OK\r\n" + _JSON + b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
        True,
    ),
    (
        "of HTTP/1.0 that ends with the connection",
        lambda body: b"HTTP/1.0 200 OK\r\n" + _JSON + b"\r\n" + body,
        False,
    ),
)


@requirement("INV-09")
def test_answers_count_in_any_form(run: Run, a: Appservice, b: Appservice, q: Appservice, human: User) -> None:
    """A 200 in chunks, of HTTP/1.0 or without a length is one like any other, and its body is read."""
    room = human.create_room()
    q.ghost().join(room)
    human.send(room)  # the first after a join is INTEREST-30
    plain = human.send(room)
    q.await_event(plain)
    control(len(q.deliveries(plain)) == 1, "transactions answered in the usual form come again too (TXN-18)")
    for form in _FORMS:
        _must_acknowledge(run, q, human, room, form)
        _must_be_a_pong(b, form)
        _must_be_read(run, a, human, form)


def _must_acknowledge(run: Run, q: Appservice, human: User, room: str, form: _Form) -> None:
    """A transaction that is answered in this form does not come again, and the next one follows."""
    what, written, must = form
    judge = expect if must else prefer
    with q.scripted(Kind.TRANSACTION, always(Fault(what, (written(b"{}"),), Ending.FIN))):
        first = human.send(room)
        carrier, following = q.exchange_with(first), human.send(room)

        def went_on(exchange: Exchange) -> bool:
            again = carries(exchange, first) or carries(exchange, following)
            return exchange.party == q.code and exchange.received is not None and again

        run.journal.wait_for(went_on, carrier.number, run.budgets.deliver)
        again = [exchange for exchange, _ in q.deliveries(first)]
    missing = q.still_missing([following], carrier.number)
    judge(len(again) == 1, f"no repetition of a transaction with an answer {what}", "it came again", *again)
    judge(not missing, f"the event after a transaction with an answer {what}", "it did not come", *again)


def _must_be_a_pong(b: Appservice, form: _Form) -> None:
    """A ping that is answered in this form is answered."""
    what, written, must = form
    if _ping(b).ok:
        with b.scripted(Kind.PING, always(Fault(what, (written(b"{}"),), Ending.FIN))):
            pinged = _ping(b)
        (expect if must else prefer)(pinged.ok, f"a successful ping, with an answer {what}", pinged, pinged.exchange)


def _must_be_read(run: Run, a: Appservice, human: User, form: _Form) -> None:
    """What an appservice finds in a third-party look-up, and tells in this form, reaches the client."""
    what, written, must = form
    path = "/thirdparty/user/hqp-look"
    found = human.call("GET", path, query=KNOWN_USER_FIELDS)
    if not found.ok or not same(found.value, found_users("hqp-look")):
        record(f"look-ups do not work: {found} (3PN-11)", found.exchange)
        return
    name = run.names.fresh()
    wanted = [{"userid": run.user_id(name), "protocol": "hqp-look", "fields": {"nickname": f"{name} é"}}]
    told = Fault(what, (written(json.dumps(wanted, ensure_ascii=False).encode()),), Ending.FIN)
    with a.scripted(Kind.THIRDPARTY_USERS, always(told), subject="hqp-look"):
        found = human.call("GET", path, query={"nickname": name})
    right = found.ok and same(found.value, wanted)
    (expect if must else prefer)(right, f"what A found, in an answer {what}", found.value or found, found.exchange)
