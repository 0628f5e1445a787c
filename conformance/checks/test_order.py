"""ORDER: linearisation (AS: Pushing events)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Hold, always, answer
from conformance.homeserver.client import segment
from conformance.homeserver.users import User
from conformance.judges import attempts as attempt_judges
from conformance.judges import order
from conformance.judges.transactions import carries, event_ids
from conformance.lanes.lane import Lanes
from conformance.lanes.v2 import V2
from conformance.requirement import requirement
from conformance.verdict import Blocked, control, expect, prefer, record


def _room_of(member: Appservice, human: User) -> str:
    """A room with a ghost of the appservice, from which an ordinary message has arrived."""
    room = human.create_room()
    member.ghost().join(room)
    human.send(room)
    member.await_event(human.send(room))
    return room


def _must_be_in_order(sent: list[str], arrived: list[str], what: str) -> None:
    inversion = order.first_inversion(sent, arrived)
    expect(inversion is None, what, order.in_words(sent, arrived, inversion) if inversion else "")


@contextmanager
def _slow(member: Appservice) -> Iterator[None]:
    """Have an appservice answer late, though never so late that it seems dead: what is sent meanwhile is batched."""
    hold = Hold(4.0)
    with member.scripted(Kind.TRANSACTION, always(answer(hold=hold))):
        try:
            yield
        finally:
            hold.release()


@requirement("ORDER-01", shared=True)
def test_messages_of_a_room_arrive_in_order(a: Appservice, human: User) -> None:
    """Fifty messages, sent one after the other in one room, are pushed in that order, batched or by themselves."""
    room, marker = _room_of(a, human), a.journal.marker()
    with _slow(a):
        sent = [human.send(room) for _ in range(25)]
    sent += [human.send(room) for _ in range(25)]
    _all_arrive(a, sent, marker)
    arrived = order.arrivals(event for _, event in a.received(marker))
    _must_be_in_order(sent, arrived, "50 messages of a room in the order of sending")


@requirement("ORDER-01", shared=True)
def test_what_one_transaction_does_not_hold_arrives_in_order(a: Appservice) -> None:
    """More than a hundred messages that wait for a slow appservice are pushed in the order of sending, room by room."""
    ghosts = [a.ghost() for _ in range(3)]  # no limit is on their rate
    rooms, marker = [ghost.create_room() for ghost in ghosts], a.journal.marker()

    def burst(ghost: User, room: str) -> list[str]:
        return [ghost.send(room) for _ in range(45)]

    with _slow(a), ThreadPoolExecutor(len(ghosts)) as pool:
        sent = list(pool.map(burst, ghosts, rooms))
    _all_arrive(a, [event for events in sent for event in events], marker)
    arrived = order.arrivals(event for _, event in a.received(marker))
    for events in sent:
        _must_be_in_order(events, arrived, "45 messages of a room, of 135 that waited, in the order of sending")


def _all_arrive(member: Appservice, sent: list[str], marker: int) -> None:
    missing = member.still_missing(sent, marker)
    control(not missing, f"{len(missing)} of {len(sent)} events did not arrive at {member}")


@requirement("ORDER-01", shared=True)
def test_events_of_all_kinds_arrive_in_order(a: Appservice, human: User) -> None:
    """Messages, state, redactions and memberships of one room, in turn, are pushed in that order."""
    room, marker, sent = _room_of(a, human), a.journal.marker(), []
    guests = [a.ghost() for _ in range(4)]
    with _slow(a):
        for number, guest in enumerate(guests):
            message = human.send(room)
            sent += [message, human.set_state(room, "org.hq.x", {"number": number}), human.redact(room, message)]
            guest.join(room)
            sent += [human.member_event(room, guest), guest.send(room), human.send(room)]
    _all_arrive(a, sent, marker)
    arrived = order.arrivals(event for _, event in a.received(marker))
    _must_be_in_order(sent, arrived, "messages, state, redactions and memberships of a room in the order of sending")


@requirement("ORDER-02")
def test_messages_of_several_rooms_arrive_in_order(a: Appservice, human: User) -> None:
    """Messages that one client sends in turn in three rooms are pushed in order: in each room, strictly over all."""
    rooms, marker = [_room_of(a, human) for _ in range(3)], a.journal.marker()
    with _slow(a):
        sent = [human.send(rooms[number % 3]) for number in range(15)]
    sent += [human.send(rooms[number % 3]) for number in range(15)]
    _all_arrive(a, sent, marker)
    arrived = order.arrivals(event for _, event in a.received(marker))
    for place in range(3):
        _must_be_in_order(sent[place::3], arrived, "the messages of each room in the order of sending")
    inversion = order.first_inversion(sent, arrived)
    told = order.in_words(sent, arrived, inversion) if inversion else ""
    prefer(inversion is None, "the messages of all rooms in the order of sending", told)


@requirement("ORDER-03", lane=V2)
def test_one_transaction_is_open_at_a_time(lanes: Lanes) -> None:
    """While an appservice takes its time to answer a transaction, no other one is sent to it."""
    slow = lanes[V2].slow.get()
    arrived = [event for exchange in slow.exchanges for event in slow.sent if carries(exchange, event)]
    _must_be_in_order(slow.sent, list(dict.fromkeys(arrived)), "the events of a burst in the order of sending")
    both = attempt_judges.overlap(slow.exchanges)
    prefer(both is None, "one open transaction at a time", "two with different IDs", *(both or ()))


@requirement("ORDER-04", lane=V2)
def test_a_backlog_arrives_in_order(lanes: Lanes) -> None:
    """After an outage what was queued arrives in the order of sending, the failed transaction first."""
    backlog = lanes[V2].backlog.get()
    outage = backlog.outage
    after = [event for each in outage.after for event in event_ids(each.first)]
    if not after:
        raise Blocked("RETRY-08", "nothing arrived after the outage")
    _must_be_in_order(outage.sent, list(dict.fromkeys(after)), "the events of the outage in the order of sending")


@requirement("ORDER-05")
def test_the_first_events_of_a_room_arrive_in_order(a: Appservice, human: User) -> None:
    """Those of a new room's first events that are pushed come in the order of the room's history."""
    ghost, marker = a.ghost(), a.journal.marker()
    alias = a.fresh_localpart()
    with _slow(a):
        room = ghost.create_room(name="a name", topic="a topic", room_alias_name=alias, invite=[human.user_id])
        ghost.send(room)
        last = ghost.send(room)
    a.await_event(last)
    history = ghost.do(
        "read the history", "GET", f"/rooms/{segment(room)}/messages", query={"dir": "f", "limit": "50"}
    ).json.get("chunk", [])
    made = [str(event.get("event_id")) for event in history]
    control(last in made, "the room's history does not have its last message")
    arrived = order.arrivals(event for _, event in a.received(marker) if event.get("room_id") == room)
    _must_be_in_order(made, arrived, "the first events of a room in the order of its history")
    record(f"{len([each for each in arrived if each in made])} of {len(made)} events of the new room are pushed")


def _comings_and_goings(human: User, room: str, ghost: User) -> Iterator[str]:
    """A ghost's invite, join and removal, one after the other."""
    human.invite(room, ghost)
    yield human.member_event(room, ghost)
    ghost.join(room)
    yield human.member_event(room, ghost)
    human.kick(room, ghost)
    yield human.member_event(room, ghost)


@requirement("ORDER-06")
def test_an_invite_a_join_and_a_kick_arrive_in_order(a: Appservice, human: User) -> None:
    """A ghost's invite, join and removal are pushed, each of them, in this order."""
    room, ghost, marker = human.create_room(preset="private_chat"), a.ghost(), a.journal.marker()
    for event in _comings_and_goings(human, human.create_room(preset="private_chat"), a.ghost()):
        a.await_event(event)  # each by itself, with time between them
    with _slow(a):
        changes = list(_comings_and_goings(human, room, ghost))
    for event, what in zip(changes, ("invite", "join", "removal"), strict=True):
        a.must_receive(event, f"the {what} of a ghost")
    arrived = order.arrivals(event for _, event in a.received(marker))
    _must_be_in_order(changes, arrived, "invite, join and removal of a ghost in this order")
