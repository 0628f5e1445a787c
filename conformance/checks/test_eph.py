"""EPH: typing notices, receipts and presence (AS: Pushing ephemeral data).

What one check looks for is recognised in whatever form it comes: the forms have checks of their own.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from conformance.appservice.fleet import Appservice, Event, ephemeral_of, events_of
from conformance.appservice.routes import Kind
from conformance.appservice.script import Hold, always, answer
from conformance.homeserver.client import Response, segment
from conformance.homeserver.users import User
from conformance.judges import ephemeral
from conformance.judges.ephemeral import mentions, receipt, typists
from conformance.lanes.lane import Lanes
from conformance.lanes.v4 import V4
from conformance.markers import matching_room
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.schemas import problems
from conformance.verdict import Blocked, Inconclusive, Recorded, caution, control, expect, listing, prefer, record
from conformance.wire.exchange import Exchange, NotJson

#: Milliseconds that a typing notice is good for.
_TYPING_FOR = 30_000

#: More milliseconds than may be between what users do in a run.
_DAY = 86_400_000

#: What a user's presence becomes, one after the other, and whether there is a status message with it.
_PRESENCES = (("unavailable", True), ("online", True), ("online", True), ("offline", True), ("unavailable", False))


class Pushed(NamedTuple):
    """An ephemeral item, and the transaction that it came in."""

    exchange: Exchange
    item: Event


@requirement("EPH-01", before=V4)
def test_typing_reaches_the_appservice(run: Run, a: Appservice, v4: Appservice, human: User, human1: User) -> None:
    """When somebody types in a room with a ghost, every appservice is told, also when others type there already."""
    room, others = _room(human, a, v4), (human1, a.ghost(), v4.ghost(), a.sender)
    for user in others:
        user.join(room)
    human.send(room)  # the first after a join is INTEREST-30
    for user in (human, *others):
        marker = run.journal.marker()
        _type(user, room)
        for member in (a, v4):
            seen = _await(member, marker, "m.typing", str(user))
            expect(seen, f"m.typing with {user} in {room} at {member}", f"none within {member.deliver_wait:g} s")
    for prefix in ("hqa2-", "hqopen-"):  # while the human still types in the first room
        other, mate = human.create_room(), a.ghost(prefix)
        mate.join(other)
        human.send(other)
        _message(a, human, other)
        seen = _typing_comes(a, human, other)
        expect(seen, f"m.typing with {human} in {other}, which only {mate} is in", f"none within {a.deliver_wait:g} s")
    for user in (human, *others):
        _type(user, room, False)


@requirement("EPH-02")
def test_a_typing_notice_names_its_room(a: Appservice, human: User) -> None:
    """A pushed typing notice has the `room_id` of its room at top level."""
    for _ in range(2):
        room = _room(human, a)
        seen = _typing_pushed(a, human, room)
        named = seen.item.get("room_id")
        expect(named == room, f"the room_id {room} at the top level of m.typing", named or "none", seen.exchange)


@requirement("EPH-03")
def test_a_typing_notice_has_the_client_format(a: Appservice, human: User) -> None:
    """`type`, and `content` with `user_ids`: a list of the IDs of those who type."""
    seen = _typing_pushed(a, human, _room(human, a))
    found = problems("typing#client-format", _without_room(seen.item))
    expect(not found, "m.typing in the client format", listing(found), seen.exchange)
    users = typists(seen.item)
    expect(str(human) in (users or ()), f"{human} among its user_ids", users, seen.exchange)


@requirement("EPH-04")
def test_the_end_of_typing_reaches_the_appservice(run: Run, a: Appservice, human: User, human1: User) -> Quiet:
    """When somebody stops typing, or time is over, a notice without that user is pushed, whoever else types on."""
    room, briefly = _room(human, a), _room(human, a)
    human1.join(room)
    for user in (human, human1):
        _begin_to_type(a, user, room)
    for user in (human, human1):
        marker = run.journal.marker()
        _type(user, room, False)
        seen = a.await_ephemeral(_end_of(room, str(user)), marker)
        expect(seen, f"m.typing of {room} without {user}, who stopped", "none")
    marker = run.journal.marker()
    _type(human, briefly, timeout=1000)
    yield
    if _await(a, marker, "m.typing", str(human)) is None:
        record("who types for a second only does not appear at all")
    elif a.await_ephemeral(_end_of(briefly, str(human)), marker) is None:
        if not run.eventually(lambda: not _is_shown(human, briefly, "m.typing", str(human)) or None):
            record("who says nothing more for a second types on all the same")  # timeouts may have a minimum
            return
        seen = a.await_ephemeral(_end_of(briefly, str(human)), marker)
        expect(seen, f"m.typing of {briefly} without {human}, whose time is over", "none, but for clients it is")


def _begin_to_type(a: Appservice, user: User, room: str) -> None:
    """Have a user type, of which A must be told in the right form: what its end looks like is clear then."""
    marker = a.journal.marker()
    _type(user, room)
    begun = _await(a, marker, "m.typing", str(user))
    control(begun, "typing in a room with a ghost is not pushed (EPH-01)")
    control(begun and str(user) in (typists(begun.item) or ()), "m.typing has another format (EPH-03)")
    control(begun and begun.item.get("room_id", room) == room, "m.typing names another room (EPH-02)")


def _end_of(room: str, user_id: str) -> Callable[[Event], bool]:
    """What is a typing notice of a room without a user; where it is not said (EPH-02), of any room."""

    def is_end(item: Event) -> bool:
        named = item.get("room_id", room)
        return item.get("type") == "m.typing" and named == room and not mentions(item, user_id)

    return is_end


@requirement("EPH-05")
def test_a_room_with_an_alias_is_of_interest_for_ephemeral_data(
    run: Run, a: Appservice, human: User, human2: User
) -> None:
    """A room that interests the appservice by its alias only does so for typing and receipts as well."""
    known = _room(human, a)
    _typing_pushed(a, human, known)
    room = human.create_room(room_alias_name=run.names.fresh("hqopen-"))
    a.await_event(human.send(room))
    seen = _typing_comes(a, human, room)
    expect(seen, f"m.typing with {human} in {room}, which has an alias of the namespace", "none")
    _must_tell_of_receipts(a, human, human2, room, known)


@requirement("EPH-06")
def test_typing_in_other_rooms_is_nobodys_business(run: Run, a: Appservice, human: User, human1: User) -> Quiet:
    """Typing in a room that does not interest the appservice is not pushed."""
    room = human.create_room(preset="private_chat")
    _type(human, room)
    interesting = _room(human, a)
    human1.join(interesting)
    seen = _typing_pushed(a, human1, interesting)
    _type(human, room, False)
    control(seen.item.get("room_id") == interesting, "typing notices do not name their room (EPH-02)", seen.exchange)
    run.markers.pass_by("A")
    yield
    for exchange, item in a.ephemeral():
        prefer(item.get("room_id") != room, f"no typing of {room}, which interests nobody", "it was pushed", exchange)


@requirement("EPH-07", shared=True, before=V4)
def test_receipts_reach_the_appservice(
    run: Run, a: Appservice, v4: Appservice, human: User, human1: User, human2: User
) -> None:
    """Each user's read receipt in a room with a ghost is pushed to every appservice; so is the user's next one."""
    room, readers = _room(human, a, v4), (human1, human2, a.ghost(), v4.ghost(), a.sender)
    for user in readers:
        user.join(room)
    human.send(room)  # the first after a join is INTEREST-30
    for _ in range(2):
        event = _message(a, human, room)
        v4.await_event(event)
        for user in readers:
            marker = run.journal.marker()
            _read(user, room, event)
            for member in (a, v4):
                seen = _await(member, marker, "m.receipt", event, str(user))
                expect(seen, f"m.receipt of {user} for {event} at {member}", f"none within {a.deliver_wait:g} s")


@requirement("EPH-07", shared=True)
def test_receipts_that_wait_are_all_pushed(run: Run, a: Appservice, human: User, human1: User, human2: User) -> None:
    """What many users read while the appservice is slow to answer is pushed afterwards, every one of them."""
    room, readers = _room(human, a), [human1, human2, a.sender, *(a.ghost() for _ in range(12))]
    for user in readers:
        user.join(room)
    human.send(room)  # the first after a join is INTEREST-30
    event = _message(a, human, room)
    plain = _receipt_pushed(a, human, room, event)
    event, marker, hold = _message(a, human, room), run.journal.marker(), Hold(4.0)
    with a.scripted(Kind.TRANSACTION, always(answer(hold=hold))):
        try:
            human.send(room)
            for user in readers:
                _read(user, room, event)
        finally:
            hold.release()
    for user in readers:
        seen = _await(a, marker, "m.receipt", event, str(user))
        expect(seen, f"m.receipt of {user}, one of {len(readers)} who read at once", "none", plain.exchange)


@requirement("EPH-07", shared=True)
def test_receipts_among_read_markers_reach_the_appservice(run: Run, a: Appservice, human: User, human1: User) -> None:
    """So is a receipt that is sent by the other way, together with the user's read marker or by itself."""
    room, readers = _room(human, a), (human1, a.ghost(), a.sender)
    for user in readers:
        user.join(room)
    human.send(room)  # the first after a join is INTEREST-30
    plain = _receipt_pushed(a, human, room, _message(a, human, room))
    for user, beside in itertools.product(readers, ("m.fully_read", "m.read")):
        event, marker = _message(a, human, room), run.journal.marker()
        if not _mark(user, room, {beside: event, "m.read": event}):
            continue
        if _await(a, marker, "m.receipt", event, str(user)) is None:
            if _is_shown(human, room, "m.receipt", event, str(user)):
                expect(
                    False, f"m.receipt of {user}, sent to /read_markers", "none, but for clients it is", plain.exchange
                )
            record(f"/read_markers made no receipt of {user}")


