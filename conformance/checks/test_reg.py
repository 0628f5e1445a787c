"""REG: what a registration file must do (AS: Registration)."""

from __future__ import annotations

from typing import Any

from conformance.appservice.fleet import Appservice
from conformance.appservice.roster import ELSEWHERE, OPTIONAL
from conformance.appservice.routes import Kind
from conformance.homeserver.client import CLIENT, Response, segment
from conformance.homeserver.signup import Signup
from conformance.homeserver.users import User
from conformance.judges import credentials
from conformance.judges.transactions import carries
from conformance.lanes.boots import Boot, Boots
from conformance.lanes.lane import Lanes
from conformance.lanes.urls import Reached, Urls
from conformance.lanes.v1 import V1
from conformance.markers import matching_room
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import Blocked, Broken, control, expect, listing, record
from conformance.wire.exchange import Direction, Exchange


def _whoami(run: Run, member: Appservice) -> Response:
    return run.client.call("GET", f"{CLIENT}/account/whoami", party=member.code, token=member.registration.as_token)


def _regular(run: Run) -> list[Appservice]:
    """The fleet, but for those whose registration a homeserver may be unable to read (REG-10, REG-14, REG-15)."""
    optional = [role.code for role in (*OPTIONAL, *ELSEWHERE)]
    return [member for member in run.fleet if member.code not in optional]


@requirement("REG-01")
def test_every_as_token_is_its_sender(run: Run) -> None:
    """The `as_token` of every registration file authenticates its sender user."""
    wrong: list[tuple[Appservice, Response]] = []
    for member in _regular(run):
        answer = _whoami(run, member)
        if answer.status != 200 or answer.json.get("user_id") != run.user_id(member.registration.sender_localpart):
            wrong.append((member, answer))
    expect(
        not wrong,
        "200 and the ID of its sender for the as_token of every appservice",
        "; ".join(f"{member}: {answer} {answer.json.get('user_id', '')}".rstrip() for member, answer in wrong),
        *(answer.exchange for _, answer in wrong[:3]),
    )


@requirement("REG-02")
def test_namespaces_may_be_left_out(run: Run, a: Appservice, human: User) -> None:
    """A registration whose `namespaces` lack `users` and `aliases`, or `rooms`, is loaded and served like any other."""
    b, c = run.fleet["B"], run.fleet["C"]
    missing = [member.code for member in _regular(run) if member.code in run.unloaded and member.code not in "BC"]
    if missing:
        raise Blocked("REG-01", f"registrations with all of their namespaces are not loaded either: {listing(missing)}")
    for member, lacks in ((b, "rooms"), (c, "users and aliases")):
        answer = _whoami(run, member)
        expect(answer.ok, f"the registration of {member}, which has no {lacks}, loaded", answer, answer.exchange)
    room = human.create_room()
    for ghost in (a.ghost(), b.ghost()):
        ghost.join(room)
    human.send(room)  # the first after a join is INTEREST-30
    message = human.send(room)
    a.await_event(message)
    b.must_receive(message, "a message in a room with a ghost, for an appservice without rooms namespace")
    room = matching_room(c, human)
    c.sender.provoke("POST", f"/join/{segment(room)}", json={})  # a second reason for interest, beside the room's ID
    human.send(room)
    c.must_receive(human.send(room), "a message in a room of the namespace, for an appservice without users namespace")


@requirement("REG-03")
def test_the_path_of_a_url_is_kept(run: Run, b: Appservice, human: User) -> None:
    """B's url has a path: transactions, queries and pings arrive below it and nowhere else."""
    room, marker = human.create_room(), run.journal.marker()
    b.ghost().join(room)
    event = human.send(room)

    def carries_the_event(exchange: Exchange) -> bool:
        return exchange.received is not None and exchange.party == "B" and carries(exchange, event)

    arrived = run.journal.wait_for(
        lambda e: e.direction is Direction.TO_APPSERVICE and carries_the_event(e), marker, run.budgets.deliver
    )
    control(arrived, "nothing with the event arrived at B's port, under whatever path")
    unknown, alias = b.unregistered(), run.alias(b.fresh_localpart())
    human.provoke("POST", f"/join/{segment(alias)}", json={})
    human.provoke("GET", "/thirdparty/user/hqp-b", query={"nickname": "x"})
    b.sender.provoke("POST", f"/_matrix/client/v1/appservice/{segment(b.registration.id)}/ping", json={})
    human.provoke("POST", f"/rooms/{segment(room)}/invite", json={"user_id": unknown.user_id})
    b.await_request(Kind.USER, marker, subject=unknown.user_id, timeout=run.budgets.quiet)
    for member in run.fleet:
        base = member.registration.base_path
        for exchange in member.requests() if base else ():
            expect(exchange.raw_path.startswith(f"{base}/"), f"a target below {base}/", exchange.raw_path, exchange)
    for exchange in run.journal.since(0, lambda e: e.direction is Direction.TO_APPSERVICE and e.party != "B"):
        strayed = exchange.raw_path.startswith(f"{b.registration.base_path}/")
        strayed = strayed and credentials.bearer(exchange) == b.registration.hs_token
        expect(not strayed, "requests for B at B's port only", f"one at the port of {exchange.party}", exchange)


