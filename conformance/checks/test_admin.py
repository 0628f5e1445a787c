"""ADMIN: ghosts, their registration, login and privileges (AS: Server admin style permissions)."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from conformance.appservice.fleet import Appservice
from conformance.catalogue.versions import Version
from conformance.homeserver.client import CLIENT, NoAnswer, Response, segment
from conformance.homeserver.users import User
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import Inconclusive, Recorded, caution, control, expect, prefer, record

LOGIN = "m.login.application_service"

#: What a localpart may consist of (CS appendices: user identifiers).
LEGAL_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")

#: The version since which user IDs may have a plus sign.
PLUS_SINCE = Version.parse("v1.8")

#: The longest user ID, in bytes.
LONGEST_USER_ID = 255

#: Messages that a human sends at most to meet a limit; the rooms and threads in which they are sent.
BURST, BURST_ROOMS, BURST_THREADS = 300, 4, 4

#: Rooms that a sender user creates, joins and invites to: more than usual limits allow at once.
OTHERS = 11


def post(run: Run, path: str, body: dict[str, Any], token: str | None = None) -> Response:
    """A call of nobody in particular."""
    return run.client.call("POST", CLIENT + path, party="nobody", token=token, json=body)


def by_appservice(username: str, **content: Any) -> dict[str, Any]:
    """The body with which an appservice registers a ghost."""
    return {"type": LOGIN, "username": username, "inhibit_login": True} | content


def login_as(user: str, **content: Any) -> dict[str, Any]:
    """The body with which an appservice logs in as a ghost."""
    return {"type": LOGIN, "identifier": {"type": "m.id.user", "user": user}} | content


def login_flows(run: Run) -> Response:
    """What the homeserver says about its legacy login API."""
    return run.client.call("GET", f"{CLIENT}/login", party="nobody")


def lacks_legacy_login(flows: Response) -> bool:
    """Whether that says that there is none (CS: legacy API)."""
    return flows.status == 404 and flows.errcode == "M_UNRECOGNIZED"


def need_legacy_login(run: Run) -> None:
    """What follows is about the legacy login API."""
    flows = login_flows(run)
    control(not lacks_legacy_login(flows), "the homeserver has no legacy login API", flows.exchange)


def need_no_legacy_login(run: Run) -> None:
    """What follows is about homeservers without the legacy login API."""
    flows = login_flows(run)
    control(
        lacks_legacy_login(flows), f"the homeserver has the legacy login API: GET /login is {flows}", flows.exchange
    )


def must_be_code(answer: Response, status: int, errcode: str, what: str) -> None:
    """An answer has to have this status and this error code."""
    right = answer.status == status and answer.errcode == errcode
    expect(right, f"{status} {errcode} for {what}", answer, answer.exchange)


def must_not_exist(a: Appservice, localpart: str, attempt: Response) -> None:
    """A refused attempt must not have created the user: the name is still free."""
    again = a.register(localpart)
    taken = again.errcode == "M_USER_IN_USE"
    expect(not taken, f"@{localpart} not created", f"{attempt}, then M_USER_IN_USE", attempt.exchange, again.exchange)
    control(again.ok, f"the name {localpart} cannot be registered at all: {again} (ADMIN-01)", again.exchange)


def must_yield_token(answer: Response, ghost: User, what: str) -> None:
    """An answer has to log in as a ghost: a token and a device, and the token is the ghost's."""
    token, device = answer.json.get("access_token"), answer.json.get("device_id")
    expect(answer.status == 200, f"200 for {what}", answer, answer.exchange)
    missing = [key for key in ("access_token", "device_id") if not isinstance(answer.json.get(key), str)]
    expect(not missing, f"access_token and device_id for {what}", f"no {' and no '.join(missing)}", answer.exchange)
    user = User(ghost.client, ghost.names, f"{ghost} logged in", str(token), ghost.user_id)
    who = user.whoami()
    seen = (who.status, who.json.get("user_id"), who.json.get("device_id", device))
    expected = f"whoami of that token 200, user_id {ghost} and device_id {device}"
    expect(
        seen == (200, ghost.user_id, device), expected, f"{who}, {seen[1]}, {seen[2]}", answer.exchange, who.exchange
    )