@requirement("EPH-07", shared=True)
def test_an_old_receipt_does_not_come_again_and_again(run: Run, a: Appservice, human: User, human1: User) -> None:
    """Receipts are deltas (CS: Receipts, client behaviour): with new ones the old ones need not come again."""
    room, other, marker = _room(human, a), _room(human, a), run.journal.marker()
    human1.join(room)
    human.send(room)  # the first after a join is INTEREST-30
    old = _message(a, human, room)
    _receipt_pushed(a, human1, room, old)
    for place in (other, room, other, room):
        _receipt_pushed(a, human, place, _message(a, human, place))
    # Once more may come of a homeserver that is careful; retries have the ID of the first.
    seen = {a.route(at).subject: at for at, item in a.ephemeral(marker) if mentions(item, old, str(human1))}
    caution(len(seen) <= 2, f"one transaction with the receipt of {human1} for {old}", len(seen), *seen.values())


@requirement("EPH-08")
def test_a_receipt_names_its_room(a: Appservice, human: User, human2: User) -> None:
    """A pushed receipt has the `room_id` of its room at top level."""
    for _ in range(2):
        room = _room(human, a)
        human2.join(room)
        seen = _receipt_pushed(a, human2, room, _message(a, human, room))
        named = seen.item.get("room_id")
        expect(named == room, f"the room_id {room} at the top level of m.receipt", named or "none", seen.exchange)


