"""SYNC: `/sync` and `/events` for ghosts (AS: Using /sync and /events)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from conformance.appservice.fleet import Appservice
from conformance.homeserver.client import NoAnswer, Response, segment
from conformance.homeserver.users import User
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import Recorded, caution, control, expect, listing, record

#: Milliseconds that a sync may wait for news.
_PATIENCE = "2000"

#: Milliseconds that a sync may wait which is to be woken.
_LONG = "20000"


@requirement("SYNC-01", shared=True)
def test_an_appservice_can_sync_as_a_ghost(run: Run, a: Appservice, human: User) -> None:
    """`/sync?user_id=` shows what the ghost sees: all of it at first, only the news with `since`."""
    ghost = a.ghost()
    room = human.create_room()
    ghost.join(room)
    first = human.send(room)
    who = ghost.whoami()
    control(who.json.get("user_id") == ghost.user_id, f"A cannot act as {ghost} (IDENT-02): {who}", who.exchange)
    answer = _sync(ghost)
    expect(answer.status == 200 and _position(answer), "200 and a next_batch for a ghost", answer, answer.exchange)
    answer, shown = _follow(run, ghost, answer, lambda sync: first in _timeline(sync, room))
    expect(shown, "a message in a room that the ghost has joined", "a sync without it", answer.exchange)
    second = human.send(room)
    answer = _sync(ghost, answer)
    answer, shown = _follow(run, ghost, answer, lambda sync: second in _timeline(sync, room))
    expect(shown, "a new message in the sync from next_batch on", "a sync without it", answer.exchange)
    again = first in _timeline(answer, room)
    expect(not again, "only what is new since next_batch", "the first message again", answer.exchange)


@requirement("SYNC-01", shared=True)
def test_a_ghosts_sync_has_its_invites_and_removals(run: Run, a: Appservice, human: User, human2: User) -> None:
    """A ghost's sync shows that it has been invited, and that it has been removed, as a human's does."""
    room, ghost = human.create_room(preset="private_chat"), a.ghost()
    answers = {user: _sync(user) for user in (human2, ghost)}
    control(_position(answers[ghost]), f"a ghost's sync is answered {answers[ghost]}", answers[ghost].exchange)
    for user in answers:
        human.invite(room, user)
    for section in ("invite", "join", "leave"):
        for user, before in answers.items():
            if section == "join":
                user.join(room)
            elif section == "leave":
                human.kick(room, user)
            answers[user], shown = _follow(run, user, _sync(user, before), _has(section, room))
            if user is human2:
                control(shown, f"a human's sync has no {section} of its room", answers[user].exchange)
            expect(shown, f"the room under {section} in the sync of {user}", "not there", answers[user].exchange)


@requirement("SYNC-01", shared=True)
def test_a_ghosts_waiting_sync_is_woken(run: Run, a: Appservice, human: User, human2: User) -> None:
    """A sync of a ghost that waits for news is answered when there is some, as a human's is."""
    room, ghost = human.create_room(), a.ghost()
    for user in (human2, ghost):
        user.join(room)
    human.send(room)
    for user in (human2, ghost, ghost):
        answer, took = _waited_for(run, human, user, room)
        # One that is not woken takes all of its time; a busy machine may take some.
        prompt = took is not None and took < 0.75 * int(_LONG) / 1000
        if user is human2:
            control(prompt, "a human's sync is not woken by a message", answer.exchange)
        expected = f"the sync of {ghost} answered with a message long before its timeout of {_LONG} ms"
        seen = "it was not" if took is None else f"after {took:.1f} s"
        expect(prompt, expected, seen, answer.exchange)


def _waited_for(run: Run, human: User, user: User, room: str) -> tuple[Response, float | None]:
    """Have a message sent while somebody's sync waits; the sync that shows it, and how many seconds later that was.

    A sync may end earlier with other news, or without any: it is gone on with.
    """
    query = {"filter": json.dumps({"presence": {"not_types": ["*"]}, "room": {"rooms": [room]}})}
    answer = user.call("GET", "/sync", query=query | {"timeout": "0"})
    marker = run.journal.marker()
    with user.calling("GET", "/sync", query=query | {"since": _position(answer), "timeout": _LONG}) as call:
        run.journal.wait_for(lambda each: each.path.endswith("/sync"), marker, run.budgets.deliver)
        for _ in range(3):  # until the homeserver has got the sync, as far as one can see from here
            human.whoami()
        message = human.send(room)
        sent = time.monotonic()
        answer = call.result()
    while message not in _timeline(answer, room) and time.monotonic() < sent + int(_LONG) / 1000:
        answer = user.call("GET", "/sync", query=query | {"since": _position(answer), "timeout": _LONG})
        control(answer.ok, f"a sync is answered {answer}", answer.exchange)
    shown = answer.exchange.answer_until if message in _timeline(answer, room) else None
    return answer, None if shown is None else shown - sent


def _has(section: str, room: str) -> Callable[[Response], bool]:
    """Whether a sync has a room in a section."""
    return lambda sync: room in ((sync.json.get("rooms") or {}).get(section) or {})


