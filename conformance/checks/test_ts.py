"""TS: timestamp massaging (AS: Timestamp massaging)."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from conformance.appservice.fleet import Appservice, events_of
from conformance.appservice.routes import Kind
from conformance.homeserver.client import Response, segment
from conformance.homeserver.users import User
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import Broken, control, expect, listing, prefer, record

Event = dict[str, Any]

DAY = 24 * 60 * 60 * 1000
HOUR = 60 * 60 * 1000
#: How far an event without `ts` may be from the homeserver's clock, in milliseconds.
TOLERANCE = 60 * 1000


def past(days: int = 30) -> int:
    """A time stamp some days ago, in milliseconds that no careless rounding leaves alone."""
    return _odd(int(time.time() * 1000) - days * DAY)


def future() -> int:
    """A time stamp an hour ahead."""
    return _odd(int(time.time() * 1000) + HOUR)


def _odd(stamp: int) -> int:
    return stamp // 1000 * 1000 + 457


def is_now(event: Event, answer: Response) -> bool:
    """Whether an event has about the time of the homeserver's clock when it gave an answer."""
    try:
        clock, tolerance = parsedate_to_datetime(answer.date or "").timestamp(), TOLERANCE
    except ValueError:
        clock, tolerance = time.time(), DAY  # the homeserver's may be wrong, or ours
    stamp = event.get("origin_server_ts")
    return isinstance(stamp, int) and abs(stamp - clock * 1000) <= tolerance


def ghost_in(a: Appservice, human: User) -> tuple[User, str]:
    """A fresh ghost and a room of a human's in which it may send and set state."""
    ghost, room = a.ghost(), human.create_room()
    ghost.join(room)
    human.promote(room, ghost)
    return ghost, room


def put(user: User, room: str, ts: int | str | None, state: str | None = None) -> Response:
    """Try to send a message, or with `state` (``type`` or ``type/key``) a state event, at a time."""
    content = {"msgtype": "m.text", "body": f"message {user.names.fresh()}", "topic": user.names.fresh("topic ")}
    path = f"/rooms/{segment(room)}/" + (f"state/{state}" if state else f"send/m.room.message/{user.names.fresh('t')}")
    query = {} if ts is None else {"ts": str(ts)}
    return user.call("PUT", path, json=content, query=query)


def event_of(observer: User, room: str, answer: Response) -> Event:
    """The event that an answer names, as somebody else sees it."""
    event_id = answer.json.get("event_id")
    control(answer.ok and isinstance(event_id, str), f"no event ID: answered {answer}", answer.exchange)
    return observer.event(room, str(event_id))


def must_have(observer: User, room: str, answer: Response, ts: int) -> None:
    """What was sent with `ts` has exactly that time."""
    expect(answer.ok, f"2xx for an event with ts={ts}", answer, answer.exchange)
    stamp = event_of(observer, room, answer).get("origin_server_ts")
    expect(stamp == ts, f"origin_server_ts {ts}", f"origin_server_ts {stamp}", answer.exchange)


def obeyed(observer: User, user: User, room: str, *states: str | None) -> list[str | None]:
    """Where a `ts` in the past counts at all (TS-01, TS-02): for a message (None), for some state."""
    found = []
    for state in states or (None, "m.room.topic"):
        ts = past(20)
        answer = put(user, room, ts, state)
        if answer.ok and event_of(observer, room, answer).get("origin_server_ts") == ts:
            found.append(state)
    control(found, f"ts does not count for {user} at all (TS-01, TS-02)")
    return found


def must_not_obey(observer: User, room: str, answer: Response, who: str) -> None:
    """What was sent with a `ts` that does not count has the time of sending, or was refused."""
    expect(answer.ok or answer.refused, f"2xx or 4xx for ts from {who}", answer, answer.exchange)
    if answer.ok:
        event = event_of(observer, room, answer)
        stamp = event.get("origin_server_ts")
        expect(is_now(event, answer), f"the present time for an event of {who}", f"{stamp}", answer.exchange)