@requirement("EPH-09")
def test_a_receipt_has_the_client_format(a: Appservice, human: User, human2: User) -> None:
    """`content` has the receipt by event, then by its type, then by user."""
    room = _room(human, a)
    human2.join(room)
    event = _message(a, human, room)
    seen = _receipt_pushed(a, human2, room, event)
    found = problems("receipt#client-format", _without_room(seen.item))
    expect(not found, "m.receipt in the client format", listing(found), seen.exchange)
    there = receipt(seen.item, event, "m.read", str(human2))
    expect(there is not None, f"content[{event}]['m.read'][{human2}]", "not there", seen.exchange)
    read, sent = (there or {}).get("ts"), a.await_event(event).get("origin_server_ts")
    if isinstance(read, int) and isinstance(sent, int):  # of one clock; that they are milliseconds is said elsewhere
        prefer(abs(read - sent) < _DAY, f"a ts in milliseconds, such as the event's {sent}", read, seen.exchange)


@requirement("EPH-10")
def test_threaded_receipts_are_pushed(run: Run, a: Appservice, human: User, human2: User) -> None:
    """Receipts for the main timeline and for a thread are pushed with their `thread_id`."""
    room = _room(human, a)
    human2.join(room)
    for _ in range(2):  # that more than the first is pushed at all is EPH-07
        event = _message(a, human, room)
        plain = _receipt_pushed(a, human2, room, event)
    control(receipt(plain.item, event, "m.read", str(human2)), "m.receipt has another format (EPH-09)", plain.exchange)
    root = _message(a, human, room)
    relation = {"rel_type": "m.thread", "event_id": root}
    reply = human.send_event(room, "m.room.message", {"msgtype": "m.text", "body": "reply", "m.relates_to": relation})
    a.await_event(reply)
    for event, thread in ((root, "main"), (reply, root)):
        marker = run.journal.marker()
        _read(human2, room, event, thread_id=thread)
        seen = _await(a, marker, "m.receipt", event, str(human2))
        if seen is None:
            expect(False, f"m.receipt with the thread_id {thread}", "none", plain.exchange)
            return
        named = (receipt(seen.item, event, "m.read", str(human2)) or {}).get("thread_id")
        expect(named == thread, f"m.receipt with the thread_id {thread}", named or "without one", seen.exchange)


@requirement("EPH-11", before=V4)
def test_a_humans_private_receipt_is_pushed_to_nobody(
    run: Run, a: Appservice, v4: Appservice, human: User, human2: User
) -> Quiet:
    """Private receipts of those whom no namespace matches are for no appservice."""
    room = _room(human, a, v4)
    human2.join(room)
    secrets = [_message(a, human, room) for _ in range(2)]
    for secret, thread in zip(secrets, ({}, {"thread_id": "main"}), strict=True):
        _read(human2, room, secret, "m.read.private", **thread)
    for beside in ({}, {"m.read": _message(a, human, room)}):
        secrets.append(_message(a, human, room))
        _mark(human2, room, {"m.fully_read": secrets[0], "m.read.private": secrets[-1], **beside})
    _must_see_receipt((a, v4), human2, room, _message(a, human, room))
    run.markers.pass_by("A", "V4")
    yield
    for member in run.fleet:
        for exchange, item in member.ephemeral():
            seen = any(mentions(item, secret, str(human2)) for secret in secrets)
            expect(not seen, f"no private receipt of {human2} at {member}", "it was pushed", exchange)


