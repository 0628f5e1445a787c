"""DEVICE: devices that appservices act with and manage (AS: Identity assertion, Server admin style permissions).

Where a device is only needed, it is made by PUT, or by a login where that is not possible (DEVICE-06).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

from conformance.appservice.fleet import Appservice
from conformance.homeserver.client import Response, segment
from conformance.homeserver.keys import Ed25519, unpadded
from conformance.homeserver.users import User
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import Inconclusive, control, expect, listing, prefer, record

#: The algorithm of the keys that are uploaded.
_ALGORITHM = "signed_curve25519"

#: The encryption that a device says it speaks.
_OLM = "m.olm.v1.curve25519-aes-sha2"

#: Devices that are created in a row.
_MANY = 10

#: A call as a user and one of its devices.
_Call = Callable[[User, str], Response]


@requirement("DEVICE-01")
def test_an_appservice_acts_as_a_device(run: Run, a: Appservice) -> None:
    """With `device_id`, whoami names the ghost and that device, whichever of its devices it is."""
    ghost = _ghost(a)
    odd = ghost.names.fresh("HQ/+ %25é?&=")
    devices = [_device(a, ghost), _device(a, ghost)]
    if _make(a, ghost, odd).ok and odd in _listing(run, ghost, lambda known: odd in known):
        devices.append(odd)
    else:  # whether such an ID is allowed is not said
        record("no device can have an ID with characters that have to be encoded")
    for device in devices:
        answer = _whoami(ghost, device)
        seen = (answer.status, answer.json.get("user_id"), answer.json.get("device_id"))
        expected = f"whoami 200 as {ghost} and its device {device!r}"
        expect(seen == (200, ghost.user_id, device), expected, f"{answer}, {seen[1:]}", answer.exchange)


@requirement("DEVICE-02")
def test_nobody_acts_as_an_unknown_device(a: Appservice) -> None:
    """A `device_id` that the user does not have, or no longer has, is refused with 400 M_UNKNOWN_DEVICE."""
    ghost = _ghost(a)
    device, *removed = (_device(a, ghost) for _ in range(3))
    calls = _accepted(ghost, device)
    for each in removed:
        _accepted(ghost, each)
    for unknown in (ghost.names.fresh("HQNONE"), f"{device}0", device[:-1], f" {device}", f"{device} "):
        _must_be_unknown(calls, ghost, unknown, f"the device {unknown!r}, which does not exist")
    for each, bulk in zip(removed, (False, True), strict=True):
        if _remove(ghost, each, bulk=bulk):
            _must_be_unknown(calls, ghost, each, f"the device {each!r}, which was removed")
    for unlike in ("", device.lower()):
        answer = _whoami(ghost, unlike)
        expected = f"400 M_UNKNOWN_DEVICE for the device_id {unlike!r}"
        prefer(_is_unknown_device(answer), expected, answer, answer.exchange)


@requirement("DEVICE-03")
def test_nobody_acts_as_the_device_of_another(a: Appservice, b: Appservice, human: User) -> None:
    """A `device_id` of another ghost, another appservice's ghost or a human is refused with 400 M_UNKNOWN_DEVICE."""
    ghost, other, foreign = _ghost(a), _ghost(a), _ghost(b)
    calls = _accepted(ghost, _device(a, ghost))
    owners = {user: _device(member, user) for member, user in ((a, other), (b, foreign))}
    for owner, device in owners.items():
        _accepted(owner, device)
    more = {a.sender: _senders_device(a), human: human.whoami().json.get("device_id")}
    owners |= {owner: device for owner, device in more.items() if isinstance(device, str)}
    for owner, device in owners.items():
        _must_be_unknown(calls, ghost, device, f"the device of {owner}")


@requirement("DEVICE-04")
def test_without_a_user_the_device_is_the_senders(a: Appservice, b: Appservice) -> None:
    """Without `user_id`, a `device_id` has to be the sender user's: no ghost's, and no other sender's."""
    ghost, sender, explicit = _ghost(a), a.sender, a.as_user(a.sender.user_id)
    users = (sender, explicit) if explicit.whoami().ok else (sender,)  # whether it may be named is IDENT-07
    device = _device(a, ghost)
    calls = _accepted(ghost, device)
    for user in users:
        _must_be_unknown(calls, user, device, f"the device of {ghost}")
    own, foreign = (_device(member, member.sender) for member in (a, b))
    for user in users:
        answer = _whoami(user, own)
        seen = (answer.status, answer.json.get("user_id"))
        expected = f"whoami 200 as {sender} with its device {own}"
        expect(seen == (200, sender.user_id), expected, f"{answer} {seen[1]}", answer.exchange)
        _must_be_unknown(calls, user, foreign, f"the device of {b.sender}")


