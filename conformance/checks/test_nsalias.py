"""NSALIAS: exclusivity of room aliases (AS: Server admin style permissions)."""

from __future__ import annotations

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.homeserver.client import CLIENT, Response, segment
from conformance.homeserver.users import User
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import Blocked, Inconclusive, control, expect, listing, prefer, record


def _set(user: User, alias: str, room: str) -> Response:
    return user.call("PUT", f"/directory/room/{segment(alias)}", json={"room_id": room})


def _created(user: User, localpart: str) -> Response:
    return user.call("POST", "/createRoom", json={"preset": "public_chat", "room_alias_name": localpart})


def _delete(user: User, alias: str) -> Response:
    return user.call("DELETE", f"/directory/room/{segment(alias)}")


def _plain_alias(user: User, room: str) -> str:
    """Control: an alias of a room that no namespace covers."""
    alias = user.alias(user.names.fresh("free-"))
    user.set_alias(alias, room)
    control(user.resolve(alias) == room, f"set-up: the ordinary alias {alias} does not resolve")
    return alias


def _tails(user: User, room: str) -> list[str]:
    """What the aliases of a check end in: some in more than plain ASCII, if ordinary ones may."""
    _plain_alias(user, room)
    beyond = ("-ü", "-/#%2f")
    return ["", *(tail for tail in beyond if _set(user, user.alias(user.names.fresh("free-") + tail), room).ok)]


def _is_exclusive(answer: Response) -> bool:
    return answer.refused and answer.errcode == "M_EXCLUSIVE"


def _must_be_refused(user: User, alias: str, room: str, resolver: User) -> None:
    """Setting an alias gets M_EXCLUSIVE, and the alias does not exist afterwards."""
    answer = _set(user, alias, room)
    expect(_is_exclusive(answer), f"M_EXCLUSIVE when {user} sets {alias}", answer, answer.exchange)
    found = resolver.resolve(alias)
    expect(found is None, f"{alias} does not resolve", f"it resolves to {found}", answer.exchange)


def _must_resolve(user: User, alias: str, room: str) -> None:
    """Control: an alias that is to stay resolves for who will look."""
    control(user.resolve(alias) == room, f"set-up: {alias} does not resolve for {user} (NSALIAS-13)")


def _must_be_accepted(user: User, alias: str, room: str) -> None:
    """Setting an alias gets 200."""
    answer = _set(user, alias, room)
    expect(answer.status == 200, f"200 when {user} sets {alias}", answer, answer.exchange)


def _must_be_set(user: User, alias: str, room: str) -> None:
    """Setting an alias gets 200, and the alias points at the room afterwards."""
    _must_be_accepted(user, alias, room)
    found = user.resolve(alias)
    expect(found == room, f"{alias} resolves to {room}", found or "it does not resolve")


def _ghost_with_alias(appservice: Appservice, prefix: str | None = None) -> tuple[User, str, str]:
    """A fresh ghost, a room of its own, and an alias it has given to it."""
    ghost = appservice.ghost()
    room = ghost.create_room()
    alias = ghost.alias(appservice.fresh_localpart(prefix))
    ghost.set_alias(alias, room)
    return ghost, room, alias


@requirement("NSALIAS-01", shared=True)
def test_humans_cannot_take_exclusive_aliases(run: Run, a: Appservice, human: User) -> None:
    """A human who creates an alias in an exclusive namespace gets M_EXCLUSIVE, and there is no such alias."""
    room = human.create_room()
    for tail in _tails(human, room):
        _must_be_refused(human, run.alias(a.fresh_localpart() + tail), room, human)


@requirement("NSALIAS-01", shared=True)
def test_humans_cannot_move_exclusive_aliases(run: Run, a: Appservice, human: User) -> None:
    """A human who gives an exclusive alias that there is to another room is refused, and it leads where it did."""
    _, room, alias = _ghost_with_alias(a)
    _must_resolve(human, alias, room)
    own = human.create_room()
    for what, answer in (
        ("sets", _set(human, alias, own)),
        ("creates a room with", _created(human, alias[1:].partition(":")[0])),
    ):
        expect(answer.refused, f"4xx when a human {what} {alias}, which there is", answer, answer.exchange)
        found = human.resolve(alias)
        expect(found == room, f"{alias} leads where it did", found or "it does not resolve", answer.exchange)