@requirement("EPH-12")
def test_a_ghosts_private_receipt_reaches_its_appservice(run: Run, a: Appservice, human: User, human2: User) -> None:
    """Private receipts of the appservice's own users are pushed to it, those for a thread too."""
    room = human.create_room()
    human2.join(room)
    ghosts = [a.ghost("hqa-"), a.ghost("hqa2-")]
    for ghost in ghosts:
        ghost.join(room)
    human.send(room)  # the first after a join is INTEREST-30
    event = _message(a, human, room)
    plain = _receipt_pushed(a, human2, room, event)
    readable = receipt(plain.item, event, "m.read", str(human2)) is not None
    event, marker = _message(a, human, room), run.journal.marker()
    _read(human2, room, event, thread_id="main")
    threaded = _await(a, marker, "m.receipt", event, str(human2))  # whether such receipts are pushed is EPH-10
    threads: list[dict[str, str]] = [{}, {"thread_id": "main"}] if threaded else [{}]
    for ghost, thread in itertools.product(ghosts, threads):
        event, marker = _message(a, human, room), run.journal.marker()
        _read(ghost, room, event, "m.read.private", **thread)
        seen = _await(a, marker, "m.receipt", event, str(ghost))
        if seen is None:
            expect(False, f"m.receipt of {ghost}, who reads privately {thread}, at its {a}", "none", plain.exchange)
        elif readable:
            private = receipt(seen.item, event, "m.read.private", str(ghost)) is not None
            expect(private, f"m.read.private of {ghost}", "a receipt of another type", seen.exchange)
    for ghost in ghosts:
        event, marker = _message(a, human, room), run.journal.marker()
        if not _mark(ghost, room, {"m.fully_read": event, "m.read.private": event}):
            continue
        seen = _await(a, marker, "m.receipt", event, str(ghost))
        if seen is None:
            if _is_shown(ghost, room, "m.receipt", event, str(ghost)):
                expect(False, f"m.receipt of {ghost}, sent to /read_markers, at its {a}", "none, but for clients it is")
            record(f"/read_markers made no private receipt of {ghost}")
        elif readable:
            private = receipt(seen.item, event, "m.read.private", str(ghost)) is not None
            expect(private, f"m.read.private of {ghost}, sent to /read_markers", "another type", seen.exchange)


@requirement("EPH-13", before=V4)
def test_a_ghosts_private_receipt_reaches_no_other_appservice(
    run: Run, a: Appservice, v4: Appservice, human: User
) -> Quiet:
    """A ghost of another appservice in the room is no reason to push a private receipt there."""
    room = _room(human, a, v4)
    ghost = a.ghost()
    ghost.join(room)
    human.send(room)
    secrets = [_message(a, human, room) for _ in range(2)]
    _read(ghost, room, secrets[0], "m.read.private")
    _mark(ghost, room, {"m.fully_read": secrets[0], "m.read.private": secrets[1]})
    _must_see_receipt((v4,), ghost, room, _message(a, human, room))
    run.markers.pass_by("V4")
    yield
    for exchange, item in v4.ephemeral():
        seen = any(mentions(item, secret, str(ghost)) for secret in secrets)
        expect(not seen, f"no private receipt of {ghost}, a ghost of A, at {v4}", "it was pushed", exchange)


@requirement("EPH-14", shared=True)
def test_presence_of_humans_reaches_the_appservice(run: Run, a: Appservice, human: User, human1: User) -> None:
    """The presence of a human who shares a room with a ghost is pushed, with its status message, at each change."""
    room = _room(human, a)
    human1.join(room)
    for marker, shown in _changes_of_presence(human1):
        _must_tell_of_presence(a, human1, shown, marker)


@requirement("EPH-14", shared=True)
def test_presence_in_the_senders_room_reaches_the_appservice(run: Run, a: Appservice, human: User) -> None:
    """The same holds for a human who shares a room with the sender user only."""
    _presence_pushed(a, human, _room(human, a))
    try:
        user = run.humans.registered(run.names.fresh("human-"))
    except Inconclusive:
        record("nobody more can be had, to be alone with the sender user")
        return
    room = human.create_room()
    for each in (a.sender, user):
        each.join(room)
    human.send(room)  # the first after a join is INTEREST-30
    _message(a, human, room)
    marker = run.journal.marker()
    _must_tell_of_presence(a, user, _set_presence(user), marker)


