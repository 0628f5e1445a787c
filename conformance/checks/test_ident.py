"""IDENT: identity assertion (AS: Identity assertion)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import quote

from conformance.appservice.fleet import Appservice
from conformance.catalogue.versions import Version, newest
from conformance.homeserver.client import CLIENT, Response, segment
from conformance.homeserver.users import User
from conformance.requirement import requirement
from conformance.run import Run
from conformance.verdict import caution, control, expect, listing, prefer, record
from conformance.wire.exchange import Exchange

WHOAMI = "/account/whoami"


def acting_ghost(a: Appservice, prefix: str | None = None) -> User:
    """A fresh ghost as which the appservice can act at all (IDENT-02 judges that)."""
    ghost = a.ghost(prefix)
    answer = ghost.whoami()
    control(is_whoami(answer, ghost), f"{a} cannot act as its ghost {ghost}: whoami {told(answer)}", answer.exchange)
    return ghost


def is_whoami(answer: Response, user: User) -> bool:
    """Whether whoami says that the caller is this user."""
    return answer.ok and answer.json.get("user_id") == user.user_id


def told(answer: Response) -> str:
    """A whoami answer in words."""
    return f"{answer} {answer.json.get('user_id', '')}".rstrip()


def must_be(answer: Response, user: User, what: str) -> None:
    """Whoami has to say that the caller is this user."""
    expect(is_whoami(answer, user), f"2xx and user_id {user} from whoami {what}", told(answer), answer.exchange)


def must_be_refused(run: Run, answer: Response, what: str) -> None:
    """A refusal of whoami is any 4xx, and 403 M_FORBIDDEN in the strict reading."""
    forbidden = answer.status == 403 and answer.errcode == "M_FORBIDDEN"
    expect(
        forbidden or (answer.refused and not run.strict),
        f"{'403 M_FORBIDDEN' if run.strict else 'a 4xx'} for {what}",
        told(answer),
        answer.exchange,
    )


def send_path(room: str, txn: str) -> str:
    """The path that sends a message with a client transaction ID."""
    return f"/rooms/{segment(room)}/send/m.room.message/{segment(txn)}"


def try_to_send(user: User, room: str, **options: Any) -> tuple[Response, str]:
    """Try to send a text message that no other message has; the answer and the text."""
    body = f"message {user.names.fresh()}"
    path = send_path(room, user.names.fresh("t"))
    return user.call("PUT", path, json={"msgtype": "m.text", "body": body}, **options), body


def must_speak(user: User, room: str, observer: User) -> None:
    """What is sent in somebody's name has to be that user's message."""
    answer, _ = try_to_send(user, room)
    expect(answer.ok, f"2xx for a message of {user}, who is in the room", answer, answer.exchange)
    sender = observer.event(room, str(answer.json.get("event_id"))).get("sender")
    expect(sender == user.user_id, f"a message of {user}", f"sender {sender}", answer.exchange)


def sent(observer: User, room: str, body: str) -> list[dict[str, Any]]:
    """The messages with a text in a room, as somebody there sees it."""
    return [event for event in observer.timeline(room) if event.get("content", {}).get("body") == body]


def await_membership(run: Run, observer: User, room: str, user: User, wanted: str) -> dict[str, Any]:
    """The event of somebody's membership in a room, as somebody there sees it: the one that is wanted, if it comes.

    :raises Inconclusive: an invite is wanted, which the homeserver has accepted for the user.
    """
    run.eventually(lambda: membership(observer, room, user).get("content", {}).get("membership") == wanted or None)
    event = membership(observer, room, user)
    joined = event.get("content", {}).get("membership") == "join" and event.get("sender") == user.user_id
    control(not (wanted == "invite" and joined), f"the invite of {user} was accepted before it could be looked at")
    return event


def membership(observer: User, room: str, user: User) -> dict[str, Any]:
    """The event of somebody's present membership in a room, as somebody there sees it; empty when there is none."""
    for event in observer.do("read the room's state", "GET", f"/rooms/{segment(room)}/state").value or ():
        if event.get("type") == "m.room.member" and event.get("state_key") == user.user_id:
            return dict(event)
    return {}


@requirement("IDENT-01")
def test_the_token_alone_is_the_sender(a: Appservice, human: User) -> None:
    """With the `as_token` and no `user_id` the appservice acts as its sender user, also just after it was a ghost."""
    ghost, room = a.ghost(), human.create_room()
    ghost.whoami()
    must_be(a.sender.whoami(), a.sender, "with the as_token and no user_id")
    ghost.call("POST", f"/join/{segment(room)}", json={})  # whether it can is IDENT-12
    a.sender.join(room)
    must_speak(a.sender, room, human)


@requirement("IDENT-02", shared=True)
def test_a_user_id_makes_the_caller_that_ghost(a: Appservice, human: User) -> None:
    """With the `as_token` and the `user_id` of a registered ghost the appservice acts as that ghost."""
    room = human.create_room()
    ghosts = [a.ghost(), a.ghost(), a.ghost("hqa2-")]
    for ghost in ghosts:
        must_be(ghost.whoami(), ghost, f"with user_id {ghost}")
    for ghost in ghosts:
        ghost.join(room)
        must_speak(ghost, room, human)


@requirement("IDENT-02", shared=True)
def test_ghosts_that_speak_at_once_are_not_mixed_up(a: Appservice, human: User) -> None:
    """Of two ghosts of one appservice that send at the same time each has its own messages."""
    ghosts, room = [acting_ghost(a), acting_ghost(a)], human.create_room()
    for ghost in ghosts:
        ghost.join(room)
        ghost.send(room)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: try_to_send(ghosts[number % 2], room)[0], range(16)))
    for number, answer in enumerate(answers):
        control(answer.ok, f"a message of {ghosts[number % 2]} is answered {answer}", answer.exchange)
    senders = {event.get("event_id"): event.get("sender") for event in human.timeline(room)}
    for number, answer in enumerate(answers):
        ghost, seen = ghosts[number % 2], senders.get(answer.json.get("event_id"))
        expect(seen in (None, ghost.user_id), f"a message of {ghost}", f"sender {seen}", answer.exchange)
    control(any(answer.json.get("event_id") in senders for answer in answers), "none is in the room's history yet")