@requirement("ADMIN-01")
def test_an_appservice_registers_its_ghosts(run: Run, a: Appservice, b: Appservice) -> None:
    """An appservice can register a user in its namespace with its `as_token`, without interactive authentication."""
    legal = "=/._0" if run.version is not None and run.version < PLUS_SINCE else "=/._0+"
    for appservice, prefix in ((a, "hqa-"), (a, "hqa2-"), (b, "hqb-"), (a, f"hqa-{legal}")):
        localpart = appservice.fresh_localpart(prefix)
        answer = appservice.register(localpart)
        expected = f"200 and user_id {run.user_id(localpart)} for the registration of a ghost of {appservice}"
        right = answer.status == 200 and answer.json.get("user_id") == run.user_id(localpart)
        seen = f"{answer} {answer.json.get('user_id') or ''}{'with flows' if 'flows' in answer.json else ''}"
        expect(right, expected, seen.strip(), answer.exchange)
    longest = LONGEST_USER_ID - len(run.user_id("").encode())
    for length in (min(100, longest), longest):
        localpart = a.fresh_localpart().ljust(length, "x")
        answer = a.register(localpart)
        right = answer.status == 200 and answer.json.get("user_id") == run.user_id(localpart)
        prefer(right, f"200 for a ghost with a name of {length} characters", answer, answer.exchange)


@requirement("ADMIN-02")
def test_closed_registration_does_not_concern_appservices(run: Run, a: Appservice) -> None:
    """An appservice can register users even where registration is closed to humans or needs a captcha or token."""
    name = run.names.fresh("human-")
    human = post(run, "/register", {"username": name, "password": f"{name}-Pw-{run.names.fresh()}"})
    flows = human.json.get("flows")
    stages = [set(flow.get("stages", ())) for flow in flows] if isinstance(flows, list) else []
    open_to_humans = human.ok or any(each <= {"m.login.dummy"} for each in stages)
    control(not open_to_humans, f"registration is open to humans: {human}", human.exchange)
    control(human.status in (401, 403), f"human registration is answered {human}", human.exchange)
    answer = a.register(a.fresh_localpart())
    expected = f"200 for the registration of a ghost, although humans get {human}"
    expect(answer.status == 200, expected, answer, answer.exchange, human.exchange)


@requirement("ADMIN-03")
def test_registering_logs_in_unless_inhibited(run: Run, a: Appservice) -> None:
    """Registering a ghost without `inhibit_login` yields an access token and a device for that ghost."""
    need_legacy_login(run)
    a.ghost()
    contents: tuple[dict[str, Any], ...] = ({}, {"inhibit_login": False}, {"device_id": "HQDEVICE"})
    for content in contents:
        ghost = a.unregistered()
        body = {"type": LOGIN, "username": ghost.localpart, **content}
        answer = a.sender.call("POST", "/register", json=body)
        must_yield_token(answer, ghost, f"a registration with {content or 'no inhibit_login'}")
        device = answer.json.get("device_id")
        right = device == content.get("device_id", device)
        expect(right, f"the device asked for by {content}", f"device_id {device}", answer.exchange)


@requirement("ADMIN-04")
def test_registering_with_inhibit_login_yields_no_token(a: Appservice) -> None:
    """Registering a ghost with `inhibit_login` yields neither an access token nor a device."""
    for content in ({}, {"device_id": "HQDEVICE", "refresh_token": True}):
        answer = a.register(a.fresh_localpart(), **content)
        control(answer.ok, f"a ghost cannot be registered: {answer} (ADMIN-01)", answer.exchange)
        keys = ("access_token", "device_id", "refresh_token", "expires_in_ms")
        found = [key for key in keys if answer.json.get(key) is not None]
        expect(not found, f"none of {', '.join(keys)}", ", ".join(found), answer.exchange)