@requirement("TS-01", shared=True)
def test_a_message_with_ts_has_that_time(a: Appservice, human: User) -> None:
    """A message that a ghost sends with `ts` has exactly that `origin_server_ts`."""
    for days in (30, 4000):
        ghost, room = ghost_in(a, human)
        ghost.send(room)
        ts = past(days)
        must_have(human, room, put(ghost, room, ts), ts)
    relation = {"rel_type": "m.annotation", "event_id": ghost.send(room), "key": "+1"}
    secret = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "c", "sender_key": "k", "session_id": "s"}
    for kind, content in (
        ("net.hq.conformance", {"of": "no known type"}),
        ("m.reaction", {"m.relates_to": relation}),
        ("m.room.encrypted", {**secret, "device_id": "HQDEVICE"}),
    ):
        path = f"/rooms/{segment(room)}/send/{kind}/{ghost.names.fresh('t')}"
        must_have(human, room, ghost.call("PUT", path, json=content, query={"ts": str(ts)}), ts)


@requirement("TS-01", shared=True)
def test_the_ts_of_every_ghost_counts(run: Run, a: Appservice, human: User) -> None:
    """Ghosts of all namespaces can send with `ts`, and a ghost that acts with one of its devices can."""
    room, ts = human.create_room(), past()
    for prefix in ("hqa-", "hqa2-", "hqopen-"):
        ghost = a.ghost(prefix)
        ghost.join(room)
        ghost.send(room)
        must_have(human, room, put(ghost, room, ts), ts)
    device = run.names.fresh("HQDEVICE")
    ghost.provoke("PUT", f"/devices/{device}", json={})
    query = {"device_id": device}
    if ghost.whoami(query=query).json.get("device_id") == device:  # DEVICE-01 to -03 judge that
        path = f"/rooms/{segment(room)}/send/m.room.message/{ghost.names.fresh('t')}"
        body = {"msgtype": "m.text", "body": "of a device"}
        must_have(human, room, ghost.call("PUT", path, json=body, query={**query, "ts": str(ts)}), ts)


@requirement("TS-02")
def test_a_state_event_with_ts_has_that_time(a: Appservice, human: User) -> None:
    """A state event that a ghost sends with `ts` has exactly that time, with or without a state key in the path."""
    ghost, room = ghost_in(a, human)
    ghost.set_state(room, "m.room.topic", {"topic": "without ts"})
    ghost.set_state(room, "net.hq.conformance", {"of": "without ts"}, "key")
    for number, state in enumerate(("m.room.topic", "net.hq.conformance/key", "net.hq.conformance/Schl%C3%BCssel")):
        ts = past(30 + number)
        must_have(human, room, put(ghost, room, ts, state), ts)
    slash = put(ghost, room, None, "m.room.topic/")  # an empty state key may leave one at the end of the path
    control(slash.ok, f"a path with an empty state key is answered {slash}", slash.exchange)
    ts = past(33)
    must_have(human, room, put(ghost, room, ts, "m.room.topic/"), ts)


@requirement("TS-03")
def test_without_ts_the_time_is_now(a: Appservice, human: User) -> None:
    """An appservice's event without `ts` is stamped with the present time, also after others with `ts`."""
    ghost, room = ghost_in(a, human)
    a.sender.join(room)
    for user, state in ((ghost, None), (ghost, "m.room.topic"), (a.sender, None)):
        answer = put(user, room, None, state)
        event = event_of(human, room, answer)
        stamp = event.get("origin_server_ts")
        expect(is_now(event, answer), f"the present time ({answer.date})", f"origin_server_ts {stamp}", answer.exchange)
        put(ghost, room, past(), state)
        answer = put(user, room, None, state)
        event = event_of(human, room, answer)
        stamp = event.get("origin_server_ts")
        expect(is_now(event, answer), f"the present time ({answer.date})", f"origin_server_ts {stamp}", answer.exchange)


def _history_with(event_id: str, reader: User, room: str) -> list[Event] | None:
    """A room's history once it has an event: some homeservers need a moment."""
    history = reader.timeline(room)
    return history if any(event.get("event_id") == event_id for event in history) else None


@requirement("TS-04")
def test_a_ts_that_is_no_integer_is_refused(run: Run, a: Appservice, human: User) -> None:
    """A `ts` that is not an integer time stamp is refused with 400, and no event is sent."""
    ghost, room = ghost_in(a, human)
    for state in obeyed(human, ghost, room):
        last = ghost.send(room)
        history = run.eventually(partial(_history_with, last, human, room))
        control(history, "the last message is not to be found in the room's history")
        sent = len(history or ())
        for ts in ("abc", "1.5", "1e3", "0x10", str(10**30)):
            answer = put(ghost, room, ts, state)
            expect(answer.status == 400, f"400 for ts={ts}", answer, answer.exchange)
        more = len(human.timeline(room)) - sent
        expect(more == 0, "no event for a ts that was refused", f"{more} more events in the room")
        answer = put(ghost, room, "", state)
        now = not run.strict and answer.ok and is_now(event_of(human, room, answer), answer)
        expected = "400 for an empty ts" if run.strict else "400 for an empty ts, or the present time"
        expect(answer.status == 400 or now, expected, answer, answer.exchange)