@requirement("DEVICE-05")
def test_without_a_device_no_keys_are_uploaded(a: Appservice) -> None:
    """Without `device_id` keys belong to no device, also where the user has only one: uploading them is refused."""
    one, two, none = _ghost(a), _ghost(a), _ghost(a)
    for ghost in (one, two, two):
        device = _device(a, ghost)
        with_it = _upload(ghost, device, 1)
        control(with_it.ok, f"no keys can be uploaded with a device_id either: {with_it}", with_it.exchange)
    for user, has in ((one, "one device"), (two, "two devices"), (none, "no device"), (a.sender, "no user_id")):
        answer = _upload(user, None, 1)
        expected = f"a 4xx for uploading keys as {user}, with {has}, without device_id"
        expect(answer.refused, expected, answer, answer.exchange)
    answer = one.whoami()
    named = answer.json.get("device_id")
    if named is not None:  # it "can be omitted", and may be told
        record(f"whoami without device_id tells a device of {one}", answer.exchange)


@requirement("DEVICE-06")
def test_an_appservice_creates_devices(run: Run, a: Appservice) -> None:
    """PUT for a device that is not there is answered with 201 and an object, whether or not it was there before."""
    ghost = _ghost(a)
    again = ghost.names.fresh("HQDEV")
    bodies: list[dict[str, Any]] = [{"display_name": "a new device"}, {}, {"display_name": "odd", "org.hq.more": 1}]
    calls = [(user, user.names.fresh("HQDEV"), bodies[0]) for user in (ghost, _ghost(a, "hqopen-"), a.sender)]
    calls += [(ghost, ghost.names.fresh("hqdev"), body) for body in bodies[1:]]
    calls += [(ghost, again, body) for body in bodies[:2]]
    for user, device, body in calls:
        answer = _put(user, device, **body)
        expected = f"201 and an object for a new device of {user} with {body}"
        expect(answer.status == 201 and isinstance(answer.value, dict), expected, answer, answer.exchange)
        if device == again and not _remove(ghost, device):
            record("devices cannot be removed (DEVICE-10): none was created for the second time")
            break
    acting, device = _device(a, ghost), ghost.names.fresh("HQDEV")
    if _whoami(ghost, acting).ok:
        answer = _put(ghost, device, acting=acting, display_name="another")
        expected = f"201 for a new device of {ghost}, acting as its device {acting}"
        expect(answer.status == 201, expected, answer, answer.exchange)
        known = _listing(run, ghost, lambda known: device in known)
        expect(device in known, f"{device} among the devices of {ghost}", "it is not there", answer.exchange)


@requirement("DEVICE-07")
def test_an_appservice_renames_devices(run: Run, a: Appservice) -> None:
    """PUT for a device that is there is answered with 200, and shows: of whatever origin it is, and once more."""
    ghost = _ghost(a)
    devices = [_device(a, ghost), _device(a, ghost), *_logged_in(a, ghost)]
    for name in (run.names.fresh("name "), run.names.fresh("Nº 2 é ☃ ")):
        for device in devices:
            answer = _put(ghost, device, display_name=name)
            expect(answer.status == 200, f"200 for renaming the device {device} of {ghost}", answer, answer.exchange)
            shown = _shown(run, ghost, device, name)
            seen = shown.json.get("display_name")
            expect(seen == name, f"the display_name {name!r} of {device}", seen, answer.exchange, shown.exchange)
    answer = _put(ghost, devices[0])
    expect(answer.status == 200, "200 for an update without display_name", answer, answer.exchange)


