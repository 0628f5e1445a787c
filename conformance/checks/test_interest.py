"""INTEREST: which events are pushed to an appservice (AS: Registration, AS: Pushing events).

What is sent in a room is a matter of INTEREST-02 first: every other row has its positive control before its stimulus.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from conformance.appservice.fleet import Appservice, Event
from conformance.appservice.routes import Kind
from conformance.appservice.script import Hold, always, answer
from conformance.catalogue.versions import Version
from conformance.homeserver.client import segment
from conformance.homeserver.users import User
from conformance.markers import matching_room
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.verdict import Blocked, Broken, Inconclusive, control, expect, prefer, record
from conformance.wire.exchange import Exchange


@requirement("INTEREST-01", shared=True)
def test_an_invite_for_a_ghost_reaches_its_appservice(run: Run, a: Appservice, human: User) -> None:
    """An event whose target is one of the appservice's users is pushed, in whichever of its namespaces the user is."""
    run.markers.pass_by("A")
    room = human.create_room(preset="private_chat")
    for prefix in ("hqa-", "hqa2-"):
        ghost = a.ghost(prefix)
        human.invite(room, ghost)
        invite = human.member_event(room, ghost)
        a.must_receive(invite, f"the invite for {ghost}")
    ghost = a.ghost()
    room = human.create_room(preset="private_chat", invite=[str(ghost)])
    a.must_receive(human.member_event(room, ghost), f"the invite for {ghost}, given while the room was created")
    room = human.create_room(preset="private_chat")
    invite = human.set_state(room, "m.room.member", {"membership": "invite"}, str(ghost))
    a.must_receive(invite, f"the invite for {ghost}, sent as state")


@requirement("INTEREST-01", shared=True)
def test_a_second_invite_reaches_the_appservice(run: Run, a: Appservice, human: User) -> None:
    """A ghost that has refused an invite, left, or been removed is invited again."""
    run.markers.pass_by("A")
    room, invites = human.create_room(preset="private_chat"), {}
    for how in ("refused", "left", "been kicked", "been banned"):
        ghost = a.ghost()
        human.invite(room, ghost)
        if how != "refused":
            ghost.join(room)
        _go(human, room, ghost, how)
        human.invite(room, ghost)
        invites[how] = human.member_event(room, ghost)
    for how, invite in invites.items():
        a.must_receive(invite, f"the second invite for a ghost that had {how}")


@requirement("INTEREST-02", shared=True)
def test_messages_in_a_ghosts_room_reach_the_appservice(a: Appservice, human: User) -> None:
    """Every event of a room that one of the appservice's users has joined is pushed to it."""
    for prefix in ("hqa-", "hqa2-"):
        room = human.create_room()
        ghost = a.ghost(prefix)
        ghost.join(room)
        human.send(room)  # the first after a join is INTEREST-30
        for count in ("first", "second"):
            a.must_receive(human.send(room), f"the {count} message in a room that {ghost} has joined")


@requirement("INTEREST-02", shared=True)
def test_a_ghost_that_comes_back_counts_again(run: Run, a: Appservice, human: User) -> None:
    """A ghost that left, was removed or was banned, and has joined again, is a member like any other."""
    room, ghost = human.create_room(), a.ghost()
    ghost.join(room)
    _warm_up(a, human, room)
    for how in ("left", "left and forgotten it", "been kicked", "been banned"):
        _go(human, room, ghost, how)
        human.send(room)
        ghost.join(room)
        human.send(room)  # the first after a join is INTEREST-30
        a.must_receive(human.send(room), f"a message in a room that the only ghost has joined again, having {how}")


@requirement("INTEREST-02", shared=True)
def test_who_leaves_takes_nobody_along(a: Appservice, human: User) -> None:
    """As long as one of the appservice's users is in a room it is interesting, whoever of them has left."""
    room = human.create_room()
    leaving, kicked, banned, _ = users = [a.ghost(), a.sender, a.ghost("hqopen-"), a.ghost("hqa2-")]
    for user in users:
        user.join(room)
    _warm_up(a, human, room)
    leaving.leave(room)
    a.must_receive(human.send(room), "a message after one of three ghosts and the sender user had left")
    human.kick(room, kicked)
    a.must_receive(human.send(room), "a message after the sender user had been kicked, with two ghosts there")
    human.ban(room, banned)
    a.must_receive(human.send(room), "a message after one of two ghosts had been banned")


@requirement("INTEREST-02", shared=True)
def test_what_happened_while_a_ghost_was_there_is_pushed(a: Appservice, b: Appservice, human: User) -> None:
    """What waits for a slow appservice is pushed though its ghost has left the room meanwhile."""
    room, ghost = human.create_room(), a.ghost()
    for user in (ghost, b.ghost()):
        user.join(room)
    _warm_up(a, human, room)
    hold, marker = Hold(4.0), a.journal.marker()
    with a.scripted(Kind.TRANSACTION, always(answer(hold=hold))):
        try:
            human.send(room)
            a.await_request(Kind.TRANSACTION, marker)
            sent = [human.send(room) for _ in range(2)]
            b.await_event(sent[-1])  # so that the homeserver has looked at both before the ghost leaves
            ghost.leave(room)
        finally:
            hold.release()
    for event in sent:
        a.must_receive(event, "a message that waited for the appservice when its ghost left")


