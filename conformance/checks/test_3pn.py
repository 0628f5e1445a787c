"""3PN: third-party networks (AS and CS: Third-party networks).

Homeservers may keep metadata for long: what the fleet says of a protocol is the same for the whole run
(`conformance/appservice/thirdparty.py`), and each row has its own protocol.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from conformance.appservice import thirdparty
from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import always, answer
from conformance.catalogue.versions import Version
from conformance.homeserver.client import CLIENT, Response, segment
from conformance.homeserver.users import User
from conformance.judges.events import same
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.schemas import problems
from conformance.verdict import Blocked, control, expect, listing, prefer, record
from conformance.wire.exchange import Direction, Exchange

#: The protocol ID that has to be encoded.
_ODD = "hqp a/b#é?%2f"

#: What A says nothing about, what it talks rubbish about, what it answers with an error, and what is declared by an
#: appservice without a url.
_GONE, _BAD, _DOWN, _NULL = "hqp-gone", "hqp-bad", "hqp-down", "hqp-null"

#: The protocol whose look-ups A answers.
_LOOK = "hqp-look"

#: The protocol that A and B declare.
_BOTH = "hqp-multi"

#: Search fields that find nobody and have to be encoded.
_AWKWARD = {"nickname": "100% a&b=c+d #é/?", "network": "net"}

_USERS, _LOCATIONS = Kind.THIRDPARTY_USERS, Kind.THIRDPARTY_LOCATIONS
_PATHS = {_USERS: "user", _LOCATIONS: "location"}


@requirement("3PN-01")
def test_all_protocols_are_listed(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """`GET /thirdparty/protocols` has every protocol whose metadata an appservice delivered, before or meanwhile."""
    answer = _protocols(human)
    if answer.status != 200:
        culprit = _culprit(human, answer)
        if culprit is not None:
            raise Blocked(culprit, f"the list of protocols is answered {answer}", answer.exchange)
    expect(answer.status == 200, "200 for the list of protocols", answer, answer.exchange)
    expect(isinstance(answer.value, dict), "an object of protocols", "another value", answer.exchange)
    delivered = [protocol for member in (a, b) for protocol in _delivered(member)]
    control(delivered, "no appservice was asked for metadata (3PN-02)", answer.exchange)

    def complete() -> bool | None:
        """Whether the list has them: metadata may have come after it was answered."""
        return _protocols(human).json.keys() >= set(delivered) or None

    missing = [] if run.eventually(complete) else set(delivered) - _protocols(human).json.keys()
    expect(not missing, f"{listing(delivered, 10)} in the list of protocols", f"no {listing(missing)}", answer.exchange)


@requirement("3PN-02")
def test_metadata_is_fetched_from_the_appservice(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """`GET /_matrix/app/v1/thirdparty/protocol/{protocol}` reached whoever declares it before the first list."""
    listed = _protocols(human)
    first = next((each for each in run.journal if _is_list(each) and each.status == 200), None)
    declared = dict.fromkeys(protocol for member in (a, b) for protocol in _declared(member))
    for protocol in declared:
        if protocol == _ODD:
            continue  # how that one arrives is 3PN-19
        if first is None:
            human.provoke("GET", f"/thirdparty/protocol/{protocol}")
        declaring = [member for member in (a, b) if protocol in _declared(member)]
        requests = [(each, member) for member in declaring for each in member.requests(Kind.PROTOCOL, subject=protocol)]
        asked = [request for request, member in requests if not member.route(request).legacy]
        shown = listed.json.get(protocol)
        kept = not requests and any(_is_given(shown, member, protocol) for member in declaring)
        control(not kept, f"the metadata of {protocol} was fetched before this run", listed.exchange)
        until = first.answer_until if first is not None else None
        in_time = [each for each in asked if until is None or each.started < until]
        seen = "only later" if asked else "not at all"
        expect(in_time, f"the metadata of {protocol} fetched before the first answer", seen, first or listed.exchange)


@requirement("3PN-03")
def test_metadata_has_the_form_of_a_protocol(human: User, a: Appservice) -> None:
    """`user_fields`, `location_fields`, `icon`, `field_types` and `instances`, each with what belongs to it."""
    for protocol in ("hqp-meta", _LOOK):
        known = _metadata(human, protocol)
        found = _form_problems(known.metadata)
        expect(not found, f"{protocol} in the form of a protocol", listing(found), known.exchange)


@requirement("3PN-04")
def test_metadata_reaches_clients_as_it_is(human: User, a: Appservice) -> None:
    """All values are the appservice's own, but for `instance_id` and keys that the homeserver adds."""
    for protocol in ("hqp-meta", _LOOK):
        known = _metadata(human, protocol)
        control(not _form_problems(known.metadata), f"{protocol} is malformed (3PN-03)", known.exchange)
        theirs = thirdparty.METADATA["A", protocol]
        shown = {key: known.metadata[key] for key in theirs}
        own = [set(each) for each in theirs["instances"]]
        shown["instances"] = [
            {key: value for key, value in instance.items() if key in keys}
            for instance, keys in zip(shown["instances"], own, strict=False)
        ] + known.metadata["instances"][len(own) :]
        changed = [key for key in theirs if not same(shown[key], theirs[key])]
        expect(not changed, f"{protocol} as A gives it", f"{listing(changed)} changed", known.exchange)