@requirement("IDENT-03", shared=True)
def test_nobody_outside_the_namespaces_can_be_acted_as(run: Run, a: Appservice, human: User) -> None:
    """An appservice cannot act as a user outside its users namespaces: a human, another appservice's sender."""
    ghost, room = acting_ghost(a), human.create_room()
    ghost.join(room)
    ghost.send(room)
    for user_id in (human.user_id, run.user_id("hqbot-b")):
        outsider = a.as_user(user_id)
        must_be_refused(run, outsider.whoami(), f"whoami of {a} with user_id {user_id}")
        answer, body = try_to_send(outsider, room)
        expect(not sent(human, room, body), f"no message of {a} as {user_id}", "the message is there", answer.exchange)
        expect(answer.refused, f"a 4xx for a message of {a} with user_id {user_id}", answer, answer.exchange)
    for member in run.fleet:  # one that is down or has no url may be treated otherwise
        if member is not a:
            bot = a.as_user(member.sender.user_id)
            must_be_refused(run, bot.whoami(), f"whoami of {a} with the sender user of {member} as user_id")


@requirement("IDENT-03", shared=True, fuzz=True)
def test_an_appservice_is_no_generated_user_of_nobody(run: Run) -> None:
    """An appservice cannot act as users outside its generated namespaces."""
    run.fuzz.accuse_as_well(run.fuzz.of_identities, "IDENT-03")


@requirement("IDENT-04")
def test_a_ghost_must_be_registered_to_be_acted_as(run: Run, a: Appservice, human: User) -> None:
    """Whoami with a `user_id` in the namespace that was never registered is refused."""
    acting_ghost(a)
    acting_ghost(a, "hqopen-")
    for phantom in (a.unregistered("hqopen-"), a.unregistered()):
        must_be_refused(run, phantom.whoami(), f"whoami with user_id {phantom}, never registered")
    join = phantom.call("POST", f"/join/{segment(human.create_room())}", json={})
    prefer(join.refused, f"a 4xx for a join with user_id {phantom}, never registered", join, join.exchange)
    if join.refused:  # else that may have registered it
        must_be_refused(run, phantom.whoami(), f"whoami with user_id {phantom}, never registered, asked again")


@requirement("IDENT-05", shared=True)
def test_the_ghosts_of_another_appservice_cannot_be_acted_as(
    run: Run, a: Appservice, b: Appservice, human: User
) -> None:
    """An appservice cannot act as a ghost that only another appservice's namespaces cover."""
    room = human.create_room()
    for owner, other, prefix in ((a, b, None), (a, b, "hqa2-"), (b, a, None)):
        ghost = acting_ghost(owner, prefix)
        acting_ghost(other)
        ghost.join(room)
        stolen = other.as_user(ghost.user_id)
        must_be_refused(run, stolen.whoami(), f"whoami of {other} with {owner.code}'s ghost as user_id")
        answer, body = try_to_send(stolen, room)
        expect(not sent(human, room, body), f"no message of {other} as {ghost}", "it is there", answer.exchange)
        what = f"a message of {other} with {owner.code}'s ghost as user_id"
        expect(answer.refused, f"a 4xx for {what}", answer, answer.exchange)


@requirement("IDENT-05", shared=True, fuzz=True)
def test_an_appservice_is_no_generated_ghost_of_others(run: Run) -> None:
    """An appservice cannot act as ghosts in others' generated exclusive namespaces."""
    run.fuzz.accuse_as_well(run.fuzz.of_identities, "IDENT-05")


@requirement("IDENT-06")
def test_an_ordinary_token_cannot_assert_an_identity(a: Appservice, human: User, human2: User) -> None:
    """With an ordinary access token `user_id` gives no power to act as somebody else."""
    room = human.create_room()
    others = [acting_ghost(a), human2, a.sender]
    for other in others:
        other.join(room)
    for other in others:
        query = {"user_id": other.user_id}
        answer = human.whoami(query=query)
        expected = f"a 4xx, or user_id {human}, from whoami of {human} with user_id {other}"
        expect(answer.refused or is_whoami(answer, human), expected, told(answer), answer.exchange)
        # The token is a good one: to a client, 401 would mean that it has been logged out.
        prefer(answer.status != 401, f"no 401 for {human}, who has a valid token", told(answer), answer.exchange)
        answer, _ = try_to_send(human, room, query=query)
        sender = human.event(room, str(answer.json.get("event_id"))).get("sender") if answer.ok else None
        expected = f"a 4xx, or a message of {human}, when {human} sends with user_id {other}"
        expect(answer.refused or sender == human.user_id, expected, f"{answer}, of {sender}", answer.exchange)


@requirement("IDENT-07")
def test_the_sender_may_be_named_explicitly(a: Appservice, human: User) -> None:
    """An appservice may name its own sender user in `user_id`, although no namespace covers that user."""
    alone = a.sender.whoami()
    control(is_whoami(alone, a.sender), f"whoami with the as_token alone: {told(alone)} (IDENT-01)", alone.exchange)
    sender, room = a.as_user(a.sender.user_id), human.create_room()
    must_be(sender.whoami(), sender, "with the sender user as user_id")
    a.sender.join(room)
    answer, _ = try_to_send(sender, room)
    expect(answer.ok, "2xx for a message with the sender user as user_id", answer, answer.exchange)
    seen = human.event(room, str(answer.json.get("event_id"))).get("sender")
    expect(seen == sender.user_id, f"a message of {sender}", f"a message of {seen}", answer.exchange)