@requirement("DEVICE-08")
def test_a_created_device_is_listed(run: Run, a: Appservice) -> None:
    """What was created is in its ghost's list and nobody else's, and keeps its name when an update has none."""
    ghost, other = _ghost(a), _ghost(a)
    names = {run.names.fresh(prefix): run.names.fresh("name ") for prefix in ("HQDEV", "hqdev", "HQ/+ %25é?&=")}
    for device, name in list(names.items()):
        answer = _put(ghost, device, display_name=name)
        if device.startswith("HQ/") and not answer.ok:  # whether such an ID is allowed is not said
            del names[device]
            continue
        control(answer.ok, f"no device can be created: {answer} (DEVICE-06)", answer.exchange)
    updates: list[dict[str, Any]] = [{}, {"org.hq.more": {"display_name": "no name of a device"}}]
    for body in (None, *updates):
        if body is not None:
            for device in names:
                ghost.do("update a device", "PUT", f"/devices/{segment(device)}", json=body)
        when = "as created" if body is None else f"after an update with {body}"
        listed = _listing(run, ghost, lambda listed: names.items() <= listed.items())
        for device, name in names.items():
            expect(device in listed, f"{device!r} among the devices of {ghost} {when}", listing(listed) or "none")
            expect(listed[device] == name, f"{device!r} named {name!r} {when}", repr(listed[device]))
            answer = _shown(run, ghost, device, name)
            seen = (answer.json.get("device_id"), answer.json.get("display_name"))
            expect(seen == (device, name), f"{(device, name)} {when}", f"{answer} {seen}", answer.exchange)
    for user in (other, a.sender):
        found = sorted(names.keys() & _listed(user).keys())
        expect(not found, f"no device of {ghost} among those of {user}", listing(found))


@requirement("DEVICE-09")
def test_nobody_else_creates_devices(run: Run, a: Appservice, human: User, human1: User) -> None:
    """PUT by a human, or with a ghost's own token, for a device that is not there: 404, and it is not there after."""
    ghost = _ghost(a)
    clients = [human, *(user for user, _ in _logins(a, ghost, 1))]
    others = human1.whoami().json.get("device_id"), _device(a, ghost)
    for user in clients:
        own = user.whoami().json.get("device_id")
        control(isinstance(own, str), f"whoami does not say which device {user} has")
        known = _put(user, str(own))
        control(known.ok, f"a client cannot update its own device either: {known}", known.exchange)
        taken = [each for each in others if isinstance(each, str) and each not in _listed(user)]
        for device in (user.names.fresh("HQNOPE"), *taken):
            answer = _put(user, device, display_name="made by a client")
            expected = f"404 for the device {device}, which {user} does not have"
            expect(answer.status == 404, expected, answer, answer.exchange)
            expect(device not in _listed(user), f"no device {device} of {user}", "it was created", answer.exchange)
        device = user.names.fresh("HQNOPE")
        answer = _put(user, device)
        expect(device not in _listed(user), f"no device {device} of {user}", "it was created", answer.exchange)
        expect(answer.status == 404 or answer.ok, f"404 for the device {device}", answer, answer.exchange)
        prefer(answer.status == 404, f"404 for an empty update of the unknown device {device}", answer, answer.exchange)


@requirement("DEVICE-10")
def test_an_appservice_deletes_a_device(run: Run, a: Appservice) -> None:
    """DELETE is answered with 200 at once, one device after the other; what was not named stays."""
    ghost, other = _ghost(a), _ghost(a, "hqopen-")
    kept = _device(a, ghost)
    devices = [_device(a, ghost), _device(a, ghost), *_logged_in(a, ghost)]
    for device in devices:
        _must_delete(run, ghost, f"/devices/{segment(device)}", "DELETE", {}, [device], kept)
    devices = [_device(a, other), _device(a, other)]
    _must_delete(run, other, f"/devices/{segment(devices[0])}", "DELETE", {}, devices[:1], devices[1])
    if _whoami(ghost, kept).ok:
        device = _device(a, ghost)
        _must_delete(run, ghost, f"/devices/{segment(device)}", "DELETE", {}, [device], kept, acting=kept)
    _must_delete(run, ghost, f"/devices/{segment(kept)}", "DELETE", {}, [kept], None)
    senders = _senders_device(a)
    if senders is not None:
        _must_delete(run, a.sender, f"/devices/{segment(senders)}", "DELETE", {}, [senders], None)