@requirement("3PN-05")
def test_instances_have_unique_ids(run: Run, human: User, a: Appservice, b: Appservice) -> None:
    """Each instance has a string `instance_id`, which no other one of any protocol or appservice has."""
    seen: dict[str, str] = {}
    documented = run.version is None or run.version >= Version.parse("v1.14")
    for protocol in ("hqp-meta", "hqp-multi", _LOOK, "hqp-b"):
        known = _metadata(human, protocol)
        instances = known.metadata.get("instances")
        control(isinstance(instances, list) and instances, f"{protocol} has no instances (3PN-03)", known.exchange)
        for instance in instances or ():
            control(isinstance(instance, dict), f"an instance of {protocol} is no object (3PN-03)", known.exchange)
            found = instance.get("instance_id")
            if isinstance(found, str):
                expect(found not in seen, "instance_ids of which all are different", f"{found} twice", known.exchange)
                seen[found] = protocol
            elif found is None and not documented:
                prefer(False, f"an instance_id in each instance of {protocol}", "one without", known.exchange)
            else:
                expect(False, f"an instance_id in each instance of {protocol}", found or "none", known.exchange)


@requirement("3PN-06")
def test_a_single_protocol_is_as_in_the_list(human: User, a: Appservice, b: Appservice) -> None:
    """`GET /thirdparty/protocol/{protocol}` equals the entry of the list."""
    listed = _protocols(human)
    if listed.status != 200:
        raise Blocked(_culprit(human, listed) or "3PN-01", f"the list is answered {listed}", listed.exchange)
    there = [protocol for protocol in ("hqp-meta", "hqp-multi", _LOOK, "hqp-b") if protocol in listed.json]
    control(there, "the list of protocols is empty (3PN-01)", listed.exchange)
    for protocol in there:
        answer = human.call("GET", f"/thirdparty/protocol/{protocol}")
        evidence = (answer.exchange, listed.exchange)
        expect(answer.status == 200, f"200 for {protocol}, which is listed", answer, *evidence)
        equal = same(_sorted(answer.value), _sorted(listed.json[protocol]))
        expect(equal, f"{protocol} as it is in the list", "something else", *evidence)


