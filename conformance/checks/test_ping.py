"""PING: pings that an appservice asks for (AS: Pinging).

But for PING-15, B is the one to be pinged: its id needs no encoding.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from conformance.appservice.endpoint import Endpoint
from conformance.appservice.fleet import Appservice, events_of
from conformance.appservice.routes import Kind
from conformance.appservice.script import Answer, Reply, always, answer, closed_unanswered, redirect
from conformance.homeserver.client import NoAnswer, Response, segment
from conformance.homeserver.users import User
from conformance.judges import pings
from conformance.lanes.lane import Lanes
from conformance.lanes.q import Q
from conformance.lanes.queries import say_close
from conformance.lanes.v4 import V4
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.schemas import problems
from conformance.verdict import Broken, Inconclusive, caution, control, expect, listing, prefer, record
from conformance.wire.exchange import Direction, Exchange, NotJson
from conformance.wire.journal import Journal

#: Seconds that a ping of an appservice that is not there may take.
_SLOW = 60.0


@requirement("PING-01")
def test_an_appservice_can_have_itself_pinged(b: Appservice) -> None:
    """The homeserver answers 200 when the appservice has answered the ping with 200."""
    pong = _ping(b, {"transaction_id": "first"})
    expect(pong.status == 200, "200 to an appservice that answers its ping", pong, pong.exchange)


@requirement("PING-02")
def test_the_appservice_is_really_pinged(run: Run, b: Appservice) -> None:
    """Before the homeserver answers, the appservice gets a POST to `/_matrix/app/v1/ping` with a JSON object."""
    marker = run.journal.marker()
    pong = _ping(b, {"transaction_id": run.names.fresh()})
    control(pong.status == 200, f"an ordinary ping of {b} is answered {pong}", pong.exchange)
    requests = b.requests(Kind.PING, marker)
    expect(requests, f"a request to /_matrix/app/v1/ping at {b} before the call is answered", "none", pong.exchange)
    expect(requests[0].method == "POST", "a POST", requests[0].method, requests[0])
    shown = requests[0].request_body[:80].decode(errors="replace")
    expect(isinstance(_body(requests[0]), dict), "a JSON object as the body", shown or "no body", requests[0])
    name = run.names.fresh()
    for number in ("first", "second"):
        marker = run.journal.marker()
        pong = _ping(b, {"transaction_id": name})
        control(pong.status == 200, f"an ordinary ping of {b} is answered {pong}", pong.exchange)
        expect(
            b.requests(Kind.PING, marker), f"{b} pinged for the {number} call of one name", "it was not", pong.exchange
        )


@requirement("PING-03")
def test_the_transaction_id_of_a_ping_is_passed_on(run: Run, b: Appservice) -> None:
    """The ping carries the `transaction_id` of the call, whatever characters it has."""
    _must_work(b, run)
    for given in (
        run.names.fresh("plain-"),
        f'{run.names.fresh()} "quoted" \\ and/é%20☃ 👻\t&?#',
        "0012",
        run.names.fresh("long-" * 40),
    ):
        marker = run.journal.marker()
        pong = _ping(b, {"transaction_id": given})
        requests = b.requests(Kind.PING, marker)
        control(requests, f"no ping arrived at {b}", pong.exchange)
        body = _body(requests[0])
        passed = body.get("transaction_id") if isinstance(body, dict) else None
        expect(passed == given, f"transaction_id {given!r} in the ping", repr(passed), requests[0], pong.exchange)


@requirement("PING-04")
def test_a_ping_needs_no_transaction_id(run: Run, b: Appservice) -> None:
    """Without a `transaction_id` in the call there is none in the ping, or one of the homeserver's own."""
    _must_work(b, run)
    marker = run.journal.marker()
    pong = _ping(b, {})
    expect(pong.status == 200, "200 to a call without transaction_id", pong, pong.exchange)
    for request in b.requests(Kind.PING, marker):
        wrong = problems("ping-request#strict", _body(request))
        expect(not wrong, "a ping without transaction_id, or with a string", listing(wrong), request)