@requirement("TS-05")
def test_an_ordinary_user_cannot_set_the_time(human: User, human1: User) -> None:
    """An ordinary user cannot set the time of an event with `ts`; it is ignored or refused."""
    room = human.create_room()
    human1.join(room)
    for state in (None, "m.room.topic"):
        event_of(human1, room, put(human, room, None, state))
        must_not_obey(human1, room, put(human, room, past(), state), "an ordinary user")


@requirement("TS-06")
def test_other_endpoints_do_not_take_ts(a: Appservice, human: User) -> None:
    """Endpoints other than sending a message or a state event ignore `ts` or refuse it."""
    ghost, room = ghost_in(a, human)
    other, asked = a.ghost(), past()
    query = {"ts": str(asked)}
    base, target = f"/rooms/{segment(room)}", {"user_id": other.user_id}
    for actor, method, path, body in (
        (other, "POST", f"/join/{segment(room)}", {}),
        (ghost, "POST", f"{base}/kick", target),
        (ghost, "POST", f"{base}/invite", target),
        (other, "POST", f"{base}/join", {}),
        (other, "POST", f"{base}/leave", {}),
        (ghost, "POST", f"{base}/ban", target),
        (ghost, "POST", f"{base}/unban", target),
        (ghost, "PUT", f"{base}/redact/{segment(ghost.send(room))}/{ghost.names.fresh('t')}", {}),
        (ghost, "POST", "/createRoom", {"preset": "public_chat"}),
    ):
        answer = actor.call(method, path, json=body, query=query)
        expect(answer.ok or answer.refused, f"2xx or 4xx for {path}?ts=", answer, answer.exchange)
        if answer.refused:  # is it the ts? The same without it must be possible
            actor.do("do without ts what was refused with it", method, path, json=body)
            continue
        made = answer.json.get("room_id", room)
        if path == "/createRoom":
            human.join(made)
        stamps = [event["origin_server_ts"] for event in human.timeline(made)]
        stamps = [stamp for stamp in stamps if abs(stamp - asked) < DAY]  # a limited rate may have taken minutes
        expect(not stamps, f"only events of the present time after {path}?ts=", listing(stamps), answer.exchange)
    _profile_change(a, ghost, room, query)


def _profile_change(a: Appservice, ghost: User, room: str, query: dict[str, str]) -> None:
    """Change a display name with a `ts` and look at the membership event that announces it."""
    name, marker = f"Name of {ghost.localpart}", a.journal.marker()
    path = f"/profile/{segment(ghost.user_id)}/displayname"
    answer = ghost.call("PUT", path, json={"displayname": name}, query=query)
    expect(answer.ok or answer.refused, "2xx or 4xx for a display name with ts", answer, answer.exchange)
    if answer.refused:
        return

    def announces(event: Event) -> bool:
        return event.get("room_id") == room and event.get("content", {}).get("displayname") == name

    found = a.journal.wait_for(
        lambda exchange: (
            exchange.received is not None
            and exchange.party == a.code
            and a.route(exchange).kind is Kind.TRANSACTION
            and any(announces(event) for event in events_of(exchange))
        ),
        marker,
        a.deliver_wait,
    )
    if found is None:
        record("a new display name is not announced in rooms", answer.exchange)
        return
    for event in filter(announces, events_of(found)):
        stamp = event.get("origin_server_ts")
        expected = "the present time for the membership event of a new display name with ts"
        expect(is_now(event, answer), expected, f"origin_server_ts {stamp}", answer.exchange, found)