@requirement("3PN-07")
def test_an_unknown_protocol_is_not_found(run: Run, a: Appservice, b: Appservice, human: User) -> Quiet:
    """A protocol that nobody declares is answered 404 M_NOT_FOUND, and nobody is asked about it."""
    known = human.call("GET", "/thirdparty/protocol/hqp-meta")
    control(known.status == 200, f"a known protocol is answered {known} (3PN-06)", known.exchange)
    protocol, marker = run.names.fresh("hqp-none-"), run.journal.marker()
    answer = human.call("GET", f"/thirdparty/protocol/{protocol}")
    expect(answer.status == 404 and answer.errcode, "404 M_NOT_FOUND for an unknown protocol", answer, answer.exchange)
    prefer(answer.errcode == "M_NOT_FOUND", "the errcode M_NOT_FOUND", answer.errcode, answer.exchange)
    run.markers.pass_by("A", "B")
    yield
    for member in run.fleet:
        member.must_not_be_asked(Kind.PROTOCOL, marker, "a protocol that nobody declares", protocol)


@requirement("3PN-08")
def test_a_protocol_of_two_appservices(human: User, a: Appservice, b: Appservice) -> None:
    """The instances of a protocol that two appservices declare may be merged."""
    known = _metadata(human, "hqp-multi")
    instances = known.metadata.get("instances")
    shown = [each.get("desc") for each in instances or () if isinstance(each, dict)]
    all_of = {code: thirdparty.METADATA[code, "hqp-multi"]["instances"] for code in ("A", "B")}
    both = all(each["desc"] in shown for each in (*all_of["A"], *all_of["B"]))
    record(f"of a protocol of two appservices, {listing(shown)}: {'merged' if both else 'not merged'}", known.exchange)


@requirement("3PN-09")
def test_a_protocol_that_its_appservice_denies(human: User, a: Appservice) -> None:
    """Metadata answered 404 is no metadata: not listed, 404 when asked for, and other protocols are as they were."""
    single = human.call("GET", f"/thirdparty/protocol/{_GONE}")
    listed = _protocols(human)
    control(a.requests(Kind.PROTOCOL, subject=_GONE), f"A was not asked about {_GONE} (3PN-02)", single.exchange)
    expect(single.status == 404, f"404 for {_GONE}, which A knows nothing of", single, single.exchange)
    other = human.call("GET", f"/thirdparty/protocol/{_LOOK}")
    if listed.status == 200:
        expect(_GONE not in listed.json, f"no {_GONE} in the list of protocols", "it is there", listed.exchange)
        shown = _LOOK in listed.json or not other.ok  # whether that one is known at all: 3PN-01
        expect(shown, f"{_LOOK} listed, whatever becomes of {_GONE}", "it is not", listed.exchange)


@requirement("3PN-10", shared=True)
def test_users_are_looked_up_with_the_search_fields(run: Run, a: Appservice, human: User) -> None:
    """`GET /thirdparty/user/{protocol}` reaches the appservice with exactly the client's fields."""
    for fields in (thirdparty.KNOWN_USER_FIELDS, _AWKWARD, {"nickname": "x"}, {"nickname": "y", "limit": "5"}):
        _must_pass_on(run, a, human, _USERS, fields)
    empty = {"nickname": "", "network": "net"}
    marker = run.journal.marker()
    human.provoke("GET", _look_up(_USERS, _LOOK, empty))
    came = [dict(_fields(each)) for each in a.requests(_USERS, marker, _LOOK)]
    prefer(empty in came, f"a look-up at A with {empty}", listing(came) or "none")


@requirement("3PN-10", shared=True)
def test_who_looks_up_users_is_no_search_field(run: Run, a: Appservice, b: Appservice) -> None:
    """The `user_id` with which an appservice looks up as a ghost is its own affair, and not passed on."""
    _must_not_tell_who_asks(run, a, b, _USERS, "nickname")