@requirement("PING-05")
def test_the_duration_of_a_ping_is_told(run: Run, b: Appservice) -> None:
    """`duration_ms` is the whole number of milliseconds that the ping took."""
    _must_work(b, run)
    held = max(0.3, 1.2 * run.budgets.scale)
    pong = _ping_answered(b, answer(delay=held))
    control(pong.status == 200, f"a ping that is answered after {held:g} s is answered {pong}", pong.exchange)
    told, waited = pong.json.get("duration_ms"), pong.exchange.seconds or 0.0
    whole = isinstance(told, int | float) and not isinstance(told, bool) and told == int(told)
    expect(whole, "an integer duration_ms", repr(told), pong.exchange)
    least, most = held * 1000 - 100, waited * 1000 + 50
    expected = f"a duration_ms of at least {least:.0f}, and at most the {most:.0f} that the caller waited"
    expect(least <= pong.json["duration_ms"] <= most, expected, told, pong.exchange)


@requirement("PING-06")
def test_an_error_of_the_appservice_is_a_bad_status(run: Run, b: Appservice) -> None:
    """Whatever error the appservice answers its ping with, the call is answered 502 M_BAD_STATUS."""
    _must_work(b, run)
    html = (("Content-Type", "text/html"),)
    replies = [
        answer(status, {"errcode": "HQ.CONFORMANCE.PING", "error": "no pong"})
        for status in (401, 403, 404, 500, 400, 405, 408, 410, 429, 502, 503, 504)
    ]
    replies += [Answer(500, b""), Answer(502, b"<html>Bad Gateway</html>", html), Answer(404, b"\xff\xfe\x00")]
    for reply in replies:
        pong = _ping_answered(b, reply)
        expect(
            pong.status == 502 and pong.errcode == "M_BAD_STATUS",
            f"502 M_BAD_STATUS when the appservice answers its ping with {reply.status} and {reply.body[:9]!r}…",
            pong,
            pong.exchange,
        )


@requirement("PING-07")
def test_a_bad_status_may_say_what_the_appservice_answered(run: Run, b: Appservice) -> None:
    """Where `status` and `body` are given, they are the number and the text that the appservice answered."""
    _must_work(b, run)
    for status, text in ((403, '{ "errcode" : "HQ.CONFORMANCE.PING",\n "error":"é ☃" }'), (500, '{"error":"other"}')):
        pong = _ping_answered(b, Answer(status, text.encode()))
        control(pong.errcode == "M_BAD_STATUS", f"a ping answered with {status} is reported as {pong}", pong.exchange)
        for key, exact in (("status", status), ("body", text)):
            if key in pong.json:
                value = pong.json[key]
                same = value == exact and type(value) is type(exact)
                expect(same, f"{key} {exact!r}, or none", repr(value), pong.exchange)
    given = [key for key in ("status", "body") if key in pong.json]
    record(f"M_BAD_STATUS has {listing(given) or 'neither status nor body'}")


@requirement("PING-08")
def test_an_appservice_that_is_down_is_a_failed_connection(run: Run, b: Appservice, d: Appservice) -> None:
    """Nothing listens on D's port: 502 M_CONNECTION_FAILED."""
    _must_work(b, run)
    pong = _ping(d, {"transaction_id": run.names.fresh()}, timeout=_SLOW)
    expect(
        pong.status == 502 and pong.errcode == "M_CONNECTION_FAILED",
        "502 M_CONNECTION_FAILED for an appservice whose port is closed",
        pong,
        pong.exchange,
    )