@requirement("TS-07", shared=True)
def test_a_membership_set_as_state_with_ts_has_that_time(a: Appservice, human: User, human1: User) -> None:
    """A membership event that a ghost sets as a state event with `ts` has exactly that time and takes effect."""
    ghost, room = ghost_in(a, human)
    bystander = a.ghost()
    bystander.join(room)
    ghost.set_state(room, "m.room.member", {"membership": "leave"}, bystander.user_id)
    obeyed(human, ghost, room, "m.room.topic")
    human1.join(room)
    path = f"/rooms/{segment(room)}/state/m.room.member/{segment(human1.user_id)}"
    for number, result in enumerate(("leave", "invite")):
        ts = past(30 + number)
        answer = ghost.call("PUT", path, json={"membership": result}, query={"ts": str(ts)})
        must_have(human, room, answer, ts)
        seen = human.state(room, "m.room.member", human1.user_id).get("membership")
        taken = seen == result or (result == "invite" and seen == "join")  # invites may be accepted at once
        expect(taken, f"membership {result} of {human1}", f"membership {seen}", answer.exchange)


@requirement("TS-07", shared=True)
def test_ones_own_membership_set_as_state_with_ts_has_that_time(a: Appservice, human: User) -> None:
    """A ghost's own join, and its name in a room, that it sets as state with `ts` have exactly that time."""
    ghost, room = ghost_in(a, human)
    obeyed(human, ghost, room, "m.room.topic")
    guest, before = a.ghost(), a.ghost()
    before.set_state(room, "m.room.member", {"membership": "join"}, before.user_id)
    for number, user in enumerate((guest, ghost)):
        ts = past(30 + number)
        path = f"/rooms/{segment(room)}/state/m.room.member/{segment(user.user_id)}"
        body = {"membership": "join", "displayname": user.names.fresh("in this room ")}
        must_have(human, room, user.call("PUT", path, json=body, query={"ts": str(ts)}), ts)


def _sync_of(room: str, limit: int) -> dict[str, str]:
    """The query of a sync that shows the last events of one room."""
    return {"filter": json.dumps({"room": {"rooms": [room], "timeline": {"limit": limit}}}), "timeout": "0"}


def _send_out_of_time(ghost: User, room: str) -> tuple[list[str], dict[str, int]]:
    """Send now, in the past, in the future (where that is accepted) and now; the event IDs, and the times asked for."""
    sent, times = [ghost.send(room)], {}
    for ts in (past(), future(), past(31)):
        answer = put(ghost, room, ts)
        event_id = answer.json.get("event_id")
        control(answer.ok or ts > past(1), f"an event with ts={ts} was answered {answer} (TS-01)", answer.exchange)
        if answer.ok and isinstance(event_id, str):
            sent.append(event_id)
            times[event_id] = ts
    return [*sent, ghost.send(room)], times


@requirement("TS-08")
def test_ts_does_not_change_the_order(a: Appservice, human: User) -> None:
    """Events keep the order in which they were sent, whatever their `ts`, in a room's history and in sync."""
    ghost, room = ghost_in(a, human)
    query = _sync_of(room, 50)
    since = human.do("sync", "GET", "/sync", query=query).json.get("next_batch")
    sent, times = _send_out_of_time(ghost, room)
    first = next(iter(times))
    stamp = human.event(room, first).get("origin_server_ts")
    control(stamp == times[first], f"ts={times[first]} became origin_server_ts {stamp} (TS-01)")
    a.await_event(sent[-1])
    messages = f"/rooms/{segment(room)}/messages"
    backwards = human.do("read the history", "GET", messages, query={"dir": "b", "limit": "50"})
    forwards = human.do("read the history", "GET", messages, query={"dir": "f", "limit": "50"})
    later = human.do("sync", "GET", "/sync", query=query | {"since": str(since)})
    afresh = human.do("sync", "GET", "/sync", query=_sync_of(room, 49))  # no cached answer to the first
    for answer, where, reverse in (
        (backwards, "/messages?dir=b", True),
        (forwards, "/messages?dir=f", False),
        (later, "/sync?since", False),
        (afresh, "a first /sync", False),
    ):
        joined = answer.json.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {}).get("events", [])
        events = [event["event_id"] for event in answer.json.get("chunk", joined) if event["event_id"] in sent]
        control(sent[-1] in events, f"{where} does not have the last message yet", answer.exchange)
        order = [sent.index(event) + 1 for event in (reversed(events) if reverse else events)]
        right = list(range(1, len(sent) + 1))
        expect(order == right, f"all {len(sent)} messages in the order of sending in {where}", order, answer.exchange)