@requirement("IDENT-08")
def test_users_of_other_servers_cannot_be_acted_as(run: Run, a: Appservice, human: User) -> None:
    """An appservice cannot act as a user of another server, even when a users namespace matches that ID."""
    ghost, room = acting_ghost(a), human.create_room()
    for server in ("other.example", f"{run.server_name}.other.example", f"x{run.server_name}"):
        remote = a.as_user(f"@{ghost.localpart}:{server}")
        for answer in (remote.whoami(), remote.call("POST", f"/join/{segment(room)}", json={})):
            what = f"{answer.exchange.method} {answer.exchange.path} with user_id {remote}"
            expect(answer.refused, f"a 4xx for {what}", told(answer), answer.exchange)


@requirement("IDENT-09")
def test_a_malformed_user_id_is_a_client_error(run: Run, a: Appservice) -> None:
    """An empty, malformed or overlong `user_id` is answered with 4xx; an empty one may also count as absent."""
    acting_ghost(a)
    overlong = f"@hqa-{'a' * 300}:{run.server_name}"
    bare = a.fresh_localpart()
    for user_id in ("foo", "@", "@a", "@:", bare, f"@{bare}", f"@{bare}:", f"{bare}:{run.server_name}", overlong):
        answer = a.as_user(user_id).whoami()
        expect(answer.refused, f"a 4xx for whoami with user_id {user_id:.20}", told(answer), answer.exchange)
    answer = a.as_user("").whoami()
    expected = f"a 4xx, or user_id {a.sender}, for whoami with an empty user_id"
    expect(answer.refused or is_whoami(answer, a.sender), expected, told(answer), answer.exchange)


@requirement("IDENT-10")
def test_a_user_id_may_be_percent_encoded(run: Run, a: Appservice) -> None:
    """A `user_id` means the same whether its @ and : are percent-encoded or not, and is decoded exactly once."""
    ghost = acting_ghost(a)
    for each in (ghost, *_odd_ghosts(run, a)):
        everything = "".join(f"%{byte:02X}" for byte in each.user_id.encode())
        lower = quote(each.user_id, safe="").replace("%3A", "%3a").replace("%2F", "%2f")
        as_it_is = each.user_id.replace("+", "%2B")  # which would be a blank
        for form in (as_it_is, quote(each.user_id, safe=""), lower, everything):
            answer = _whoami_by(a, f"user_id={form}")
            must_be(answer, each, f"with user_id={form}")
    answer = _whoami_by(a, f"user_id={quote(quote(ghost.user_id, safe=''), safe='')}")
    expected = f"no more than one decoding: anything but {ghost} from whoami with its user_id encoded twice"
    expect(not is_whoami(answer, ghost), expected, told(answer), answer.exchange)


def _odd_ghosts(run: Run, a: Appservice) -> Iterator[User]:
    """Ghosts whose names have characters that mean something in a URL, as far as they can be registered (ADMIN-01)."""
    plus = run.version is None or run.version >= Version.parse("v1.8")
    for odd in ("=/.", "+") if plus else ("=/.",):
        ghost = a.unregistered(f"hqa-{odd}")
        if a.register(ghost.localpart).ok:
            yield ghost
        else:
            record(f"no ghost with {odd} in its name can be registered")


def _whoami_by(a: Appservice, query: str) -> Response:
    """Whoami with the `as_token` and a query string that is sent as it is."""
    return a.sender.client.call("GET", CLIENT + WHOAMI, party=a.code, token=a.registration.as_token, query=query)


@requirement("IDENT-11")
def test_a_room_created_as_a_ghost_is_the_ghosts(a: Appservice, human: User) -> None:
    """A room created with a ghost's `user_id` has that ghost as creator, and all its first events come from it."""
    ghost, guest = acting_ghost(a), a.ghost()
    invited = [human.user_id, guest.user_id]
    room_setup = {"preset": "public_chat", "name": "created as a ghost", "invite": invited}
    answer = ghost.call("POST", "/createRoom", json=room_setup)
    room = answer.json.get("room_id")
    expect(answer.ok and isinstance(room, str), f"2xx for createRoom as {ghost}", answer, answer.exchange)
    human.join(str(room))
    state = human.do("read the room's state", "GET", f"/rooms/{segment(str(room))}/state").value
    control(isinstance(state, list) and state, "the state of the room cannot be read")
    others = {
        f"{event['type']} of {event['sender']}"
        for event in state
        # A homeserver may join those who are invited by itself.
        if event["sender"] not in (ghost.user_id, event.get("state_key"))
    }
    expect(not others, f"all state of the new room sent by {ghost}", listing(sorted(others)), answer.exchange)
    creator = next((event["content"].get("creator") for event in state if event["type"] == "m.room.create"), None)
    expect(creator in (None, ghost.user_id), f"the creator {ghost}", f"creator {creator}", answer.exchange)


@requirement("IDENT-12", shared=True)
def test_membership_changes_as_a_ghost_are_the_ghosts(run: Run, a: Appservice, human: User) -> None:
    """Joins, leaves, invites, kicks, bans and unbans made with a ghost's `user_id` come from that ghost."""
    ghost, other, room = acting_ghost(a), acting_ghost(a), human.create_room()
    base = f"/rooms/{segment(room)}"
    human.promote(room, ghost)
    for actor, path, target, result in (
        (ghost, f"/join/{segment(room)}", None, "join"),
        (ghost, f"{base}/invite", other, "invite"),
        (other, f"{base}/join", None, "join"),
        (ghost, f"{base}/kick", other, "leave"),
        (ghost, f"{base}/ban", other, "ban"),
        (ghost, f"{base}/unban", other, "leave"),
        (ghost, f"{base}/leave", None, "leave"),
    ):
        answer = actor.call("POST", path, json={"user_id": target.user_id} if target else {})
        expect(answer.ok, f"2xx for {path} as {actor}", answer, answer.exchange)
        event = await_membership(run, human, room, target or actor, result)
        seen = (event.get("sender"), event.get("content", {}).get("membership"))
        expected = f"the {result} of {target or actor}, sent by {actor}"
        expect(seen == (actor.user_id, result), expected, f"{seen[1]}, sent by {seen[0]}", answer.exchange)