@requirement("3PN-11", shared=True)
def test_users_are_found(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """What the appservice finds is given to the client, be it another appservice: 200, and the same list."""
    found = thirdparty.found_users(_LOOK)
    _must_find(run, a, human, _USERS, thirdparty.KNOWN_USER_FIELDS, found)
    _must_find_the_same(b, _USERS, thirdparty.KNOWN_USER_FIELDS, found)


@requirement("3PN-11", shared=True)
def test_users_are_found_whoever_else_finds_none(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """Of two appservices that declare a protocol one finds users: the client gets them, whatever the other answers."""
    _must_find_with_another(run, a, b, human, _USERS, thirdparty.KNOWN_USER_FIELDS, thirdparty.found_users(_BOTH))


@requirement("3PN-12", shared=True)
def test_locations_are_looked_up_with_the_search_fields(run: Run, a: Appservice, human: User) -> None:
    """`GET /thirdparty/location/{protocol}` reaches the appservice with exactly the client's fields."""
    for fields in (thirdparty.KNOWN_LOCATION_FIELDS, _AWKWARD, {"channel": "#x"}):
        _must_pass_on(run, a, human, _LOCATIONS, fields)


@requirement("3PN-12", shared=True)
def test_who_looks_up_locations_is_no_search_field(run: Run, a: Appservice, b: Appservice) -> None:
    """The `user_id` with which an appservice looks up as a ghost is its own affair, and not passed on."""
    _must_not_tell_who_asks(run, a, b, _LOCATIONS, "channel")


@requirement("3PN-13", shared=True)
def test_locations_are_found(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """What the appservice finds is given to the client, be it another appservice: 200, and the same list."""
    found = thirdparty.found_locations(_LOOK)
    _must_find(run, a, human, _LOCATIONS, thirdparty.KNOWN_LOCATION_FIELDS, found)
    _must_find_the_same(b, _LOCATIONS, thirdparty.KNOWN_LOCATION_FIELDS, found)


@requirement("3PN-13", shared=True)
def test_locations_are_found_whoever_else_finds_none(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """Of two appservices that declare a protocol one finds locations: the client gets them all the same."""
    found = thirdparty.found_locations(_BOTH)
    _must_find_with_another(run, a, b, human, _LOCATIONS, thirdparty.KNOWN_LOCATION_FIELDS, found)


@requirement("3PN-14")
def test_only_those_who_declare_a_protocol_are_asked(run: Run, a: Appservice, b: Appservice, human: User) -> Quiet:
    """No appservice is asked about a protocol that only others declare, for metadata or for look-ups."""
    human.provoke("GET", "/thirdparty/protocols")
    marker = run.journal.marker()
    for kind, fields in ((_USERS, {"nickname": "x"}), (_LOCATIONS, {"channel": "#x"})):
        human.provoke("GET", _look_up(kind, _LOOK, fields))
        control(a.await_request(kind, marker, subject=_LOOK), f"no {kind} reached A")
    run.markers.pass_by("B")
    yield
    declared = {protocol for member in run.fleet for protocol in _declared(member)}
    for member in run.fleet:
        for kind in (Kind.PROTOCOL, _USERS, _LOCATIONS):
            for protocol in declared - set(_declared(member)):
                member.must_not_be_asked(kind, 0, f"{protocol}, which it does not declare", protocol)


@requirement("3PN-15")
def test_a_look_up_that_finds_nothing(run: Run, a: Appservice, human: User) -> None:
    """What the appservice answers 404, or with an empty list, is 404 M_NOT_FOUND for the client."""
    denial = answer(404, {"errcode": "HQ.CONFORMANCE.NOT_FOUND", "error": "nobody"})
    for kind in (_USERS, _LOCATIONS):
        for reply in (denial, answer(json=[])):
            marker = run.journal.marker()
            with a.scripted(kind, always(reply), subject=_LOOK):
                found = human.call("GET", _look_up(kind, _LOOK, {"network": run.names.fresh()}))
            control(a.requests(kind, marker, _LOOK), f"no {kind} reached A", found.exchange)
            if found.status == 200 and found.value == []:
                expected = f"404 M_NOT_FOUND for {kind} that A answers {reply.status}"
                prefer(False, expected, "200 and an empty list", found.exchange)
            else:
                right = found.status == 404 and found.errcode == "M_NOT_FOUND"
                expect(right, f"404 M_NOT_FOUND for {kind} that A answers {reply.status}", found, found.exchange)


@requirement("3PN-16")
def test_users_are_looked_up_in_reverse(run: Run, a: Appservice, human: User) -> None:
    """`GET /thirdparty/user?userid=` reaches an appservice, and what it says the client."""
    odd = "/=" if run.version is not None and run.version < Version.parse("v1.8") else "/=+"
    for middle in ("", odd):
        wanted = run.user_id(f"{run.names.fresh('hqa-')}{middle}-rev")
        _must_find_in_reverse(run, human, Kind.REVERSE_USER, "userid", wanted)


@requirement("3PN-17")
def test_aliases_are_looked_up_in_reverse(run: Run, a: Appservice, human: User) -> None:
    """`GET /thirdparty/location?alias=` reaches an appservice, and what it says the client."""
    for middle in ("", "/#é?%2f&=+"):
        wanted = run.alias(f"{run.names.fresh('hqa-')}{middle}-rev")
        _must_find_in_reverse(run, human, Kind.REVERSE_LOCATION, "alias", wanted)


@requirement("3PN-18")
def test_look_ups_need_a_token(run: Run, a: Appservice, human: User) -> Quiet:
    """Without a token each endpoint is answered 401 M_MISSING_TOKEN, and no appservice is asked."""
    text, other = run.names.fresh("stranger"), run.names.fresh("human")
    marker = run.journal.marker()
    nowhere = human.call("GET", f"/thirdparty/{run.names.fresh('hq-nowhere')}")
    for path, subject in (
        ("/thirdparty/protocols", "{}"),
        ("/thirdparty/protocol/hqp-meta", "{}"),
        (f"/thirdparty/user/{_LOOK}", "nickname={}"),
        (f"/thirdparty/location/{_LOOK}", "channel={}"),
        ("/thirdparty/user", "userid={}"),
        ("/thirdparty/location", "alias={}"),
    ):
        twin = human.call("GET", f"{path}?{subject.format(other)}")
        absent = twin.status in (404, 405) and twin.errcode == "M_UNRECOGNIZED"
        if absent or (not twin.ok and (twin.status, twin.errcode) == (nowhere.status, nowhere.errcode)):
            record(f"{path} is not there", twin.exchange)
            continue
        answer = run.client.call("GET", f"{CLIENT}{path}?{subject.format(text)}", party="stranger")
        right = answer.status == 401 and answer.errcode == "M_MISSING_TOKEN"
        expect(right, f"401 M_MISSING_TOKEN for {path} without a token", answer, answer.exchange)
    run.markers.pass_by("A")
    yield
    for member in run.fleet:
        for request in member.requests(since=marker):
            asked = text in request.raw_query
            expect(not asked, f"no request at {member} for a stranger", f"{request.method} {request.target}", request)


@requirement("3PN-19")
def test_protocol_ids_are_encoded(run: Run, a: Appservice, human: User) -> None:
    """A protocol ID with blanks, slashes and the like is encoded in the path, for metadata and for look-ups."""
    answer = human.call("GET", f"/thirdparty/protocol/{segment(_ODD)}")
    requests = a.requests(Kind.PROTOCOL, subject=_ODD)
    others = [each for each in a.requests(Kind.PROTOCOL) if a.route(each).subject not in _declared(a)]
    control(requests or others or _delivered(a), "A was asked for no metadata at all (3PN-02)", answer.exchange)
    expect(requests, f"the metadata of {_ODD!r} asked of A", listing(e.raw_path for e in others) or "not", *others[:1])
    expect(answer.status == 200, f"200 for the protocol {_ODD!r}", answer, answer.exchange)
    for kind in (_USERS, _LOCATIONS):
        marker = run.journal.marker()
        human.provoke("GET", _look_up(kind, _ODD, {"network": "net"}))
        if any(a.requests(kind, subject=_LOOK)):  # look-ups as such: 3PN-10, 3PN-12
            came = a.requests(kind, marker)
            requests += [each for each in came if a.route(each).subject == _ODD]
            right = any(a.route(each).subject == _ODD for each in came)
            expect(right, f"a look-up in {_ODD!r} at A", listing(each.raw_path for each in came) or "none", *came[:1])
    plain = [each for each in requests if not re.search("/hqp[^/]*$", each.raw_path)]
    prefer(not plain, f"the slash of {_ODD!r} encoded as %2F", listing(each.raw_path for each in plain), *plain[:1])


@requirement("3PN-20")
def test_malformed_metadata_is_left_out(human: User, a: Appservice) -> None:
    """An appservice that talks rubbish about one protocol, or fails, does not spoil the list of protocols."""
    for protocol in (_BAD, _DOWN):
        single = human.call("GET", f"/thirdparty/protocol/{protocol}")
        listed = _protocols(human)
        asked = a.requests(Kind.PROTOCOL, subject=protocol)
        control(asked, f"A was not asked about {protocol} (3PN-02)", single.exchange)
        if listed.status != 200:
            culprit = _culprit(human, listed) or "3PN-01"
            if culprit != "3PN-20":
                raise Blocked(culprit, f"the list is answered {listed}", listed.exchange)
            expect(single.status < 500, f"no server error for {protocol}", single, single.exchange)
        elif protocol in listed.json:
            found = problems("protocol", listed.json[protocol])
            expect(not found, f"{protocol} left out of the list, or in the right form", listing(found), listed.exchange)


@requirement("3PN-21")
def test_a_protocol_of_an_appservice_without_url(human: User, n: Appservice, a: Appservice) -> None:
    """A protocol declared by an appservice that cannot be asked breaks neither the list nor its own look-up."""
    single = human.call("GET", f"/thirdparty/protocol/{_NULL}")
    listed = _protocols(human)
    expect(single.status < 500, f"no server error for {_NULL}", single, single.exchange)
    if listed.status == 200:
        shown = not _delivered(a) or listed.json  # which ones: 3PN-01
        expect(shown, f"the other protocols listed beside {_NULL}", "an empty list", listed.exchange)
        return
    culprit = _culprit(human, listed)
    if culprit != "3PN-21":
        raise Blocked(culprit or "3PN-01", f"the list of protocols is answered {listed}", listed.exchange)
    expect(False, f"200 for the list of protocols, in spite of {_NULL}", listed, listed.exchange)


# Metadata


class _Known(NamedTuple):
    """The metadata of a protocol as clients see it, and the exchange that shows it."""

    metadata: dict[str, Any]
    exchange: Exchange


def _protocols(human: User) -> Response:
    return human.call("GET", "/thirdparty/protocols")


def _metadata(human: User, protocol: str) -> _Known:
    """What clients are told of a protocol: in the list, or by itself where there is no list.

    :raises Blocked: neither has it.
    """
    listed = _protocols(human)
    if listed.status == 200 and isinstance(listed.json.get(protocol), dict):
        return _Known(listed.json[protocol], listed.exchange)
    single = human.call("GET", f"/thirdparty/protocol/{segment(protocol)}")
    if single.status != 200 or not isinstance(single.value, dict):
        raise Blocked("3PN-01", f"{protocol} is neither listed nor known by itself", listed.exchange, single.exchange)
    return _Known(single.json, single.exchange)


def _form_problems(metadata: dict[str, Any]) -> list[str]:
    """What is wrong with the form of metadata, but for the `instance_id`s, which are 3PN-05."""
    instances = metadata.get("instances")
    if isinstance(instances, list):
        plain = [
            {key: value for key, value in each.items() if key != "instance_id"} if isinstance(each, dict) else each
            for each in instances
        ]
        metadata = metadata | {"instances": plain}
    return problems("protocol#complete", metadata)


def _culprit(human: User, listed: Response) -> str | None:
    """Whose fault it probably is that there is no list: of a protocol that fails by itself; else, if all others are
    well, of the one that has nobody to be asked.
    """
    for protocol, row in ((_GONE, "3PN-09"), (_BAD, "3PN-20"), (_NULL, "3PN-21"), (_DOWN, "3PN-20")):
        if human.call("GET", f"/thirdparty/protocol/{protocol}").status >= 500:
            return row
    others = all(human.call("GET", f"/thirdparty/protocol/{each}").ok for each in ("hqp-meta", "hqp-b"))
    return "3PN-21" if others and listed.status >= 500 else None


def _declared(member: Appservice) -> list[str]:
    """The protocols that an appservice declares."""
    return list(member.registration.extra.get("protocols", ()))


def _delivered(member: Appservice) -> list[str]:
    """The protocols of which an appservice was asked and has usable metadata."""
    asked = {member.route(each).subject for each in member.requests(Kind.PROTOCOL)}
    usable = [protocol for code, protocol in thirdparty.METADATA if code == member.code and protocol != _BAD]
    return [protocol for protocol in usable if protocol in asked]


def _is_list(exchange: Exchange) -> bool:
    return exchange.direction is Direction.TO_HOMESERVER and exchange.path.endswith("/thirdparty/protocols")


def _is_given(shown: Any, member: Appservice, protocol: str) -> bool:
    """Whether metadata names the networks that an appservice gives: only it can have told them."""
    theirs = thirdparty.METADATA.get((member.code, protocol))
    instances = shown.get("instances") if isinstance(shown, dict) else None
    if theirs is None or not isinstance(instances, list):
        return False
    told = {each.get("desc") for each in instances if isinstance(each, dict)}
    return bool(theirs["instances"]) and {each["desc"] for each in theirs["instances"]} <= told


def _sorted(metadata: Any) -> Any:
    """Metadata with its instances in one order: that is the homeserver's own affair."""
    if not isinstance(metadata, dict) or not isinstance(metadata.get("instances"), list):
        return metadata
    instances = sorted(metadata["instances"], key=lambda instance: json.dumps(instance, sort_keys=True))
    return metadata | {"instances": instances}


# Look-ups


def _look_up(kind: Kind, protocol: str, fields: dict[str, str]) -> str:
    """The path of a look-up, with its query; blanks as %20, which has one meaning only."""
    return f"/thirdparty/{_PATHS[kind]}/{segment(protocol)}?{urlencode(fields, quote_via=quote)}"


def _fields(request: Exchange) -> list[tuple[str, str]]:
    """The search fields of a look-up as they arrived; a token of before v1.4 is none."""
    return sorted(pair for pair in request.query if pair[0] != "access_token")


def _must_pass_on(run: Run, a: Appservice, human: User, kind: Kind, fields: dict[str, str]) -> None:
    name = next(iter(fields))
    fields = fields | {name: f"{fields[name]}{run.names.fresh('-')}"}  # results that are known already may be kept
    marker = run.journal.marker()
    human.provoke("GET", _look_up(kind, _LOOK, fields))
    came = [each for each in a.requests(kind, marker, _LOOK) if each.received is not None]
    others = a.requests(since=marker)
    expected = f"a look-up of {_PATHS[kind]} in {_LOOK} at A with {fields}"
    expect(came, expected, listing(each.target for each in others) or "none", *others[:1])
    for request in came:
        expect(_fields(request) == sorted(fields.items()), expected, dict(_fields(request)), request)


def _must_not_tell_who_asks(run: Run, a: Appservice, b: Appservice, kind: Kind, name: str) -> None:
    ghost, fields, marker = b.ghost(), {name: run.names.fresh("x-")}, run.journal.marker()
    ghost.provoke("GET", f"/thirdparty/{_PATHS[kind]}/{segment(_LOOK)}", query=fields)
    came = [each for each in a.requests(kind, marker, _LOOK) if each.received is not None]
    control(came, f"no {kind} of {ghost} reached A")
    seen = sorted(each for each, _ in _fields(came[0]))
    prefer(seen == [name], f"a look-up at A with {name} and nothing else", f"with {listing(seen)}", came[0])


def _must_find(
    run: Run, a: Appservice, human: User, kind: Kind, fields: dict[str, str], found: list[dict[str, Any]]
) -> None:
    marker = run.journal.marker()
    answer = human.call("GET", _look_up(kind, _LOOK, fields))
    asked = any(_fields(each) == sorted(fields.items()) for each in a.requests(kind, marker, _LOOK))
    control(asked, f"no {kind} reached A with the search fields", answer.exchange)
    expect(answer.status == 200, f"200 for a look-up of {_PATHS[kind]} that finds something", answer, answer.exchange)
    expect(same(answer.value, found), f"what A found: {found}", answer.exchange.response_body[:300], answer.exchange)


def _must_find_the_same(b: Appservice, kind: Kind, fields: dict[str, str], found: list[dict[str, Any]]) -> None:
    """An appservice with a look-up that a human made already must be told the same."""
    acting = b.sender.whoami()
    control(acting.ok, f"{b} cannot act as its sender user (IDENT-01): {acting}", acting.exchange)
    again = b.sender.call("GET", _look_up(kind, _LOOK, fields))
    seen = f"{again} {again.exchange.response_body[:300]!r}"
    expect(same(again.value, found), f"what a human was told, for {b}", seen, again.exchange)


def _must_find_with_another(
    run: Run, a: Appservice, b: Appservice, human: User, kind: Kind, fields: dict[str, str], found: list[dict[str, Any]]
) -> None:
    own, name = [{**each, "fields": {**each["fields"], "of": "A"}} for each in found], next(iter(fields))
    with a.scripted(kind, always(answer(json=own)), _BOTH):
        for status in (404, 500):
            fields = fields | {name: run.names.fresh("x-")}  # what was found before may be kept
            with b.scripted(kind, always(answer(status, {"errcode": "HQ.CONFORMANCE.NOTHING", "error": "no"})), _BOTH):
                marker = run.journal.marker()
                told = human.call("GET", _look_up(kind, _BOTH, fields))
            control(a.requests(kind, marker, _BOTH), f"no {kind} in {_BOTH} reached A", told.exchange)
            judged = expect if status == 404 else prefer  # of an error of one of them nothing is said
            shown = told.value if isinstance(told.value, list) else []
            there = all(any(same(entry, each) for each in shown) for entry in own)
            judged(there, f"what A found, while B answers {status}", told.exchange.response_body[:300], told.exchange)


def _must_find_in_reverse(run: Run, human: User, kind: Kind, parameter: str, wanted: str) -> None:
    place = "user" if kind is Kind.REVERSE_USER else "location"
    path = f"/thirdparty/{place}?{urlencode({parameter: wanted}, quote_via=quote)}"
    marker = run.journal.marker()
    answer = human.call("GET", path)
    asked = [request for member in run.fleet for request in member.requests(kind, marker)]
    right = [request for request in asked if _fields(request) == [(parameter, wanted)]]
    seen = listing(request.target for request in asked) or f"none; the client is answered {answer}"
    expect(right, f"a reverse look-up of {wanted} at an appservice", seen, answer.exchange, *asked[:1])
    told = run.journal.wait_for(lambda each: each in right and each.answer_until is not None, marker, 1.0)
    control(told is not None and told.status == 200, f"no appservice knew {wanted}", answer.exchange)
    expect(answer.status == 200, f"200 for the reverse look-up of {wanted}", answer, answer.exchange)
    shown = answer.value if isinstance(answer.value, list) else []
    there = told and all(any(same(entry, each) for each in shown) for entry in told.response_json)
    expect(there, f"what the appservice found of {wanted}", answer.exchange.response_body[:300], answer.exchange)
