"""INTEREST: which events are pushed to an appservice (AS: Registration, AS: Pushing events).

What is sent in a room is a matter of INTEREST-02 first: every other row has its positive control before its stimulus.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.appservice.fleet import Appservice, Event
from conformance.homeserver.client import segment
from conformance.homeserver.users import User
from conformance.markers import matching_room
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.verdict import control, expect, prefer, record
from conformance.wire.exchange import Exchange


@requirement("INTEREST-01")
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


@requirement("INTEREST-02")
def test_messages_in_a_ghosts_room_reach_the_appservice(a: Appservice, human: User) -> None:
    """Every event of a room that one of the appservice's users has joined is pushed to it."""
    for prefix in ("hqa-", "hqa2-"):
        room = human.create_room()
        ghost = a.ghost(prefix)
        ghost.join(room)
        human.send(room)  # the first after a join is INTEREST-30
        for count in ("first", "second"):
            a.must_receive(human.send(room), f"the {count} message in a room that {ghost} has joined")


@requirement("INTEREST-03")
def test_state_events_reach_the_appservice(a: Appservice, human: User) -> None:
    """All events means state events too: those of Matrix, and custom types with any state key."""
    room = _room_with_a_ghost(a, human)
    levels = human.state(room, "m.room.power_levels")
    changes: list[tuple[str, dict[str, Any], str]] = [
        ("m.room.topic", {"topic": "another subject"}, ""),
        ("m.room.name", {"name": "another name"}, ""),
        ("m.room.power_levels", levels | {"invite": 1}, ""),
        ("m.room.join_rules", {"join_rule": "invite"}, ""),
        ("m.room.history_visibility", {"history_visibility": "joined"}, ""),
        ("org.hq.x", {"some": "thing"}, ""),
        ("org.hq.x", {"some": "other thing"}, "an odd key: é #1"),
        ("org.hq.x", {}, "an odd key: é #1"),
    ]
    for kind, content, state_key in changes:
        event = human.set_state(room, kind, content, state_key)
        a.must_receive(event, f"{kind} with the state key {state_key!r}")


@requirement("INTEREST-04")
def test_memberships_of_humans_reach_the_appservice(a: Appservice, human: User, human2: User) -> None:
    """All events means the memberships of other people too."""
    room = _room_with_a_ghost(a, human)
    steps: dict[str, Callable[[], None]] = {
        "join": lambda: human2.join(room),
        "leave": lambda: human2.leave(room),
        "invite": lambda: human.invite(room, human2),
        "kick": lambda: human.kick(room, human2),
        "ban": lambda: human.ban(room, human2),
        "unban": lambda: human.unban(room, human2),
    }
    for name, step in steps.items():
        step()
        a.must_receive(human.member_event(room, human2), f"the {name} of a human")