@requirement("INTEREST-02", shared=True)
def test_every_kind_of_room_is_interesting(run: Run, a: Appservice, human: User, elsewhere: _Elsewhere) -> None:
    """Private and direct rooms, spaces, and rooms of any version that can be made."""
    run.markers.pass_by("A")
    kinds: dict[str, dict[str, Any]] = {
        "a private room": {"preset": "private_chat"},
        "a direct room": {"preset": "trusted_private_chat", "is_direct": True},
        "a space": {"creation_content": {"type": "m.space"}},
        "a room that is closed to other servers": {"creation_content": {"m.federate": False}},
        **{f"a room of version {number}": {"room_version": number} for number in ("1", "3", "6", "9", "10", "11")},
    }
    for what, body in kinds.items():
        try:
            room = human.create_room(**body)
        except Inconclusive as refused:
            record(f"{what} could not be made: {refused.reason}", *refused.evidence)
            continue
        ghost = a.ghost()
        human.invite(room, ghost)
        ghost.join(room)
        human.send(room)
        a.must_receive(human.send(room), f"a message in {what}")
        events = [
            _Sent("a topic", "INTEREST-03", human.set_state(room, "m.room.topic", {"topic": human.names.fresh()}))
        ]
        elsewhere.must_all_arrive(run, a, events, f"in {what}")


@requirement("INTEREST-02", shared=True)
def test_whatever_happened_to_a_room_it_is_interesting(a: Appservice, b: Appservice, human: User) -> None:
    """Also with many members, encrypted, hidden, closed or retired."""
    room = human.create_room()
    for _ in range(12):
        b.ghost().join(room)
    a.ghost().join(room)
    human.send(room)
    events = {"a message in a room that a ghost has joined as the fourteenth": human.send(room)}
    for what, kind, content in (
        ("whose history is for the invited", "m.room.history_visibility", {"history_visibility": "invited"}),
        ("whose history is for members", "m.room.history_visibility", {"history_visibility": "joined"}),
        ("that is closed to guests", "m.room.guest_access", {"guest_access": "forbidden"}),
        ("that is by invitation", "m.room.join_rules", {"join_rule": "invite"}),
        ("that is encrypted", "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}),
        ("that has a tombstone", "m.room.tombstone", {"body": "gone", "replacement_room": human.create_room()}),
    ):
        human.set_state(room, kind, content)
        events[f"a message in a room {what}"] = human.send(room)
    for message, event in events.items():
        a.must_receive(event, message)


@requirement("INTEREST-03")
def test_state_events_reach_the_appservice(run: Run, a: Appservice, human: User) -> None:
    """All events means state events too: those of Matrix, and custom types with any state key."""
    room, other = _room_with_a_ghost(a, human), human.create_room()
    levels = human.state(room, "m.room.power_levels")
    state = human.do("read the state", "GET", f"/rooms/{segment(room)}/state").value
    first = {each.get("event_id") for each in state if isinstance(each, dict)} if isinstance(state, list) else set()
    changes: list[tuple[str, dict[str, Any], str]] = [
        ("m.room.topic", {"topic": "another subject"}, ""),
        ("m.room.name", {"name": "another name"}, ""),
        ("m.room.power_levels", levels | {"invite": 1}, ""),
        ("m.room.join_rules", {"join_rule": "invite"}, ""),
        ("m.room.history_visibility", {"history_visibility": "joined"}, ""),
        ("org.hq.x", {"some": "thing"}, ""),
        ("org.hq.x", {"some": "other thing"}, "an odd key: é #1"),
        ("org.hq.x", {}, "an odd key: é #1"),
        ("org.hq.x", {"some": "thing"}, str(human)),
        ("m.room.avatar", {"url": "mxc://hq.example/avatar"}, ""),
        ("m.room.canonical_alias", {}, ""),
        ("m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}, ""),
        ("m.room.guest_access", {"guest_access": "can_join"}, ""),
        ("m.room.pinned_events", {"pinned": []}, ""),
        ("m.room.server_acl", {"allow": ["*"], "deny": []}, ""),
        (
            "m.room.third_party_invite",
            {"display_name": "x", "key_validity_url": "https://hq.example/", "public_key": "x"},
            "token",
        ),
        ("m.space.child", {"via": [run.server_name]}, other),
        ("m.space.parent", {"via": [run.server_name]}, other),
        ("m.room.tombstone", {"body": "moved", "replacement_room": other}, ""),
    ]
    sent = {}
    for kind, content, state_key in changes:
        try:
            event = human.set_state(room, kind, content, state_key)
            if event in first:  # from before the ghost came: state that changes nothing may be no new event
                record(f"{kind} was in the room as it is from the beginning")
            else:
                sent[f"{kind} with the state key {state_key!r}"] = event
        except Inconclusive as refused:
            control(not kind.startswith("org."), refused.reason, *refused.evidence)
            record(f"{kind} is refused: {refused.reason}", *refused.evidence)
    for what, event in sent.items():
        a.must_receive(event, what)


@requirement("INTEREST-04")
def test_memberships_of_humans_reach_the_appservice(run: Run, a: Appservice, human: User) -> None:
    """All events means the memberships of other people too."""
    # A new name is told in all rooms of its bearer: it must be nobody on whom a lane counts.
    room, other = _room_with_a_ghost(a, human), run.humans.another()
    steps: dict[str, Callable[[], None]] = {
        "join": lambda: other.join(room),
        "leave": lambda: other.leave(room),
        "invite": lambda: human.invite(room, other),
        "kick": lambda: human.kick(room, other),
        "ban": lambda: human.ban(room, other),
        "unban": lambda: human.unban(room, other),
    }
    for name, step in steps.items():
        step()
        a.must_receive(human.member_event(room, other), f"the {name} of a human")
    other.join(room)
    renamed = _renamed(run, other, human, room)
    if renamed is None:
        record("new display names are not announced in rooms")
    else:
        a.must_receive(renamed, "the membership event with a human's new display name")
    other.leave(room)
    for what, event in _comings_and_goings(human, other, room):
        a.must_receive(event, what)
    for what, event in _knocks(human, other, room):
        a.must_receive(event, f"{what} (of a human)")


@requirement("INTEREST-05")
def test_messages_of_all_types_reach_the_appservice(a: Appservice, human: User) -> None:
    """Custom types, encrypted messages, reactions, stickers, edits and notices are pushed, as they were sent."""
    room = _room_with_a_ghost(a, human)
    message = human.send(room)
    new = {"msgtype": "m.text", "body": "corrected"}
    events: list[tuple[str, dict[str, Any]]] = [
        (
            "m.room.message",
            {
                "msgtype": "m.text",
                "body": "* corrected",
                "m.new_content": new,
                "m.relates_to": {"rel_type": "m.replace", "event_id": message},
            },
        ),
        ("m.room.message", new | {"m.relates_to": {"rel_type": "m.thread", "event_id": message}}),
        ("m.room.message", new | {"m.relates_to": {"m.in_reply_to": {"event_id": message}}}),
        ("m.room.message", {"msgtype": "m.notice", "body": "by a bot"}),
        ("m.room.message", {"msgtype": "m.emote", "body": "waves"}),
        ("m.room.message", {"msgtype": "m.image", "body": "i.png", "url": "mxc://hq.example/i", "info": {"w": 1}}),
        ("m.room.message", {"msgtype": "org.hq.own", "body": "of one's own"}),
        ("org.hq.msg", {"nested": {"list": [1, None, {"é": "\u2028 ☃"}], "": ""}, "yes": True, "number": -(2**40)}),
        (
            "m.room.encrypted",
            {
                "algorithm": "m.megolm.v1.aes-sha2",
                "ciphertext": "AwgAEnACgAkLmt6qF84IK++J7UDH2Za1YVchHyprqTqsg2yyOwAtHaZ",
                "device_id": "HQDEVICE",
                "sender_key": "IlRMeOPX2e0MurIyfWEucYBRVOEEUMrOHqn/8mLqMjA",
                "session_id": "X3lUlvLELLYxeTx4yOVu6UDpasGEVO0Jbu+QFnm0cKQ",
            },
        ),
        ("m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": message, "key": "👍"}}),
        ("m.sticker", {"body": "a snowman", "url": "mxc://hq.example/snowman", "info": {"w": 32, "h": 32}}),
    ]
    for event_id, (kind, content) in [
        (human.send_event(room, kind, content), (kind, content)) for kind, content in events
    ]:
        pushed = a.must_receive(event_id, f"{kind} {content.get('m.relates_to') or content.get('msgtype', '')}".strip())
        seen = {"type": pushed.get("type"), "content": pushed.get("content")}
        expect(seen == {"type": kind, "content": content}, f"{kind} unchanged: {content}", seen, _carrier(a, event_id))