@requirement("NSALIAS-01", shared=True)
def test_humans_of_an_open_namespace_cannot_take_exclusive_aliases(run: Run, a: Appservice, human: User) -> None:
    """A human whom an appservice's namespace of users covers, not exclusively, is none of its users."""
    try:
        guest = run.humans.registered(run.names.fresh("hqopen-"))
    except Inconclusive as closed:
        record(f"no human could be registered in an open namespace: {closed.reason}", *closed.evidence)
        return
    room = guest.create_room()
    _plain_alias(guest, room)
    _must_be_refused(guest, run.alias(a.fresh_localpart()), room, human)


@requirement("NSALIAS-02")
def test_humans_cannot_create_rooms_with_exclusive_aliases(run: Run, a: Appservice, human: User) -> None:
    """A human who gives a new room an alias in an exclusive namespace gets M_EXCLUSIVE; there is no such alias."""
    human.create_room(room_alias_name=run.names.fresh("free-"))
    for tail in _tails(human, human.create_room()):
        if tail and not _created(human, run.names.fresh("free-") + tail).ok:
            continue
        localpart = a.fresh_localpart() + tail
        answer = _created(human, localpart)
        expected = f"M_EXCLUSIVE for a human's createRoom with room_alias_name {localpart}"
        expect(_is_exclusive(answer), expected, answer, answer.exchange)
        found = human.resolve(run.alias(localpart))
        expect(found is None, f"{run.alias(localpart)} does not resolve", f"it resolves to {found}", answer.exchange)


@requirement("NSALIAS-03")
def test_humans_may_use_open_aliases(run: Run, a: Appservice, human: User) -> None:
    """A human can create an alias in a namespace that is not exclusive, and it resolves."""
    room = human.create_room()
    for tail in _tails(human, room):
        _must_be_set(human, run.alias(run.names.fresh("hqopen-") + tail), room)


