"""AUTH: how the homeserver shows an appservice who it is (AS: Authorisation)."""

from __future__ import annotations

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.thirdparty import KNOWN_LOCATION_FIELDS, KNOWN_USER_FIELDS
from conformance.homeserver.client import CLIENT, segment
from conformance.homeserver.users import User
from conformance.judges import credentials
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import caution, control, expect, prefer
from conformance.wire.exchange import Exchange

_LOOKUPS = (
    Kind.PROTOCOL,
    Kind.THIRDPARTY_USERS,
    Kind.THIRDPARTY_LOCATIONS,
    Kind.REVERSE_USER,
    Kind.REVERSE_LOCATION,
)


def _others(run: Run, member: Appservice) -> set[str]:
    """The `hs_token`s of all other appservices."""
    return {each.registration.hs_token for each in run.fleet if each is not member}


def _requests(run: Run, *kinds: Kind) -> list[tuple[Appservice, Exchange]]:
    """All requests of some kinds (of every kind, when none is given) to any appservice in this run."""
    chosen = kinds or (None,)
    return [(member, request) for member in run.fleet for kind in chosen for request in member.requests(kind)]


def _each_carries_its_token(run: Run, *kinds: Kind) -> None:
    requests = _requests(run, *kinds)
    control(requests, f"the homeserver made no request of the kind {' or '.join(kinds)}")
    for member, request in requests:
        problem = credentials.header_problem(request, member.registration.hs_token, _others(run, member))
        expect(problem is None, "exactly one Authorization header, Bearer with the hs_token", problem, request)


def _deliver(human: User, *members: Appservice) -> None:
    """Have one message pushed to each of these appservices."""
    room = human.create_room()
    for member in members:
        member.ghost().join(room)
    human.send(room)  # the first after a join is INTEREST-30
    event = human.send(room)
    for member in members:
        member.await_event(event)


@requirement("AUTH-01", last=True)
def test_transactions_carry_the_token(run: Run, a: Appservice, human: User) -> None:
    """Every transaction has exactly one `Authorization` header: Bearer and the appservice's `hs_token`."""
    _deliver(human, a)
    _each_carries_its_token(run, Kind.TRANSACTION)


@requirement("AUTH-02", last=True)
def test_user_queries_carry_the_token(run: Run, q: Appservice, human: User) -> None:
    """Every user query has exactly one `Authorization` header: Bearer and the appservice's `hs_token`."""
    if not _requests(run, Kind.USER):
        ghost, marker = q.unregistered(), run.journal.marker()
        human.provoke("POST", f"/rooms/{segment(human.create_room())}/invite", json={"user_id": ghost.user_id})
        q.await_request(Kind.USER, marker)
    _each_carries_its_token(run, Kind.USER)


@requirement("AUTH-03", last=True)
def test_alias_queries_carry_the_token(run: Run, q: Appservice, human: User) -> None:
    """Every room alias query has exactly one `Authorization` header: Bearer and the appservice's `hs_token`."""
    if not _requests(run, Kind.ALIAS):
        alias, marker = run.alias(q.fresh_localpart()), run.journal.marker()
        human.provoke("POST", f"/join/{segment(alias)}", json={})
        q.await_request(Kind.ALIAS, marker)
    _each_carries_its_token(run, Kind.ALIAS)


@requirement("AUTH-04", last=True)
def test_third_party_lookups_carry_the_token(run: Run, a: Appservice, human: User) -> None:
    """Every third-party look-up has exactly one `Authorization` header: Bearer and the appservice's `hs_token`."""
    human.provoke("GET", "/thirdparty/protocol/hqp-look")
    human.provoke("GET", "/thirdparty/user/hqp-look", query=KNOWN_USER_FIELDS)
    human.provoke("GET", "/thirdparty/location/hqp-look", query=KNOWN_LOCATION_FIELDS)
    human.provoke("GET", "/thirdparty/user", query={"userid": run.user_id(a.fresh_localpart() + "-rev")})
    human.provoke("GET", "/thirdparty/location", query={"alias": run.alias(a.fresh_localpart() + "-rev")})
    _each_carries_its_token(run, *_LOOKUPS)


def _ask_and_look_up(run: Run, a: Appservice, human: User) -> None:
    """Give the homeserver a reason for each kind of query and look-up at A."""
    human.provoke("POST", f"/join/{segment(run.alias(a.fresh_localpart()))}", json={})
    room, ghost = human.create_room(), a.unregistered()
    human.provoke("POST", f"/rooms/{segment(room)}/invite", json={"user_id": ghost.user_id})
    human.provoke("GET", "/thirdparty/protocol/hqp-look")
    human.provoke("GET", "/thirdparty/user/hqp-look", query=KNOWN_USER_FIELDS)
    human.provoke("GET", "/thirdparty/location/hqp-look", query=KNOWN_LOCATION_FIELDS)