@requirement("IDENT-12", shared=True)
def test_memberships_that_a_ghost_sets_as_state_are_the_ghosts(run: Run, a: Appservice, human: User) -> None:
    """Invites, kicks and bans by `PUT /state` with a ghost's `user_id` come from that ghost."""
    ghost, other, room = acting_ghost(a), acting_ghost(a), human.create_room()
    ghost.join(room)
    human.promote(room, ghost)
    path = f"/rooms/{segment(room)}/state/m.room.member/{segment(other.user_id)}"
    for result in ("invite", "leave", "ban"):
        human.do(f"set the membership {result} as state", "PUT", path, json={"membership": result})
    human.unban(room, other)
    for result in ("invite", "leave", "ban"):
        answer = ghost.call("PUT", path, json={"membership": result})
        expect(answer.ok, f"2xx for the {result} of {other} as state by {ghost}", answer, answer.exchange)
        event = await_membership(run, human, room, other, result)
        seen = (event.get("sender"), event.get("content", {}).get("membership"))
        expected = f"the {result} of {other}, sent by {ghost}"
        expect(seen == (ghost.user_id, result), expected, f"{seen[1]}, sent by {seen[0]}", answer.exchange)


@requirement("IDENT-12", shared=True)
def test_a_ghosts_knock_is_the_ghosts(run: Run, a: Appservice, human: User, human2: User) -> None:
    """A knock with a ghost's `user_id` is the ghost's, as a human's is the human's."""
    ghost, room = acting_ghost(a), human.create_room(preset="private_chat")
    human.set_state(room, "m.room.join_rules", {"join_rule": "knock"})
    for user in (human2, ghost):
        answer = user.call("POST", f"/knock/{segment(room)}", json={})
        event = await_membership(run, human, room, user, "knock") if answer.ok else {}
        seen = (event.get("sender"), event.get("content", {}).get("membership"))
        right = seen == (user.user_id, "knock")
        if user is human2:
            control(right, f"a human cannot knock either: {answer}", answer.exchange)
        expect(right, f"the knock of {ghost}", f"{answer}; of it there is {seen[1]} by {seen[0]}", answer.exchange)


@requirement("IDENT-13", shared=True)
def test_a_ghost_can_do_more_than_send(run: Run, a: Appservice, human: User) -> None:
    """State, redactions, typing notices, receipts and account data can be sent, and read back, as a ghost."""
    ghost, room = acting_ghost(a), human.create_room()
    ghost.join(room)
    human.promote(room, ghost)
    base, me, message = f"/rooms/{segment(room)}", segment(ghost.user_id), ghost.send(room)
    mine = f"/user/{me}/account_data/net.hq.conformance"
    topic, account_data = {"topic": f"topic {ghost.localpart}"}, {"of": ghost.user_id}
    since, query = _sync(human, room)
    answers = {
        path: ghost.call(method, path, json=body)
        for method, path, body in (
            ("PUT", f"{base}/state/m.room.topic", topic),
            ("POST", f"{base}/receipt/m.read/{segment(human.send(room))}", {}),
            ("PUT", f"{base}/typing/{me}", {"typing": True, "timeout": 30000}),
            ("PUT", f"{base}/redact/{segment(message)}/{ghost.names.fresh('t')}", {}),
            ("PUT", mine, account_data),
        )
    }
    for path, answer in answers.items():
        lacking = not answer.ok and _nobody_may(human, answer)
        expect(answer.ok or lacking, f"2xx for {path} as {ghost}", answer, answer.exchange)
    for path, content in ((f"{base}/state/m.room.topic", topic), (mine, account_data)):
        answer = ghost.call("GET", path)
        same = answer.ok and answer.json == content
        expect(same, f"{content} at {path} as {ghost}", f"{answer} {answer.json}", answer.exchange)
    redacted = run.eventually(lambda: "body" not in human.event(room, message).get("content", {}) or None)
    expect(redacted, f"the message redacted by {ghost}", "its body is still there")
    for event in human.timeline(room):
        if event["type"] in ("m.room.topic", "m.room.redaction"):
            expect(event["sender"] == ghost.user_id, f"{event['type']} sent by {ghost}", event["sender"])
    for kind, users in _ephemeral(human, {ghost.user_id, a.sender.user_id}, since, query).items():
        expect(a.sender.user_id not in users, f"{kind} that names {ghost}", f"it names {listing(sorted(users))}")


def _sync(user: User, room: str) -> tuple[str, dict[str, str]]:
    """A first sync that is about one room only: where to go on, and the filter."""
    query = {"filter": json.dumps({"room": {"rooms": [room]}, "presence": {"not_types": ["*"]}}), "timeout": "0"}
    return str(user.do("sync", "GET", "/sync", query=query).json.get("next_batch")), query


def _ephemeral(
    user: User, subjects: set[str], since: str, query: dict[str, str], wait: float = 5.0
) -> dict[str, set[str]]:
    """Which of the subjects type and have read, as far as a user is told of them in some seconds."""
    found: dict[str, set[str]] = {}
    deadline = time.monotonic() + wait
    while len(found) < 2 and (left := deadline - time.monotonic()) > 0:
        answer = user.do("sync", "GET", "/sync", query=query | {"since": since, "timeout": f"{left * 1000:.0f}"}).json
        since = str(answer.get("next_batch"))
        for room in answer.get("rooms", {}).get("join", {}).values():
            for event in room.get("ephemeral", {}).get("events", []):
                kind, content = str(event.get("type")), event.get("content", {})
                typing = content.get("user_ids", ()) if kind == "m.typing" else ()
                receipts = [read for read in content.values() if isinstance(read, dict)] if kind == "m.receipt" else []
                reading = [reader for read in receipts for reader in read.get("m.read", ())]
                if named := subjects & {*typing, *reading}:
                    found[kind] = named
    return found