@requirement("INTEREST-06")
def test_redactions_reach_the_appservice(a: Appservice, human: User) -> None:
    """The redaction of a message is pushed, and that of state, and that of what a ghost has sent."""
    room, ghost = _room_with_a_ghost(a, human), a.ghost()
    ghost.join(room)
    targets = {
        "a message": human.send(room),
        "a state event": human.set_state(room, "org.hq.x", {"some": "thing"}),
        "a message of a ghost": ghost.send(room),
    }
    a.await_event(targets["a message"])
    redactions = {what: human.redact(room, target) for what, target in targets.items()}
    for what, redaction in redactions.items():
        a.must_receive(redaction, f"the redaction of {what}")


@requirement("INTEREST-07", shared=True)
def test_what_a_ghost_sends_comes_back(a: Appservice, human: User) -> None:
    """The sender is a member of the room as well: what the appservice itself sends is pushed to it."""
    room = human.create_room()
    for which in ("the only ghost of a room", "a second ghost"):
        ghost = a.ghost()
        ghost.join(room)
        _warm_up(a, human, room)
        a.must_receive(ghost.send(room), f"a message that {which} has sent")
    human.promote(room, ghost)
    a.await_event(human.set_state(room, "m.room.topic", {"topic": "a human's"}))
    a.must_receive(ghost.set_state(room, "m.room.topic", {"topic": "a ghost's"}), "state that a ghost has set")
    try:
        logged_in = a.log_in(ghost)
    except Inconclusive as refused:  # not everybody logs ghosts in, which is ADMIN-12
        record(refused.reason, *refused.evidence)
    else:
        a.must_receive(logged_in.send(room), "a message that a ghost has sent by a token of its own")
    a.sender.join(room)
    _warm_up(a, human, room)
    a.must_receive(a.sender.send(room), "a message that the sender user has sent in a room with ghosts")


@requirement("INTEREST-07", shared=True)
def test_all_that_a_ghost_does_comes_back(
    run: Run, a: Appservice, human: User, human2: User, elsewhere: _Elsewhere
) -> None:
    """State, redactions, messages of all types, what it does to others' memberships, and its own new name."""
    room, ghost = human.create_room(), a.ghost()
    for user in (ghost, a.sender):
        user.join(room)
        human.promote(room, user, 100)
    _warm_up(a, human, room)
    for user in (ghost, a.sender):
        done = _everything(user, human2, room)
        elsewhere.must_all_arrive(run, a, done, f"by {user}")
    other = run.humans.another()
    other.join(room)
    if (announced := _renamed(run, other, human, room)) is None:
        record("new display names are not announced in rooms")
        return
    a.await_event(announced)
    if (announced := _renamed(run, ghost, human, room)) is None:
        raise Blocked("IDENT-14", f"the new display name of {ghost} is not announced, though that of {human2} is")
    a.must_receive(announced, "the membership event with a ghost's new display name")