@requirement("ADMIN-05", shared=True)
def test_a_ghost_registers_once(run: Run, a: Appservice) -> None:
    """Registering the same ghost twice is refused with 400 M_USER_IN_USE."""
    ghost = a.ghost()
    path = f"/profile/{segment(ghost.user_id)}/displayname"
    ghost.provoke("PUT", path, json={"displayname": "the first"})
    before = ghost.call("GET", path).json.get("displayname")
    logging_in: list[dict[str, bool]] = [] if lacks_legacy_login(login_flows(run)) else [{"inhibit_login": False}]
    for content in [{}, *logging_in]:
        answer = a.register(ghost.localpart, **content)
        must_be_code(answer, 400, "M_USER_IN_USE", f"{ghost} registered once more with {content or 'inhibit_login'}")
        name = ghost.call("GET", path).json.get("displayname")
        expect(name == before, f"the display name of {ghost} as before: {before}", name, answer.exchange)


@requirement("ADMIN-05", shared=True)
def test_a_ghost_registers_once_at_a_time(a: Appservice) -> None:
    """Of several registrations of the same ghost at the same time only one succeeds."""
    a.ghost()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(a.register, [a.fresh_localpart()] * 4))
    done, refused = ([answer for answer in answers if answer.ok is ok] for ok in (True, False))
    control(done, f"none of four registrations at the same time succeeds: {refused[:1]}")
    evidence = [answer.exchange for answer in answers]
    expect(len(done) == 1, "one 200 to four registrations of a ghost at the same time", f"{len(done)}", *evidence)
    for answer in refused:
        expect(answer.refused, "4xx for a registration beside the one that succeeds", answer, answer.exchange)


@requirement("ADMIN-05", shared=True)
def test_a_humans_name_is_taken(run: Run, a: Appservice) -> None:
    """A name in an open namespace that a human has registered is refused to the appservice, and stays the human's."""
    a.ghost("hqopen-")
    try:
        owner = run.humans.registered(run.names.fresh("hqopen-"))
    except Inconclusive as closed:
        record(f"no human could be registered in an open namespace: {closed.reason}", *closed.evidence)
        return
    answer = a.register(owner.localpart)
    refused = answer.refused and "access_token" not in answer.json
    expect(refused, f"400 M_USER_IN_USE for {owner.localpart}, which a human has registered", answer, answer.exchange)
    prefer(answer.errcode == "M_USER_IN_USE", "400 M_USER_IN_USE for a human's name", answer, answer.exchange)
    who = owner.whoami()
    expect(who.json.get("user_id") == owner.user_id, f"{owner} still a human's", who, who.exchange, answer.exchange)


@requirement("ADMIN-06")
def test_illegal_names_are_refused_or_mapped(run: Run, a: Appservice) -> None:
    """A ghost's illegal name is refused, or mapped to a legal user ID inside the appservice's namespace."""
    a.ghost()
    for odd in (" blank", "UPPER", "!", "\N{LATIN SMALL LETTER U WITH DIAERESIS}", "a" * 300, "\0", ":x"):
        name = f"{a.fresh_localpart()}{odd}"
        answer = a.register(name)
        what = f"the name hqa-…{odd:.10}"
        expect(answer.refused or answer.status == 200, f"4xx or 200 for {what}", answer, answer.exchange)
        if answer.refused:
            exclusive = ":" in odd and answer.errcode == "M_EXCLUSIVE"  # what has a second colon is nobody's
            right = answer.status == 400 and (answer.errcode == "M_INVALID_USERNAME" or exclusive)
            expect(right or not run.strict, f"400 M_INVALID_USERNAME for {what}", answer, answer.exchange)
            continue
        user_id = str(answer.json.get("user_id"))
        long = len(user_id.encode()) > LONGEST_USER_ID
        expect(not long, f"no user ID over {LONGEST_USER_ID} bytes", f"{len(user_id.encode())} bytes", answer.exchange)
        inside = user_id.startswith("@hqa-") and user_id.endswith(f":{run.server_name}")
        expect(inside, f"a user ID in the namespace for {what}", user_id, answer.exchange)
        localpart = user_id[1:].removesuffix(f":{run.server_name}")
        known = not {":", "\0"} & {*localpart}  # historical user IDs may have every other character
        expect(known, f"a user ID, or none, for {what}", repr(user_id), answer.exchange)
        caution(LEGAL_LOCALPART.fullmatch(localpart), f"no illegal user ID for {what}", user_id, answer.exchange)