@requirement("NSALIAS-04", shared=True)
def test_appservices_cannot_take_each_others_aliases(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """Creating an alias in another appservice's exclusive namespace is refused with M_EXCLUSIVE."""
    for thief, owner in ((b, a), (a, b)):
        for user in (thief.sender, thief.ghost()):
            room = user.create_room()
            user.set_alias(run.alias(thief.fresh_localpart()), room)
            _must_be_refused(user, run.alias(owner.fresh_localpart()), room, human)


@requirement("NSALIAS-04", shared=True, fuzz=True)
def test_generated_aliases_of_others(run: Run) -> None:
    """Aliases near generated namespaces: those in another appservice's exclusive one are refused."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices_aliases, "NSALIAS-04")


@requirement("NSALIAS-05", shared=True)
def test_an_open_namespace_does_not_open_anothers_exclusive_aliases(run: Run, a: Appservice, b: Appservice) -> None:
    """An alias in B's own open namespace and in A's exclusive one is A's alone."""
    room = b.sender.create_room()
    b.sender.set_alias(run.alias(b.fresh_localpart()), room)
    alias = run.alias(run.names.fresh("hqa-shared-"))
    answer = _set(b.sender, alias, room)
    expected = f"M_EXCLUSIVE when {b} sets {alias}, which is exclusive to {a}"
    prefer(_is_exclusive(answer), expected, answer, answer.exchange)


@requirement("NSALIAS-05", shared=True, fuzz=True)
def test_generated_aliases_in_two_namespaces(run: Run) -> None:
    """Aliases in a generated open namespace and in another appservice's exclusive one are that one's."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices_aliases, "NSALIAS-05", softly=True)


@requirement("NSALIAS-06", shared=True)
def test_appservices_are_held_to_their_aliases(run: Run, a: Appservice, human: User) -> None:
    """Creating an alias outside its namespaces is refused with M_EXCLUSIVE, directly and in createRoom."""
    for user in (a.sender, a.ghost()):
        room = user.create_room()
        user.set_alias(run.alias(a.fresh_localpart()), room)
        # A name nobody claims, one that has a namespace's text further on, one that only B claims (not exclusively).
        for prefix in ("free-", "x-hqa-", "hqt-"):
            _must_be_refused(user, run.alias(run.names.fresh(prefix)), room, human)
    a.sender.create_room(room_alias_name=a.fresh_localpart())
    localpart = run.names.fresh("free-")
    answer = _created(a.sender, localpart)
    expected = f"M_EXCLUSIVE for a createRoom of {a} with room_alias_name {localpart}"
    expect(_is_exclusive(answer), expected, answer, answer.exchange)
    found = human.resolve(run.alias(localpart))
    expect(found is None, f"{run.alias(localpart)} does not resolve", f"it resolves to {found}", answer.exchange)


@requirement("NSALIAS-06", shared=True, fuzz=True)
def test_generated_aliases_of_nobody(run: Run) -> None:
    """Aliases near generated namespaces: appservices are refused those outside their own."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices_aliases, "NSALIAS-06")


@requirement("NSALIAS-07", shared=True)
def test_appservices_can_create_their_own_aliases(run: Run, a: Appservice, human: User) -> None:
    """An exclusive namespace is open to its appservice, also where another one has an open namespace within it."""
    tails = _tails(human, human.create_room())
    room = a.sender.create_room()
    for prefix in ("hqa-", "hqa-shared-"):
        for tail in tails:
            _must_be_set(a.sender, run.alias(run.names.fresh(prefix) + tail), room)


@requirement("NSALIAS-07", shared=True, fuzz=True)
def test_generated_aliases_of_ones_own(run: Run) -> None:
    """Aliases in generated namespaces of its own are open to an appservice."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices_aliases, "NSALIAS-07")


@requirement("NSALIAS-08")
def test_ghosts_can_create_their_appservices_aliases(run: Run, a: Appservice, human: User) -> None:
    """A ghost can create an alias in its appservice's exclusive namespace."""
    tails = _tails(human, human.create_room())
    a.sender.set_alias(run.alias(a.fresh_localpart()), a.sender.create_room())  # NSALIAS-07
    ghost = a.ghost()
    room = ghost.create_room()
    for tail in tails:
        _must_be_set(ghost, run.alias(a.fresh_localpart() + tail), room)
    ordinary = human.call("POST", "/createRoom", json={"room_alias_name": run.names.fresh("free-")})
    if not ordinary.ok:
        record(f"nobody can create a room with an alias: {ordinary}", ordinary.exchange)
        return
    name = a.fresh_localpart()
    made = ghost.call("POST", "/createRoom", json={"room_alias_name": name})
    expect(made.ok, f"2xx for a room that {ghost} creates with the alias {run.alias(name)}", made, made.exchange)
    found = ghost.resolve(run.alias(name))
    expect(found == made.json.get("room_id"), f"{run.alias(name)} resolves to that room", found or "it does not")


@requirement("NSALIAS-09", shared=True)
def test_humans_cannot_delete_exclusive_aliases(run: Run, a: Appservice, human: User) -> None:
    """The administrator of a room can delete its ordinary aliases, but not one of an exclusive namespace."""
    room = human.create_room()
    ghost = a.ghost()
    ghost.join(room)
    alias = run.alias(a.fresh_localpart())
    ghost.set_alias(alias, room)
    _must_resolve(human, alias, room)
    human.remove_alias(_plain_alias(human, room))
    answer = _delete(human, alias)
    expect(
        answer.refused and answer.errcode in ("M_EXCLUSIVE", "M_FORBIDDEN"),
        f"M_EXCLUSIVE or M_FORBIDDEN when a human, administrator of the room, deletes {alias}",
        answer,
        answer.exchange,
    )
    found = human.resolve(alias)
    expect(found == room, f"{alias} still resolves to {room}", found or "it does not resolve", answer.exchange)


@requirement("NSALIAS-09", shared=True, fuzz=True)
def test_generated_aliases_are_not_deleted_by_humans(run: Run) -> None:
    """Humans cannot delete aliases of generated exclusive namespaces."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices_aliases, "NSALIAS-09")


@requirement("NSALIAS-10", shared=True)
def test_appservices_can_delete_their_own_aliases(a: Appservice) -> None:
    """An appservice can delete an alias of its exclusive namespace, whichever of its users made it."""
    for remover in (a.sender, a.ghost()):
        ghost, _, alias = _ghost_with_alias(a)
        answer = _delete(remover, alias)
        expect(answer.status == 200, f"200 when {remover} deletes {alias}, made by {ghost}", answer, answer.exchange)
        found = ghost.resolve(alias)
        expect(found is None, f"{alias} is gone", f"it resolves to {found}", answer.exchange)


@requirement("NSALIAS-10", shared=True, fuzz=True)
def test_generated_aliases_are_deleted_by_their_appservice(run: Run) -> None:
    """An appservice can delete aliases of its generated namespaces."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices_aliases, "NSALIAS-10")


@requirement("NSALIAS-11")
def test_appservices_can_delete_humans_aliases_in_their_open_namespace(run: Run, a: Appservice, human: User) -> None:
    """An appservice can delete an alias that a human made in its non-exclusive namespace; some read that otherwise."""
    own = a.sender.alias(run.names.fresh("hqopen-"))
    a.sender.set_alias(own, a.sender.create_room())
    a.sender.remove_alias(own)
    alias = run.alias(run.names.fresh("hqopen-"))
    human.set_alias(alias, human.create_room())
    answer = _delete(a.sender, alias)
    expect(
        answer.status == 200 or (answer.status == 403 and not run.strict),
        f"{'200' if run.strict else '200 or 403'} when {a} deletes {alias}, made by a human",
        answer,
        answer.exchange,
    )


@requirement("NSALIAS-12", shared=True)
def test_appservices_cannot_delete_each_others_aliases(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """An alias of another appservice's exclusive namespace cannot be deleted and goes on resolving."""
    for thief, owner in ((b, a), (a, b)):
        _, room, alias = _ghost_with_alias(owner)
        _must_resolve(human, alias, room)
        ghost, _, own = _ghost_with_alias(thief)
        ghost.remove_alias(own)
        for user in (ghost, thief.sender):
            answer = _delete(user, alias)
            expect(answer.refused, f"4xx when {user} deletes {alias} of {owner}", answer, answer.exchange)
            found = human.resolve(alias)
            expect(found == room, f"{alias} still resolves to {room}", found or "it does not resolve", answer.exchange)


@requirement("NSALIAS-12", shared=True, fuzz=True)
def test_generated_aliases_are_not_deleted_by_others(run: Run) -> None:
    """Appservices cannot delete aliases of each other's generated exclusive namespaces."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices_aliases, "NSALIAS-12")


@requirement("NSALIAS-13")
def test_exclusive_aliases_are_not_hidden(a: Appservice, human: User, human1: User) -> None:
    """A human can resolve an alias of an exclusive namespace and join its room by it."""
    ordinary = human1.create_room()
    human.join(_plain_alias(human1, ordinary))
    ghost = a.ghost()
    for tail in _tails(human, ordinary):
        room = ghost.create_room()
        alias = ghost.alias(a.fresh_localpart() + tail)
        ghost.set_alias(alias, room)
        found = human.call("GET", f"/directory/room/{segment(alias)}")
        is_found = found.status == 200 and found.json.get("room_id") == room
        seen = f"{found} {found.json.get('room_id', '')}"
        expect(is_found, f"200 and {room} for a human who resolves {alias}", seen, found.exchange)
        joined = human.call("POST", f"/join/{segment(alias)}", json={})
        is_joined = joined.status == 200 and joined.json.get("room_id") == room
        seen = f"{joined} {joined.json.get('room_id', '')}"
        expect(is_joined, f"200 and {room} for a human who joins {alias}", seen, joined.exchange)


@requirement("NSALIAS-14")
def test_the_whole_alias_is_matched(run: Run, a: Appservice, human: User) -> None:
    """An alias that has an exclusive namespace's text further on is outside that namespace."""
    room = human.create_room()
    _plain_alias(human, room)
    for localpart in (run.names.fresh("x-hqa-"), run.names.fresh("xhqa-"), f"{run.names.fresh()}-hqa-"):
        _must_be_accepted(human, run.alias(localpart), room)


@requirement("NSALIAS-15")
def test_users_namespaces_reserve_no_aliases(run: Run, v1: Appservice, human: User) -> None:
    """A name that appservices claim for users only is free for aliases."""
    room = human.create_room()
    _plain_alias(human, room)
    for prefix in ("hqv1-", "hqa2-"):
        _must_be_accepted(human, run.alias(run.names.fresh(prefix)), room)


@requirement("NSALIAS-16", fuzz=True)
def test_generated_aliases(run: Run, a: Appservice, n: Appservice, human: User) -> None:
    """Aliases near generated namespaces are reserved when an exclusive entry covers them, and only then."""
    room = human.create_room()
    _plain_alias(human, room)
    for member, row in ((a, "NSALIAS-01"), (n, "NSALIAS-01")):
        answer = _set(human, run.alias(member.fresh_localpart()), room)
        if not _is_exclusive(answer):
            raise Blocked(row, f"plain exclusive aliases of {member} are open to humans: {answer}", answer.exchange)
    shared = _set(human, run.alias(run.names.fresh("hqopen-")), room)
    if _is_exclusive(shared):
        raise Blocked("NSALIAS-03", f"open namespaces of aliases are closed to humans: {shared}", shared.exchange)
    run.fuzz.judge(run.fuzz.of_aliases(), "aliases")


@requirement("NSALIAS-17")
def test_an_exclusive_alias_entry_counts_behind_an_open_one(run: Run, b: Appservice, human: User) -> None:
    """An alias that B's open `#hqt-.*` and, after it, B's exclusive `#hqt-vip-.*` cover is exclusive."""
    room = human.create_room()
    _plain_alias(human, room)
    plain = _set(human, run.alias(b.fresh_localpart()), room)
    if not _is_exclusive(plain):
        raise Blocked("NSALIAS-01", f"B's plain exclusive aliases are open to humans: {plain}", plain.exchange)
    vip, common = run.alias(run.names.fresh("hqt-vip-")), run.alias(run.names.fresh("hqt-"))
    answer = _set(human, vip, room)
    expect(_is_exclusive(answer), f"M_EXCLUSIVE when a human sets {vip}", answer, answer.exchange)
    answer = _set(human, common, room)
    if _is_exclusive(answer) and _is_exclusive(_set(human, run.alias(run.names.fresh("hqopen-")), room)):
        raise Blocked("NSALIAS-03", "every open namespace of aliases is closed to humans", answer.exchange)
    expect(answer.status == 200, f"200 when a human sets {common}", answer, answer.exchange)


@requirement("NSALIAS-18", shared=True)
def test_an_open_namespace_does_not_delete_anothers_exclusive_aliases(
    run: Run, a: Appservice, b: Appservice, human: User
) -> None:
    """B cannot delete an exclusive alias of A, even one that B's own open namespace covers."""
    _, room, alias = _ghost_with_alias(a, "hqa-shared-")
    _must_resolve(human, alias, room)
    ghost, _, own = _ghost_with_alias(b)
    ghost.remove_alias(own)
    answer = _delete(b.sender, alias)
    still = human.resolve(alias)
    seen = f"{answer}; {alias} {'still resolves' if still == room else 'is gone'}"
    prefer(answer.refused and still == room, f"4xx when {b} deletes {alias}, exclusive to {a}", seen, answer.exchange)


@requirement("NSALIAS-18", shared=True, fuzz=True)
def test_generated_aliases_in_two_namespaces_are_not_deleted(run: Run) -> None:
    """Nor those which an open namespace of their own covers too."""
    run.fuzz.accuse_as_well(run.fuzz.of_appservices_aliases, "NSALIAS-18", softly=True)


@requirement("NSALIAS-19", fuzz=True)
def test_generated_aliases_are_asked_about(run: Run, q: Appservice) -> None:
    """An appservice is only asked about unknown aliases that its own namespaces cover."""
    for prefix, asked in (("hqq-", ["Q"]), ("free-", [])):
        alias, marker = run.alias(run.names.fresh(prefix)), run.journal.marker()
        run.client.call("GET", f"{CLIENT}/directory/room/{segment(alias)}", party="human")
        seen = [each.code for each in run.fleet if each.requests(Kind.ALIAS, marker, alias)]
        control("Q" in seen or not asked, f"{q} is not asked about {alias} when it is looked up (ALIASQ-01)")
        if seen != asked:
            row = "ALIASQ-04" if asked else "ALIASQ-03"
            raise Blocked(row, f"about {alias}, appservices are asked whom it does not concern: {listing(seen)}")
    found = run.fuzz.of_queries()
    found.accuse("NSALIAS-19")
    found.must_suffice()