@requirement("DEVICE-11")
def test_an_appservice_deletes_several_devices(run: Run, a: Appservice) -> None:
    """`/delete_devices` is answered with 200 at once, and all that were named are gone, known or not, no others."""
    for ghost in (_ghost(a, "hqopen-"), _ghost(a)):
        kept = _device(a, ghost)
        for _ in range(2):
            devices = [_device(a, ghost), _device(a, ghost), *_logged_in(a, ghost)]
            _must_delete(run, ghost, "/delete_devices", "POST", {"devices": devices}, devices, kept)
    if _whoami(ghost, kept).ok:
        devices = [_device(a, ghost), _device(a, ghost)]
        _must_delete(run, ghost, "/delete_devices", "POST", {"devices": devices}, devices, kept, acting=kept)
    device = _device(a, ghost)
    named = [devices[0], device, ghost.names.fresh("HQNONE")]
    answer = ghost.call("POST", "/delete_devices", json={"devices": named})
    expected = "200 for deleting a device together with a removed and an unknown one"
    expect("flows" not in answer.json, expected, f"{answer} with flows", answer.exchange)
    prefer(answer.status == 200, expected, answer, answer.exchange)
    left = _listing(run, ghost, lambda known: device not in known or not answer.ok)
    expect(device not in left or not answer.ok, f"{device} gone", "it is still there", answer.exchange)
    expect(kept in left, f"{kept}, which was not named, still there", "it is gone", answer.exchange)


@requirement("DEVICE-12")
def test_a_human_who_deletes_a_device_is_authenticated(run: Run) -> None:
    """Without interactive authentication no device of a human is deleted, by neither way."""
    human = run.humans.registered(run.names.fresh("human-"))
    device = human.whoami().json.get("device_id")
    there = isinstance(device, str) and device in _listing(run, human, lambda known: device in known)
    control(there, f"{human} has no device that is listed")
    for method, path, body in (
        ("DELETE", f"/devices/{segment(str(device))}", {}),
        ("POST", "/delete_devices", {"devices": [device]}),
    ):
        answer = human.call(method, path, json=body)
        asked = answer.status == 401 and bool(answer.json.get("flows"))
        expected = (
            f"401 with flows for {method} {path} of a human (403, 404 or 405 where there is no such authentication)"
        )
        expect(asked or answer.status in (403, 404, 405), expected, answer, answer.exchange)
        expect(device in _listed(human), f"the device {device} still there", "it is gone", answer.exchange)


@requirement("DEVICE-13")
def test_deleting_an_unknown_device_succeeds(run: Run, a: Appservice) -> None:
    """An appservice may delete what never was, is gone, or is another ghost's, who keeps it."""
    ghost, other = _ghost(a), _ghost(a)
    removed, kept = _device(a, ghost), _device(a, other)
    control(_remove(ghost, removed), "a known device cannot be removed (DEVICE-10)")
    control(kept in _listing(run, other, lambda known: kept in known), f"no {kept} of {other} is listed (DEVICE-08)")
    for device, what in (
        (ghost.names.fresh("HQNONE"), "a device that never was"),
        (removed, "a device that was removed"),
        (kept, "a device of another ghost"),
    ):
        answer = ghost.call("DELETE", f"/devices/{segment(device)}", json={})
        right = answer.status == 200 or (answer.status == 404 and not run.strict)
        expect(right, f"200{'' if run.strict else ' or 404'} for deleting {what}", answer, answer.exchange)
        expect(kept in _listed(other), f"the device of {other} still there", "it is gone", answer.exchange)


@requirement("DEVICE-14")
def test_the_tokens_of_a_deleted_device_end(run: Run, a: Appservice) -> None:
    """A token of a ghost's device ends when the appservice deletes the device, by either way; other tokens do not."""
    ghost = _ghost(a)
    logins = _logins(a, ghost, 4)
    control(logins, f"no login as {ghost} that has a device (ADMIN-12)")
    (kept, _), (first, one), (second, two), (third, three) = logins
    for user in (kept, first, second, third):
        control(user.whoami().ok, f"{user} is logged out by a later login (ADMIN-12)")
    ghost.do("delete a device", "DELETE", f"/devices/{segment(one)}", json={})
    ghost.do("delete devices", "POST", "/delete_devices", json={"devices": [two, three]})
    left = _listing(run, ghost, lambda known: known.keys().isdisjoint((one, two, three)))
    for user, device in ((first, one), (second, two), (third, three)):
        control(device not in left, f"the device {device} was not deleted (DEVICE-10, DEVICE-11)")
        answer = user.whoami()
        expect(answer.status == 401, f"401 for the token of the deleted device {device}", answer, answer.exchange)
    for user in (kept, ghost):
        answer = user.whoami()
        expect(answer.ok, f"{user} still authenticated, whose device was not deleted", answer, answer.exchange)