@requirement("PING-09", lane=Q)
def test_a_ping_that_is_not_answered_times_out(run: Run, lanes: Lanes, q: Appservice) -> None:
    """Q reads the ping and never answers: 504 M_CONNECTION_TIMEOUT."""
    _must_work(q, run)
    hung = lanes[Q].ping.get()
    control(hung.requests, f"no ping arrived at {q}", hung.call.exchange)
    if isinstance(hung.call, NoAnswer):
        raise Inconclusive(f"the call was not answered within --block-wait {run.budgets.block:g} s", hung.call.exchange)
    right = hung.call.status == 504 and hung.call.errcode == "M_CONNECTION_TIMEOUT"
    expected = "504 M_CONNECTION_TIMEOUT for an appservice that does not answer its ping"
    expect(right, expected, hung.call, hung.call.exchange, *hung.requests[:1])
    record(f"the homeserver gives a ping up after {hung.call.exchange.seconds or 0:.1f} s")


@requirement("PING-10")
def test_an_appservice_without_a_url_cannot_be_pinged(run: Run, b: Appservice, n: Appservice) -> None:
    """N's url is null: 400 M_URL_NOT_SET."""
    _must_work(b, run)
    pong = _ping(n, {"transaction_id": run.names.fresh()})
    expect(
        pong.status == 400 and pong.errcode == "M_URL_NOT_SET",
        "400 M_URL_NOT_SET for an appservice whose url is null",
        pong,
        pong.exchange,
    )


@requirement("PING-11")
def test_an_appservice_cannot_have_another_pinged(run: Run, a: Appservice, b: Appservice) -> Quiet:
    """The id in the path must be the caller's: 403 M_FORBIDDEN for another's, and neither of the two is pinged."""
    _must_work(b, run)
    marker = run.journal.marker()
    name = run.names.fresh("ping-")
    refused = a.sender.call("POST", _path(b), json={"transaction_id": name})
    _must_be(refused, 403, "M_FORBIDDEN", f"a ping of {b} with the as_token of {a}")
    run.markers.pass_by("A", "B")
    early = [*a.requests(Kind.PING, marker), *b.requests(Kind.PING, marker)]
    yield
    for appservice in (a, b):
        _must_not_be_pinged(appservice, marker, name, early)


@requirement("PING-12")
def test_a_user_cannot_have_an_appservice_pinged(run: Run, b: Appservice, human: User) -> Quiet:
    """A human's access token, or a ghost's own where it can log in: 403 M_FORBIDDEN, and no ping."""
    _must_work(b, run)
    login = b.dialect.login("m.login.application_service", b.ghost().localpart)
    own = b.sender.call("POST", "/login", json=login).json.get("access_token")
    marker = run.journal.marker()
    name = run.names.fresh("ping-")
    for whose, token in (("a human's token", human.token), ("a ghost's own token", own)):
        if token is not None:
            refused = run.client.call("POST", _path(b), party=whose, token=token, json={"transaction_id": name})
            _must_be(refused, 403, "M_FORBIDDEN", f"a ping of {b} with {whose}")
    run.markers.pass_by("B")
    early = b.requests(Kind.PING, marker)
    yield
    _must_not_be_pinged(b, marker, name, early)


@requirement("PING-13")
def test_a_stranger_cannot_have_an_appservice_pinged(run: Run, b: Appservice) -> Quiet:
    """Without a token 401 M_MISSING_TOKEN, with one that nobody has 401 M_UNKNOWN_TOKEN, and no ping."""
    _must_work(b, run)
    marker = run.journal.marker()
    name = run.names.fresh("ping-")
    for token, errcode in ((None, "M_MISSING_TOKEN"), (run.names.fresh("nobodys-token-"), "M_UNKNOWN_TOKEN")):
        refused = run.client.call("POST", _path(b), party="stranger", token=token, json={"transaction_id": name})
        _must_be(refused, 401, errcode, f"a ping of {b} {'without a token' if token is None else 'with any token'}")
    run.markers.pass_by("B")
    early = b.requests(Kind.PING, marker)
    yield
    _must_not_be_pinged(b, marker, name, early)