@requirement("ADMIN-07")
def test_registering_a_ghost_needs_a_token(run: Run, a: Appservice) -> None:
    """Registering a ghost without a token is refused with 401 M_MISSING_TOKEN."""
    a.ghost()
    answer = post(run, "/register", by_appservice(a.fresh_localpart()))
    must_be_code(answer, 401, "M_MISSING_TOKEN", "the registration of a ghost without a token")


@requirement("ADMIN-08")
def test_registering_a_ghost_needs_a_known_token(run: Run, a: Appservice) -> None:
    """Registering a ghost with an unknown token is refused with 401 M_UNKNOWN_TOKEN, and no user is created."""
    for token in ("hq-as-unknown", f"{a.registration.as_token}x", a.registration.hs_token):
        localpart = a.fresh_localpart()
        answer = post(run, "/register", by_appservice(localpart), token)
        must_not_exist(a, localpart, answer)
        must_be_code(answer, 401, "M_UNKNOWN_TOKEN", "the registration of a ghost with an unknown token")


@requirement("ADMIN-09")
def test_humans_and_ghosts_cannot_register_ghosts(run: Run, a: Appservice, human: User) -> None:
    """Registering a ghost with a human's access token, or with a ghost's own, is refused, and no user is created."""
    users = [human] if lacks_legacy_login(login_flows(run)) else [human, a.log_in(a.ghost())]
    for user in users:
        localpart = a.fresh_localpart()
        answer = user.call("POST", "/register", json=by_appservice(localpart))
        must_not_exist(a, localpart, answer)
        unknown = answer.status == 401 and answer.errcode == "M_UNKNOWN_TOKEN"
        expected = "401 M_UNKNOWN_TOKEN" if run.strict else "401 or 403"
        right = unknown or (answer.status in (401, 403) and not run.strict)
        expect(right, f"{expected} for the registration of a ghost by {user}", answer, answer.exchange)


@requirement("ADMIN-10")
def test_no_password_is_a_ghosts(run: Run, a: Appservice) -> None:
    """No password logs in as a ghost: ghosts have none."""
    ghost = a.ghost()
    for user in (ghost.localpart, ghost.user_id):
        for password in ("", "x", ghost.localpart):
            identifier = {"type": "m.id.user", "user": user}
            body = {"type": "m.login.password", "identifier": identifier, "password": password}
            answer = post(run, "/login", body)
            expect(answer.refused, f"a 4xx for a login as {user} with password {password!r}", answer, answer.exchange)


@requirement("ADMIN-11")
def test_the_name_of_the_sender(run: Run, a: Appservice) -> None:
    """The name of the sender user may or may not be reserved against human registration."""
    name = a.registration.sender_localpart
    answer = post(run, "/register", {"username": name, "password": f"{run.names.fresh('not-used-')}-Pw"})
    record(f"a human who registers {name} gets {answer}", answer.exchange)


@requirement("ADMIN-12")
def test_an_appservice_logs_in_as_its_ghost(run: Run, a: Appservice) -> None:
    """An appservice can log in as its ghost with its `as_token`, naming it by localpart or by full user ID."""
    need_legacy_login(run)
    ghosts = [a.ghost(), a.ghost("hqopen-")]
    for ghost in ghosts:
        tokens = []
        for name in (ghost.localpart, ghost.user_id):
            answer = a.sender.call("POST", "/login", json=login_as(name))
            must_yield_token(answer, ghost, f"a login as {name}")
            user_id = answer.json.get("user_id")
            expect(user_id == ghost.user_id, f"user_id {ghost} for a login as {name}", user_id, answer.exchange)
            tokens.append(str(answer.json.get("access_token")))
        first = User(ghost.client, ghost.names, f"{ghost} logged in", tokens[0], ghost.user_id).whoami()
        prefer(first.ok, f"a token of {ghost} still valid after a login with another device", first, first.exchange)