def _must_tell_of_presence(a: Appservice, user: User, shown: Shown, marker: int) -> None:
    """A must be told of a user's new presence as it is shown to others."""

    def told(item: Event) -> bool:
        """Whether an item tells it, whatever a word that is none stands for (EPH-16)."""
        presence = item["content"].get("presence") if isinstance(item.get("content"), dict) else None
        wrong = presence in ("online", "offline", "unavailable") and presence != shown.presence
        return item.get("type") == "m.presence" and mentions(item, str(user), *shown.texts) and not wrong

    if a.await_ephemeral(told, marker) is None:
        if _shown_presence(user).presence != shown.presence:
            record(f"{user} is {shown.presence} for a moment only")
            return
        came = [item.get("content") for _, item in a.ephemeral(marker) if mentions(item, "m.presence", str(user))]
        # Nothing says how soon somebody is gone: a homeserver may wait whether it comes back.
        insist = prefer if shown.presence == "offline" else expect
        insist(False, f"m.presence of {user}: {shown.presence} {shown.status or ''}", listing(came) or "none")


@requirement("EPH-15")
def test_presence_of_ghosts_reaches_their_appservice(run: Run, a: Appservice, human: User) -> None:
    """The presence of a ghost, which can be set as a human's, is pushed to its own, even when it is in no room."""
    room = _room(human, a)
    _presence_pushed(a, human, room)
    for prefix in ("hqa-", "hqa2-"):
        ghost, marker = a.ghost(prefix), run.journal.marker()
        said = _say_presence(ghost)
        expect(said.answer.ok, f"200 for the presence of {ghost}, as for a human's", said.answer, said.answer.exchange)
        _presence_of(ghost, said)
        seen = _await(a, marker, "m.presence", str(ghost))
        expect(seen, f"m.presence of {ghost}, who is in no room", "none")
    a.sender.join(room)
    human.send(room)  # the first after a join is INTEREST-30
    _message(a, human, room)
    marker = run.journal.marker()
    _set_presence(a.sender)
    seen = _await(a, marker, "m.presence", str(a.sender))
    expect(seen, f"m.presence of the sender user {a.sender}, who is in a room with a ghost", "none")


@requirement("EPH-16")
def test_presence_has_the_client_format(a: Appservice, human: User, human2: User) -> None:
    """`type`, `sender`, and `content` with a `presence` of online, offline or unavailable; ages are milliseconds."""
    room = _room(human, a)
    human2.join(room)
    _message(a, human2, room)
    for marker, shown in _changes_of_presence(human2):
        seen = _await(a, marker, "m.presence", str(human2), *shown.texts)
        if seen is None:
            raise Blocked("EPH-14", f"the presence of {human2}, who is in {room} with a ghost, is not pushed")
        found = problems("presence", seen.item)
        expect(not found, "m.presence in the client format", listing(found), seen.exchange)
        sender, ago = seen.item.get("sender"), seen.item["content"].get("last_active_ago", 0)
        expect(sender == str(human2), f"the sender {human2}", sender, seen.exchange)
        expect(0 <= ago < _DAY, "a last_active_ago of less than a day, in milliseconds", ago, seen.exchange)


@requirement("EPH-17")
def test_presence_of_strangers_is_not_pushed(run: Run, a: Appservice, human: User, human3: User) -> Quiet:
    """The presence of somebody who shares no room with the appservice's users, or no longer does, is not pushed."""
    marker = run.journal.marker()
    human3.create_room(preset="private_chat")
    _set_presence(human3)
    gone = _who_has_left(run, a, human)
    _presence_pushed(a, human, _room(human, a))
    run.markers.pass_by("A")
    yield
    for exchange, item in a.ephemeral(marker):
        seen = item.get("type") == "m.presence" and mentions(item, str(human3))
        expect(not seen, f"no presence of {human3}, who shares no room", "it was pushed", exchange)
        seen = gone is not None and item.get("type") == "m.presence" and mentions(item, *gone)
        expect(not seen, f"no presence of {gone and gone[0]}, who has left the ghost's room", "it was pushed", exchange)


def _who_has_left(run: Run, a: Appservice, human: User) -> tuple[str, str] | None:
    """Somebody who was in a room with a ghost, and the status message since; None where that cannot be had."""
    try:
        user = run.humans.registered(run.names.fresh("human-"))
    except Inconclusive:
        return None
    room = _room(human, a)
    user.join(room)
    _presence_pushed(a, user, room)
    user.leave(room)
    a.await_event(human.member_event(room, user))
    status = _set_presence(user).status
    return (str(user), status) if status is not None else None