@requirement("PING-14", last=True)
def test_nobody_is_pinged_unasked(run: Run, b: Appservice) -> None:
    """Each ping of the run comes while an appservice waits for one that it asked for, or soon after; three at most."""
    _must_work(b, run)
    calls = run.journal.since(0, lambda exchange: exchange.direction is Direction.TO_HOMESERVER)
    for member in run.fleet:
        asked = pings.asked(calls, member.registration.id)
        found = pings.unasked(member.requests(Kind.PING), asked, run.budgets.deliver)
        expected = f"no ping of {member} that nobody asked for, and {pings.ATTEMPTS} at most for each that somebody did"
        expect(found is None, expected, f"one more, and {len(asked)} calls in all", *([found] if found else []))


@requirement("PING-15")
def test_the_id_in_the_path_of_a_ping_is_decoded(run: Run, a: Appservice, b: Appservice) -> None:
    """A's id has a blank, which is %20 in the path; any other character may be encoded as well."""
    _must_work(b, run)
    needless = _path(b).replace("hq-second", "%68q-secon%64")
    for appservice, path in ((a, _path(a)), (b, needless)):
        pong = appservice.sender.call("POST", path, json={"transaction_id": run.names.fresh()})
        expect(pong.status == 200, f"200 for POST {path} of {appservice}", pong, pong.exchange)


@requirement("PING-16")
def test_an_unknown_id_cannot_be_pinged(run: Run, b: Appservice) -> None:
    """An id that no appservice has is a different appservice's, so 403 M_FORBIDDEN."""
    _must_work(b, run)
    path = _path(b).replace(segment(b.registration.id), "no-such-as")
    refused = b.sender.call("POST", path, json={"transaction_id": run.names.fresh()})
    expect(refused.refused, "403 M_FORBIDDEN (or any 4xx) for the ping of an unknown id", refused, refused.exchange)
    exact = refused.status == 403 and refused.errcode == "M_FORBIDDEN"
    prefer(exact, "403 M_FORBIDDEN for the ping of an unknown id", refused, refused.exchange)


@requirement("PING-17")
def test_a_ping_is_no_transaction(run: Run, b: Appservice, human: User) -> None:
    """A ping may have the id of the last transaction, or of the next: the next event is delivered all the same."""
    _must_work(b, run)
    room = human.create_room()
    b.ghost().join(room)
    b.await_event(human.send(room))
    for step in (0, 1, 1, 1):  # the guess of the next id may be wrong: something else may be pushed in between
        last = b.route(b.transactions()[-1]).subject
        name = str(int(last) + step) if last.isdecimal() else last
        marker = run.journal.marker()
        pong = _ping(b, {"transaction_id": name})
        expect(pong.status == 200, f"200 for a ping with the transaction_id {name!r}", pong, pong.exchange)
        b.must_receive(human.send(room), f"a message sent after a ping with the transaction_id {name!r}")
        for exchange in b.transactions(marker):
            empty = b.route(exchange).subject == name and not events_of(exchange)
            expect(not empty, f"no transaction on account of the ping {name!r}", "an empty one of its name", exchange)


@requirement("PING-18", before=Q)
def test_a_closed_connection_is_a_failed_connection(run: Run, q: Appservice) -> None:
    """Q reads the ping and closes the connection without a byte: 502 M_CONNECTION_FAILED."""
    say_close(q)
    _must_work(q, run)
    marker = run.journal.marker()
    pong = _ping_answered(q, closed_unanswered())
    pings = q.requests(Kind.PING, marker)
    control(pings, f"no ping arrived at {q}", pong.exchange)
    failed = pong.status == 502 and pong.errcode == "M_CONNECTION_FAILED"
    timed_out = pong.status == 504 and pong.errcode == "M_CONNECTION_TIMEOUT"
    expected = "502 M_CONNECTION_FAILED for an appservice that closes the connection of its ping"
    expect(failed or timed_out, expected, pong, pong.exchange, *pings[:1])
    prefer(failed, expected, pong, pong.exchange, *pings[:1])