def _nobody_may(human: User, refused: Response) -> bool:
    """Whether a human is refused a notice or a receipt of its own as well: then the homeserver has none."""
    called = refused.exchange
    if "/typing/" in called.raw_path:
        room = called.raw_path.partition("/rooms/")[2].partition("/")[0]
        own = human.call("PUT", f"/rooms/{room}/typing/{segment(human.user_id)}", json={"typing": False})
        return not own.ok
    if "/receipt/" in called.raw_path:
        return not human.call("POST", called.raw_path, json={}).ok
    return False


@requirement("IDENT-13", shared=True)
def test_a_ghost_reads_what_it_may(a: Appservice, human: User) -> None:
    """History, members, single events and its own rooms, though the sender user is in another room."""
    ghost, room, elsewhere = acting_ghost(a), human.create_room(preset="private_chat"), human.create_room()
    human.invite(room, ghost)
    ghost.join(room)
    a.sender.join(elsewhere)
    control(membership(human, elsewhere, a.sender), f"what joined was not {a.sender} (IDENT-01)")
    base = f"/rooms/{segment(room)}"
    event = f"/event/{segment(human.send(room))}"
    for path in ("/messages", "/members", "/joined_members", event, "/state", "/state/m.room.create"):
        query = {"dir": "b"} if path == "/messages" else {}
        twin = human.call("GET", base + path, query=query)
        answer = ghost.call("GET", base + path, query=query)
        expect(answer.ok or not twin.ok, f"2xx for GET {path} as {ghost}", answer, answer.exchange, twin.exchange)
    answer = ghost.call("GET", "/joined_rooms")
    control(human.call("GET", "/joined_rooms").ok, "nobody can list its rooms")
    joined = answer.json.get("joined_rooms", ())
    right = room in joined and elsewhere not in joined
    expect(right, f"{room}, not that of {a.sender}, among the rooms of {ghost}", listing(joined), answer.exchange)


@requirement("IDENT-13", shared=True)
def test_a_ghosts_messages_to_devices_are_the_ghosts(run: Run, a: Appservice, human: User) -> None:
    """What a ghost sends to devices comes from that ghost."""
    ghost, text = acting_ghost(a), run.names.fresh("to a device ")
    query = {"filter": json.dumps({"room": {"rooms": []}}), "timeout": "0"}
    since = {"since": str(human.do("sync", "GET", "/sync", query=query).json.get("next_batch"))}
    messages = {human.user_id: {"*": {"text": text}}}
    path = f"/sendToDevice/net.hq.conformance/{run.names.fresh('t')}"
    ghost.do("send a message to devices", "PUT", path, json={"messages": messages})

    def arrived() -> dict[str, Any] | None:
        answer = human.do("sync", "GET", "/sync", query=query | since).json
        events = answer.get("to_device", {}).get("events", ())
        return next((dict(event) for event in events if event.get("content", {}).get("text") == text), None)

    event = run.eventually(arrived)
    control(event, f"the message that {ghost} sent to the devices of {human} does not arrive")
    sender = (event or {}).get("sender")
    expect(sender == ghost.user_id, f"a message to devices of {ghost}", f"a message of {sender}")


@requirement("IDENT-14", shared=True)
def test_a_ghost_can_set_its_display_name(run: Run, a: Appservice, human: User) -> None:
    """An appservice can set a ghost's display name as that ghost, and others see it."""
    other = run.humans.another()  # whom no lane counts on: all its rooms are told
    own = other.call("PUT", f"/profile/{segment(other.user_id)}/displayname", json={"displayname": "Human"})
    control(own.ok, f"a human cannot set a display name either: {own}", own.exchange)
    names = {acting_ghost(a): "Ghost of the hangar", acting_ghost(a): "Gespenst Nº 2: Ünïcödé 🜨"}
    odd = [ghost for ghost in _odd_ghosts(run, a) if is_whoami(ghost.whoami(), ghost)]
    names |= dict.fromkeys(odd, "Ghost of an odd name")
    for ghost, name in names.items():
        path = f"/profile/{segment(ghost.user_id)}/displayname"
        answer = ghost.call("PUT", path, json={"displayname": name})
        expect(answer.ok, f"2xx for a new display name of {ghost}", answer, answer.exchange)
        seen = run.eventually(partial(_named, human, path, name)) or human.call("GET", path).json.get("displayname")
        expect(seen == name, f"the display name {name!r}", repr(seen), answer.exchange)


def _named(reader: User, path: str, name: str) -> str | None:
    """A display name, once it is the one that was set."""
    answer = reader.do("read a display name", "GET", path)
    return name if answer.json.get("displayname") == name else None


@requirement("IDENT-14", shared=True)
def test_a_ghosts_profile_is_like_a_humans(run: Run, a: Appservice, human: User) -> None:
    """Name and avatar of any ghost can be set, and its rooms are told of them, as they are of a human's."""
    room, other = human.create_room(), run.humans.another()
    ghosts = [acting_ghost(a), acting_ghost(a, "hqa2-"), acting_ghost(a, "hqopen-")]
    for user in (other, *ghosts):
        user.join(room)
    for key in ("displayname", "avatar_url"):
        if (lacking := _problem_with_profile(run, human, room, other, key)) is not None:
            record(f"not judged for ghosts: {lacking}")
            continue
        for ghost in ghosts:
            problem = _problem_with_profile(run, human, room, ghost, key)
            expect(problem is None, f"a new {key} of {ghost} set, and told in its room, as a human's is", problem)