@requirement("DEVICE-15")
def test_keys_are_uploaded_by_way_of_the_device(a: Appservice, human: User) -> None:
    """With `device_id`, keys are kept for that device: each has a count of its own."""
    own = human.whoami().json.get("device_id")
    plain = human.call("POST", "/keys/upload", json=_keys(human, own if isinstance(own, str) else None, 2))
    control(plain.ok, f"an ordinary user's upload of such keys is answered {plain}", plain.exchange)
    ghost, other = _ghost(a), _ghost(a)
    name = ghost.names.fresh("HQDEV")
    uploads = [(ghost, _device(a, ghost), 2), (ghost, _device(a, ghost, name), 3), (other, _device(a, other, name), 1)]
    for number in (0, 1):
        for user, device, count in uploads:
            answer = _upload(user, device, count if number == 0 else 0)
            expect(answer.status == 200, f"200 for keys of {user} with device_id {device}", answer, answer.exchange)
            counts = answer.json.get("one_time_key_counts")
            expected = "one_time_key_counts with integers"
            form = isinstance(counts, dict) and all(type(each) is int for each in counts.values())
            expect(form, expected, counts, answer.exchange)
            seen = counts.get(_ALGORITHM) if isinstance(counts, dict) else None
            expect(seen == count, f"{count} keys of the device {device} of {user}", seen, answer.exchange)


@requirement("DEVICE-16")
def test_ghosts_may_have_devices_of_the_same_id(run: Run, a: Appservice, b: Appservice) -> None:
    """Each ghost has its own device of an ID: created, named, logged in and deleted without the others'."""
    ghosts, device = [_ghost(a), _ghost(a), _ghost(b)], run.names.fresh("HQSAME")
    answers = [_put(ghost, device, display_name=ghost.localpart) for ghost in ghosts]
    control(answers[0].ok, f"no device can be created: {answers[0]} (DEVICE-06)", answers[0].exchange)
    for ghost, answer in zip(ghosts[1:], answers[1:], strict=True):
        expected = f"{answers[0].status} for a device of {ghost} that has the ID of another ghost's"
        expect(answer.status == answers[0].status, expected, answer, answer.exchange, answers[0].exchange)
    for ghost, answer in zip(ghosts, answers, strict=True):
        name = _shown(run, ghost, device, ghost.localpart).json.get("display_name")
        control(name is not None, "a device that was created with a name has none (DEVICE-08)", answer.exchange)
        expect(name == ghost.localpart, f"{device} of {ghost} named {ghost.localpart}", name, answer.exchange)
    # What becomes of the name when a known device is logged in is not said.
    logins = [user for ghost in ghosts[:2] for user, _ in _logins(a, ghost, 1, device)]
    removal = ghosts[0].do("delete a device", "DELETE", f"/devices/{segment(device)}", json={})
    left = _listing(run, ghosts[0], lambda known: device not in known)
    control(device not in left, "the device was not deleted (DEVICE-10)", removal.exchange)
    for ghost in ghosts[1:]:
        expect(device in _listed(ghost), f"{device} of {ghost} still there", "it is gone", removal.exchange)
    name = _listed(ghosts[2]).get(device)
    expect(name == ghosts[2].localpart, f"{device} named {ghosts[2].localpart}", name, removal.exchange)
    for user in logins[1:]:
        answer = user.whoami()
        expect(answer.ok, f"{user} still authenticated, whose device was not deleted", answer, answer.exchange)


@requirement("DEVICE-17")
def test_a_limit_on_new_devices_passes(a: Appservice) -> None:
    """Whether many new devices meet a rate limit is recorded; after the time told more can be created."""
    ghost = _ghost(a)
    for number in range(_MANY):
        answer = _put(ghost, ghost.names.fresh("HQDEV"), obey_limits=False)
        if answer.status == 429:
            record(f"429 after {number} devices", answer.exchange)
            later = _put(ghost, ghost.names.fresh("HQDEV"))
            expected = "a new device after the time that a 429 told"
            expect(later.ok, expected, later, later.exchange, answer.exchange)
            return
        control(answer.ok or number, f"no device can be created: {answer} (DEVICE-06)", answer.exchange)
        expect(answer.ok, f"2xx or 429 for device {number + 1} of {_MANY}", answer, answer.exchange)
    record(f"no limit on {_MANY} devices")