@requirement("TS-09")
def test_events_with_ts_are_pushed_in_order(a: Appservice, human: User) -> None:
    """Events sent with `ts` are pushed in the order in which they were sent, with the same time as clients see."""
    ghost, room = ghost_in(a, human)
    a.await_event(human.send(room))
    marker = a.journal.marker()
    sent, times = _send_out_of_time(ghost, room)
    for event_id in (sent[0], sent[-1]):
        a.await_event(event_id)
    for event_id, ts in times.items():
        pushed = a.must_receive(event_id, f"a message with ts={ts}").get("origin_server_ts")
        seen = human.event(room, event_id).get("origin_server_ts")
        control(seen == ts or ts > past(1), f"ts={ts} became origin_server_ts {seen} (TS-01)")
        expect(pushed == seen, f"origin_server_ts {seen}, as clients see it, in the push", f"{pushed}")
    arrived: dict[str, int] = {}
    for place, (_, event) in enumerate(a.received(marker)):
        arrived.setdefault(str(event.get("event_id")), place)
    control(arrived.keys() >= set(sent), "some came under the ID of another transaction (TXN-10)")
    order = sorted(range(1, len(sent) + 1), key=lambda number: arrived[sent[number - 1]])
    expect(order == sorted(order), "pushes in the order of sending", f"the order {order}", a.deliveries(sent[0])[0][0])


@requirement("TS-10")
def test_the_sender_can_send_with_ts(a: Appservice, human: User) -> None:
    """The sender user can send with `ts`, without naming a `user_id`."""
    ghost, room = ghost_in(a, human)
    a.sender.join(room)
    human.promote(room, a.sender)
    a.sender.send(room)
    for state in obeyed(human, ghost, room):
        ts = past()
        must_have(human, room, put(a.sender, room, ts, state), ts)


@requirement("TS-11")
def test_a_ts_near_zero_is_a_ts(run: Run, a: Appservice, human: User) -> None:
    """A `ts` of 0 or 1 is taken as it stands; the lenient reading lets it be refused with 400."""
    ghost, room = ghost_in(a, human)
    states = obeyed(human, ghost, room)
    for ts in (0, 1):
        for state in states:
            _must_have_unless_refused(run, human, room, put(ghost, room, ts, state), ts)


@requirement("TS-12")
def test_a_ts_in_the_future_is_a_ts(run: Run, a: Appservice, human: User) -> None:
    """A `ts` in the future is taken as it stands; the lenient reading lets it be refused with 400."""
    ghost, room = ghost_in(a, human)
    for state in obeyed(human, ghost, room):
        for ts in (future(), _odd(2**31 * 1000 + 400 * DAY), _odd(2**32 * 1000 + DAY)):
            _must_have_unless_refused(run, human, room, put(ghost, room, ts, state), ts)


def _must_have_unless_refused(run: Run, observer: User, room: str, answer: Response, ts: int) -> None:
    if answer.status == 400 and not run.strict:
        record(f"ts={ts} is refused", answer.exchange)
    else:
        must_have(observer, room, answer, ts)


@requirement("TS-13")
def test_a_ghosts_own_token_cannot_set_the_time(a: Appservice, human: User) -> None:
    """A token obtained by logging in as a ghost cannot set the time of an event with `ts`."""
    ghost, room = ghost_in(a, human)
    logged_in = a.log_in(ghost)
    logged_in.send(room)
    for state in (None, "m.room.topic"):
        try:
            must_not_obey(human, room, put(logged_in, room, past(), state), "a ghost by a token of its own")
        except Broken as broken:
            prefer(False, broken.deviation.expected, broken.deviation.seen, *broken.deviation.evidence)


@requirement("TS-14")
def test_a_redaction_by_send_has_its_ts(run: Run, a: Appservice, human: User) -> None:
    """A redaction that a ghost sends through `/send` with `ts` takes effect and has exactly that time."""
    ghost, room = ghost_in(a, human)
    ghost.redact(room, ghost.send(room))
    obeyed(human, ghost, room, None)
    redacted, ts = ghost.send(room), past()
    path = f"/rooms/{segment(room)}/send/m.room.redaction/{ghost.names.fresh('t')}"
    answer = ghost.call("PUT", path, json={"redacts": redacted}, query={"ts": str(ts)})
    must_have(human, room, answer, ts)
    gone = run.eventually(lambda: not human.event(room, redacted).get("content") or None)
    expect(gone, "the message redacted: no content", "it still has content", answer.exchange)
