"""TXN: form and identity of transactions (AS: Pushing events)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conformance.appservice.fleet import Appservice
from conformance.appservice.routes import Kind
from conformance.appservice.script import Hold, always, answer
from conformance.catalogue.versions import Version
from conformance.homeserver.client import segment
from conformance.homeserver.users import User
from conformance.judges import events as event_judges
from conformance.judges import sameness
from conformance.judges import transactions as judges
from conformance.judges.events import unsigned_of
from conformance.lanes.lane import Lanes
from conformance.lanes.outages import Outage
from conformance.lanes.v1 import V1
from conformance.lanes.v2 import V2
from conformance.requirement import Quiet, requirement
from conformance.run import Run
from conformance.verdict import Blocked, Inconclusive, caution, control, expect, listing, prefer, record
from conformance.wire.exchange import Direction, Exchange

#: What a pushed event has in common with the event that clients see.
_COMPARED = ("event_id", "type", "sender", "room_id", "origin_server_ts", "content")


def _transactions(run: Run) -> Iterator[tuple[Appservice, Exchange]]:
    """Every transaction of the run with its appservice, retries and malformed ones among them."""
    for member in run.fleet:
        for exchange in member.requests():
            if judges.is_transaction(exchange, member.route(exchange)):
                yield member, exchange


def _pushed_events(run: Run) -> Iterator[tuple[Exchange, dict[str, Any]]]:
    """Every event of every transaction of the run."""
    for _, exchange in _transactions(run):
        for event in judges.elements(exchange):
            if isinstance(event, dict):
                yield exchange, event


def _room_of(member: Appservice, human: User) -> str:
    """A room with a ghost of the appservice, and a first message in it: a gap after the join is INTEREST-30."""
    room = human.create_room()
    member.ghost().join(room)
    human.send(room)
    return room


def _cause_a_transaction(run: Run, a: Appservice, human: User) -> None:
    """Have a message pushed, and wait for whatever request carries it: whether it is a transaction is being judged."""
    marker = run.journal.marker()
    event = human.send(_room_of(a, human), "grüße, 你好 \U0001f44b")

    def carries_it(exchange: Exchange) -> bool:
        if exchange.direction is not Direction.TO_APPSERVICE or exchange.party != "A" or exchange.received is None:
            return False
        return judges.carries(exchange, event) or (exchange.method != "GET" and bool(judges.body_problem(exchange)))

    if run.journal.wait_for(carries_it, marker, run.budgets.deliver) is None and not any(_transactions(run)):
        raise Inconclusive("no request with a message in a ghost's room arrived at A")


def _well_formed(event: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
    """An event that can be judged further: what is missing altogether is the subject of TXN-04."""
    problem = event_judges.form_problem(event)
    if problem is not None:
        raise Blocked("TXN-04", problem, exchange)
    return event


#: Milliseconds that no event of a check is old.
_OLD = 60 * 60 * 1000


@requirement("TXN-01", last=True)
def test_transactions_are_put_under_an_id(run: Run, a: Appservice, human: User) -> None:
    """A transaction is a PUT to `/_matrix/app/v1/transactions/` and an id that is not empty."""
    _cause_a_transaction(run, a, human)
    for member, exchange in _transactions(run):
        problem = judges.request_line_problem(exchange, member.route(exchange))
        expect(problem is None, "PUT .../_matrix/app/v1/transactions/{txnId}", problem, exchange)


@requirement("TXN-02", last=True)
def test_transactions_are_json_objects(run: Run, a: Appservice, human: User) -> None:
    """The body of a transaction is declared as `application/json`, and is a JSON object in UTF-8."""
    _cause_a_transaction(run, a, human)
    for _, exchange in _transactions(run):
        problem = judges.media_type_problem(exchange) or judges.body_problem(exchange)
        expect(problem is None, "application/json and a JSON object in UTF-8", problem, exchange)


@requirement("TXN-03", last=True)
def test_transactions_have_a_list_of_events(run: Run, a: Appservice, human: User) -> None:
    """`events` is there and a list, also when there is only ephemeral data to push."""
    room = _room_of(a, human)
    a.await_event(human.send(room))
    marker = run.journal.marker()
    path = f"/rooms/{segment(room)}/typing/{segment(human.user_id)}"
    human.provoke("PUT", path, json={"typing": True, "timeout": 20000})
    typing = run.journal.wait_for(
        lambda e: e.party == "A" and b"m.typing" in e.request_body and room.encode() in e.request_body,
        marker,
        run.budgets.quiet,
    )
    if typing is None:
        record("no ephemeral data was pushed")
    for _, exchange in _transactions(run):
        if judges.body_problem(exchange) is None:
            events = judges.body_of(exchange).get("events", "nothing")
            seen = "nothing" if events == "nothing" else f"a JSON {type(events).__name__}"
            expect(isinstance(events, list), "a list under events", seen, exchange)


@requirement("TXN-04", last=True)
def test_events_have_the_form_of_client_events(run: Run, a: Appservice, human: User) -> None:
    """Each event has `event_id`, `type`, `sender`, `origin_server_ts`, `content` and `room_id`, of the right kinds."""
    room = _room_of(a, human)
    human.set_state(room, "org.example.hq", {}, "a key")
    human.redact(room, human.send(room))
    _cause_a_transaction(run, a, human)
    for _, exchange in _transactions(run):
        for event in judges.elements(exchange):
            problem = event_judges.form_problem(event)
            expect(problem is None, "events in the form of ClientEvent", problem, exchange)


@requirement("TXN-05")
def test_state_events_alone_have_a_state_key(a: Appservice, human: User) -> None:
    """Pushed state events have their `state_key`, an empty one too; other events have none, not even null."""
    room = _room_of(a, human)
    states = {
        human.set_state(room, "m.room.topic", {"topic": "hq"}): "",
        human.set_state(room, "org.example.hq", {"hq": 1}): "",
        human.set_state(room, "org.example.hq", {"hq": 2}, "a key é"): "a key é",
        human.set_state(room, "org.example.hq", {"hq": 3}, human.user_id): human.user_id,
    }
    message = human.send(room)
    others = [message, human.send_event(room, "org.example.hq", {"hq": 4}), human.redact(room, message)]
    a.await_event(others[-1])
    for event_id, state_key in states.items():
        event = a.await_event(event_id)
        seen = repr(event["state_key"]) if "state_key" in event else "none"
        expect(event.get("state_key") == state_key, f"state_key {state_key!r}", seen, a.exchange_with(event_id))
    for event_id in others:
        event = a.await_event(event_id)
        seen = f"state_key {event.get('state_key')!r}"
        expect("state_key" not in event, "no state_key in an event that is no state", seen, a.exchange_with(event_id))


@requirement("TXN-06", shared=True)
def test_events_are_pushed_as_clients_see_them(a: Appservice, human: User, human1: User) -> None:
    """Content, sender, type, room, time stamp and id of a pushed event are those that `GET .../event/...` shows."""
    room = _room_of(a, human)
    ghost = a.ghost("hqopen-")
    ghost.join(room)
    human1.join(room)
    nested = {
        "msgtype": "m.text",
        "body": "Grüße\n你好 \U0001f44b \u2028 \u007f \\ </script> " + "long " * 500,
        "org.example.numbers": [0, -1, 2**53 - 1, -(2**53) + 1, 4503599627370497],
        "org.example.words": [True, False, None, "", "null", "1", " blanks "],
        "org.example.empty": {"object": {}, "list": [], "lists": [[], [{}]]},
        "org.example.u\u0308": ["u\u0308", "\ufb01", "\u212b"],  # what normalising would change
        "org.example.deep": {"é": [{"a.b": {"c\\d": {"$ref": "#"}}}]},
    }
    pushed = [
        human.send_event(room, "m.room.message", nested),
        human.send_event(room, "org.example.hq.ü", nested),
        human.set_state(room, "org.example.hq", nested, "key é"),
        human1.send_event(room, "m.room.message", nested),
        ghost.send_event(room, "m.room.message", nested),
        human.set_state(room, "m.room.topic", {"topic": "Grüße \U0001f44b"}),
        human.member_event(room, human1),
    ]
    a.await_event(human.send(room))
    for event_id in pushed:
        exchange, shown = a.exchange_with(event_id), human.event(room, event_id)
        event = _well_formed(a.await_event(event_id), exchange)
        differing = event_judges.differing_keys(event, shown, tuple(key for key in _COMPARED if key in shown))
        expect(not differing, "the event as clients see it", f"another {' and '.join(differing)}", exchange)


@requirement("TXN-06", shared=True)
def test_unusual_events_are_pushed_as_clients_see_them(a: Appservice, human: User) -> None:
    """Invites, redactions with a reason, events with `ts`, and content whose keys are called like those of events."""
    room, ghost, invited = _room_of(a, human), a.ghost(), a.ghost()
    ghost.join(room)
    human.promote(room, ghost)
    name = {"displayname": "The invited"}
    invited.do("set its name", "PUT", f"/profile/{segment(str(invited))}/displayname", json=name)
    called = {
        "signatures": {"hq.example": {"ed25519:1": "abc"}},
        "hashes": {"sha256": "x"},
        "unsigned": {"age": 5, "transaction_id": "t"},
        "prev_content": {"a": 1},
    }
    called |= {"event_id": "$x", "room_id": "!x", "sender": "@x:x", "age": 7, "redacts": "$y", "state_key": ""}
    called |= {"auth_events": [], "prev_events": [], "origin": "x", "origin_server_ts": 1, "depth": 3, "type": "x"}
    past = {"ts": str(1_500_000_000_123)}
    redact = f"/rooms/{segment(room)}/redact/{segment(human.send(room))}/{human.names.fresh('t')}"
    events = [
        human.send_event(room, "org.example.hq", {**called, "inner": called}),
        human.set_state(room, "org.example.hq", {**called, "inner": [called]}, "called like keys of events"),
        str(human.do("redact", "PUT", redact, json={"reason": "for a reason"}).json.get("event_id")),
        ghost.set_state(room, "org.example.hq", {"of": "old"}, "old", query=past),
        ghost.send_event(room, "org.example.hq", {"of": "old"}, query=past),
    ]
    human.invite(room, invited)
    events.append(human.member_event(room, invited))
    invited.leave(room)
    invite = {"membership": "invite", "displayname": "as it was invited", "reason": "for a reason"}
    events += [human.member_event(room, invited), human.set_state(room, "m.room.member", invite, str(invited))]
    for event_id in events:
        exchange, shown = a.exchange_with(event_id), human.event(room, event_id)
        event = _well_formed(a.await_event(event_id), exchange)
        if shown.get("type") == "m.room.redaction":  # where it names its target is TXN-19
            event, shown = ({**each, "content": _but_redacts(each.get("content"))} for each in (event, shown))
        differing = event_judges.differing_keys(event, shown, tuple(key for key in _COMPARED if key in shown))
        expect(not differing, "the event as clients see it", f"another {' and '.join(differing)}", exchange)


def _but_redacts(content: Any) -> Any:
    return {key: value for key, value in content.items() if key != "redacts"} if isinstance(content, dict) else content


@requirement("TXN-07", last=True)
def test_events_are_in_the_client_format(run: Run, a: Appservice, human: User) -> None:
    """Pushed events have none of the keys of federation events at their top level."""
    a.await_event(human.send(_room_of(a, human)))
    for exchange, event in _pushed_events(run):
        strange = [key for key in event_judges.FEDERATION_KEYS if key in event]
        expect(not strange, "no federation keys at the top level of an event", " and ".join(strange), exchange)


@requirement("TXN-08", last=True)
def test_what_is_unsigned_is_right(run: Run, a: Appservice, human: User) -> None:
    """`unsigned` is an object, `age` an integer; `prev_content` and `replaces_state` are those of the state before."""
    ghost, rooms = a.ghost(), [human.create_room(), human.create_room()]
    for room in rooms:
        human.invite(room, ghost)
        ghost.join(room)
        human.send(room)
    slots = [(rooms[0], ""), (rooms[0], "another key"), (rooms[1], "")]
    before: dict[str, tuple[dict[str, Any], str] | None] = {}
    latest: dict[tuple[str, str], tuple[dict[str, Any], str]] = {}
    for turn in range(3):
        for slot in slots:
            content = {"turn": turn, "unlike others": run.names.fresh()}
            event_id = human.set_state(slot[0], "org.example.hq", content, slot[1])
            before[event_id] = latest.get(slot)
            latest[slot] = content, event_id
    for event_id, previous in before.items():
        event = a.await_event(event_id)
        unsigned, exchange = unsigned_of(event), a.exchange_with(event_id)
        age = unsigned.get("age")
        plausible = not isinstance(age, int) or abs(age) < _OLD  # clocks are set now and then
        expect(plausible, "an age of some milliseconds for an event that was just sent, if any", f"{age} ms", exchange)
        content, replaced = previous or ({}, None)
        seen = unsigned.get("prev_content") or {}
        right = event_judges.same(seen, content) or "prev_content" not in unsigned
        expect(right, "prev_content of the state before, if any", seen, exchange)
        seen = unsigned.get("replaces_state")
        expect(seen in (None, replaced), f"replaces_state {replaced}, if any", seen, exchange)
    for room in rooms:
        joined = a.await_event(human.member_event(room, ghost))
        invite, brought = a.await_event(_invite_of(a, room, ghost)), a.exchange_with(_invite_of(a, room, ghost))
        stripped = event_judges.stripped_problem(unsigned_of(invite).get("invite_room_state"))
        expect(stripped is None, "stripped events in invite_room_state, if there is one", stripped, brought)
        seen = unsigned_of(joined).get("prev_content") or {"membership": "invite"}
        right = isinstance(seen, dict) and seen.get("membership") == "invite"
        expect(right, "prev_content of the invite, if any", seen, a.exchange_with(joined["event_id"]))
    for exchange, event in _pushed_events(run):
        problem = event_judges.unsigned_problem(event)
        expect(problem is None, "unsigned as an object, with an integer age if any", problem, exchange)
    if run.version is None or run.version >= Version.parse("v1.2"):
        outside = [exchange for exchange, event in _pushed_events(run) if "prev_content" in event]
        prefer(not outside, "no prev_content at top level", f"one in {len(outside)} events", *outside[:1])


def _invite_of(a: Appservice, room: str, ghost: User) -> str:
    """The event of a ghost's invite to a room, as it was pushed.

    :raises Inconclusive: there is none (INTEREST-01).
    """
    for _, event in a.received():
        content = event.get("content")
        invited = isinstance(content, dict) and content.get("membership") == "invite"
        if invited and event.get("room_id") == room and event.get("state_key") == ghost.user_id:
            return str(event.get("event_id"))
    raise Inconclusive(f"the invite of {ghost} was not pushed (INTEREST-01)")


@requirement("TXN-09")
def test_transaction_ids_of_humans_are_not_pushed(a: Appservice, human: User, human1: User) -> None:
    """`unsigned.transaction_id` is for the device that sent the event: appservices do not get those of humans."""
    room = _room_of(a, human)
    human1.join(room)
    message = human.send(room)
    for event_id in (message, human1.send(room), human.redact(room, message)):
        leaked = unsigned_of(a.await_event(event_id)).get("transaction_id")
        expect(leaked is None, "no transaction_id in a human's event", repr(leaked), a.exchange_with(event_id))


@requirement("TXN-10", last=True)
def test_acknowledged_ids_are_not_used_again(run: Run, a: Appservice, b: Appservice, human: User) -> None:
    """An id that was answered with success never comes back with other events."""
    room = _room_of(a, human)
    b.ghost().join(room)
    human.send(room)
    for _ in range(5):
        event = human.send(room)  # one after the other, so that there are several transactions
        for member in (a, b):
            member.await_event(event)
    for member in run.fleet:
        for life in run.lives(member.transactions()):  # across lives it is RESTART-01
            reused = judges.reused_id(life)
            seen = "an acknowledged one again"
            expect(reused is None, f"other ids for other events at {member}", seen, *(reused or ()))


@requirement("TXN-11", lane=V1)
def test_a_retry_has_the_same_id(lanes: Lanes) -> None:
    """A transaction that failed is tried again under the same ID until it is accepted."""
    first = lanes[V1].first.get()
    (event,) = first.outage.sent
    carriers = [each for each in first.outage.attempts if judges.carries(each.first, event)]
    evidence = [each.first for each in carriers[:3]]
    if len(carriers) < 2:
        raise Blocked("RETRY-01", "there was no second attempt", *evidence)
    for attempt in carriers:
        for exchange in attempt.exchanges:
            txn_id = judges.transaction_id(exchange)
            expected = f"the ID {carriers[0].txn_id} in every attempt with the event"
            expect(txn_id == carriers[0].txn_id, expected, txn_id, carriers[0].first, exchange)


def _must_have_its_own_id(outage: Outage) -> None:
    """What fails is no attempt of an earlier transaction.

    :raises Blocked: one with the same ID was acknowledged before the outage, so that an ID tells nothing of attempts.
    """
    first = outage.attempts[0]
    for exchange in outage.appservice.transactions():
        reused = exchange.number <= outage.since and judges.acknowledged(exchange)
        if reused and judges.transaction_id(exchange) == first.txn_id:
            raise Blocked("TXN-10", f"the ID {first.txn_id} was acknowledged before", exchange, first.first)


@requirement("TXN-12", lane=V1)
def test_a_retry_has_the_same_events(lanes: Lanes) -> None:
    """All attempts with one ID have the same events in the same order, but for their age."""
    for outage in (lanes[V1].first.get().outage, lanes[V1].batch.get()):
        if len(outage.pending) < 2:
            raise Blocked("RETRY-01", "there was no second attempt", *(each.first for each in outage.pending))
        _must_have_its_own_id(outage)
        altered = sameness.alteration(outage.pending)
        seen, evidence = (altered[0], altered[1:]) if altered else ("", ())
        expect(altered is None, "the same events in each attempt of a transaction", seen, *evidence)


@requirement("TXN-13", lane=V2)
def test_nothing_is_added_to_a_failed_transaction(lanes: Lanes) -> None:
    """Events that are sent during an outage never join a transaction that has failed; they come in others."""
    backlog = lanes[V2].backlog.get()
    outage = backlog.outage
    if len(outage.pending) < 2:
        raise Blocked("RETRY-02", "there was no second attempt", *(each.first for each in outage.pending))
    _must_have_its_own_id(outage)
    intruder = sameness.added(outage.attempts, outage.late)
    seen, evidence = (f"{intruder[0]} added", (outage.pending[0].first, intruder[1])) if intruder else ("", ())
    expect(intruder is None, "no later event in a transaction that is being retried", seen, *evidence)


@requirement("TXN-14", lane=V1)
def test_a_retry_is_not_brought_up_to_date(lanes: Lanes) -> None:
    """What is redacted or overwritten after the first attempt stays as it was in the following ones."""
    for altered in lanes[V1].altered.get():
        carrying = [each for each in altered.outage.attempts if altered.event in sameness.ids_of(each)]
        evidence = [each.first for each in carrying[:3]]
        same = [each for each in carrying if each.txn_id == carrying[0].txn_id]
        if len(same) < 2:
            raise Blocked("RETRY-01", "there was no second attempt with the event and its ID", *evidence)
        changed = sameness.alteration(same)
        seen, exchanges = (changed[0], changed[1:]) if changed else ("", ())
        expect(changed is None, f"{altered.what} as it was first pushed, in each attempt", seen, *exchanges)
        told = [exchange for each in same for exchange in each.exchanges if sameness.tells_redaction(exchange)]
        caution(not told, "no word of the redaction in the retried transaction", "redacted_because", *told[:1])


@requirement("TXN-15", lane=V1)
def test_a_transaction_without_an_answer_is_sent_again(lanes: Lanes) -> None:
    """When the acknowledgement is lost, the same transaction comes again with the same events."""
    for single in lanes[V1].lost_answers.get():
        evidence = [each.first for each in single.attempts[:3]]
        failed = single.attempts and not single.attempts[0].acknowledged
        control(failed, "the transaction that was cut off was not the one with the message", *evidence)
        again = len(single.attempts) > 1
        if not (again or single.forgotten):
            raise Blocked("RETRY-01", "no attempt came within --backoff-wait, of anything", *evidence)
        expect(again, f"the transaction again after the connection was {single.name}", "nothing more", *evidence)
        ids = {each.txn_id for each in single.attempts}
        expect(len(ids) == 1, f"the same ID after the connection was {single.name}", f"{len(ids)} IDs", *evidence)
        altered = sameness.alteration(single.attempts)
        expect(altered is None, "the same events again", altered[0] if altered else "", *evidence)


@requirement("TXN-16", last=True)
def test_events_are_delivered_once(run: Run, a: Appservice, b: Appservice, c: Appservice, human: User) -> None:
    """A healthy appservice gets an event under one transaction id, however many reasons it has to be interested."""
    room = human.create_room()
    # Two entries of B's namespace cover the one with hqt-vip-.
    ghosts = [a.ghost(), a.ghost("hqa2-"), a.ghost("hqopen-"), b.ghost(), b.ghost("hqt-vip-"), a.sender, b.sender]
    for ghost in ghosts:
        human.invite(room, ghost)
        ghost.join(room)
    for member in (a, b):
        for _ in range(2):
            alias = run.alias(member.fresh_localpart())
            member.sender.provoke("PUT", f"/directory/room/{segment(alias)}", json={"room_id": room})
    ghosts[0].send(room)
    human.kick(room, ghosts[1])
    event = human.send(room)
    a.await_event(event)
    b.await_event(event)
    run.markers.pass_by("A", "B", "C")
    for member in (a, b, c):
        for life in run.lives(member.transactions()):  # across lives it is RESTART-04
            twice = judges.delivered_twice(life)
            seen = f"{twice[0]} came twice" if twice else ""
            expect(twice is None, f"each event once at {member}", seen, *(twice[1:] if twice else ()))


@requirement("TXN-17")
def test_nothing_of_a_burst_is_lost(run: Run, a: Appservice, human: User, human1: User, human2: User) -> None:
    """All of 180 messages, sent without a pause by three users in three rooms, reach the appservice."""
    senders = (human, human1, human2)
    rooms = [_room_of(a, sender) for sender in senders]
    a.await_event(human.send(rooms[0]))
    marker = run.journal.marker()

    def burst(sender: User, room: str) -> list[str]:
        return [sender.send(room) for _ in range(60)]

    # A answers late meanwhile, though never so late that it seems dead: most of the burst has to be queued.
    hold = Hold(4.0)
    with a.scripted(Kind.TRANSACTION, always(answer(hold=hold))), ThreadPoolExecutor(len(senders)) as pool:
        try:
            sent = [event for events in pool.map(burst, senders, rooms) for event in events]
        finally:
            hold.release()
    missing = a.still_missing(sent, marker)
    lost = f"{len(missing)} of {len(sent)} missing: {listing(sorted(missing), 3)}"
    expect(not missing, "every acknowledged message of a burst pushed", lost)


@requirement("TXN-18")
def test_an_acknowledged_transaction_does_not_come_again(run: Run, a: Appservice, human: User) -> Quiet:
    """What was answered 200, at once or late, is not sent again, in the quiet window and in all of the run."""
    room = _room_of(a, human)
    for _ in range(3):
        a.await_event(human.send(room))
        run.markers.pass_by("A")
    with a.scripted(Kind.TRANSACTION, always(answer(delay=1.5))):
        a.await_event(human.send(room))
    run.markers.pass_by("A")
    yield
    again = judges.repeated(a.transactions())
    expect(again is None, "each acknowledged transaction once", "one of them again", *(again or ()))


@requirement("TXN-19")
def test_redactions_name_their_target(a: Appservice, human: User) -> None:
    """A pushed `m.room.redaction` has its target in `redacts`: up to room version 10 at top level, later in content."""
    for wanted in (None, "10", "11"):
        body = {"preset": "public_chat"} | ({"room_version": wanted} if wanted else {})
        room = human.call("POST", "/createRoom", json=body).json.get("room_id")
        if not isinstance(room, str):
            record(f"no room of {f'version {wanted}' if wanted else 'the default version'} could be made")
            continue
        a.ghost().join(room)
        version = str(human.state(room, "m.room.create").get("room_version", "1"))
        if not version.isdecimal():
            record(f"rooms are of version {version}: where that has the target of a redaction is not known")
            continue
        target = human.send(room)
        pushed = a.await_event(human.redact(room, target))
        exchange = a.exchange_with(pushed["event_id"])
        top, inside = pushed.get("redacts"), _well_formed(pushed, exchange)["content"].get("redacts")
        new = int(version) >= 11
        required, other = (inside, top) if new else (top, inside)
        places = ("content.redacts", "redacts") if new else ("redacts", "content.redacts")
        for value, place, must in ((required, places[0], expect), (other, places[1], prefer)):
            must(value == target, f"{place} {target} in a room of version {version}", value, exchange)


@requirement("TXN-20", last=True)
def test_ids_are_single_segments(run: Run, a: Appservice, human: User) -> None:
    """The id is one percent-encoded path segment, and there is no query but a legacy `access_token`."""
    a.await_event(human.send(_room_of(a, human)))
    for member, exchange in _transactions(run):
        if judges.request_line_problem(exchange, member.route(exchange)) is None:
            problem = judges.segment_problem(exchange)
            expect(problem is None, "a single percent-encoded segment and no query", problem, exchange)


@requirement("TXN-21")
def test_large_events_arrive_whole(run: Run, a: Appservice, human: User) -> None:
    """A megabyte and a half of large messages, sent while A answers late, arrives, each message as it was sent."""
    room = _room_of(a, human)
    a.await_event(human.send(room, "a small one"))
    marker = run.journal.marker()
    # An event may have 65536 bytes with all that is around its content (CS: Size limits).
    texts = [f"{run.names.fresh()} {letter * (50_000 // len(letter.encode()))}." for letter in "abü☃" * 8]
    hold = Hold(4.0)
    with a.scripted(Kind.TRANSACTION, always(answer(hold=hold))):
        try:
            sent = {human.send(room, text): text for text in texts}
        finally:
            hold.release()
    missing = a.still_missing(sent, marker)
    lost = f"{len(missing)} of {len(sent)} missing: {listing(sorted(missing), 3)}"
    expect(not missing, f"all {len(sent)} messages of 50 kB pushed", lost)
    for event_id, text in sent.items():
        exchange, pushed = a.deliveries(event_id)[0]
        seen = pushed.get("content", {}).get("body")
        length = f"{len(seen)} characters, or others" if isinstance(seen, str) else repr(seen)
        expect(seen == text, f"{event_id} with its {len(text)} characters", length, exchange)