# Ghosts and their devices


def _ghost(appservice: Appservice, prefix: str | None = None) -> User:
    """A fresh ghost as which the appservice can act (IDENT-02 judges that)."""
    ghost = appservice.ghost(prefix)
    answer = ghost.whoami()
    acting = answer.ok and answer.json.get("user_id") == ghost.user_id
    control(acting, f"{appservice} cannot act as its ghost {ghost}: whoami {answer}", answer.exchange)
    return ghost


def _put(user: User, device: str, *, acting: str | None = None, obey_limits: bool = True, **content: Any) -> Response:
    """Create or update a device of a user, as another of its devices where one is given."""
    query = {"device_id": acting} if acting else {}
    return user.call("PUT", f"/devices/{segment(device)}", json=content, query=query, obey_limits=obey_limits)


def _device(appservice: Appservice, user: User, device: str | None = None) -> str:
    """A device of one of an appservice's users: by PUT, else by logging in.

    :raises Inconclusive: there is no way to have one.
    """
    device = user.names.fresh("HQDEV") if device is None else device
    made = _make(appservice, user, device)
    control(made.ok, f"set-up: no device of {user}, neither by PUT nor by a login: {made}", made.exchange)
    return device


def _make(appservice: Appservice, user: User, device: str) -> Response:
    """Make a device of one of an appservice's users: by PUT, else by logging in; what that was answered."""
    made = _put(user, device, display_name="a device")
    if made.ok:
        return made
    identifier = {"type": "m.id.user", "user": user.localpart}
    body = {"type": "m.login.application_service", "identifier": identifier, "device_id": device}
    return appservice.sender.call("POST", "/login", json=body)


def _logins(appservice: Appservice, ghost: User, count: int, device: str | None = None) -> list[tuple[User, str]]:
    """A ghost logged in so many times, each with the device of its token; none where that is not possible."""
    found = []
    identifier = {"type": "m.id.user", "user": ghost.localpart}
    for _ in range(count):
        content = {} if device is None else {"device_id": device}
        body = {"type": "m.login.application_service", "identifier": identifier, **content}
        answer = appservice.sender.call("POST", "/login", json=body)
        token, own = answer.json.get("access_token"), answer.json.get("device_id")
        if not isinstance(token, str) or not isinstance(own, str):
            return []
        user = User(ghost.client, ghost.names, f"{ghost.user_id} logged in", token, ghost.user_id)
        who = user.whoami().json
        if (who.get("user_id"), who.get("device_id", own)) != (ghost.user_id, own):
            return []
        found.append((user, own))
    return found


def _logged_in(appservice: Appservice, ghost: User) -> list[str]:
    """A device that a ghost has by logging in; none where that is not possible."""
    return [device for _, device in _logins(appservice, ghost, 1)]


def _senders_device(appservice: Appservice) -> str | None:
    """A device of the sender user; None where that is not possible."""
    try:
        return _device(appservice, appservice.sender)
    except Inconclusive:
        return None


def _listed(user: User) -> dict[str, Any]:
    """The display names of a user's devices, by ID."""
    devices = user.do("list the devices", "GET", "/devices").json.get("devices")
    known = devices if isinstance(devices, list) else []
    return {str(each.get("device_id")): each.get("display_name") for each in known if isinstance(each, dict)}


