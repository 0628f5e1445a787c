"""NSUSER: exclusivity of user IDs (AS: Server admin style permissions)."""

from __future__ import annotations

from dataclasses import replace

from conformance.appservice.fleet import Appservice
from conformance.homeserver.client import CLIENT, Response, segment
from conformance.homeserver.signup import Signup
from conformance.homeserver.users import User
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.verdict import Blocked, Inconclusive, caution, expect, prefer


def _is_exclusive(answer: Response) -> bool:
    return answer.refused and answer.errcode == "M_EXCLUSIVE"


def _whole_way(signup: Signup, localpart: str) -> Response:
    """A human's registration, as far as the suite can take it."""
    return signup.finish(signup.first(localpart))


@requirement("NSUSER-01")
def test_humans_cannot_take_the_names_of_ghosts(a: Appservice, signup: Signup) -> None:
    """A human who registers in an exclusive namespace gets 400 M_EXCLUSIVE; the name stays free for the appservice."""
    signup.must_be_open()
    localpart = a.fresh_localpart()
    answer = _whole_way(signup, localpart)
    expect(
        answer.status == 400 and answer.errcode == "M_EXCLUSIVE",
        f"400 and M_EXCLUSIVE for a human who registers {localpart}",
        answer,
        answer.exchange,
    )
    a.ghost()  # that A can register ghosts at all is NSUSER-08
    later = a.register(localpart)
    expect(later.ok, f"A can register {localpart} after that", later, answer.exchange, later.exchange)
    began = signup.first(signup.names.fresh("human-"))
    if not began.stages:
        return  # the rest of the way is not open to the suite
    localpart = a.fresh_localpart()
    changed = signup.finish(replace(began, localpart=localpart, body={**began.body, "username": localpart}))
    expect(
        not (changed.ok and str(changed.json.get("user_id")).startswith(f"@{localpart}:")),
        f"no account {localpart} for a human who began to register as {began.localpart}",
        f"{changed} {changed.json.get('user_id', '')}",
        began.exchange,
        changed.exchange,
    )


@requirement("NSUSER-02")
def test_humans_are_refused_before_authentication(a: Appservice, signup: Signup) -> None:
    """A human who registers in an exclusive namespace is refused at once, not asked to authenticate first.

    Whatever else the human asks for: no login, or a device of that name.
    """
    signup.must_be_open()
    for more in ({}, {"inhibit_login": True}, {"device_id": "HQ", "initial_device_display_name": "a device"}):
        attempt = signup.first(a.fresh_localpart(), more=more)
        what = f" with {' and '.join(more)}" if more else ""
        expect(
            not attempt.proceeds,
            f"400 and M_EXCLUSIVE at the first POST /register of a human for {attempt.localpart}{what}",
            attempt,
            attempt.exchange,
        )
        if not (attempt.exclusive and attempt.response.status == 400):
            raise Blocked("NSUSER-01", f"refused at once, but with {attempt}", attempt.exchange)


@requirement("NSUSER-03")
def test_humans_may_register_in_open_namespaces(run: Run, a: Appservice, b: Appservice, signup: Signup) -> None:
    """A namespace that is not exclusive, even one of two appservices, is open to humans."""
    signup.must_be_open()
    attempt = signup.first(run.names.fresh("hqopen-"))
    expected = f"a human may register {attempt.localpart}, which {a} and {b} claim without exclusivity"
    expect(not attempt.exclusive, expected, attempt, attempt.exchange)
    if attempt.flows is not None and attempt.stages is None:
        return  # the rest of the way is not open to the suite
    answer = signup.finish(attempt)
    if not answer.ok:
        ordinary = _whole_way(signup, run.names.fresh("human-"))
        if not ordinary.ok:
            raise Inconclusive(f"an ordinary name cannot be registered either: {ordinary}", ordinary.exchange)
    expect(answer.ok, expected, answer, attempt.exchange, answer.exchange)