def _problem_with_profile(run: Run, observer: User, room: str, user: User, key: str) -> str | None:
    """Give somebody a new name or avatar; what is wrong with how an observer in the same room sees that."""
    value = ("mxc://hq.example/" if key == "avatar_url" else "Name ") + run.names.fresh("p")
    path, before = f"/profile/{segment(user.user_id)}/{key}", membership(observer, room, user)
    answer = user.call("PUT", path, json={key: value})
    seen = observer.call("GET", path).json.get(key)
    if not answer.ok or seen != value:
        return f"{user} sets the {key} {value}: answered {answer}, and seen is {seen}"
    told = run.eventually(partial(_renewed, observer, room, user, before))
    if told is None:
        return f"the new {key} of {user} is not told in its room"
    sender = told.get("sender")
    return None if sender == user.user_id else f"the new {key} of {user} is told by {sender}"


def _renewed(observer: User, room: str, user: User, before: dict[str, Any]) -> dict[str, Any] | None:
    """The event of somebody's membership in a room once it is another."""
    event = membership(observer, room, user)
    return event if event.get("event_id") != before.get("event_id") else None


@requirement("IDENT-15")
def test_the_ghosts_permissions_decide(a: Appservice, human: User) -> None:
    """What a request with a `user_id` may do depends on the ghost's permissions, not on the sender user's."""
    ghost, outside, room = acting_ghost(a), acting_ghost(a), human.create_room()
    topic = f"/rooms/{segment(room)}/state/m.room.topic"
    _control_authors(ghost, a.sender, human)
    ghost.join(room)
    answer, _ = try_to_send(ghost, room)
    expect(answer.ok, f"2xx for a message of {ghost}, a member, while the sender user is none", answer, answer.exchange)
    human.promote(room, ghost)
    answer = ghost.call("PUT", topic, json={"topic": "a moderator's"})
    expect(
        answer.ok, f"2xx for a topic of {ghost}, a moderator, while the sender user is none", answer, answer.exchange
    )
    a.sender.join(room)
    human.promote(room, a.sender)
    human.promote(room, ghost, 0)
    answer, body = try_to_send(outside, room)
    expected = f"4xx for a message of {outside}, no member, while the sender user is one"
    expect(answer.refused, expected, answer, answer.exchange)  # which, no version says
    expect(not sent(human, room, body), f"no message of {outside}", "the message is there", answer.exchange)
    answer = ghost.call("PUT", topic, json={"topic": "no moderator's"})
    expected = f"403 for a topic of {ghost}, no moderator, while the sender user is one"
    expect(answer.status == 403, expected, answer, answer.exchange)


def _control_authors(ghost: User, sender: User, human: User) -> None:
    """The control: in a room where both ghost and sender may do it, what the ghost does is the ghost's."""
    room = human.create_room()
    for user in (ghost, sender):
        user.join(room)
        human.promote(room, user)
    for event_id in (ghost.send(room), ghost.set_state(room, "m.room.topic", {"topic": "somebody's"})):
        seen = human.event(room, event_id).get("sender")
        control(seen == ghost.user_id, f"what {ghost} sends comes from {seen} (IDENT-02, IDENT-13)")


@requirement("IDENT-16")
def test_the_token_may_stand_in_the_query(run: Run, a: Appservice) -> None:
    """The `as_token` is accepted in the query parameter `access_token` as well as in the header, up to v1.19."""
    claimed = newest(run.claimed)
    old = claimed is None or claimed <= Version.parse("v1.19")
    control(old, f"the homeserver claims {claimed}: query tokens are judged up to v1.19 only")
    header = a.sender.whoami()
    control(is_whoami(header, a.sender), f"whoami with the header: {told(header)} (IDENT-01)", header.exchange)
    query = {"access_token": a.registration.as_token}
    must_be(a.sender.whoami(token=None, query=query), a.sender, "with the as_token in the query")
    ghost = acting_ghost(a)
    must_be(ghost.whoami(token=None, query=query), ghost, f"with the as_token in the query and user_id {ghost}")
    registration = a.dialect.ghost(a.fresh_localpart())
    answer = a.sender.call("POST", "/register", json=registration, token=None, query=query)
    expect(answer.ok, "2xx for a registration with the as_token in the query", answer, answer.exchange)
    login = a.dialect.login("m.login.application_service", ghost.localpart)
    if a.sender.call("POST", "/login", json=login).ok:
        answer = a.sender.call("POST", "/login", json=login, token=None, query=query)
        expect(answer.ok, "2xx for a login with the as_token in the query", answer, answer.exchange)


@requirement("IDENT-17")
def test_a_user_id_does_not_authenticate(a: Appservice) -> None:
    """Requests with a `user_id` and a wrong token or none at all are refused with 401 and the errcode for that."""
    ghost, good = a.ghost(), a.registration.as_token
    wrong = [f"{good}x", good[:-1], good.swapcase(), "hq-as-unknown", a.registration.hs_token]
    for user in (ghost, a.as_user(a.sender.user_id)):
        for token, errcode in [(None, "M_MISSING_TOKEN"), *((each, "M_UNKNOWN_TOKEN") for each in wrong)]:
            answer = user.whoami(token=token)
            what = "a wrong token" if token else "no token"
            expect(
                answer.status == 401 and answer.errcode == errcode,
                f"401 {errcode} for whoami with user_id {user} and {what}",
                told(answer),
                answer.exchange,
            )


@requirement("IDENT-18", shared=True)
def test_a_ghost_of_an_open_namespace_can_be_acted_as(a: Appservice, human: User) -> None:
    """An appservice can act as a user that it registered in a non-exclusive namespace."""
    ghost, room = a.ghost("hqopen-"), human.create_room()
    acting_ghost(a).join(room)
    must_be(ghost.whoami(), ghost, f"with user_id {ghost}, registered in a non-exclusive namespace")
    answer = ghost.call("POST", f"/join/{segment(room)}", json={})
    expect(answer.ok, f"2xx for a join of {ghost}", answer, answer.exchange)
    event = human.event(room, ghost.send(room))
    expect(event.get("sender") == ghost.user_id, f"a message of {ghost}", f"sender {event.get('sender')}")