@requirement("REG-04")
def test_a_url_may_end_in_a_slash(run: Run, a: Appservice, x: Appservice, human: User) -> None:
    """X's url ends in a slash: its transactions arrive, with one slash or with two."""
    room = human.create_room()
    a.ghost().join(room)
    x.ghost().join(room)
    human.send(room)  # the first after a join is INTEREST-30
    event = human.send(room)
    a.await_event(event)
    x.must_receive(event, "a message for an appservice whose url ends in a slash")
    exchange = x.exchange_with(event)
    slashes = "two slashes" if f"{x.registration.base_path}//" in exchange.raw_path else "one slash"
    record(f"{slashes} after the base path: {exchange.raw_path}", exchange)


@requirement("REG-05")
def test_an_appservice_without_a_url_holds_nothing_up(run: Run, a: Appservice, n: Appservice, human: User) -> None:
    """Invites, joins and messages that concern an appservice without a url are answered, and by no server error."""
    room, twin, ghost = human.create_room(), a.ghost(), n.ghost()
    twin.join(room)
    twin.send(room)

    def invite(user: str) -> Response:
        return human.call("POST", f"/rooms/{segment(room)}/invite", json={"user_id": user})

    def join(alias: str) -> Response:
        return human.call("POST", f"/join/{segment(alias)}", json={})

    elsewhere = run.names.fresh("nobody-")
    for answer in (invite(run.user_id(elsewhere)), join(run.alias(elsewhere))):
        control(answer.status < 500, f"unknown users and aliases of nobody lead to {answer} too", answer.exchange)
    answers = [invite(n.unregistered().user_id), invite(ghost.user_id)]
    answer = join(run.alias(n.fresh_localpart()))
    expect(answer.refused, "a 4xx for the join of an unknown alias of N", answer, answer.exchange)
    joined = ghost.call("POST", f"/join/{segment(room)}", json={})
    expect(joined.ok, "the join of a ghost of N accepted, like that of a ghost of A", joined, joined.exchange)
    text = {"msgtype": "m.text", "body": "from a ghost of nowhere"}
    sent = ghost.call("PUT", f"/rooms/{segment(room)}/send/m.room.message/{run.names.fresh('t')}", json=text)
    expect(sent.ok, "200 for the message of a ghost of N", sent, sent.exchange)
    answers.append(human.call("PUT", f"/rooms/{segment(room)}/send/m.room.message/{run.names.fresh('t')}", json=text))
    for answer in answers:
        expect(answer.status < 500, "no server error for calls about ghosts of N", answer, answer.exchange)


def _not_both(boot: Boot, what: str) -> None:
    if boot.refused:
        record(boot.refused)
        return
    expected = f"one of two registrations with the same {what} refused"
    reachable = all(each.ok for each in boot.senders)
    expect(not reachable, expected, "both senders can be reached", *(each.exchange for each in boot.senders))
    enforced = len(boot.claims) > 1 and all(each.errcode == "M_EXCLUSIVE" for each in boot.claims)
    seen = "the exclusive namespaces of both are enforced"
    expect(not enforced, expected, seen, *(each.exchange for each in boot.claims))
    record("the homeserver runs with one of them")


@requirement("REG-06", lane=Boots)
def test_two_registrations_with_one_token_are_not_both_taken(lanes: Lanes) -> None:
    """Of two registration files with the same `as_token` the homeserver refuses at least one, or does not start."""
    _not_both(lanes[Boots].same_token.get(), "as_token")


@requirement("REG-07", lane=Boots)
def test_two_registrations_with_one_id_are_not_both_taken(lanes: Lanes) -> None:
    """Of two registration files with the same `id` the homeserver refuses at least one, or does not start."""
    _not_both(lanes[Boots].same_id.get(), "id")