@requirement("NSUSER-04")
def test_availability_knows_the_namespaces(run: Run, a: Appservice) -> Quiet:
    """`/register/available` says M_EXCLUSIVE in an exclusive namespace and free in one that is not exclusive."""

    def ask(prefix: str) -> Response:
        return run.client.call(
            "GET", f"{CLIENT}/register/available", party="human", query={"username": run.names.fresh(prefix)}
        )

    reserved = ask(a.prefix)
    yield  # who asks again at once is made to wait by some servers
    free = ask("hqopen-")
    is_reserved = reserved.status == 400 and reserved.errcode == "M_EXCLUSIVE"
    is_free = free.status == 200 and free.json.get("available") is True
    if not (is_reserved and is_free):
        ordinary = ask("human-")
        if ordinary.status != 200 or ordinary.json.get("available") is not True:
            raise Inconclusive(f"an ordinary name is not available either: {ordinary}", ordinary.exchange)
    expect(is_reserved, "400 and M_EXCLUSIVE for a name in an exclusive namespace", reserved, reserved.exchange)
    seen = f"{free} {free.json if free.ok else ''}".strip()
    expect(is_free, "200 and available: true for a name in a namespace that is not exclusive", seen, free.exchange)


@requirement("NSUSER-05", shared=True)
def test_appservices_cannot_take_each_others_names(run: Run, a: Appservice, b: Appservice) -> None:
    """Registering in another appservice's exclusive namespace is refused with M_EXCLUSIVE."""
    for member in (a, b):
        member.ghost()  # that they can register at all is NSUSER-08
    for thief, prefix in ((b, "hqa-"), (b, "hqa2-"), (b, "hqa.dot-"), (a, "hqb-")):
        localpart = run.names.fresh(prefix)
        answer = thief.register(localpart)
        expect(_is_exclusive(answer), f"M_EXCLUSIVE when {thief} registers {localpart}", answer, answer.exchange)


@requirement("NSUSER-05", shared=True, fuzz=True)
def test_generated_names_of_others(run: Run) -> None:
    """Names near generated namespaces: those in another appservice's exclusive one are refused."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices, "NSUSER-05")


@requirement("NSUSER-06", shared=True)
def test_an_open_namespace_does_not_open_anothers_exclusive_one(run: Run, a: Appservice, b: Appservice) -> None:
    """A name in B's own open namespace and in A's exclusive one is A's alone."""
    b.ghost()  # that B can register at all is NSUSER-08
    localpart = run.names.fresh("hqa-shared-")
    answer = b.register(localpart)
    expected = f"M_EXCLUSIVE when {b} registers {localpart}, which is exclusive to {a}"
    expect(_is_exclusive(answer), expected, answer, answer.exchange)


@requirement("NSUSER-06", shared=True, fuzz=True)
def test_generated_names_in_two_namespaces(run: Run) -> None:
    """Names in a generated open namespace and in another appservice's exclusive one are that one's alone."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices, "NSUSER-06")


@requirement("NSUSER-07", shared=True)
def test_appservices_are_held_to_their_namespaces(run: Run, a: Appservice, human: User) -> None:
    """Registering outside its namespaces is refused with M_EXCLUSIVE, and there is no such user afterwards."""

    def profile(localpart: str) -> Response:
        return human.call("GET", f"/profile/{segment(run.user_id(localpart))}")

    a.ghost()  # that A can register at all is NSUSER-08
    unknown = profile(run.names.fresh("free-"))
    # A name nobody claims, one that has a namespace's text further on, one that only B claims (and not exclusively).
    for prefix in ("free-", "x-hqa-", "hqt-"):
        localpart = run.names.fresh(prefix)
        answer = a.register(localpart)
        expect(_is_exclusive(answer), f"M_EXCLUSIVE when {a} registers {localpart}", answer, answer.exchange)
        if not unknown.ok:
            seen = profile(localpart)
            expect(not seen.ok, f"no user {localpart}", f"it has a profile ({seen})", answer.exchange, seen.exchange)


@requirement("NSUSER-07", shared=True, fuzz=True)
def test_generated_names_of_nobody(run: Run) -> None:
    """Names near generated namespaces: appservices are refused those outside their own."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices, "NSUSER-07")