@requirement("SYNC-02")
def test_a_ghosts_sync_has_its_own_rooms_only(run: Run, a: Appservice, human: User) -> None:
    """The rooms of another ghost and of the sender are not in a ghost's sync."""
    ghost, other = a.ghost(), a.ghost()
    own, *foreign = (human.create_room(preset="private_chat") for _ in range(3))
    for member, room in ((ghost, own), (other, foreign[0]), (a.sender, foreign[1])):
        human.invite(room, member)
        member.join(room)
    human.invite(foreign[1], other)
    # In the same words, which nobody has used before, one right after the other.
    before, others = (_sync(user, timeout="7") for user in (ghost, other))
    control(_position(before), f"a ghost's sync is answered {before}", before.exchange)
    expect(own not in _rooms(others), f"no room of {ghost} in the sync of {other}", "it is there", others.exchange)
    for room in foreign:
        human.send(room)
    message = human.send(own)
    after, shown = _follow(run, ghost, _sync(ghost, before), lambda sync: message in _timeline(sync, own))
    control(shown, "a ghost's sync does not show its own room", after.exchange)
    for answer in (before, after):
        there = [room for room in foreign if room in _rooms(answer)]
        expect(not there, "no rooms of other users in a ghost's sync", f"{len(there)} of them", answer.exchange)


@requirement("SYNC-03")
def test_a_devices_sync_has_its_messages_only(run: Run, a: Appservice, human: User) -> None:
    """With `device_id`, `to_device` has what was sent to that device of the ghost, not what another was sent."""
    ghost = a.ghost()
    plain = _sync(ghost)
    control(_position(plain), f"a ghost's sync without a device is answered {plain} (SYNC-01)", plain.exchange)
    devices = [_device(a, ghost, run.names.fresh("HQDEV")) for _ in range(2)]
    path = f"/sendToDevice/org.hq.device/{run.names.fresh('t')}"
    messages = {str(ghost): {device: {"for": device} for device in devices}}
    human.do("send to a ghost's devices", "PUT", path, json={"messages": messages})
    for device in devices:
        whoami = ghost.call("GET", "/account/whoami", query={"device_id": device})
        control(whoami.json.get("device_id") == device, f"no masquerading as {device}: {whoami}", whoami.exchange)
        answer = _sync(ghost, device_id=device)
        expect(answer.status == 200, "200 for the sync of a ghost's device", answer, answer.exchange)
        answer, _ = _follow(run, ghost, answer, lambda sync: bool(_to_device(sync)), device_id=device)
        seen = _to_device(answer)
        expect(seen == [device], f"the to-device message for {device} and no other", seen or "none", answer.exchange)
        later = ghost.call("GET", "/sync", query={"since": _position(answer), "timeout": "0", "device_id": device})
        again = _to_device(later)
        expect(not again, f"no to-device message for {device} once more", listing(map(str, again)), later.exchange)


@requirement("SYNC-04")
def test_the_old_events_endpoint_causes_no_server_error(a: Appservice, human: User) -> None:
    """The deprecated `/events` may serve a ghost, or be unknown; it is no server error."""
    ghost = a.ghost()
    ghost.join(human.create_room())
    try:
        answer = ghost.call("GET", "/events", query={"timeout": "0"})
    except NoAnswer as error:
        raise Recorded("/events for a ghost is not answered", error.exchange) from error
    # 501 is another way to say that it is unknown, which INV-03 has something to say about.
    known = answer.status < 500 or answer.status == 501
    caution(known, "200, or 404 or 405 and M_UNRECOGNIZED", answer, answer.exchange)
    record(f"/events for a ghost is answered {answer}", answer.exchange)


def _sync(user: User, after: Response | None = None, **query: str) -> Response:
    """One sync: from where another ended, waiting for news; or from the beginning."""
    since = {"timeout": "0"} if after is None else {"since": _position(after), "timeout": _PATIENCE}
    return user.call("GET", "/sync", query=since | query)


def _follow(
    run: Run, user: User, answer: Response, shows: Callable[[Response], bool], **query: str
) -> tuple[Response, bool]:
    """Sync on from an answer until one shows what is looked for, T_deliver at most; the last answer, and whether."""

    def look() -> bool | None:
        nonlocal answer
        if not shows(answer):
            answer = _sync(user, answer, **query)
        return shows(answer) or None

    shown = bool(run.eventually(look))
    return answer, shown


def _position(answer: Response) -> str:
    position = answer.json.get("next_batch")
    return position if isinstance(position, str) else ""


def _rooms(answer: Response) -> dict[str, Any]:
    """The rooms of a sync, whatever the user's membership in them."""
    sections = answer.json.get("rooms") or {}
    known = (sections.get(each) or {} for each in ("join", "invite", "knock", "leave"))
    return {room: found for section in known for room, found in section.items()}


def _timeline(answer: Response, room: str) -> list[str]:
    """The IDs of the events in a room's timeline."""
    events = ((_rooms(answer).get(room) or {}).get("timeline") or {}).get("events")
    return [event.get("event_id") for event in events or ()]


def _to_device(answer: Response) -> list[str]:
    """For which devices the to-device messages of this area in a sync are."""
    events = (answer.json.get("to_device") or {}).get("events")
    return [str(event.get("content", {}).get("for")) for event in events or () if event.get("type") == "org.hq.device"]


def _device(appservice: Appservice, ghost: User, device: str) -> str:
    """A new device of a ghost: by PUT (v1.17), else by logging in."""
    if not ghost.call("PUT", f"/devices/{segment(device)}", json={}).ok:
        identifier = {"type": "m.id.user", "user": ghost.localpart}
        body = {"type": "m.login.application_service", "identifier": identifier, "device_id": device}
        appservice.sender.do(f"log in a device of {ghost}", "POST", "/login", json=body)
    return device
