"""LEGACY: the routes of before r0.1.0, on which an old appservice is still to be reached (AS: Legacy routes).

L answers 404 M_UNRECOGNIZED on all present routes and serves the legacy ones.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from conformance.appservice import thirdparty
from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Answer, Hold, always, answer
from conformance.appservice.thirdparty import unrecognized
from conformance.homeserver.client import Response, segment
from conformance.homeserver.users import User
from conformance.judges import legacy as judges
from conformance.judges.transactions import acknowledged, repeated
from conformance.lanes.lane import Lanes
from conformance.lanes.legacy import L, Refused
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.verdict import Blocked, Inconclusive, control, expect, listing, record
from conformance.wire.exchange import Direction, Exchange

#: L's protocol, and one of A's, which works without a legacy route.
_PROTOCOL, _TWIN = "hqp-legacy", "hqp-look"

#: Refusals on the legacy route after which a homeserver that never tries the present one is stuck.
_STUCK = 3


@requirement("LEGACY-01", last=True)
def test_the_present_route_is_tried_first(run: Run, a: Appservice, legacy: Appservice, human: User) -> None:
    """A legacy route is tried only after the present route of the same request was answered."""
    _cause_requests(run, a, legacy, human)
    for member in run.fleet:
        requests = [each for each in member.requests() if each.received is not None]
        early = judges.too_early(requests, member.route)
        if early is not None:
            kind = member.route(early).kind
            tried = judges.repeated(early, requests, member.route)
            seen = f"{early.raw_path}, {'before its answer' if tried else 'and nothing before it'}"
            expect(False, f"the {kind} on the present route first, at {member}", seen, early, *tried[-1:])
    asked = [each for member in run.fleet for each in member.requests() if not member.route(each).legacy]
    control(asked, "no appservice was called at all")


@requirement("LEGACY-02", lane=L)
def test_a_refused_transaction_is_sent_on_the_legacy_route(run: Run, lanes: Lanes) -> None:
    """A transaction that is answered 404, 500 or 501 is sent again on the legacy route."""
    lane = lanes[L]
    _must_fall_back(lane.unrecognized.get(), run)
    for refused in lane.errors.get():
        _must_fall_back(refused, run)


@requirement("LEGACY-03", lane=L)
def test_a_refused_user_query_is_repeated(run: Run, lanes: Lanes) -> None:
    """A user query that is answered 404 M_UNRECOGNIZED is repeated on the legacy route."""
    asked = lanes[L].asked.get()
    if asked.current is None:
        control(asked.legacy is None, "the query came on the legacy route only (LEGACY-01)")
        raise Blocked("USERQ-01", f"L is not asked about {asked.user}")
    expected = f"/users/{asked.user} after {asked.current.raw_path} was answered 404 M_UNRECOGNIZED"
    expect(asked.legacy, expected, "no such query", asked.current)


@requirement("LEGACY-04")
def test_a_refused_alias_query_is_repeated(run: Run, legacy: Appservice, human: User) -> None:
    """An alias query that is refused is repeated on the legacy route, whose 200 lets the join succeed."""
    known = legacy.fresh_localpart()
    legacy.sender.create_room(room_alias_name=known)
    human.join(run.alias(known))  # the control: joins by alias work
    name, hold, marker = legacy.fresh_localpart(), Hold(), run.journal.marker()
    alias, room = run.alias(name), ""

    def script(exchange: Exchange) -> Answer:
        return answer(hold=hold) if legacy.route(exchange).legacy else unrecognized()

    def is_asked(exchange: Exchange) -> bool:
        if exchange.direction is Direction.TO_HOMESERVER:
            return exchange.path.endswith(f"/join/{alias}") and exchange.answer_until is not None
        ours = exchange.party == legacy.code and exchange.received is not None
        return ours and _is(legacy, exchange, Kind.ALIAS, alias) and legacy.route(exchange).legacy

    with (
        legacy.scripted(Kind.ALIAS, script, alias),
        human.calling("POST", f"/join/{segment(alias)}", json={}) as call,
    ):
        try:
            came = run.journal.wait_for(is_asked, marker, run.budgets.block)
            if came is not None and came.direction is Direction.TO_APPSERVICE:
                room = legacy.sender.create_room(room_alias_name=name)
        finally:
            hold.release()
        join = call.result()
    current, repeats = _requests(legacy, Kind.ALIAS, marker, alias)
    if not current:
        raise Blocked("ALIASQ-01", f"L is not asked about {alias}", join.exchange)
    expect(
        repeats, f"/rooms/{alias} after {current[0].raw_path} was refused", "no such query", join.exchange, current[0]
    )
    expected = "200 for the join, as the legacy route was answered 200 and the alias is there"
    expect(join.status == 200, expected, join, join.exchange, repeats[0])
    expect(join.json.get("room_id") == room, f"the join to lead into {room}", join.json.get("room_id"), join.exchange)


@requirement("LEGACY-05")
def test_refused_metadata_is_fetched_from_the_legacy_route(
    run: Run, a: Appservice, legacy: Appservice, human: User
) -> None:
    """Metadata that the present route refuses is fetched from the legacy route, and given to clients."""
    _must_work(human, f"/thirdparty/protocol/{_TWIN}", "3PN-06")
    found = human.call("GET", f"/thirdparty/protocol/{_PROTOCOL}")
    current, repeats = _requests(legacy, Kind.PROTOCOL, 0, _PROTOCOL)  # homeservers may have asked long before
    if not current:
        raise Blocked("3PN-02", f"L is not asked for the metadata of {_PROTOCOL}", found.exchange)
    where = f"/_matrix/app/unstable/thirdparty/protocol/{_PROTOCOL}"
    expect(repeats, f"{where} after {current[0].raw_path} was refused", _strays(legacy, current[0]), current[0])
    expect(found.status == 200, "200 for metadata that came on the legacy route", found, found.exchange, repeats[0])
    theirs = thirdparty.METADATA["L", _PROTOCOL]["user_fields"]
    expect(found.json.get("user_fields") == theirs, "L's metadata", found.json, found.exchange, repeats[0])


@requirement("LEGACY-06")
def test_a_refused_look_up_of_users_is_repeated(run: Run, a: Appservice, legacy: Appservice, human: User) -> None:
    """A look-up of users that is refused is repeated on the legacy route with the same fields."""
    _must_repeat_look_up(run, legacy, human, Kind.THIRDPARTY_USERS, thirdparty.KNOWN_USER_FIELDS)


@requirement("LEGACY-07")
def test_a_refused_look_up_of_locations_is_repeated(run: Run, a: Appservice, legacy: Appservice, human: User) -> None:
    """A look-up of locations that is refused is repeated on the legacy route with the same fields."""
    _must_repeat_look_up(run, legacy, human, Kind.THIRDPARTY_LOCATIONS, thirdparty.KNOWN_LOCATION_FIELDS)


@requirement("LEGACY-08")
def test_a_refused_reverse_look_up_of_a_user_is_repeated(
    run: Run, a: Appservice, legacy: Appservice, human: User
) -> None:
    """A reverse look-up of a user that is refused is repeated on the legacy route."""
    wanted = run.user_id(legacy.fresh_localpart())
    found = {"userid": wanted, "protocol": _PROTOCOL, "fields": {"nickname": "old"}}
    _must_repeat_reverse(run, legacy, human, Kind.REVERSE_USER, {"userid": wanted}, found)


@requirement("LEGACY-09")
def test_a_refused_reverse_look_up_of_an_alias_is_repeated(
    run: Run, a: Appservice, legacy: Appservice, human: User
) -> None:
    """A reverse look-up of a room alias that is refused is repeated on the legacy route."""
    wanted = run.alias(legacy.fresh_localpart())
    found = {"alias": wanted, "protocol": _PROTOCOL, "fields": {"channel": "#old"}}
    _must_repeat_reverse(run, legacy, human, Kind.REVERSE_LOCATION, {"alias": wanted}, found)


@requirement("LEGACY-10", lane=L)
def test_a_repeated_request_is_the_same(run: Run, lanes: Lanes, legacy: Appservice) -> None:
    """A request on a legacy route has the method, IDs, query, events and credentials of the one it repeats."""
    _need_fallback(lanes)
    requests = [each for each in legacy.requests() if each.received is not None]
    compared = 0
    for place, exchange in enumerate(requests):
        if not legacy.route(exchange).legacy:
            continue
        before = judges.repeated(exchange, requests[:place], legacy.route)
        if before:  # else LEGACY-01
            told = judges.difference(exchange, before[-1], legacy.route)
            expected = f"the {legacy.route(exchange).kind} on the legacy route as it was on the present one"
            expect(told is None, expected, told, exchange, before[-1])
            compared += 1
    control(compared, "nothing was repeated on a legacy route")


@requirement("LEGACY-11", last=True)
def test_no_legacy_route_is_used_without_need(run: Run, a: Appservice, human: User) -> None:
    """A, which answers on the present routes, is called on a legacy one for nothing but what it refused."""
    room = human.create_room()
    a.ghost().join(room)
    a.await_event(human.send(room))
    requests = [each for each in a.requests() if each.received is not None]
    stray = judges.uncalled_for(requests, a.route)
    control(stray or any(acknowledged(each) for each in requests), "A has accepted nothing")
    expect(stray is None, "no request on a legacy route for what A accepts", stray and stray.target, *_shown(stray))


@requirement("LEGACY-12", lane=L)
def test_the_present_routes_are_tried_again(run: Run, lanes: Lanes) -> None:
    """When a legacy route has worked, and the appservice then answers on both, the present one is tried again."""
    _need_fallback(lanes)
    updated = lanes[L].updated.get()
    if updated.current is None:
        stuck = len(updated.refused) >= _STUCK
        seen = f"all {len(updated.transactions)} on the legacy one, "
        seen += f"also {len(updated.refused)} that were refused there" if updated.refused else "where all succeeded"
        patient = f"none on the present route within {run.budgets.backoff:g} s: it may be tried later"
        control(stuck or run.strict, patient, *updated.transactions[:1])
        expect(False, "a transaction on the present route again", seen, *updated.transactions[-2:])
    record("the present route is tried again" + (" when the legacy one fails" if updated.refused else ""))


@requirement("LEGACY-13", lane=L)
def test_a_transaction_accepted_on_the_legacy_route_is_delivered(run: Run, lanes: Lanes, legacy: Appservice) -> None:
    """A transaction that the legacy route accepted is not sent again, and the next one follows."""
    again = repeated(each for each in legacy.transactions() if legacy.route(each).legacy)
    if again is not None:
        expect(False, "a transaction that was accepted on the legacy route not sent again", "it was", *again)
    _need_fallback(lanes)
    refused, after = lanes[L].unrecognized.get(), lanes[L].next.get()
    expected = f"the next event within {run.budgets.deliver:g} s of a transaction on the legacy route"
    expect(after.delivered, expected, "it did not come", *refused.legacy[-1:])


@requirement("LEGACY-14")
def test_a_ping_has_no_legacy_route(run: Run, legacy: Appservice) -> Quiet:
    """A ping that L answers 404 M_UNRECOGNIZED is reported as 502 M_BAD_STATUS, and tried nowhere else."""
    refused = answer(404, {"errcode": "HQ.CONFORMANCE.PING", "error": "no pong"})
    with legacy.scripted(Kind.PING, always(refused)):
        twin = _ping(run, legacy)
    marker = run.journal.marker()
    with legacy.scripted(Kind.UNKNOWN, always(answer())):  # wherever else it is tried, it would succeed
        pong = _ping(run, legacy)
    pings = legacy.requests(Kind.PING, marker)
    strays = [each for each in legacy.requests(Kind.UNKNOWN, marker) if each.raw_path.endswith("/ping")]
    control(pings or strays, "no ping reached L (PING-03)", pong.exchange)
    yield
    strays = [each for each in legacy.requests(Kind.UNKNOWN, marker) if each.raw_path.endswith("/ping")]
    seen = listing(each.raw_path for each in strays)
    expect(not strays, "no ping on another route", seen, *strays[:1])
    if not _is_bad_status(twin):
        raise Blocked("PING-06", f"a ping that is answered 404 is reported as {twin}", twin.exchange)
    expect(_is_bad_status(pong), "502 M_BAD_STATUS for a ping that L does not know", pong, pong.exchange, *pings[:1])


def _ping(run: Run, legacy: Appservice) -> Response:
    path = f"/_matrix/client/v1/appservice/{segment(legacy.registration.id)}/ping"
    return legacy.sender.call("POST", path, json={"transaction_id": run.names.fresh()})


def _is_bad_status(pong: Response) -> bool:
    return pong.status == 502 and pong.errcode == "M_BAD_STATUS"


# Fallbacks


def _is(member: Appservice, exchange: Exchange, kind: Kind, subject: str) -> bool:
    route = member.route(exchange)
    return route.kind is kind and route.subject == subject


def _requests(member: Appservice, kind: Kind, since: int, subject: str) -> tuple[list[Exchange], list[Exchange]]:
    """The requests about something, on the present route and on the legacy one."""
    found = member.requests(kind, since, subject)
    return [e for e in found if not member.route(e).legacy], [e for e in found if member.route(e).legacy]


def _strays(member: Appservice, current: Exchange) -> str:
    """What came after a request that was refused, for messages."""
    others = [each for each in member.requests(Kind.UNKNOWN) if each.number > current.number]
    return listing(each.raw_path for each in others) or "no such request"


def _shown(exchange: Exchange | None) -> list[Exchange]:
    return [exchange] if exchange is not None else []


def _cause_requests(run: Run, a: Appservice, legacy: Appservice, human: User) -> None:
    """A delivery to A and a query to L, so that there is something to be judged."""
    room = human.create_room()
    a.ghost().join(room)
    human.send(room)
    human.provoke("POST", f"/join/{segment(run.alias(legacy.fresh_localpart()))}", json={})
    a.await_event(human.send(room))


def _need_fallback(lanes: Lanes) -> None:
    """What follows is about homeservers that fall back at all.

    :raises Blocked: this one does not.
    """
    refused = lanes[L].unrecognized.get()
    if not refused.legacy:
        raise Blocked("LEGACY-02", "refused transactions are not repeated on the legacy route", *refused.current[:1])


def _must_fall_back(refused: Refused, run: Run) -> None:
    """A transaction that was refused came on the legacy route.

    :raises Broken: it did not.
    :raises Inconclusive: it was not tried on the present one, as the legacy one had worked before.
    """
    if not refused.current:
        raise Inconclusive("the homeserver remembers the legacy route and does not use the other", *refused.legacy[:1])
    times = f"{len(refused.current)} requests on the present route only"
    expected = f"the transaction that was answered {refused.status} on the legacy route too"
    expect(refused.legacy, expected, times, *refused.current[:2])


def _must_repeat_look_up(run: Run, legacy: Appservice, human: User, kind: Kind, fields: dict[str, str]) -> None:
    place = "user" if kind is Kind.THIRDPARTY_USERS else "location"
    query = urlencode(fields, quote_via=quote)
    _must_work(human, f"/thirdparty/{place}/{_TWIN}?{query}", "3PN-11" if place == "user" else "3PN-13")
    marker = run.journal.marker()
    found = human.call("GET", f"/thirdparty/{place}/{_PROTOCOL}?{query}")
    current, repeats = _requests(legacy, kind, marker, _PROTOCOL)
    if not current:
        row = "3PN-10" if place == "user" else "3PN-12"
        raise Blocked(row, f"L is not asked to look up in {_PROTOCOL}", found.exchange)
    where = f"/_matrix/app/unstable/thirdparty/{place}/{_PROTOCOL}"
    expect(repeats, f"{where} after {current[0].raw_path} was refused", _strays(legacy, current[0]), current[0])
    same = judges.fields(repeats[0]) == judges.fields(current[0])
    expect(
        same, f"the fields {dict(judges.fields(current[0]))}", dict(judges.fields(repeats[0])), repeats[0], current[0]
    )
    accepted = run.journal.wait_for(lambda each: each in repeats and acknowledged(each), marker, 1.0)
    control(accepted, f"L knew nothing of {fields}", repeats[0])
    expect(
        found.status == 200, "200 for a look-up that succeeds on the legacy route", found, found.exchange, repeats[0]
    )


def _must_repeat_reverse(
    run: Run, legacy: Appservice, human: User, kind: Kind, wanted: dict[str, str], found: dict[str, Any]
) -> None:
    place = "user" if kind is Kind.REVERSE_USER else "location"
    marker = run.journal.marker()

    def script(exchange: Exchange) -> Answer:
        return answer(json=[found]) if legacy.route(exchange).legacy else unrecognized()

    with legacy.scripted(kind, script):
        told = human.call("GET", f"/thirdparty/{place}?{urlencode(wanted, quote_via=quote)}")
    current, repeats = _requests(legacy, kind, marker, "")
    control(current, f"L was asked for no reverse look-up on the present route; the client is answered {told}")
    expected = f"/_matrix/app/unstable/thirdparty/{place} with {wanted} after {current[0].raw_path} was refused"
    right = [each for each in repeats if dict(judges.fields(each)) == wanted]
    seen = listing(each.target for each in repeats) or _strays(legacy, current[0])
    control(dict(judges.fields(current[0])) == wanted, "the look-up lacks what is looked up", current[0])
    expect(right, expected, seen, current[0], *repeats[:1])
    twin = f"{next(iter(wanted.values()))[0]}{run.names.fresh('hqa-')}-rev:{run.server_name}"
    _must_work(
        human, f"/thirdparty/{place}?{urlencode({next(iter(wanted)): twin})}", f"3PN-{16 if place == 'user' else 17}"
    )
    expect(
        told.status == 200, "200 for a reverse look-up that succeeds on the legacy route", told, told.exchange, right[0]
    )


def _must_work(human: User, path: str, row: str) -> None:
    """A twin that no legacy route is needed for.

    :raises Blocked: it does not work either.
    """
    found = human.call("GET", path)
    if found.status != 200:
        raise Blocked(row, f"{path} is answered {found}", found.exchange)