@requirement("INTEREST-05")
def test_messages_of_all_types_reach_the_appservice(a: Appservice, human: User) -> None:
    """Custom types, encrypted messages, reactions and stickers are pushed, their content as it was sent."""
    room = _room_with_a_ghost(a, human)
    message = human.send(room)
    events: list[tuple[str, dict[str, Any]]] = [
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
    for kind, content in events:
        event_id = human.send_event(room, kind, content)
        pushed = a.must_receive(event_id, kind)
        seen = {"type": pushed.get("type"), "content": pushed.get("content")}
        expect(seen == {"type": kind, "content": content}, f"{kind} unchanged: {content}", seen, _carrier(a, event_id))


@requirement("INTEREST-06")
def test_redactions_reach_the_appservice(a: Appservice, human: User) -> None:
    """The redaction of a message is pushed."""
    room = _room_with_a_ghost(a, human)
    message = human.send(room)
    a.await_event(message)
    a.must_receive(human.redact(room, message), "the redaction of a message")


@requirement("INTEREST-07")
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
    a.sender.join(room)
    a.must_receive(a.sender.send(room), "a message that the sender user has sent in a room with ghosts")


@requirement("INTEREST-08")
def test_an_invite_for_the_sender_reaches_the_appservice(run: Run, a: Appservice, human: User) -> None:
    """The sender user is the appservice's, although no namespace matches it: as the target of an event."""
    run.markers.pass_by("A")
    room = human.create_room(preset="private_chat")
    human.invite(room, a.sender)
    a.must_receive(human.member_event(room, a.sender), "the invite for the sender user")
    room, ghost = human.create_room(), a.ghost()
    human.ban(room, ghost)
    a.await_event(human.member_event(room, ghost))
    room = human.create_room()
    human.ban(room, a.sender)
    a.must_receive(human.member_event(room, a.sender), "the ban of the sender user")


@requirement("INTEREST-09")
def test_messages_in_the_senders_room_reach_the_appservice(run: Run, a: Appservice, human: User) -> None:
    """The sender user is the appservice's, although no namespace matches it: as a member of a room."""
    run.markers.pass_by("A")
    room = human.create_room()
    a.sender.join(room)
    human.send(room)
    a.must_receive(human.send(room), "a message in a room that only the sender user has joined")


@requirement("INTEREST-10")
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


@requirement("INTEREST-11")
def test_an_alias_makes_an_existing_room_interesting(run: Run, a: Appservice, human: User) -> None:
    """From the moment that a room gets an alias in the appservice's namespace its events are pushed."""
    a.await_event(human.send(human.create_room(room_alias_name=run.names.fresh("hqopen-"))))
    room = human.create_room()
    human.send(room)
    run.markers.pass_by("A")
    human.set_alias(run.alias(run.names.fresh("hqopen-")), room)
    a.must_receive(human.send(room), "a message sent after the room was given an alias in the namespace")


@requirement("INTEREST-12")
def test_a_room_without_its_alias_is_not_interesting(run: Run, a: Appservice, human: User) -> Quiet:
    """Once the alias is removed and nothing else is interesting, later events are not pushed."""
    room = human.create_room()
    alias = run.alias(run.names.fresh("hqopen-"))
    human.set_alias(alias, room)
    a.await_event(human.send(room))
    human.remove_alias(alias)
    late = human.send(room)
    run.markers.pass_by("A")
    yield
    a.must_not_receive(late, "a message sent after the room's only alias was removed")


@requirement("INTEREST-13")
def test_a_room_whose_id_matches_is_interesting(c: Appservice, human: User) -> None:
    """Events of rooms whose IDs are in the appservice's `rooms` namespace are pushed."""
    room = matching_room(c, human)
    for count in ("first", "second"):
        c.must_receive(human.send(room), f"the {count} message in a room whose ID matches")


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


@requirement("INTEREST-16")
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


@requirement("INTEREST-17")
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


@requirement("INTEREST-18")
def test_bans_and_kicks_of_a_ghost_reach_its_appservice(run: Run, a: Appservice, human: User) -> None:
    """A ghost is the target of its ban, its unban and its kick, whether or not it was ever in the room."""
    run.markers.pass_by("A")
    room = human.create_room()
    ghost = a.ghost()
    human.ban(room, ghost)
    a.must_receive(human.member_event(room, ghost), "the ban of a ghost that never joined")
    human.unban(room, ghost)
    a.must_receive(human.member_event(room, ghost), "the unban of a ghost")
    ghost.join(room)
    human.kick(room, ghost)
    a.must_receive(human.member_event(room, ghost), "the kick of a ghost that had joined")


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
    run.markers.pass_by("A")
    yield
    a.must_not_receive(early, "a message sent while the ghost was only invited")
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
    run: Run, a: Appservice, b: Appservice, human: User
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
    for answer in refused:
        control(answer.status == 403, f"an event that had to be refused was answered {answer}", answer.exchange)
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
    """A ghost's own join makes the room interesting: it and everything after it is pushed."""
    run.markers.pass_by("A")
    for _ in range(3):
        room = human.create_room()
        human.send(room)
        ghost = a.ghost()
        ghost.join(room)
        messages = [human.send(room) for _ in range(3)]
        a.must_receive(human.member_event(room, ghost), "a ghost's own join")
        for place, message in enumerate(messages, 1):
            a.must_receive(message, f"message {place} after a ghost's join")


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