@requirement("IDENT-18", shared=True, fuzz=True)
def test_generated_open_namespaces_cover(run: Run) -> None:
    """An appservice can act as a ghost that it registered in a generated open namespace."""
    run.fuzz.accuse_as_well(run.fuzz.of_identities, "IDENT-18")


@requirement("IDENT-19", shared=True)
def test_the_sender_needs_no_registration(run: Run, a: Appservice, human: User) -> None:
    """The sender user can be invited and can join a room without ever having been registered."""
    ghost, room = a.ghost(), human.create_room(preset="private_chat")
    human.invite(room, ghost)
    ghost.join(room)
    invite = human.call("POST", f"/rooms/{segment(room)}/invite", json={"user_id": a.sender.user_id})
    expect(invite.ok, f"2xx for an invite of {a.sender}", invite, invite.exchange)
    join = a.sender.call("POST", f"/join/{segment(room)}", json={})
    expect(join.ok, f"2xx for a join of {a.sender}", join, join.exchange)
    seen = await_membership(run, human, room, a.sender, "join").get("content", {}).get("membership")
    expect(seen == "join", f"{a.sender} joined", f"membership {seen}", join.exchange)


@requirement("IDENT-19", shared=True)
def test_the_sender_is_a_user_like_any_other(a: Appservice, human: User) -> None:
    """Without ever having been registered it can create a room, moderate it and have a name, as a ghost can."""
    for user in (acting_ghost(a), a.sender):
        demand = control if user is not a.sender else _demand
        made = user.call("POST", "/createRoom", json={"preset": "public_chat"})
        demand(made.ok, f"{user} cannot create a room: {made}", made.exchange)
        room = str(made.json.get("room_id"))
        human.join(room)
        base, target = f"/rooms/{segment(room)}", {"user_id": human.user_id}
        for method, path, body in (
            ("PUT", f"/profile/{segment(user.user_id)}/displayname", {"displayname": f"Name of {user.localpart}"}),
            ("PUT", f"{base}/state/m.room.topic", {"topic": f"topic of {user.localpart}"}),
            ("POST", f"{base}/kick", target),
            ("POST", f"{base}/invite", target),
            ("POST", f"{base}/ban", target),
            ("POST", f"{base}/unban", target),
            ("PUT", f"/user/{segment(user.user_id)}/account_data/net.hq.conformance", {"of": user.user_id}),
            ("POST", f"/user/{segment(user.user_id)}/filter", {"room": {"rooms": [room]}}),
        ):
            answer = user.call(method, path, json=body)
            demand(answer.ok, f"{method} {path} as {user} is answered {answer}", answer.exchange)


def _demand(holds: object, problem: str, *evidence: Exchange) -> None:
    """What one user can do another can do as well.

    :raises Broken: it cannot.
    """
    expect(holds, "the same as for other users", problem, *evidence)


@requirement("IDENT-20", shared=True)
def test_ghosts_may_use_the_same_transaction_id(a: Appservice, human: User) -> None:
    """Two ghosts may use the same client transaction ID in the same room, and both messages are sent."""
    one, two, room = acting_ghost(a), acting_ghost(a), human.create_room()
    path = send_path(room, human.names.fresh("t"))
    for ghost in (one, two):
        ghost.join(room)
        ghost.send(room)
    bodies = {ghost.user_id: f"message of {ghost.localpart}" for ghost in (one, two)}
    answers = [
        ghost.call("PUT", path, json={"msgtype": "m.text", "body": bodies[ghost.user_id]}) for ghost in (one, two)
    ]
    evidence = [answer.exchange for answer in answers]
    expect(all(answer.ok for answer in answers), "2xx for both", ", ".join(map(str, answers)), *evidence)
    event_ids = [answer.json.get("event_id") for answer in answers]
    seen = [human.event(room, str(event_id)).get("sender") for event_id in event_ids]
    expect(len(set(event_ids)) == 2, "two event IDs", f"{event_ids[0]} twice, a message of {seen[0]}", *evidence)
    expect(seen == list(bodies), "one message of each ghost", f"messages of {listing(seen)}", *evidence)


@requirement("IDENT-20", shared=True)
def test_a_ghost_may_use_a_transaction_id_in_another_room(a: Appservice, human: User) -> None:
    """A ghost may use a client transaction ID again in another room and for another type: it belongs to the path."""
    ghost, txn, rooms = acting_ghost(a), human.names.fresh("t"), [human.create_room(), human.create_room()]
    for room in rooms:
        ghost.join(room)
        ghost.send(room)
    paths = [send_path(room, txn) for room in rooms]
    paths.append(paths[0].replace("m.room.message", "net.hq.conformance"))
    answers = [ghost.call("PUT", path, json={"msgtype": "m.text", "body": path}) for path in paths]
    evidence = [answer.exchange for answer in answers]
    expect(all(answer.ok for answer in answers), "2xx for all three", ", ".join(map(str, answers)), *evidence)
    event_ids = {answer.json.get("event_id") for answer in answers}
    # Whether the endpoint that an ID belongs to is the path or its pattern is not said in so many words.
    caution(len(event_ids) == len(paths), "three event IDs for three paths", f"{len(event_ids)}", *evidence)


@requirement("IDENT-21", shared=True)
def test_a_send_repeated_at_the_same_time_makes_one_event(run: Run, a: Appservice, human: User) -> None:
    """Of a ghost's send, made six times at once with one client transaction ID, there is one event."""
    ghost, room = acting_ghost(a), human.create_room()
    ghost.join(room)
    ghost.send(room)
    content, path = (
        {"msgtype": "m.text", "body": f"message of {ghost.localpart}"},
        send_path(room, run.names.fresh("t")),
    )
    with ThreadPoolExecutor(6) as pool:
        answers = [each.result() for each in [pool.submit(ghost.call, "PUT", path, json=content) for _ in range(6)]]
    made = {answer.json.get("event_id") for answer in answers if answer.ok}
    control(made, f"none of six equal sends at once is answered 2xx: {answers[0]}", answers[0].exchange)
    expect(len(made) == 1, "one event ID for six equal sends at once", f"{len(made)}", *(a.exchange for a in answers))
    copies = len(run.eventually(lambda: sent(human, room, content["body"]) or None) or ())
    expect(copies <= 1, "one message in the room", f"{copies} of them", answers[0].exchange)