def _listing(run: Run, user: User, settled: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The list as soon as it is as it should be; as it is in the end when T_deliver is over."""
    return run.eventually(lambda: known if settled(known := _listed(user)) else None) or _listed(user)


def _shown(run: Run, user: User, device: str, name: str | None) -> Response:
    """One device as soon as it has its name; as it is in the end when T_deliver is over."""

    def named() -> Response | None:
        answer = user.call("GET", f"/devices/{segment(device)}")
        return answer if answer.json.get("display_name") == name else None

    return run.eventually(named) or user.call("GET", f"/devices/{segment(device)}")


def _remove(user: User, device: str, *, bulk: bool = False) -> bool:
    """Remove a device, by one way or the other; whether it is gone then."""
    if bulk:
        answer = user.call("POST", "/delete_devices", json={"devices": [device]})
    else:
        answer = user.call("DELETE", f"/devices/{segment(device)}", json={})
    return answer.ok and device not in _listed(user)


def _must_delete(
    run: Run,
    user: User,
    path: str,
    method: str,
    body: dict[str, Any],
    devices: list[str],
    kept: str | None,
    *,
    acting: str | None = None,
) -> None:
    """Deletion has to be answered 200 without authentication, and to leave all other devices alone."""
    before = _listing(run, user, lambda known: known.keys() >= set(devices))
    missing = [each for each in devices if each not in before]
    control(not missing, f"not listed before they are deleted (DEVICE-08): {listing(missing)}")
    answer = user.call(method, path, json=body, query={"device_id": acting} if acting else {})
    asked = " with flows" if "flows" in answer.json else ""
    expect(answer.status == 200, f"200 for {method} {path} as {user}", f"{answer}{asked}", answer.exchange)
    left = _listing(run, user, lambda known: known.keys().isdisjoint(devices))
    stayed = [each for each in devices if each in left]
    expect(not stayed, f"{listing(devices)} of {user} gone", f"{listing(stayed)} still there", answer.exchange)
    expect(kept is None or kept in left, f"{kept}, which was not named, still there", "it is gone", answer.exchange)


# Acting as a device


def _whoami(user: User, device: str) -> Response:
    return user.whoami(query={"device_id": device})


def _name_oneself(user: User, device: str) -> Response:
    path = f"/profile/{segment(user.user_id)}/displayname"
    return user.call("PUT", path, json={"displayname": "somebody"}, query={"device_id": device})


def _list_devices(user: User, device: str) -> Response:
    return user.call("GET", "/devices", query={"device_id": device})


def _upload_a_key(user: User, device: str) -> Response:
    return _upload(user, device, 1)


def _sync(user: User, device: str) -> Response:
    return user.call("GET", "/sync", query={"device_id": device, "timeout": "0"})


def _create_a_room(user: User, device: str) -> Response:
    return user.call("POST", "/createRoom", json={}, query={"device_id": device})


def _accepted(user: User, device: str) -> list[_Call]:
    """The control: those calls of several kinds that are accepted with a device that there is, whoami among them."""
    accepted: list[_Call] = []
    for call in (_whoami, _name_oneself, _list_devices, _upload_a_key, _sync, _create_a_room):
        answer = call(user, device)
        if answer.ok:
            accepted.append(call)
        known = answer.ok or call is not _whoami
        control(known, f"whoami as {user} with its device {device} is answered {answer} (DEVICE-01)", answer.exchange)
    return accepted


def _must_be_unknown(calls: list[_Call], user: User, device: str, what: str) -> None:
    """Each of the calls has to be refused with such a device."""
    for call in calls:
        answer = call(user, device)
        made = f"{answer.exchange.method} {answer.exchange.raw_path}"
        expected = f"400 M_UNKNOWN_DEVICE for {made} as {user} with {what}"
        expect(_is_unknown_device(answer), expected, answer, answer.exchange)


def _is_unknown_device(answer: Response) -> bool:
    return answer.status == 400 and answer.errcode == "M_UNKNOWN_DEVICE"


def _upload(user: User, device: str | None, count: int) -> Response:
    """Upload so many one-time keys as a device, or as none."""
    query = {} if device is None else {"device_id": device}
    return user.call("POST", "/keys/upload", json=_keys(user, device, count), query=query)


def _keys(user: User, device: str | None, count: int) -> dict[str, Any]:
    """So many one-time keys, signed by a device, and that device's own, which are always the same."""
    signing = Ed25519(hashlib.sha256(f"{user} {device}".encode()).digest())
    signer = "NONE" if device is None else device
    public = {f"ed25519:{signer}": signing.public, f"curve25519:{signer}": signing.public}
    own = {"user_id": user.user_id, "device_id": device, "algorithms": [_OLM], "keys": public}
    one_time = {f"{_ALGORITHM}:{user.names.fresh('AAAA')}": {"key": unpadded(os.urandom(32))} for _ in range(count)}
    signed = {name: signing.signed(key, user.user_id, signer) for name, key in one_time.items()}
    device_keys = {} if device is None else {"device_keys": signing.signed(own, user.user_id, signer)}
    return device_keys | ({"one_time_keys": signed} if signed else {})