@requirement("EPH-18")
def test_who_does_not_ask_gets_no_ephemeral_data(
    run: Run, a: Appservice, b: Appservice, c: Appservice, human: User, human1: User
) -> Quiet:
    """Without `receive_ephemeral`, or with false, an appservice gets no ephemeral data of what interests it."""
    room = matching_room(c, human)
    human1.join(room)
    own = b.ghost()
    for ghost in (own, a.ghost()):
        ghost.join(room)
    human.send(room)
    event = _message(a, human, room)
    for member in (b, c):
        member.await_event(event)
    for user in (own, human1):
        user.provoke("PUT", _typing_path(user, room), json={"typing": True, "timeout": _TYPING_FOR})
        user.provoke("PUT", _presence_path(user), json={"presence": "online", "status_msg": user.names.fresh()})
        for kind in ("m.read.private", "m.read"):
            user.provoke("POST", _receipt_path(room, event, kind), json={})
    _typing_pushed(a, human, room)
    _receipt_pushed(a, human, room, event)
    run.markers.pass_by("B", "C")
    yield
    for member in run.fleet:
        if member.registration.extra.get("receive_ephemeral") is not True:
            for exchange in member.transactions():
                expect(not _has_ephemeral(exchange), f"no ephemeral data at {member}", "there are some", exchange)


@requirement("EPH-19", last=True)
def test_there_are_three_types_of_ephemeral_data(run: Run, a: Appservice, human: User, human1: User) -> None:
    """Typing notices, receipts and presence updates, nothing else: no account data, no to-device messages."""
    room, ghost = human.create_room(), a.ghost()
    human1.join(room)
    ghost.join(room)
    human.send(room)
    event = _message(a, human, room)
    for user in (ghost, human1):
        place = f"/user/{segment(str(user))}"
        user.provoke("POST", _receipt_path(room, event, "m.fully_read"), json={})
        user.provoke("POST", f"/rooms/{segment(room)}/read_markers", json={"m.fully_read": event})
        user.provoke("PUT", f"{place}/account_data/org.hq.data", json={"some": "thing"})
        user.provoke("PUT", f"{place}/rooms/{segment(room)}/account_data/org.hq.data", json={"some": "thing"})
        user.provoke("PUT", f"{place}/rooms/{segment(room)}/tags/u.hq", json={"order": 0.5})
    to_all = {"messages": {str(ghost): {"*": {"some": "thing"}}}}
    human.provoke("PUT", f"/sendToDevice/org.hq.device/{run.names.fresh('t')}", json=to_all)
    control(_typing_comes(a, human, room), "no ephemeral data was seen")
    run.markers.pass_by("A")
    for member in run.fleet:
        for exchange, item in member.ephemeral():
            kind = item.get("type")
            if kind == "m.receipt.private":  # the event schema of m.receipt lists it, nothing says when it is used
                record("private receipts are pushed as m.receipt.private", exchange)
            else:
                expect(kind in ephemeral.TYPES, " or ".join(ephemeral.TYPES), kind, exchange)


@requirement("EPH-20")
def test_the_senders_room_is_of_interest_for_ephemeral_data(run: Run, a: Appservice, human: User, human2: User) -> None:
    """The sender user is the appservice's, although no namespace matches it: for typing and receipts as well."""
    known = _room(human, a)
    _typing_pushed(a, human, known)
    room = human.create_room()
    a.sender.join(room)
    human.send(room)
    _message(a, human, room)
    seen = _typing_comes(a, human, room)
    expect(seen, f"m.typing with {human} in {room}, where only the sender user is", "none")
    _must_tell_of_receipts(a, human, human2, room, known)


@requirement("EPH-21", lane=V4)
def test_ephemeral_data_do_not_change_in_a_retry(run: Run, lanes: Lanes) -> None:
    """A transaction that says who types says the same when it is tried again, though nobody types any more."""
    typing = lanes[V4].typing.get()
    first, *later = typing.outage.pending
    items = ephemeral.unaged(ephemeral_of(first.first))
    control(items, "the transaction that failed first has no ephemeral data", first.first)
    control(later or typing.delivered, "after the outage nothing came", first.first)
    dropped = not any(ephemeral_of(attempt.first) for attempt in later)
    if dropped and not run.strict:
        raise Recorded("ephemeral data do not survive an outage", first.first, *(each.first for each in later[:1]))
    expect(later, "the transaction with ephemeral data tried again", "others only", first.first)
    for attempt in later:
        seen = ephemeral.unaged(ephemeral_of(attempt.first))
        expect(seen == items, f"ephemeral: {items}", seen or "none", first.first, attempt.first)