@requirement("NSUSER-08", shared=True)
def test_appservices_can_register_in_their_own_namespace(run: Run, a: Appservice) -> None:
    """An exclusive namespace is open to its own appservice, also where another one has an open namespace within it."""
    for prefix in ("hqa-", "hqa-shared-"):
        localpart = run.names.fresh(prefix)
        answer = a.register(localpart)
        expect(answer.status == 200, f"200 when {a} registers its own {localpart}", answer, answer.exchange)


@requirement("NSUSER-08", shared=True, fuzz=True)
def test_generated_names_of_ones_own(run: Run) -> None:
    """Names in a generated exclusive namespace are open to its appservice."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices, "NSUSER-08")


@requirement("NSUSER-09", shared=True)
def test_appservices_share_open_namespaces(run: Run, a: Appservice, b: Appservice) -> None:
    """Both appservices that claim a namespace without exclusivity can register users in it, in either order."""
    for member in (a, b):
        member.ghost()  # that they can register at all is NSUSER-08
    for member in (a, b, a):
        localpart = run.names.fresh("hqopen-")
        answer = member.register(localpart)
        expect(answer.status == 200, f"200 when {member} registers {localpart}", answer, answer.exchange)


@requirement("NSUSER-09", shared=True, fuzz=True)
def test_generated_names_in_shared_namespaces(run: Run) -> None:
    """Names in generated open namespaces are open to their appservices."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices, "NSUSER-09")


@requirement("NSUSER-10")
def test_an_exclusive_entry_counts_behind_an_open_one(run: Run, a: Appservice, b: Appservice, signup: Signup) -> None:
    """A name that B's open `@hqt-.*` and, after it, B's exclusive `@hqt-vip-.*` cover is exclusive."""
    signup.must_reserve(a.prefix)
    signup.must_reserve(b.prefix, otherwise="REG-08")  # it stands behind others in the list, too, but overlaps none
    vip = signup.first(run.names.fresh("hqt-vip-"))
    expect(vip.exclusive, f"M_EXCLUSIVE for a human who registers {vip.localpart}", vip, vip.exchange)
    common = signup.first(run.names.fresh("hqt-"))
    if common.exclusive and signup.first(run.names.fresh("hqopen-")).exclusive:
        raise Blocked("NSUSER-03", f"every open namespace is closed to humans: {common}", common.exchange)
    expect(not common.exclusive, f"{common.localpart} is not exclusive", common, common.exchange)


@requirement("NSUSER-11")
def test_capitals_do_not_open_an_exclusive_namespace(run: Run, a: Appservice, signup: Signup) -> None:
    """A human who writes a reserved name in capitals gets no account inside the exclusive namespace."""
    signup.must_reserve(a.prefix)
    for spelt in ("HQA-", "Hqa-", "hqA-"):
        attempt = signup.first(run.names.fresh(spelt))
        answer = signup.finish(attempt)
        user_id = str(answer.json.get("user_id")) if answer.ok else ""
        expect(
            not any(entry.exclusive and entry.matches(user_id) for entry in a.registration.users or ()),
            f"a human who registers {attempt.localpart} gets no user in an exclusive namespace of {a}",
            f"{answer} {user_id}",
            attempt.exchange,
            answer.exchange,
        )
        name = run.names.fresh(spelt)
        told = signup.client.call("GET", f"{CLIENT}/register/available", party="human", query={"username": name})
        prefer(told.json.get("available") is not True, f"{name} not said to be available", told, told.exchange)


@requirement("NSUSER-12")
def test_names_with_an_underscore_are_the_appservices(run: Run, a: Appservice, signup: Signup) -> None:
    """The namespace `@_hqa_.*` is closed to humans and open to its appservice."""
    signup.must_reserve(a.prefix)
    signup.must_reserve("hqa2-", otherwise="REG-08")
    attempt = signup.first(run.names.fresh("_hqa_"))
    code = attempt.response.errcode
    expect(
        attempt.exclusive or (attempt.response.refused and code == "M_INVALID_USERNAME"),
        f"M_EXCLUSIVE or M_INVALID_USERNAME for a human who registers {attempt.localpart}",
        attempt,
        attempt.exchange,
    )
    caution(attempt.exclusive or not run.strict, "M_EXCLUSIVE", attempt, attempt.exchange)
    a.ghost()  # that A can register ghosts at all is NSUSER-08
    localpart = run.names.fresh("_hqa_")  # whether the refused name is still free is NSUSER-01
    answer = a.register(localpart)
    expect(answer.status == 200, f"200 when A registers {localpart}", answer, answer.exchange)