@requirement("PING-19", lane=V4)
def test_pings_succeed_while_the_queue_recovers(run: Run, lanes: Lanes, v4: Appservice) -> None:
    """Two pings in a row, of an appservice that has just come back and is slow to take its transaction: both 200."""
    slow = lanes[V4].slow.get()
    _must_work(v4, run)
    control(slow.in_flight, "the retried transaction was not in flight when the second ping was asked for")
    for number, pong in enumerate(slow.pings, 1):
        answered = not isinstance(pong, NoAnswer) and pong.status == 200
        expect(answered, f"200 for ping {number} of 2 while the queue recovers", pong, pong.exchange)


@requirement("PING-20")
def test_a_redirect_is_no_pong(run: Run, b: Appservice) -> None:
    """How a redirect is reported, and whether it is followed to another port, token and all: recorded."""
    _must_work(b, run)
    missing = _ping_answered(b, Answer(404, b""))
    control(missing.status == 502, f"an answer without a body is reported as {missing} (PING-06)", missing.exchange)
    elsewhere, url = Journal(), urlsplit(b.registration.url or "")
    with Endpoint(elsewhere) as endpoint:
        bound = b.listener.host if b.listener else ""
        listener = endpoint.listen("elsewhere", bound, 0, lambda exchange: answer(404))
        pong = _ping_answered(b, redirect(f"{url.scheme}://{url.hostname}:{listener.port}/nowhere"))
        followed = list(elsewhere)
    known = pong.status == 502 and pong.errcode in ("M_BAD_STATUS", "M_CONNECTION_FAILED")
    caution(known, "502 M_BAD_STATUS or M_CONNECTION_FAILED for a ping that is redirected", pong, pong.exchange)
    shown = [each for each in followed if b.registration.hs_token.encode() in each.raw_head]
    where = "not followed" if not followed else f"followed {'with' if shown else 'without'} the hs_token"
    record(f"a redirect is reported as {pong}, and {where}", pong.exchange)


def _path(appservice: Appservice) -> str:
    return f"/_matrix/client/v1/appservice/{segment(appservice.registration.id)}/ping"


def _ping(appservice: Appservice, body: dict[str, Any], **options: Any) -> Response:
    """Have an appservice ask for a ping of itself."""
    return appservice.sender.call("POST", _path(appservice), json=body, **options)


def _must_work(appservice: Appservice, run: Run) -> None:
    """The control: an ordinary ping is answered 200 (PING-01), after a ping with an object has arrived (PING-02)."""
    marker = run.journal.marker()
    try:
        pong = _ping(appservice, {"transaction_id": run.names.fresh("control-")})
    except NoAnswer as error:
        raise Inconclusive(f"an ordinary ping of {appservice} is not answered: {error}", error.exchange) from error
    control(pong.status == 200, f"an ordinary ping of {appservice} is answered {pong}", pong.exchange)
    pings = appservice.requests(Kind.PING, marker)
    control(any(isinstance(_body(each), dict) for each in pings), f"no ping arrived at {appservice}", pong.exchange)


def _ping_answered(appservice: Appservice, reply: Reply) -> Response:
    """Have an appservice ask for a ping that it answers in some way."""
    with appservice.scripted(Kind.PING, always(reply)):
        return _ping(appservice, {"transaction_id": appservice.sender.names.fresh("answered-")})


def _must_be(refusal: Response, status: int, errcode: str, what: str) -> None:
    right = refusal.status == status and refusal.errcode == errcode
    expect(right, f"{status} {errcode} for {what}", refusal, refusal.exchange)


def _must_not_be_pinged(appservice: Appservice, marker: int, name: str, early: list[Exchange]) -> None:
    """No ping of a refused call: none at all before the quiet window, in which other checks ping, none of its name."""
    named = [each for each in appservice.requests(Kind.PING, marker) if name.encode() in each.request_body]
    for exchange in [*(each for each in early if each.party == appservice.code), *named]:
        raise Broken(f"no ping of {appservice} on account of a call that was refused", "it was pinged", exchange)


def _body(exchange: Exchange) -> Any:
    """The parsed body of a ping; None when it is no JSON."""
    try:
        return exchange.request_json
    except NotJson:
        return None