@requirement("EPH-22", last=True)
def test_ephemeral_data_are_of_interesting_rooms(run: Run, a: Appservice, human: User, human1: User) -> None:
    """Pushed typing notices and receipts belong to the room that they name, and that interests the appservice."""
    for _ in range(2):
        room = _room(human, a)
        human1.join(room)
        control(_typing_comes(a, human, room), "no ephemeral data was seen")
        _read(human1, room, _message(a, human, room))
    secret = human.create_room(preset="private_chat")
    _read(human, secret, human.send(secret))
    run.markers.pass_by("A")
    acts = ephemeral.acts(run.journal)
    for member in run.fleet:
        interesting = {event.get("room_id") for each in member.transactions() for event in events_of(each)}
        for exchange, item in member.ephemeral():
            named, kind = item.get("room_id"), item.get("type")
            if kind not in ("m.typing", "m.receipt") or not isinstance(named, str):
                continue  # rooms that are not named: EPH-02, EPH-08
            for subject in ephemeral.subjects(item):
                there = named in acts.get(subject, {named})
                expect(there, f"{kind} with {subject} of its own room", f"{kind} of {named}", exchange)
            # Of a room of interest some event was pushed; where events name no room (TXN-04), nothing is known.
            known = named in interesting or None in interesting
            prefer(known, f"no {kind} of {named}, which does not interest {member}", "it was pushed", exchange)


# What users do


def _room(human: User, *members: Appservice) -> str:
    """A room of a human with a ghost of each of these appservices, of which an ordinary message has arrived."""
    room = human.create_room()
    for member in members:
        member.ghost().join(room)
    human.send(room)  # the first after a join is INTEREST-30
    event = human.send(room)
    for member in members:
        member.await_event(event)
    return room


def _message(appservice: Appservice, human: User, room: str) -> str:
    """A message that has arrived; its event ID."""
    event = human.send(room)
    appservice.await_event(event)
    return event


def _typing_path(user: User, room: str) -> str:
    return f"/rooms/{segment(room)}/typing/{segment(str(user))}"


def _receipt_path(room: str, event: str, kind: str) -> str:
    return f"/rooms/{segment(room)}/receipt/{kind}/{segment(event)}"


def _presence_path(user: User) -> str:
    return f"/presence/{segment(str(user))}/status"


def _type(user: User, room: str, typing: bool = True, *, timeout: int = _TYPING_FOR) -> None:
    body = {"typing": True, "timeout": timeout} if typing else {"typing": False}
    user.do("type" if typing else "stop typing", "PUT", _typing_path(user, room), json=body)


def _read(user: User, room: str, event: str, kind: str = "m.read", **content: Any) -> None:
    user.do(f"send {kind}", "POST", _receipt_path(room, event, kind), json=content)


def _mark(user: User, room: str, events: dict[str, str]) -> bool:
    """Have a user read events by several markers at once; whether the homeserver takes it, which is not judged."""
    said = user.call("POST", f"/rooms/{segment(room)}/read_markers", json=events)
    if not said.ok:
        record(f"{said} for {listing(events)} at /read_markers", said.exchange)
    return said.ok


def _is_shown(user: User, room: str, kind: str, *texts: str) -> bool:
    """Whether a room has an ephemeral item with these texts, as one of its members sees it."""
    only = json.dumps({"room": {"rooms": [room], "timeline": {"limit": 1}}})
    rooms = user.do("sync", "GET", "/sync", query={"filter": only, "timeout": "0"}).json.get("rooms", {})
    items = rooms.get("join", {}).get(room, {}).get("ephemeral", {}).get("events", ())
    return any(item.get("type") == kind and mentions(item, *texts) for item in items)


class Shown(NamedTuple):
    """Somebody's presence as a homeserver shows it; without a status message where it keeps none."""

    presence: Any
    status: Any

    @property
    def texts(self) -> tuple[str, ...]:
        """What tells this presence from others."""
        return () if self.status is None else (self.status,)


class Said(NamedTuple):
    """What somebody said of its presence, and what came of it."""

    answer: Response
    before: Shown
    presence: str
    status: str | None


def _shown_presence(user: User) -> Shown:
    shown = user.call("GET", _presence_path(user)).json
    return Shown(shown.get("presence"), shown.get("status_msg"))


def _say_presence(user: User, presence: str | None = None, *, with_status: bool = True) -> Said:
    """Have a user say once that it is there or not; if it is not told what, something else than before."""
    before = _shown_presence(user)
    presence = presence or ("online" if before.presence == "unavailable" else "unavailable")
    status = user.names.fresh("back soon ") if with_status else None
    body = {"presence": presence} | ({} if status is None else {"status_msg": status})
    return Said(user.call("PUT", _presence_path(user), json=body), before, presence, status)