@requirement("INTEREST-08")
def test_an_invite_for_the_sender_reaches_the_appservice(
    run: Run, a: Appservice, human: User, elsewhere: _Elsewhere
) -> None:
    """The sender user is the appservice's, although no namespace matches it: as the target of an event."""
    run.markers.pass_by("A")
    room = human.create_room(preset="private_chat")
    human.invite(room, a.sender)
    a.must_receive(human.member_event(room, a.sender), "the invite for the sender user")
    room = human.create_room(preset="private_chat")
    ends = _ends(human, room, itertools.repeat(a.sender))
    elsewhere.must_all_arrive(run, a, ends, "(of the sender user)")


@requirement("INTEREST-09")
def test_events_in_the_senders_room_reach_the_appservice(
    run: Run, a: Appservice, human: User, human2: User, elsewhere: _Elsewhere
) -> None:
    """The sender user is the appservice's, although no namespace matches it: as a member of a room."""
    run.markers.pass_by("A")
    room = human.create_room()
    a.sender.join(room)
    human.send(room)
    a.must_receive(human.send(room), "a message in a room that only the sender user has joined")
    sent = _everything(human, human2, room)
    elsewhere.must_all_arrive(run, a, sent, "in a room that only the sender user has joined")


@requirement("INTEREST-10", shared=True)
def test_messages_in_a_room_with_an_alias_reach_the_appservice(run: Run, a: Appservice, human: User) -> None:
    """A room with an alias in the appservice's namespace is interesting, with none of its users in it."""
    run.markers.pass_by("A")
    room = human.create_room(room_alias_name=run.names.fresh("hqopen-"))
    a.must_receive(human.send(room), "a message in a room with an alias in a non-exclusive namespace")
    body = {"preset": "public_chat", "room_alias_name": a.fresh_localpart()}
    room = a.sender.call("POST", "/createRoom", json=body).json.get("room_id", "")
    if not room:
        record("the appservice could not create a room with its own alias: only a human's was looked at")
        return
    human.join(room)
    a.sender.leave(room)
    a.must_receive(human.send(room), "a message in a room with an alias in an exclusive namespace")


@requirement("INTEREST-10", shared=True)
def test_all_events_in_a_room_with_an_alias_reach_the_appservice(
    run: Run, a: Appservice, human: User, human2: User, elsewhere: _Elsewhere
) -> None:
    """All events, not only messages; and as long as one of several aliases is left."""
    room = human.create_room(room_alias_name=run.names.fresh("hqopen-"))
    a.await_event(human.send(room))
    where = "in a room with an alias in the namespace"
    sent = _everything(human, human2, room)
    elsewhere.must_all_arrive(run, a, sent, where)
    others = [run.alias(run.names.fresh(prefix)) for prefix in ("hqopen-", "hqopen-", "free-")]
    for alias in others:
        human.set_alias(alias, room)
    a.await_event(human.send(room))
    for alias in others:
        human.remove_alias(alias)
    a.must_receive(human.send(room), "a message in a room of which other aliases than the first were deleted")


@requirement("INTEREST-11")
def test_an_alias_makes_an_existing_room_interesting(run: Run, a: Appservice, human: User) -> None:
    """From the moment that a room gets an alias in the appservice's namespace its events are pushed."""
    a.await_event(human.send(human.create_room(room_alias_name=run.names.fresh("hqopen-"))))
    room = human.create_room()
    human.send(room)
    run.markers.pass_by("A")
    alias = run.alias(run.names.fresh("hqopen-"))
    human.set_alias(alias, room)
    a.must_receive(human.send(room), "a message sent after the room was given an alias in the namespace")
    other = human.create_room()
    for after, before in ((other, room), (room, other)):
        human.remove_alias(alias)
        human.send(before)
        human.set_alias(alias, after)
        a.must_receive(human.send(after), "a message sent after the room was given the alias of another")


@requirement("INTEREST-12")
def test_a_room_without_its_alias_is_not_interesting(run: Run, a: Appservice, human: User) -> Quiet:
    """Once the alias is removed and nothing else is interesting, later events are not pushed."""
    late = {}
    for what, prefix, owner in (
        ("a human's alias", "hqopen-", human),
        ("an alias of A's own", "hqa-", a.sender),
        ("a human's alias, but for an ordinary one,", "hqopen-", human),
    ):
        room, alias = human.create_room(), run.alias(run.names.fresh(prefix))
        if "ordinary" in what:
            human.set_alias(run.alias(run.names.fresh("free-")), room)
        owner.set_alias(alias, room)
        a.await_event(human.send(room))
        owner.remove_alias(alias)
        late[what] = human.send(room)
    run.markers.pass_by("A")
    yield
    for what, event in late.items():
        a.must_not_receive(event, f"a message sent after {what} was removed from the room, which has no other")


@requirement("INTEREST-13")
def test_a_room_whose_id_matches_is_interesting(
    run: Run, c: Appservice, human: User, human2: User, elsewhere: _Elsewhere
) -> None:
    """Events of rooms whose IDs are in the appservice's `rooms` namespace are pushed."""
    room = matching_room(c, human)
    for count in ("first", "second"):
        c.must_receive(human.send(room), f"the {count} message in a room whose ID matches")
    sent = _everything(human, human2, room)
    where = "in a room whose ID matches"
    elsewhere.must_all_arrive(run, c, sent, where)


@requirement("INTEREST-14")
def test_a_room_whose_id_does_not_match_is_not_interesting(run: Run, c: Appservice, human: User) -> Quiet:
    """Nothing of a room that the `rooms` namespace does not match is pushed to an appservice that has no other."""
    room = matching_room(c, human, matching=False)
    human.send(room)
    run.markers.pass_by("C")
    yield
    c.must_receive_nothing_of(room, "a room whose ID does not match")