@requirement("REG-08")
def test_every_entry_of_a_namespace_list_counts(a: Appservice, b: Appservice, x: Appservice, signup: Signup) -> None:
    """The first, the second and later exclusive entries of a list of namespaces all reserve their names."""
    signup.must_be_open()
    only = signup.first(x.fresh_localpart())
    control(only.exclusive, f"not even the only entry of X's list reserves a name (NSUSER-02): {only}", only.exchange)
    for member, prefix, place in ((a, "hqa-", "first"), (a, "hqa2-", "second"), (b, "hqb-", "second")):
        attempt = signup.first(member.fresh_localpart(prefix))
        expect(
            attempt.exclusive,
            f"M_EXCLUSIVE for {attempt.localpart}, in the {place} entry of the users of {member}",
            attempt,
            attempt.exchange,
        )


@requirement("REG-09")
def test_an_escaped_dot_is_a_dot(a: Appservice, signup: Signup) -> None:
    r"""The regex `@hqa\.dot-.*` covers a name with a dot there, and not one with another character."""
    signup.must_be_open()
    second = signup.first(a.fresh_localpart("hqa2-"))
    control(second.exclusive, f"an entry without a dot reserves no name (REG-08): {second}", second.exchange)
    dotted = signup.first(a.fresh_localpart("hqa.dot-"))
    expect(dotted.exclusive, f"M_EXCLUSIVE for {dotted.localpart}", dotted, dotted.exchange)
    for prefix in ("hqaxdot-", "hqa_dot-", "hqadot-"):
        other = signup.first(a.fresh_localpart(prefix))
        expect(not other.exclusive, f"{other.localpart}, which the regex does not cover, free", other, other.exchange)


@requirement("REG-10")
def test_bracket_classes_work(run: Run, a: Appservice, signup: Signup) -> None:
    """The regex `@hqp-[[:digit:]]{3}-.*` covers names with three digits there, and no others: for humans and for P."""
    p = run.fleet["P"]
    control("P" not in run.unloaded, f"{p}, whose regex has a bracket class, is not loaded: {run.unloaded.get('P')}")
    signup.must_be_open()
    plain = signup.first(a.fresh_localpart())
    control(plain.exclusive, f"an entry without bracket class reserves no name (REG-08): {plain}", plain.exchange)
    plain_ghost = a.register(a.fresh_localpart())
    control(plain_ghost.ok, f"no ghost can be registered: {plain_ghost} (ADMIN-01)", plain_ghost.exchange)
    for middle in ("123", "908", "777"):
        inside = signup.first(p.fresh_localpart(f"hqp-{middle}-"))
        expect(inside.exclusive, f"M_EXCLUSIVE for {inside.localpart}", inside, inside.exchange)
        ghost = p.register(p.fresh_localpart(f"hqp-{middle}-"))
        expect(ghost.ok, f"the ghost hqp-{middle}-… of {p} registered", ghost, ghost.exchange)
    for middle in ("abc", "dig", "1a3", "12", "1234"):
        outside = signup.first(p.fresh_localpart(f"hqp-{middle}-"))
        free = f"{outside.localpart}, which the regex does not cover, free"
        expect(not outside.exclusive, free, outside, outside.exchange)


@requirement("REG-11")
def test_regexes_match_ids_with_their_sigil(
    run: Run, a: Appservice, x: Appservice, human: User, signup: Signup
) -> None:
    """Regexes that begin with the sigil match: A is told of an invite for its ghost, and asked about its alias."""
    room = human.create_room()
    a.sender.join(room)
    human.send(room)
    a.await_event(human.send(room))  # interest without any regex
    ghost, alias = a.unregistered(), run.alias(a.fresh_localpart())
    registered = a.register(ghost.localpart)  # refused where no regex matches: judged by the invite
    quiet_room = human.create_room()
    invited = human.call("POST", f"/rooms/{segment(quiet_room)}/invite", json={"user_id": ghost.user_id})
    try:
        if registered.errcode == "M_EXCLUSIVE":  # then it may be that nobody can be invited
            expect(invited.ok, "the ghost taken for one of A's", registered, registered.exchange)
        control(invited.ok, f"the ghost was registered, but not invited: {invited}", invited.exchange)
        a.must_receive(human.member_event(quiet_room, ghost), "the invite of a ghost")
    except Broken as broken:
        attempt = signup.first(x.fresh_localpart())
        if attempt.exclusive:
            blamed = "INTEREST-01" if registered.ok else "ADMIN-01"
            raise Blocked(blamed, f"users regexes do match, but: {broken}") from broken
        control(attempt.proceeds, f"not pushed, but no humans are registered either ({attempt}): nothing shows why")
        raise
    marker = run.journal.marker()
    human.provoke("POST", f"/join/{segment(alias)}", json={})
    if a.await_request(Kind.ALIAS, marker, subject=alias) is None:
        refusal = human.call("PUT", f"/directory/room/{segment(alias)}", json={"room_id": room})
        if refusal.errcode == "M_EXCLUSIVE":
            raise Blocked("ALIASQ-01", "the aliases regex does match, but no query is made")
        another = run.alias(a.fresh_localpart())
        own = a.sender.call("PUT", f"/directory/room/{segment(another)}", json={"room_id": room})
        if own.errcode != "M_EXCLUSIVE":  # a namespace that does not match would not be A's either
            raise Blocked("ALIASQ-01", "no query is made, and nothing shows that aliases are matched at all")
        raise Broken(f"a query about {alias} at A", f"no query, and {own} for the alias set by A", own.exchange)