@requirement("ADMIN-13")
def test_a_login_honours_the_device_id(run: Run, a: Appservice) -> None:
    """Logging in as a ghost honours the `device_id` asked for, and a second login with it ends the first token."""
    need_legacy_login(run)
    ghost, bystander = a.ghost(), a.log_in(a.ghost())
    tokens = []
    for device in ("HQDEVICE", "HQDEVICE", "HQ-OTHER"):
        answer = a.sender.do(f"log in as {ghost}", "POST", "/login", json=login_as(ghost.localpart, device_id=device))
        seen = answer.json.get("device_id")
        expect(seen == device, f"device_id {device} as asked for", f"device_id {seen}", answer.exchange)
        token = str(answer.json.get("access_token"))
        tokens.append(User(ghost.client, ghost.names, f"{ghost} logged in", token, ghost.user_id))
    first, second, _ = (user.whoami() for user in tokens)
    control(second.ok and bystander.whoami().ok, f"whoami of the second login: {second} (ADMIN-12)", second.exchange)
    prefer(first.status == 401, "401 for the first token of a device that logged in again", first, first.exchange)


@requirement("ADMIN-14")
def test_nobody_outside_the_namespaces_can_be_logged_in_as(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """An appservice that logs in as a user outside its namespaces is refused with M_EXCLUSIVE."""
    need_legacy_login(run)
    ghost = a.ghost()
    a.log_in(ghost)
    b.log_in(b.ghost())
    senders = [member.sender for member in run.fleet if member is not a]
    for appservice, user in ((a, human), (b, ghost), *((a, sender) for sender in senders)):
        for name in (user.localpart, user.user_id):
            answer = appservice.sender.call("POST", "/login", json=login_as(name))
            what = f"a login of {appservice} as {name}, outside its namespaces"
            refused = answer.refused and "access_token" not in answer.json
            expected = f"M_EXCLUSIVE for {what}"
            expect(refused and answer.errcode in ("M_EXCLUSIVE", "M_FORBIDDEN"), expected, answer, answer.exchange)
            prefer(answer.errcode == "M_EXCLUSIVE", expected, answer, answer.exchange)
    answer = a.sender.call("POST", "/login", json=login_as(f"@{ghost.localpart}:other.example"))
    refused = answer.refused and "access_token" not in answer.json
    expect(refused, "4xx for a login as a ghost's namesake of another server", answer, answer.exchange)
    who = human.whoami()
    expect(who.ok, f"{human} still logged in, as whom A was refused to be", who, who.exchange)


@requirement("ADMIN-15")
def test_a_login_registers_nobody(run: Run, a: Appservice) -> None:
    """Logging in as a ghost that was never registered is refused with M_FORBIDDEN, and no user is created."""
    need_legacy_login(run)
    a.log_in(a.ghost())
    for full in (False, True):
        ghost = a.unregistered()
        answer = a.sender.call("POST", "/login", json=login_as(ghost.user_id if full else ghost.localpart))
        refused = answer.refused and answer.errcode == "M_FORBIDDEN" and "access_token" not in answer.json
        expect(refused, f"4xx M_FORBIDDEN for a login as {ghost}, never registered", answer, answer.exchange)
        must_not_exist(a, ghost.localpart, answer)


@requirement("ADMIN-16")
def test_logging_in_needs_a_valid_token(run: Run, a: Appservice, human: User) -> None:
    """Logging in as a ghost without a valid `as_token` is refused with 401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN."""
    need_legacy_login(run)
    ghost = a.ghost()
    a.log_in(ghost)
    for token, what in (
        (None, "no token"),
        ("hq-as-unknown", "an unknown token"),
        (a.registration.hs_token, "the hs_token"),
        (human.token, "a human's token"),
        (a.log_in(a.ghost()).token, "another ghost's own token"),
    ):
        answer = post(run, "/login", login_as(ghost.localpart), token)
        right = answer.status == 401 and answer.errcode in ("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN")
        lenient = not run.strict and answer.refused and answer.errcode == "M_FORBIDDEN"
        expected = f"401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN for a login as a ghost with {what}"
        expect(right or lenient, expected, answer, answer.exchange)


@requirement("ADMIN-17")
def test_the_login_flows_name_that_of_appservices(run: Run) -> None:
    """The list of login flows names `m.login.application_service`."""
    need_legacy_login(run)
    answer = login_flows(run)
    flows = answer.json.get("flows")
    types = [flow.get("type") for flow in flows] if isinstance(flows, list) else []
    expect(answer.ok and LOGIN in types, f"{LOGIN} among the login flows", f"{answer} {types}", answer.exchange)


@requirement("ADMIN-18")
def test_without_legacy_login_registering_must_inhibit_it(run: Run, a: Appservice) -> None:
    """Without the legacy login API, registering a ghost without `inhibit_login` is refused with the code for that."""
    need_no_legacy_login(run)
    a.ghost()
    for content in ({}, {"inhibit_login": False}):
        localpart = a.fresh_localpart()
        answer = a.sender.call("POST", "/register", json={"type": LOGIN, "username": localpart, **content})
        what = f"the registration of a ghost with {content or 'no inhibit_login'}"
        must_be_code(answer, 400, "M_APPSERVICE_LOGIN_UNSUPPORTED", what)
        must_not_exist(a, localpart, answer)


@requirement("ADMIN-19")
def test_without_legacy_login_registering_still_works(run: Run, a: Appservice) -> None:
    """Without the legacy login API, registering a ghost with `inhibit_login` still works."""
    need_no_legacy_login(run)
    localpart = a.fresh_localpart()
    answer = a.register(localpart)
    right = answer.status == 200 and answer.json.get("user_id") == run.user_id(localpart)
    expect(right, f"200 and user_id {run.user_id(localpart)}", answer, answer.exchange)


@requirement("ADMIN-20")
def test_without_legacy_login_there_is_a_code_for_logging_in(run: Run, a: Appservice) -> None:
    """Without the legacy login API, logging in as a ghost is refused with 400 M_APPSERVICE_LOGIN_UNSUPPORTED."""
    need_no_legacy_login(run)
    answer = a.sender.call("POST", "/login", json=login_as(a.ghost().localpart))
    must_be_code(answer, 400, "M_APPSERVICE_LOGIN_UNSUPPORTED", "a login as a ghost")


@dataclass(frozen=True)
class Burst:
    """Messages sent as fast as possible: how many, how long it took, and the answers 429 that ended it."""

    count: int
    seconds: float
    refused: list[Response]

    @property
    def per_second(self) -> float:
        """How many messages a second the limit that was met allows at most in the long run."""
        waits = [answer.json.get("retry_after_ms") for answer in self.refused]
        longest = max((wait for wait in waits if isinstance(wait, (int, float))), default=0)
        return min(self.count / self.seconds, 1000 / max(longest, 1))


def burst(user: User, count: int) -> Burst:
    """Have a user send `count` messages as fast as possible, or until some are refused with 429."""
    rooms = [user.create_room() for _ in range(BURST_ROOMS)]
    numbers, refused = itertools.count(), list[Response]()

    def send() -> None:
        while not refused and (number := next(numbers)) < count:
            path = f"/rooms/{segment(rooms[number % BURST_ROOMS])}/send/m.room.message/burst{number}"
            with contextlib.suppress(NoAnswer):
                body = {"msgtype": "m.text", "body": "one of many"}
                answer = user.call("PUT", path, json=body, obey_limits=False)
                if answer.status == 429:
                    refused.append(answer)

    began = time.monotonic()
    threads = [threading.Thread(target=send) for _ in range(BURST_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Burst(min(next(numbers), count), time.monotonic() - began, refused)


@functools.cache
def human_burst(human: User) -> Burst:
    """The burst with which a human meets the limit on messages, if there is one; done once in a run."""
    return burst(human, BURST)


def must_outdo(human: User, user: User) -> None:
    """Have a user send twice as many messages as a human may: none may be refused with 429."""
    limit = human_burst(human)
    control(limit.refused, f"{human} met no limit with {limit.count} messages in {limit.seconds:.1f} s")
    more = burst(user, 2 * limit.count)
    evidence = [answer.exchange for answer in [*more.refused[:1], *limit.refused[:1]]]
    expected = f"no 429 for {2 * limit.count} messages of {user}"
    expect(not more.refused, expected, f"429 after {more.count}, for {human} after {limit.count}", *evidence)
    too_fast = limit.count > limit.per_second * (more.seconds - limit.seconds)
    control(too_fast, f"{more.count} messages took {more.seconds:.1f} s: too slow to meet a limit")


@requirement("ADMIN-21")
def test_ghosts_are_not_limited_where_rate_limited_is_false(run: Run, a: Appservice, human3: User) -> None:
    """Ghosts of an appservice with `rate_limited: false` are not rate-limited: in rooms, logins and messages."""
    ghost = a.ghost()
    must_meet_no_limit(a, ghost, human3)
    for number in range(OTHERS if not lacks_legacy_login(login_flows(run)) else 0):
        answer = a.sender.call("POST", "/login", json=login_as(ghost.localpart), obey_limits=False)
        expect(answer.status != 429, f"no 429 for a login as {ghost}", f"429 after {number}", answer.exchange)
    must_outdo(human3, ghost)


def must_meet_no_limit(appservice: Appservice, user: User, human: User) -> None:
    """Have a user create, join, leave and invite to more rooms than usual limits allow: none may be refused with 429.

    Invites go to ghosts: others would make the homeserver ask about them.
    """
    room = human.create_room()
    for number in range(OTHERS):
        made = user.call("POST", "/createRoom", json={}, obey_limits=False)
        answers = [made, user.call("POST", f"/join/{segment(room)}", json={}, obey_limits=False)]
        if made.ok:
            path = f"/rooms/{segment(made.json['room_id'])}/invite"
            guest = {"user_id": appservice.ghost().user_id}  # how many invites somebody may get is another limit
            answers.append(user.call("POST", path, json=guest, obey_limits=False))
        answers.append(user.call("POST", f"/rooms/{segment(room)}/leave", json={}, obey_limits=False))
        for answer in answers:
            expected = f"no 429 for {user} creating, joining, leaving or inviting to rooms"
            expect(answer.status != 429, expected, f"429 after {number}", answer.exchange)
    record(f"{user} created, joined and invited to {OTHERS} rooms and met no limit")


@requirement("ADMIN-22")
def test_the_sender_is_not_limited_where_rate_limited_is_true(x: Appservice, human3: User) -> None:
    """The sender user is not rate-limited in sending, joining, inviting and creating rooms, whatever `rate_limited`."""
    must_meet_no_limit(x, x.sender, human3)
    must_outdo(human3, x.sender)


@requirement("ADMIN-23")
def test_deactivating_a_ghost(a: Appservice) -> None:
    """An appservice can deactivate its ghost with its `as_token`, without a password; recorded in both readings."""
    ghost = a.ghost()
    try:
        answer, afterwards = ghost.call("POST", "/account/deactivate", json={}), ghost.whoami()
    except NoAnswer as error:
        raise Inconclusive(f"no answer: {error}", error.exchange) from error
    raise Recorded(
        f"deactivating a ghost is answered {answer}, acting as it afterwards {afterwards}",
        answer.exchange,
        afterwards.exchange,
    )


def name_it(ghost: User) -> Response:
    """Try to set a ghost's display name."""
    return ghost.call("PUT", f"/profile/{segment(ghost.user_id)}/displayname", json={"displayname": "just born"})


def is_named(ghost: User) -> bool | None:
    """Whether that works."""
    return name_it(ghost).ok or None


@requirement("ADMIN-24")
def test_a_new_ghost_can_act_at_once(run: Run, a: Appservice) -> None:
    """A ghost can be acted as immediately after its registration, even if it was tried before in vain."""
    for asked_before in (False, True):
        ghost = a.unregistered()
        if asked_before:
            ghost.whoami()
        registered = a.register(ghost.localpart)
        control(registered.ok, f"a ghost cannot be registered: {registered} (ADMIN-01)", registered.exchange)
        answer = name_it(ghost)
        if not answer.ok and not asked_before:  # will it ever?
            later = run.eventually(functools.partial(is_named, ghost))
            control(later, f"a ghost cannot set its display name at all: {answer} (IDENT-14)", answer.exchange)
        expect(answer.status == 200, f"200 for the display name of {ghost}, just registered", answer, answer.exchange)


@requirement("ADMIN-26")
def test_a_registration_without_a_name_makes_no_stranger(run: Run, a: Appservice) -> None:
    """With a username that is no name, a ghost is refused with 4xx or made in the namespace; without one it should be.

    A homeserver has to make a name where there is none (CS: Account registration), of whatever namespace.
    """
    a.ghost()
    unusable: tuple[Any, ...] = ("", None, 5, True, ["hqa-list"], {"hqa-": "object"})
    bodies: list[dict[str, Any]] = [{}, *({"username": each} for each in unusable), {"user": a.fresh_localpart()}]
    for body in bodies:
        answer = a.sender.call("POST", "/register", json={"type": LOGIN, "inhibit_login": True, **body})
        expect(answer.ok or answer.refused, f"4xx or 200 for a registration with {body}", answer, answer.exchange)
        user_id = str(answer.json.get("user_id"))
        inside = any(entry.matches(user_id) for entry in a.registration.users or ())
        # To many a JSON library null is no key at all, and so is "" to some.
        judged = prefer if body.get("username") in (None, "") else expect
        judged(answer.refused or inside, f"a user of {a}, if any, for {body}", user_id, answer.exchange)
    answer = a.sender.call("POST", "/register", json={"username": a.fresh_localpart(), "inhibit_login": True})
    expect(answer.ok or answer.refused, "4xx or 200 for a registration without a type", answer, answer.exchange)
    record(f"a registration without a type is answered {answer}", answer.exchange)


@requirement("ADMIN-27")
def test_a_login_as_the_sender_is_no_sham(run: Run, a: Appservice) -> None:
    """A login as the sender user, whom nobody has registered, is refused, or its token is the sender's."""
    need_legacy_login(run)
    a.log_in(a.ghost())
    for name in (a.sender.localpart, a.sender.user_id):
        answer = a.sender.call("POST", "/login", json=login_as(name))
        expect(answer.ok or answer.refused, f"200 or 4xx for a login as {name}", answer, answer.exchange)
        if answer.ok:
            must_yield_token(answer, a.sender, f"a login as {name}")
        record(f"a login as the sender user is answered {answer}", answer.exchange)


@requirement("ADMIN-25", last=True)
def test_logging_out_does_not_revoke_the_as_token(a: Appservice) -> None:
    """Logging out as a ghost does not revoke the `as_token`; judged last, since nothing would work after that."""
    ghost, other = a.ghost(), a.ghost()
    for user in (ghost, a.sender, other):
        before = user.whoami()
        acts = before.ok and before.json.get("user_id") == user.user_id
        control(acts, f"{a} cannot act as {user} (IDENT-01, -02): {before}", before.exchange)
    for path in ("/logout", "/logout/all"):
        try:
            logout = ghost.call("POST", path, json={})
        except NoAnswer as error:
            raise Inconclusive(f"{path} was not answered: {error}", error.exchange) from error
        for user in (a.sender, other):
            answer = user.whoami()
            right = answer.status == 200 and answer.json.get("user_id") == user.user_id
            expected = f"200 and user_id {user} from whoami with the as_token after {path} as {ghost}"
            expect(right, expected, answer, logout.exchange, answer.exchange)


# The bursts come last: they take longest.