def _presence_of(user: User, said: Said) -> Shown:
    """What is shown of a user's presence that was set.

    :raises Inconclusive: the homeserver has presence switched off, or limits how often it changes.
    """
    shown = _shown_presence(user)
    taken = shown.presence == said.presence or (said.status is not None and shown.status == said.status)
    reflected = taken and shown != said.before
    control(
        reflected, "no presence on this homeserver, or none so soon: what was set is not shown", said.answer.exchange
    )
    return shown if shown.status == said.status else shown._replace(status=None)


def _set_presence(user: User, presence: str | None = None, *, with_status: bool = True) -> Shown:
    """Have a user say once that it is there or not; what is shown of that.

    :raises Inconclusive: the homeserver has presence switched off, or limits how often it changes.
    """
    said = _say_presence(user, presence, with_status=with_status)
    control(
        said.answer.status == 200, f"no presence on this homeserver: {said.answer} for setting it", said.answer.exchange
    )
    return _presence_of(user, said)


def _changes_of_presence(user: User) -> Iterator[tuple[int, Shown]]:
    """Have a user's presence change again and again: a marker before each change, and what is shown of it.

    :raises Inconclusive: not even the first is shown.
    """
    for number, (presence, with_status) in enumerate(_PRESENCES):
        marker = user.client.journal.marker()
        try:
            shown = _set_presence(user, presence, with_status=with_status)
        except Inconclusive as reason:
            if number == 0:
                raise
            record(f"{presence} after {_PRESENCES[number - 1][0]}: {reason}")
            continue
        yield marker, shown


# What is pushed


def _await(appservice: Appservice, since: int, kind: str, *texts: str) -> Pushed | None:
    """The first item of a type since a marker that mentions all of these texts, waiting for it."""
    seen = appservice.await_ephemeral(lambda item: item.get("type") == kind and mentions(item, *texts), since)
    return Pushed(*seen) if seen else None


def _typing_comes(appservice: Appservice, user: User, room: str) -> Pushed | None:
    """Have a user type and stop: what is pushed of it. A list that comes again later must not name the user."""
    marker = appservice.journal.marker()
    _type(user, room)
    seen = _await(appservice, marker, "m.typing", str(user))
    _type(user, room, False)
    return seen


def _typing_pushed(appservice: Appservice, user: User, room: str) -> Pushed:
    """Have a user type in a room with a ghost: what is pushed of it.

    :raises Blocked: nothing is.
    """
    seen = _typing_comes(appservice, user, room)
    if seen is None:
        raise Blocked("EPH-01", f"typing in a room with a ghost is not pushed to {appservice}")
    return seen


def _receipt_pushed(appservice: Appservice, user: User, room: str, event: str) -> Pushed:
    """Have a user read something in a room with a ghost: what is pushed of it.

    :raises Blocked: nothing is.
    """
    marker = appservice.journal.marker()
    _read(user, room, event)
    return _receipt_seen(appservice, marker, user, event)


def _receipt_seen(appservice: Appservice, marker: int, user: User, event: str) -> Pushed:
    seen = _await(appservice, marker, "m.receipt", event, str(user))
    if seen is None:
        raise Blocked("EPH-07", f"a receipt in a room with a ghost is not pushed to {appservice}")
    return seen


def _must_tell_of_receipts(a: Appservice, human: User, reader: User, room: str, known: str) -> None:
    """A must be told of receipts in a room, if it is in one with a ghost, which all of them know."""
    for place in (known, room):
        reader.join(place)
        human.send(place)
    plain = _receipt_pushed(a, reader, known, _message(a, human, known))
    event, marker = _message(a, human, room), a.journal.marker()
    _read(reader, room, event)
    seen = _await(a, marker, "m.receipt", event, str(reader))
    expect(seen, f"m.receipt of {reader} in {room} at {a}", f"none within {a.deliver_wait:g} s", plain.exchange)


def _must_see_receipt(members: tuple[Appservice, ...], user: User, room: str, event: str) -> None:
    """Have a user read something in public, as a control: it must reach each of these appservices."""
    marker = user.client.journal.marker()
    _read(user, room, event)
    for member in members:
        _receipt_seen(member, marker, user, event)


def _presence_pushed(appservice: Appservice, user: User, room: str) -> Pushed:
    """Have a user change its presence who is in a room with a ghost: what is pushed of it.

    :raises Blocked: nothing is.
    """
    marker = appservice.journal.marker()
    _set_presence(user)
    seen = _await(appservice, marker, "m.presence", str(user))
    if seen is None:
        raise Blocked("EPH-14", f"the presence of {user}, who is in {room} with a ghost, is not pushed")
    return seen


def _without_room(item: Event) -> Event:
    """An item without what EPH-02 and EPH-08 are about."""
    return {key: value for key, value in item.items() if key != "room_id"}


def _has_ephemeral(exchange: Exchange) -> bool:
    try:
        body = exchange.request_json
    except NotJson:
        return False
    return isinstance(body, dict) and bool(body.get("ephemeral"))