@requirement("AUTH-05", last=True)
def test_pings_carry_the_token(run: Run, a: Appservice) -> None:
    """Every ping has exactly one `Authorization` header: Bearer and the appservice's `hs_token`."""
    a.sender.provoke("POST", f"/_matrix/client/v1/appservice/{segment(a.registration.id)}/ping", json={})
    _each_carries_its_token(run, Kind.PING)


@requirement("AUTH-06", last=True)
def test_each_appservice_gets_its_own_token(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """Whatever reaches an appservice carries the `hs_token` of its own registration, never another's."""
    _deliver(human, a, b)
    for member, request in _requests(run):
        strange = credentials.stranger(request, member.registration.hs_token, _others(run, member))
        expect(not strange, f"the hs_token of {member}", "that of another appservice", request)


@requirement("AUTH-07", last=True)
def test_a_token_in_the_query_is_that_of_the_header(run: Run, a: Appservice, human: User) -> None:
    """Where a request has an `access_token` query parameter, it holds the same `hs_token` as the header."""
    _deliver(human, a)
    for member, request in _requests(run):
        differs = credentials.query_disagrees(request, member.registration.hs_token)
        expect(not differs, "the same hs_token in the query as in the header, or none", "another token", request)


@requirement("AUTH-08", last=True)
def test_old_homeservers_send_the_token_in_the_query(run: Run, a: Appservice, human: User) -> None:
    """Up to v1.3 every request carries the `hs_token` in the query parameter `access_token`."""
    _deliver(human, a)
    _ask_and_look_up(run, a, human)
    for member, request in _requests(run):
        values = credentials.query_tokens(request)
        expect(values, "an access_token query parameter", "none", request)
        others = _others(run, member)
        foreign = any(credentials.as_form(each) in others for each in values)
        right = foreign or not credentials.query_disagrees(request, member.registration.hs_token)
        expect(right, "the hs_token in the query parameter", "another token", request)


@requirement("AUTH-09", last=True)
def test_no_token_stands_in_a_url(run: Run, a: Appservice, human: User) -> None:
    """Requests to appservices have no `access_token` query parameter."""
    _deliver(human, a)
    leaky = [request for _, request in _requests(run) if credentials.query_tokens(request)]
    caution(not leaky, "no access_token in the query", f"one in {len(leaky)} requests", *leaky[:1])


@requirement("AUTH-10", last=True)
def test_no_request_gives_away_other_tokens(run: Run, a: Appservice, human: User) -> None:
    """No `as_token` and no user's access token reaches an appservice: in no header, no URL, no body."""
    _deliver(human, a)
    human.provoke("GET", "/thirdparty/user/hqp-look", query=KNOWN_USER_FIELDS)
    in_the_query = KNOWN_USER_FIELDS | {"access_token": human.token}  # where that is no longer taken, nobody is asked
    human.provoke("GET", "/thirdparty/user/hqp-look", token=None, query=in_the_query)
    labels = dict.fromkeys(credentials.tokens_given(run.journal), "an access token that the homeserver gave out")
    labels |= dict.fromkeys(run.humans.tokens, "a human's access token")
    labels |= {member.registration.as_token: f"the as_token of {member}" for member in run.fleet}
    secrets = credentials.Secrets(labels)
    for _, request in _requests(run):
        leak = secrets.leak(request)
        expect(leak is None, "no token that authenticates requests to the homeserver", leak, request)


@requirement("AUTH-11")
def test_an_hs_token_is_of_no_use_to_clients(run: Run, a: Appservice, b: Appservice) -> None:
    """An `hs_token` does not authenticate requests to the client-server API."""
    path = f"{CLIENT}/account/whoami"
    for member in (a, b):
        twin = run.client.call("GET", path, party=member.code, token=member.registration.as_token)
        control(twin.ok, f"the as_token does not work either: {twin}", twin.exchange)
        ghost = member.ghost()
        for query in ({}, {"user_id": ghost.user_id}):
            answer = run.client.call("GET", path, party="suite", token=member.registration.hs_token, query=query)
            expect(answer.status in (401, 403), "401 M_UNKNOWN_TOKEN for an hs_token", answer, answer.exchange)
            exact = answer.status == 401 and answer.errcode == "M_UNKNOWN_TOKEN"
            prefer(exact, "401 M_UNKNOWN_TOKEN for an hs_token", answer, answer.exchange)


@requirement("AUTH-12", last=True)
def test_an_awkward_token_arrives_unchanged(run: Run, b: Appservice, human: User) -> None:
    """B's `hs_token` contains `+/=`: it arrives as it is in the header, and percent-encoded in a query."""
    token = b.registration.hs_token
    control(credentials.is_awkward(token), "B's hs_token has no characters that could be mangled")
    _deliver(human, b)
    human.provoke("POST", f"/join/{segment(run.alias(b.fresh_localpart()))}", json={})
    carrying = [request for request in b.requests() if credentials.bearer(request) or credentials.query_tokens(request)]
    control(carrying, "no request to B carries any token (AUTH-01)")
    for request in carrying:
        problem = credentials.mangling(request, token)
        expect(problem is None, "the hs_token unchanged, percent-encoded in a query", problem, request)