@requirement("INTEREST-15")
def test_rooms_of_humans_are_nobodys_business(
    run: Run, a: Appservice, b: Appservice, human: User, human1: User
) -> Quiet:
    """Nothing of a room without any appservice's users or aliases is pushed to A or B."""
    room = human.create_room(preset="private_chat")
    human.send(room)
    human.invite(room, human1)
    human1.join(room)
    human1.send(room)
    run.markers.pass_by("A", "B")
    yield
    for appservice in (a, b):
        appservice.must_receive_nothing_of(room, "a room of humans alone")


@requirement("INTEREST-16", shared=True)
def test_each_interested_appservice_gets_each_event(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """An event that interests two appservices is pushed to both."""
    run.markers.pass_by("A", "B")
    room = human.create_room()
    ghost_of_a, ghost_of_b = a.ghost(), b.ghost()
    for ghost in (ghost_of_a, ghost_of_b):
        ghost.join(room)
    human.send(room)
    message = human.send(room)
    for appservice in (a, b):
        appservice.must_receive(message, "a message in a room with ghosts of A and B")
    # What comes back to the one who sent it is INTEREST-07.
    b.must_receive(ghost_of_a.send(room), "a message of A's ghost in a room with a ghost of B")
    a.must_receive(ghost_of_b.send(room), "a message of B's ghost in a room with a ghost of A")


@requirement("INTEREST-16", shared=True)
def test_the_sender_among_the_ghosts_of_another(
    run: Run, a: Appservice, b: Appservice, human: User, human2: User, elsewhere: _Elsewhere
) -> None:
    """Everything in a room with a ghost of A and the sender user of B is pushed to both."""
    if not _senders_count(run):
        record("sender users count since v1.11")
        return
    room = human.create_room()
    b.sender.join(room)
    _warm_up(b, human, room)  # that it counts at all is INTEREST-09
    a.ghost().join(room)
    human.send(room)
    where = "in a room with a ghost of A and the sender user of B"
    sent = [_Sent("a message", "INTEREST-02", human.send(room)), *_everything(human, human2, room)]
    for member in (a, b):
        elsewhere.must_all_arrive(run, member, sent, where)


@requirement("INTEREST-17", shared=True)
def test_exclusive_namespaces_hide_nothing(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """Exclusive is about managing users, not about seeing them: B is told about A's users that match B's regex."""
    room = human.create_room(preset="private_chat")
    for appservice in (a, b):
        ghost = appservice.ghost()
        human.invite(room, ghost)
        appservice.await_event(human.member_event(room, ghost))
    room = human.create_room(preset="private_chat")
    shared = a.ghost("hqa-shared-")
    human.invite(room, shared)
    invite = human.member_event(room, shared)
    for appservice in (a, b):
        appservice.must_receive(invite, "the invite for a ghost that both A and B are interested in")
    run.markers.pass_by("A", "B")
    room = human.create_room()
    a.ghost("hqa-shared-").join(room)
    human.send(room)
    message = human.send(room)
    for appservice in (a, b):
        appservice.must_receive(message, "a message in a room with a ghost that both A and B are interested in")


@requirement("INTEREST-17", shared=True)
def test_exclusive_namespaces_hide_no_ends_of_memberships(
    run: Run, a: Appservice, b: Appservice, human: User, elsewhere: _Elsewhere
) -> None:
    """Refused and withdrawn invites, kicks and bans of a shared ghost are pushed to both."""
    room = human.create_room(preset="private_chat")
    ends = _ends(human, room, (a.ghost("hqa-shared-") for _ in itertools.count()))
    for member in (a, b):
        what = "(of a ghost that both A and B are interested in)"
        elsewhere.must_all_arrive(run, member, ends, what)


@requirement("INTEREST-18")
def test_bans_and_kicks_of_a_ghost_reach_its_appservice(run: Run, a: Appservice, human: User) -> None:
    """A ghost is the target of its ban, unban and kick and of the end of its invite, whether or not it ever joined."""
    run.markers.pass_by("A")
    for each in _ends(human, human.create_room(preset="private_chat"), _ghosts(a)):
        a.must_receive(each.event, f"{each.what} (of a ghost)")
    for what, event in _knocks(human, a.ghost(), human.create_room(preset="private_chat")):
        a.must_receive(event, f"{what} (of a ghost)")


@requirement("INTEREST-19")
def test_a_ghosts_leave_reaches_its_appservice(a: Appservice, human: User) -> None:
    """The event by which the only ghost leaves is still pushed."""
    room = human.create_room()
    ghost = a.ghost()
    ghost.join(room)
    _warm_up(a, human, room)
    ghost.leave(room)
    a.must_receive(human.member_event(room, ghost), "the event by which a ghost left")


@requirement("INTEREST-20")
def test_a_room_that_the_ghost_has_left_is_not_interesting(run: Run, a: Appservice, human: User) -> Quiet:
    """Only joined members count: after the ghost has left, or was removed, messages are not pushed."""
    late = {}
    for how in ("left", "been kicked", "been banned"):
        room, ghost = human.create_room(), a.ghost()
        ghost.join(room)
        _warm_up(a, human, room)
        if how == "left":
            ghost.leave(room)
        elif how == "been kicked":
            human.kick(room, ghost)
        else:
            human.ban(room, ghost)
        late[how] = human.send(room)
    room, ghosts = human.create_room(), [a.ghost("hqopen-"), a.ghost("hqa2-")]
    for ghost in ghosts:
        ghost.join(room)
    _warm_up(a, human, room)
    for ghost in ghosts:
        ghost.leave(room)
    late["left as another one had before it"] = human.send(room)
    room, ghost = human.create_room(), a.ghost()
    human.invite(room, ghost)
    ghost.leave(room)
    late["refused its invite"] = human.send(room)
    run.markers.pass_by("A")
    yield
    for how, event in late.items():
        a.must_not_receive(event, f"a message sent after the only ghost had {how}")


@requirement("INTEREST-21")
def test_an_invited_ghost_is_not_joined(run: Run, a: Appservice, human: User) -> Quiet:
    """Only joined members count: messages are pushed once the invited ghost has joined, not before."""
    room = human.create_room()
    ghost = a.ghost()
    human.invite(room, ghost)
    early = human.send(room)
    made_for = human.send(human.create_room(invite=[a.ghost("hqopen-").user_id, a.ghost("hqa2-").user_id]))
    run.markers.pass_by("A")
    yield
    a.must_not_receive(early, "a message sent while the ghost was only invited")
    a.must_not_receive(made_for, "a message in a room made for two ghosts, who were only invited,")
    ghost.join(room)
    human.send(room)
    a.must_receive(human.send(room), "a message sent after the invited ghost had joined")
    a.must_not_receive(early, "a message of before the ghost joined, now that it has,")


@requirement("INTEREST-22")
def test_mentioning_a_ghost_is_not_interesting(run: Run, a: Appservice, human: User) -> Quiet:
    """Interest is about who is in the room or changed, not about what a message says."""
    room = human.create_room()
    ghost = str(a.ghost())
    alias = run.alias(run.names.fresh("hqa-"))
    mention = human.send_event(
        room,
        "m.room.message",
        {
            "msgtype": "m.text",
            "body": f"{ghost}: see {alias} or ask {a.sender}",
            "format": "org.matrix.custom.html",
            "formatted_body": f'<a href="https://matrix.to/#/{ghost}">{ghost}</a>',
            "m.mentions": {"user_ids": [ghost, str(a.sender)]},
        },
    )
    run.markers.pass_by("A")
    yield
    a.must_not_receive(mention, "a message that only mentions a ghost")


@requirement("INTEREST-23")
def test_humans_in_a_non_exclusive_namespace_are_interesting(
    run: Run, a: Appservice, b: Appservice, human: User, human2: User, elsewhere: _Elsewhere
) -> None:
    """Entries that are not exclusive count as well, for all who have them, even for users who registered themselves."""
    run.markers.pass_by("A", "B")
    guest = run.humans.registered(run.names.fresh("hqopen-"))
    room = human.create_room()
    guest.join(room)
    join = human.member_event(room, guest)
    human.send(room)
    message = human.send(room)
    for appservice in (a, b):
        appservice.must_receive(message, f"a message in a room that {guest} has joined")
    sent = _everything(human, human2, room)
    for appservice in (a, b):
        where = f"in a room that {guest} has joined"
        elsewhere.must_all_arrive(run, appservice, sent, where)
    ghost = a.ghost()
    ghost.join(room)
    a.await_event(human.member_event(room, ghost))
    for appservice in (a, b):
        appservice.must_receive(join, f"the join of {guest}")


@requirement("INTEREST-26")
def test_refused_events_are_not_pushed(run: Run, a: Appservice, human: User, human1: User, human2: User) -> Quiet:
    """What the homeserver refuses with 403 is no event, not even for an appservice that gets all of the room."""
    room = _room_with_a_ghost(a, human1)
    human.join(room)
    text = f"refused {run.names.fresh()}"
    refused = [
        human.call("PUT", f"/rooms/{segment(room)}/state/m.room.topic/", json={"topic": text}),
        human2.call(
            "PUT",
            f"/rooms/{segment(room)}/send/m.room.message/{run.names.fresh('t')}",
            json={"msgtype": "m.text", "body": text},
        ),
    ]
    for refusal in refused:
        control(refusal.status == 403, f"an event that had to be refused was answered {refusal}", refusal.exchange)
    run.markers.pass_by("A")
    yield
    for exchange, event in _of_room(a, room):
        prefer(text not in str(event.get("content")), "refused events not pushed", f"{event.get('type')}", exchange)


@requirement("INTEREST-27")
def test_the_room_of_a_ghost_is_pushed_from_its_beginning_or_later(run: Run, a: Appservice, human: User) -> None:
    """When a ghost creates a room, its creation event may or may not be pushed; what comes later is."""
    run.markers.pass_by("A")
    room = a.ghost().create_room()
    human.join(room)
    human.send(room)
    a.must_receive(human.send(room), "a message in a room that a ghost has created")
    pushed = any(event.get("type") == "m.room.create" for _, event in _of_room(a, room))
    record(f"the creation event of a ghost's room is {'pushed' if pushed else 'not pushed'}")


@requirement("INTEREST-28")
def test_a_refused_invite_is_not_pushed(run: Run, a: Appservice, human: User) -> Quiet:
    """An invite refused because the ghost blocks invites never comes into being."""
    ghost = a.ghost()
    path = f"/user/{segment(str(ghost))}/account_data/m.invite_permission_config"
    ghost.do("block invites", "PUT", path, json={"default_action": "block"})
    room = human.create_room()
    answer = human.call("POST", f"/rooms/{segment(room)}/invite", json={"user_id": str(ghost)})
    control(answer.status == 403, f"an invite for a ghost that blocks invites was answered {answer}", answer.exchange)
    run.markers.pass_by("A")
    yield
    for exchange, event in _of_room(a, room):
        invite = event.get("type") == "m.room.member" and event.get("state_key") == str(ghost)
        prefer(not invite, "a refused invite not pushed", "it was pushed", exchange)


@requirement("INTEREST-29")
def test_what_clients_do_not_want_to_see_is_pushed(a: Appservice, human: User) -> None:
    """Ignored users, push rules and filters are about clients; the appservice gets the events all the same."""
    ghost = a.ghost()
    room, invited = human.create_room(), human.create_room()
    ghost.join(room)
    _warm_up(a, human, room)
    a.await_event(ghost.send(room))
    human.invite(invited, ghost)
    a.await_event(human.member_event(invited, ghost))
    _ignore(ghost, human)
    _ignore(human, ghost)
    master = "/pushrules/global/override/.m.rule.master/enabled"
    nothing = {"room": {"timeline": {"types": [], "limit": 0}, "state": {"types": []}, "rooms": []}}
    ghost.call("PUT", master, json={"enabled": True})  # as far as the homeserver lets it
    ghost.call("POST", f"/user/{segment(str(ghost))}/filter", json=nothing)
    another = human.create_room()
    human.invite(another, ghost)
    events = {
        "a message of a human whom the ghost ignores": human.send(room),
        "a message of a ghost whom the human ignores": ghost.send(room),
        "the invite of a human whom the ghost ignores": human.member_event(another, ghost),
    }
    _ignore(human)
    for what, event in events.items():
        a.must_receive(event, what)


@requirement("INTEREST-30")
def test_nothing_is_lost_when_a_ghost_joins(run: Run, a: Appservice, human: User) -> None:
    """A join makes the room interesting: it and everything after it is pushed, also where the user was invited."""
    run.markers.pass_by("A")
    users = [(a.ghost(), False), (a.ghost(), True), (a.ghost(), False), (a.ghost("hqa2-"), False)]
    if _senders_count(run):
        users += [(a.sender, False), (a.sender, True)]
    for user, invited in users:
        room = human.create_room()
        if invited:
            human.invite(room, user)
        human.send(room)
        user.join(room)
        messages = [human.send(room) for _ in range(4)]
        a.await_event(messages.pop())  # that the room is interesting at all is INTEREST-02 and -09
        what = f"the join of {user}, {'invited' if invited else 'not invited'}"
        a.must_receive(human.member_event(room, user), what)
        for place, message in enumerate(messages, 1):
            a.must_receive(message, f"message {place} after {what}")


@requirement("INTEREST-31")
def test_users_of_other_servers_are_not_the_appservices(run: Run, a: Appservice, human: User) -> Quiet:
    """Only users of this homeserver can be the appservice's: a remote ID that its regex matches is not."""
    local = a.ghost()
    control_room = human.create_room()
    human.ban(control_room, local)
    a.await_event(human.member_event(control_room, local))
    room = human.create_room()
    human.ban(room, f"@{run.names.fresh('hqa-')}:remote.example")
    human.send(room)
    run.markers.pass_by("A")
    yield
    a.must_receive_nothing_of(room, "a room where a remote user was banned")


def _room_with_a_ghost(appservice: Appservice, human: User) -> str:
    """A room of a human with a ghost, of which an ordinary message has arrived."""
    room = human.create_room()
    appservice.ghost().join(room)
    _warm_up(appservice, human, room)
    return room


def _warm_up(appservice: Appservice, human: User, room: str) -> None:
    """The control: an ordinary message arrives, the second after a join at the latest (the first is INTEREST-30)."""
    human.send(room)
    appservice.await_event(human.send(room))


def _go(human: User, room: str, ghost: User, how: str) -> None:
    """Have a membership end; in the end nothing is in the way of another one."""
    if how == "been kicked":
        human.kick(room, ghost)
    elif how == "been banned":
        human.ban(room, ghost)
        human.unban(room, ghost)
    else:
        ghost.leave(room)
    if how == "left and forgotten it":
        ghost.provoke("POST", f"/rooms/{segment(room)}/forget", json={})


def _senders_count(run: Run) -> bool:
    """Whether the sender user is one of the appservice's users (since v1.11)."""
    return run.version is None or run.version >= Version.parse("v1.11")


class _Sent(NamedTuple):
    """An event that is to arrive."""

    what: str
    #: The requirement that speaks of its kind in a room with a ghost of A.
    owner: str
    event: str


class _Elsewhere:
    """Which kinds of events do not even arrive from an ordinary room with a ghost, so that other rows are to blame."""

    def __init__(self) -> None:
        self._missing: dict[str, Blocked] = {}

    def must_all_arrive(self, run: Run, member: Appservice, events: Iterable[_Sent], where: str) -> None:
        """Demand events of many kinds.

        :raises Broken: one of the events did not arrive, though its like does from an ordinary room.
        :raises Blocked: that did not arrive either.
        """
        blocked = None
        for each in events:
            try:
                if each.what not in self._missing:
                    member.must_receive(each.event, f"{each.what} {where}")
            except Broken:
                if not self._is_lost(run, each):
                    raise
            blocked = blocked or self._missing.get(each.what)
        if blocked is not None:
            raise blocked

    def _is_lost(self, run: Run, lost: _Sent) -> bool:
        a, human = run.appservice("A"), run.humans.on_duty()
        if lost.owner == "INTEREST-18":
            twins = _ends(human, human.create_room(preset="private_chat"), _ghosts(a))
        else:
            twins = _everything(human, run.humans[2], _room_with_a_ghost(a, human))
        twin = next(each for each in twins if each.what == lost.what)
        try:
            a.await_event(twin.event)
        except Inconclusive as missing:
            self._missing[lost.what] = Blocked(
                lost.owner, f"{lost.what} is not pushed elsewhere either", *missing.evidence
            )
        return lost.what in self._missing


@pytest.fixture(scope="module")
def elsewhere() -> _Elsewhere:
    """What one check has found to be lost in ordinary rooms, for all checks."""
    return _Elsewhere()


def _everything(actor: User, other: User, room: str) -> list[_Sent]:
    """Have one event of every kind happen in a room: by somebody with power in it, and to somebody who is not there."""
    message, text = actor.send(room), actor.names.fresh
    edit = {"rel_type": "m.replace", "event_id": message}
    cipher = {"algorithm": "m.megolm.v1.aes-sha2", "session_id": text(), "ciphertext": "AwgA", "device_id": "HQ"}
    events: dict[str, tuple[str, dict[str, Any]]] = {
        "a message": ("m.room.message", {"msgtype": "m.text", "body": text()}),
        "a notice": ("m.room.message", {"msgtype": "m.notice", "body": text()}),
        "an edit": ("m.room.message", {"msgtype": "m.text", "body": text(), "m.relates_to": edit}),
        "a reaction": (
            "m.reaction",
            {"m.relates_to": {"rel_type": "m.annotation", "event_id": message, "key": text()}},
        ),
        "an encrypted message": ("m.room.encrypted", cipher | {"sender_key": "Ilr"}),
        "a custom message": ("org.hq.msg", {"text": text()}),
    }
    sent = [_Sent(what, "INTEREST-05", actor.send_event(room, *event)) for what, event in events.items()]
    custom = actor.set_state(room, "org.hq.x", {"some": text()}, "a key")
    sent.append(_Sent("custom state", "INTEREST-03", custom))
    sent.append(_Sent("a topic", "INTEREST-03", actor.set_state(room, "m.room.topic", {"topic": text()})))
    levels = actor.state(room, "m.room.power_levels")
    levels = levels | {"events": {**levels.get("events", {}), f"org.hq.{text()}": 1}}
    sent.append(_Sent("power levels", "INTEREST-03", actor.set_state(room, "m.room.power_levels", levels)))
    sent.append(_Sent("the redaction of a message", "INTEREST-06", actor.redact(room, message)))
    sent.append(_Sent("the redaction of state", "INTEREST-06", actor.redact(room, custom)))
    return [*sent, *(_Sent(what, "INTEREST-04", event) for what, event in _comings_and_goings(actor, other, room))]


def _comings_and_goings(actor: User, other: User, room: str) -> Iterator[tuple[str, str]]:
    """Have somebody invited, come, be renamed and go in every way; the events."""
    steps: dict[str, Callable[[], object]] = {
        "a ban": lambda: actor.ban(room, other),
        "an unban": lambda: actor.unban(room, other),
        "an invite": lambda: actor.invite(room, other),
        "a refusal": lambda: other.leave(room),
        "a second invite": lambda: actor.invite(room, other),
        "a withdrawal": lambda: actor.kick(room, other),
        "a third invite": lambda: actor.invite(room, other),
        "a join": lambda: other.join(room),
        "a kick": lambda: actor.kick(room, other),
    }
    for name, step in steps.items():
        step()
        yield f"{name} of a human", actor.member_event(room, other)


def _ends(human: User, room: str, users: Iterator[User]) -> list[_Sent]:
    """Have memberships end in every way but by leaving, in a private room without other users of the appservice."""
    found: list[_Sent] = []

    def ends(user: User, *steps: tuple[str, Callable[[str, User], None]]) -> None:
        for what, step in steps:
            step(room, user)
            found.append(_Sent(what, "INTEREST-18", human.member_event(room, user)))

    def invited() -> User:
        user = next(users)
        human.invite(room, user)
        return user

    def joined() -> User:
        user = invited()
        user.join(room)
        return user

    ends(next(users), ("the ban from outside", human.ban), ("the unban of who never was inside", human.unban))
    ends(invited(), ("the refusal of an invite", lambda room, user: user.leave(room)))
    ends(invited(), ("the withdrawal of an invite", human.kick))
    ends(invited(), ("the ban of the invited", human.ban), ("the unban of the invited", human.unban))
    ends(joined(), ("the kick", human.kick))
    ends(joined(), ("the ban from inside", human.ban), ("the unban of who was inside", human.unban))
    return found


def _ghosts(appservice: Appservice) -> Iterator[User]:
    """Fresh ghosts, as many as are wanted."""
    while True:
        yield appservice.ghost()


def _knocks(human: User, user: User, room: str) -> Iterator[tuple[str, str]]:
    """Have somebody knock at a room and not be let in, as far as the homeserver knows of that."""
    human.set_state(room, "m.room.join_rules", {"join_rule": "knock"})
    answer = user.call("POST", f"/knock/{segment(room)}", json={})
    if not answer.ok:
        record(f"{user} cannot knock at a room: {answer}", answer.exchange)
        return
    yield "a knock", human.member_event(room, user)
    human.kick(room, user)
    yield "the refusal of a knock", human.member_event(room, user)


def _renamed(run: Run, user: User, observer: User, room: str) -> str | None:
    """Give a user a new display name; the membership event that announces it in a room, None where none comes."""
    name, before = user.names.fresh("Name "), observer.member_event(room, user)
    path = f"/profile/{segment(str(user))}/displayname"
    user.do("set a display name", "PUT", path, json={"displayname": name})

    def announced() -> str | None:
        now = observer.member_event(room, user)
        return now if now != before else None

    return run.eventually(announced)


def _of_room(appservice: Appservice, room: str) -> list[tuple[Exchange, Event]]:
    """What was pushed of a room."""
    return [(exchange, event) for exchange, event in appservice.received() if event.get("room_id") == room]


def _carrier(appservice: Appservice, event_id: str) -> Exchange:
    """The first transaction with an event that has arrived."""
    return appservice.deliveries(event_id)[0][0]


def _ignore(user: User, *others: User) -> None:
    """Have a user ignore these others and nobody else."""
    ignored: dict[str, Any] = {str(other): {} for other in others}
    path = f"/user/{segment(str(user))}/account_data/m.ignored_user_list"
    user.do("ignore somebody", "PUT", path, json={"ignored_users": ignored})