@requirement("REG-12", before=V1)
def test_regexes_match_the_server_name_too(a: Appservice, v1: Appservice, human: User) -> None:
    """V1's regex ends in the server name: its ghost can be registered, and V1 is told of an invite for it."""
    room, twin = human.create_room(), a.ghost()
    human.invite(room, twin)
    a.await_event(human.member_event(room, twin))
    ghost = v1.unregistered()
    answer = v1.register(ghost.localpart)
    expect(answer.ok, f"the ghost {ghost}, which the whole regex matches, registered", answer, answer.exchange)
    human.invite(room, ghost)
    last = [exchange for exchange in v1.transactions() if exchange.status is not None][-1:]
    control(not last or last[0].status == 200, "V1 has failed a transaction, and has not been tried again since")
    v1.must_receive(human.member_event(room, ghost), "the invite of a ghost whose namespace names the server")


@requirement("REG-13")
def test_the_registration_endpoints_of_the_drafts_are_gone(run: Run, a: Appservice, human: User) -> None:
    """Nobody becomes an appservice over HTTP, and nobody ends one: neither strangers nor users."""
    room = human.create_room()
    a.ghost().join(room)
    human.send(room)
    a.await_event(human.send(room))
    offered = f"hq-offered-{run.names.fresh()}-{run.names.fresh()}"
    run.redactor.add(offered, "as_token offered over HTTP")
    everything: dict[str, Any] = {"users": ["@.*"], "aliases": ["#.*"], "rooms": ["!.*"]}
    register = {"url": "http://127.0.0.1:9/draft", "as_token": offered, "namespaces": everything}
    unregister = {"as_token": a.registration.as_token}
    calls = (
        ("/register", register),
        ("/_matrix/appservice/v1/register", register),
        ("/unregister", unregister),
        ("/_matrix/appservice/v1/unregister", unregister),
    )
    for token in (None, human.token):
        for path, body in calls:
            answer = run.client.call("POST", path, party="suite", token=token, json=body)
            given = answer.ok and b"hs_token" in answer.exchange.response_body
            expect(not given, "no hs_token for a registration over HTTP", f"{answer} with one", answer.exchange)
    answer = run.client.call("GET", f"{CLIENT}/account/whoami", party="suite", token=offered)
    other = run.client.call("GET", f"{CLIENT}/account/whoami", party="suite", token=f"hq-nobodys-{run.names.fresh()}")
    unknown = not answer.ok and answer.status in (401, other.status)
    expect(unknown, "401 for the as_token that was offered over HTTP", answer, answer.exchange)
    a.must_receive(human.send(room), "a message after somebody asked to unregister A")


@requirement("REG-14", lane=Urls)
def test_a_url_may_have_an_ipv6_address(lanes: Lanes) -> None:
    """Y's url has the host `[::1]`: what concerns Y is pushed to it."""
    _must_be_reached(lanes[Urls].ipv6.get())


@requirement("REG-15", lane=Urls)
def test_a_url_may_have_a_host_name(lanes: Lanes) -> None:
    """Z's url has the host `localhost`: what concerns Z is pushed to it."""
    _must_be_reached(lanes[Urls].named.get())


def _must_be_reached(reached: Reached) -> None:
    member, url = reached.member, reached.member.registration.url
    expect(reached.unloaded is None, f"the registration of {member} with the url {url} loaded", reached.unloaded)
    what = f"a message ({reached.event}) in a room with a ghost of {member} at {url} within {member.deliver_wait:g} s"
    expect(reached.delivered, what, "it came to A only")