@requirement("IDENT-21", shared=True)
def test_a_repeated_send_makes_one_event(run: Run, a: Appservice, human: User) -> None:
    """Repeating a ghost's send with the same path and client transaction ID yields the same event."""
    ghost, room = acting_ghost(a), human.create_room()
    ghost.join(room)
    body = f"message of {ghost.localpart}"
    path = send_path(room, human.names.fresh("t"))
    answers = [
        ghost.do("send a message", "PUT", path, json={"msgtype": "m.text", "body": body}),
        ghost.call("PUT", path, json={"msgtype": "m.text", "body": body}),
    ]
    evidence = [answer.exchange for answer in answers]
    first, second = (answer.json.get("event_id") for answer in answers)
    expect(answers[1].ok and first == second, f"2xx and event ID {first} again", f"{answers[1]} {second}", *evidence)
    copies = len(run.eventually(lambda: sent(human, room, body) or None) or ())
    control(copies, "the message is not to be found in the room's history")
    expect(copies == 1, "one message in the room", f"{copies} of them", *evidence)


@requirement("IDENT-22")
def test_members_can_be_listed_with_the_bare_token(run: Run, a: Appservice, human: User, human3: User) -> None:
    """The members of a room can be listed with the bare `as_token` when any of the appservice's users is in it."""
    ghost, room = acting_ghost(a), human.create_room(preset="private_chat")
    human.invite(room, ghost)
    ghost.join(room)
    path = f"/rooms/{segment(room)}/joined_members"

    def listed(user: User) -> bool | None:
        return ghost.user_id in (user.call("GET", path).json.get("joined") or {}) or None

    control(run.eventually(lambda: listed(human)), f"{ghost} is not listed for {human}, who is in the room")
    answer = human3.call("GET", path)
    expect(answer.status == 403, f"403 for {human3}, who is not in the room", answer, answer.exchange)
    answer = a.sender.call("GET", path)
    expect(answer.status == 200, f"200 for the bare as_token while {ghost} is in the room", answer, answer.exchange)
    joined = answer.json.get("joined")
    expect(isinstance(joined, dict) and ghost.user_id in joined, f"{ghost} listed", f"{joined}", answer.exchange)


@requirement("IDENT-23")
def test_refresh_asserts_no_identity(a: Appservice) -> None:
    """`/refresh` gives no token for a user that is only named in `user_id`."""
    ghost = acting_ghost(a)
    bodies: list[dict[str, str]] = [
        {},
        {"refresh_token": "hq-refresh-unknown"},
        {"refresh_token": a.registration.as_token},
    ]
    for body in bodies:
        answer = ghost.call("POST", "/refresh", json=body)
        expect(not answer.ok, f"no 2xx for /refresh with user_id {ghost}", answer, answer.exchange)


@requirement("IDENT-24")
def test_a_ghosts_own_token_asserts_no_identity(a: Appservice) -> None:
    """A token obtained by logging in as a ghost cannot be used to act as another ghost."""
    other, ghost = acting_ghost(a), a.log_in(acting_ghost(a))
    own = ghost.whoami()
    control(is_whoami(own, ghost), f"the token of the login as {ghost}: whoami {told(own)}", own.exchange)
    for user in (other, a.sender):
        answer = ghost.whoami(query={"user_id": user.user_id})
        expected = f"a 4xx, or user_id {ghost}, from whoami with its own token and user_id {user}"
        expect(answer.refused or is_whoami(answer, ghost), expected, told(answer), answer.exchange)


@requirement("IDENT-25")
def test_a_ghost_has_media_filters_and_account_data(a: Appservice, human: User) -> None:
    """A ghost can upload media and use its own filters and account data, but not those of another ghost."""
    ghost, other, room = acting_ghost(a), acting_ghost(a), human.create_room()
    ghost.join(room)
    other.join(room)
    headers = {"Content-Type": "text/plain"}
    upload = "/_matrix/media/v3/upload"
    answer = ghost.call("POST", upload, data=b"a ghost's file", headers=headers)
    uploaded = answer.ok and isinstance(answer.json.get("content_uri"), str)
    if not uploaded and not human.call("POST", upload, data=b"a human's file", headers=headers).ok:
        record(f"not judged: nobody can upload a text file, a human neither: {answer}", answer.exchange)
    else:
        expect(uploaded, f"2xx and a content_uri for an upload as {ghost}", answer, answer.exchange)
    me, body = f"/user/{segment(ghost.user_id)}", {"room": {"rooms": [room]}}
    answer = ghost.call("POST", f"{me}/filter", json=body)
    expect(answer.ok, f"2xx for a filter of {ghost}", answer, answer.exchange)
    data = f"{me}/rooms/{segment(room)}/account_data/net.hq.conformance"
    uses: list[tuple[str, str, Any]] = [
        ("GET", f"{me}/filter/{segment(str(answer.json.get('filter_id')))}", None),
        ("PUT", data, {"of": ghost.user_id}),
        ("GET", data, None),
    ]
    for method, path, content in uses:
        own = ghost.call(method, path, json=content)
        expect(own.ok, f"2xx for {method} {path} as {ghost}", own, own.exchange)
    for method, path, content in [("POST", f"{me}/filter", body), ("PUT", data, {"of": other.user_id}), uses[2]]:
        foreign = other.call(method, path, json=content)
        documented = path == data  # the filters' page names no status for that
        right = foreign.status == 403 or (foreign.refused and not documented)
        expect(right, f"{'403' if documented else '4xx'} for {method} {path} as {other}", foreign, foreign.exchange)