@requirement("NSUSER-13", fuzz=True)
def test_generated_names(run: Run, a: Appservice, n: Appservice, signup: Signup) -> None:
    """Names near generated namespaces are reserved when an exclusive entry covers them, and only then."""
    signup.must_reserve(a.prefix)
    signup.must_reserve("hqa2-", otherwise="REG-08")
    signup.must_reserve(n.prefix, otherwise="NSUSER-14")
    shared = signup.first(run.names.fresh("hqopen-"))
    if shared.exclusive:
        raise Blocked("NSUSER-03", f"open namespaces are closed to humans: {shared}", shared.exchange)
    run.fuzz.judge(run.fuzz.of_humans(), "users")


@requirement("NSUSER-14")
def test_an_appservice_without_url_owns_its_names(a: Appservice, n: Appservice, signup: Signup) -> None:
    """The exclusive namespace of an appservice whose url is null is closed to humans."""
    signup.must_reserve(a.prefix)
    attempt = signup.first(n.fresh_localpart())
    expected = f"M_EXCLUSIVE for a human who registers {attempt.localpart}, exclusive to {n}"
    expect(attempt.exclusive, expected, attempt, attempt.exchange)


@requirement("NSUSER-15")
def test_an_unreachable_appservice_owns_its_names(a: Appservice, d: Appservice, signup: Signup) -> None:
    """The exclusive namespace of an appservice that cannot be reached is closed to humans, without waiting for it."""
    signup.must_reserve(a.prefix)
    attempt = signup.first(d.fresh_localpart())
    expected = f"M_EXCLUSIVE for a human who registers {attempt.localpart}, exclusive to {d}"
    expect(attempt.exclusive, expected, attempt, attempt.exchange)


@requirement("NSUSER-16")
def test_exclusivity_hides_nobody(run: Run, a: Appservice, human: User, human1: User) -> None:
    """Humans can view a ghost's profile, invite it, and be in rooms with it."""
    ghost, other = a.ghost(), run.humans.another()
    for user in (other, ghost):  # neither shares a room with who looks
        path = f"/profile/{segment(user.user_id)}/displayname"
        user.do("set a display name", "PUT", path, json={"displayname": f"Name of {user.localpart}"})
    human.do("view another human's profile", "GET", f"/profile/{segment(other.user_id)}")
    profile = human.call("GET", f"/profile/{segment(ghost.user_id)}")

    def named() -> bool | None:
        shown = human.call("GET", f"/profile/{segment(ghost.user_id)}").json.get("displayname")
        return shown == f"Name of {ghost.localpart}" or None

    shown = f"{profile} {profile.json.get('displayname')}"
    expect(run.eventually(named), f"a human sees the display name of {ghost}", shown, profile.exchange)
    room = human.create_room(preset="private_chat")
    human.invite(room, human1)
    invite = human.call("POST", f"/rooms/{segment(room)}/invite", json={"user_id": ghost.user_id})
    expect(invite.ok, f"a human can invite {ghost}", invite, invite.exchange)
    ghost.join(room)
    message = ghost.send(room)
    joined = f"/rooms/{segment(room)}/joined_members"

    def member() -> bool | None:
        return ghost.user_id in (human.do("list the members", "GET", joined).json.get("joined") or {}) or None

    def seen() -> bool | None:
        return message in [event.get("event_id") for event in human.timeline(room)] or None

    expect(run.eventually(member), f"{ghost} among the members", "it is not listed")
    expect(run.eventually(seen), f"the message of {ghost} in the room", "the events of the room without it")
