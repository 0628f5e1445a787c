"""The worked IRC example of the drafts of 2015, played step by step, and told as a transcript.

1. The appservice registers itself. 2. Bob says "hello?" on IRC. 3. Alice joins the channel's alias, and the room and
Bob's ghost come to be while she waits. 4. Alice says "hi!", which is pushed. 5. Bob says "what's up?" on IRC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from conformance.appservice.fleet import Appservice, Event, events_of
from conformance.appservice.routes import Kind
from conformance.appservice.script import Hold, always, answer
from conformance.dialects import dialect_of
from conformance.homeserver.client import NoAnswer, Response, segment
from conformance.homeserver.users import User
from conformance.schemas import data_dir
from conformance.verdict import Broken, expect
from conformance.wire.exchange import Direction, Exchange, NotJson

if TYPE_CHECKING:
    from conformance.run import Run


#: The homeserver of the example.
_SERVER = "hsdomain.com"


@dataclass(frozen=True)
class Script:
    """The example as data: who says what where, and what the appservice answers."""

    dialect: str
    network: str
    channel: str
    nick: str
    #: The namespaces of the registration, in the form of the draft.
    namespaces: dict[str, Any]
    #: What is said: `on_irc`, `in_the_room`, `on_irc_again`.
    said: dict[str, dict[str, Any]]
    #: What the queries are answered; None: nothing but 200, and the appservice makes room and ghost itself.
    answers: dict[str, Any] | None

    def renamed(self, suffix: str) -> Script:
        """The same about a channel and a nick that nobody has used."""
        return replace(self, channel=f"{self.channel}-{suffix}", nick=f"{self.nick}-{suffix}")

    @property
    def alias_name(self) -> str:
        """The localpart of the channel's alias."""
        return f"{self.network}/{self.channel}"

    @property
    def ghost_name(self) -> str:
        """The localpart of Bob's ghost."""
        return f"{self.network}/{self.nick}"

    def answer_about(self, what: str, ghost: str) -> Any:
        """The answer to a query, with the names filled in."""
        names = {"ghost": ghost, "nick": self.nick, "channel": self.channel, "hello": self.said["on_irc"]["body"]}
        return _filled(self.answers[what] if self.answers is not None else {}, names)


def script_of(dialect: str) -> Script:
    """The example of a draft, draft-004 or draft-001."""
    content = json.loads((data_dir("fixtures") / "example" / f"{dialect}.json").read_text(encoding="utf-8"))
    return Script(**{key: value for key, value in content.items() if key != "source"})


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, names) for each in value]
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        return names[value[1:-1]]
    return value


@dataclass(frozen=True)
class Step:
    """A step of the example as it was played."""

    number: int
    title: str
    #: What was expected, and what was seen instead; None: it went well.
    expected: str
    problem: str | None
    evidence: tuple[Exchange, ...]
    #: The exchanges of the journal from here on are of this step.
    since: int


def play(run: Run, bridge: Appservice, alice: User, script: Script) -> Iterator[Step]:
    """Play the example, up to the first step that does not go well.

    :raises Inconclusive: what is only set-up did not succeed.
    """
    played = _Play(run, bridge, alice, script)
    alias, nick = run.alias(script.alias_name), script.nick
    said = {key: each["body"] for key, each in script.said.items()}
    steps = (
        ("Application service registration", played.register),
        (f'IRC user "{nick}" says "{said["on_irc"]}" on "{script.channel}"', played.hear),
        (f'Matrix user "{alice}" wants to join "{alias}"', played.join),
        (f'{alice} says "{said["in_the_room"]}" in this room', played.push),
        (f'IRC user "{nick}" says "{said["on_irc_again"]}" on "{script.channel}"', played.pass_on),
    )
    for number, (title, act) in enumerate(steps, 1):
        since = run.journal.marker()
        try:
            act()
        except NoAnswer as error:
            call = error.exchange
            yield Step(number, title, f"an answer to {call.method} {call.path}", str(call.failure), (call,), since)
            return
        except Broken as broken:
            found = broken.deviation
            yield Step(number, title, found.expected, found.seen, found.evidence, since)
            return
        yield Step(number, title, "", None, (), since)


class _Play:
    """What is known while the example is played."""

    def __init__(self, run: Run, bridge: Appservice, alice: User, script: Script) -> None:
        self.run = run
        self.bridge = bridge
        self.alice = alice
        self.script = script
        self.alias = run.alias(script.alias_name)
        self.ghost_id = run.user_id(script.ghost_name)
        self.room = ""

    @property
    def ghost(self) -> User:
        """Bob on Matrix."""
        return self.bridge.as_user(self.ghost_id)

    def register(self) -> None:
        """Step 1: `POST /register` with the stored token."""
        registration = self.bridge.registration
        body = {
            "url": registration.url,
            "as_token": registration.as_token,
            "namespaces": self.script.namespaces,
        }
        enrolled = self.bridge.enroll(body)
        token = enrolled.json.get("hs_token")
        expect(enrolled.ok and isinstance(token, str), "200 and an hs_token", enrolled, enrolled.exchange)
        self.run.redactor.add(str(token), "hs_token of the example")

    def hear(self) -> None:
        """Step 2: nothing happens, as no Matrix user is in the room."""

    def join(self) -> None:
        """Step 3: the join asks about the alias, which asks about Bob; then Alice sees what Bob said."""
        marker = self.run.journal.marker()
        path = f"/join/{segment(self.alias)}"
        with ExitStack() as ends:
            outer, inner = Hold(self.run.budgets.block), Hold(self.run.budgets.block)
            ends.callback(inner.release)
            ends.callback(outer.release)
            answers = {Kind.ALIAS: ("alias", self.alias, outer), Kind.USER: ("user", self.ghost_id, inner)}
            for kind, (what, subject, hold) in answers.items():
                reply = answer(200, self.script.answer_about(what, self.ghost_id), hold=hold)
                ends.enter_context(self.bridge.scripted(kind, always(reply), subject=subject))
            joining = ends.enter_context(self.alice.calling("POST", path, json={}))
            ends.callback(inner.release)
            ends.callback(outer.release)  # before the join is awaited, whatever happens here
            self._asked(Kind.ALIAS, marker, self.alias)
            if self.script.answers is None:
                self._make(marker, inner)
            else:
                outer.release()
                self._asked(Kind.USER, marker, self.ghost_id)
                inner.release()
            outer.release()
            joined = joining.result()
        self.room = str(joined.json.get("room_id"))
        expect(joined.ok, "the join accepted", joined, joined.exchange)
        first = self.script.said["on_irc"]
        self._must_show(first["body"], first["ts"], joined)
        name = self.alice.call("GET", f"/rooms/{segment(self.room)}/state/m.room.name")
        expect(name.json.get("name") == self.script.channel, f"the name {self.script.channel}", name, name.exchange)
        profile = self.alice.call("GET", f"/profile/{segment(self.ghost_id)}/displayname")
        shown = profile.json.get("displayname")
        expect(shown == self.script.nick, f"the display name {self.script.nick}", shown or profile, profile.exchange)

    def _make(self, marker: int, inner: Hold) -> None:
        """What the appservice does while it is asked: the room, its name, Bob's message, and meanwhile Bob himself."""
        sender, bridge, first = self.bridge.sender, self.bridge, self.script.said["on_irc"]
        wanted = {"preset": "public_chat", "room_alias_name": self.script.alias_name}
        made = self._done(sender, "POST", "/createRoom", self.run.client.dialect.room(wanted))
        self.room = str(made.json.get("room_id"))
        self._done(sender, "PUT", self._in_room("/state/m.room.name"), {"name": self.script.channel})
        content = {"msgtype": "m.text", "body": first["body"]}
        query = {"ts": str(first["ts"])}
        with self.ghost.calling("PUT", self._in_room("/send/m.room.message"), json=content, query=query) as sending:
            try:
                self._asked(Kind.USER, marker, self.ghost_id)
                body = {"type": "m.login.application_service", "user": self.script.ghost_name}
                self._done(sender, "POST", "/register", body)
                name = f"/profile/{segment(self.ghost_id)}/displayname"
                self._done(self.ghost, "PUT", name, {"displayname": self.script.nick})
                self._done(self.ghost, "POST", f"/join/{segment(self.room)}", {})
            finally:
                inner.release()
            sent = self._sent(sending.result, content, query)
        expect(sent.ok, f"the message of {bridge}'s ghost accepted", sent, sent.exchange)

    def push(self) -> None:
        """Step 4: what Alice says is pushed."""
        marker, text = self.run.journal.marker(), self.script.said["in_the_room"]["body"]
        content = {"msgtype": "m.text", "body": text}
        path = self._in_room(f"/send/m.room.message/{self.run.names.fresh('t')}")
        said = self._done(self.alice, "PUT", path, content)

        def is_it(exchange: Exchange) -> bool:
            mine = exchange.party == self.bridge.code and exchange.direction is Direction.TO_APPSERVICE
            return mine and exchange.received is not None and self._event_in(exchange, text) is not None

        pushed = self.run.journal.wait_for(is_it, marker, self.run.budgets.deliver)
        if pushed is None:
            raise Broken(f"{text!r} pushed to {self.bridge}", "nothing", said.exchange)
        self.run.journal.wait_for(lambda e: e is pushed and e.answer_until is not None, marker, 1.0)
        event = self._event_in(pushed, text) or {}
        wanted = {"user_id": self.alice.user_id, "room_id": self.room, "type": "m.room.message", "content": content}
        for key, value in wanted.items():
            expect(event.get(key) == value, f"{key} {value}", event.get(key), pushed)
        ts = event.get("origin_server_ts")
        expect(isinstance(ts, int), "an integer origin_server_ts", ts, pushed)

    def pass_on(self) -> None:
        """Step 5: what Bob says on IRC is sent in his name, at his time."""
        last = self.script.said["on_irc_again"]
        content, query = {"msgtype": "m.text", "body": last["body"]}, {"ts": str(last["ts"])}
        path = self._in_room("/send/m.room.message")
        sent = self._sent(lambda: self.ghost.call("PUT", path, json=content, query=query), content, query)
        expect(sent.ok, f"a message as {self.ghost_id} accepted", sent, sent.exchange)
        self._must_show(last["body"], last["ts"], sent)

    # What they share

    def _done(self, who: User, method: str, path: str, body: dict[str, Any]) -> Response:
        """A call that the example is about."""
        done = who.call(method, path, json=body)
        expect(done.ok, f"{method} {path} of {who} accepted", done, done.exchange)
        return done

    def _in_room(self, path: str) -> str:
        return f"/rooms/{segment(self.room)}{path}"

    def _sent(self, send: Any, content: dict[str, Any], query: dict[str, str]) -> Response:
        """A message sent without a transaction ID, as in the example; else with one, as homeservers had it."""
        sent: Response = send()
        if sent.status in (400, 404, 405):
            path = self._in_room(f"/send/m.room.message/{self.run.names.fresh('t')}")
            sent = self.ghost.call("PUT", path, json=content, query=query)
        return sent

    def _asked(self, kind: Kind, since: int, subject: str) -> Exchange:
        found = self.bridge.await_request(kind, since, subject=subject)
        if found is None:
            calls = self.run.journal.since(since, lambda each: each.direction is Direction.TO_HOMESERVER)
            raise Broken(f"{self.bridge} asked about {subject}", "it was not", *calls[-2:])
        right = self.bridge.registration.hs_token in dict(found.query).values()
        expect(right, f"a GET about {subject} with the hs_token", f"{found.method} {found.target}", found)
        return found

    def _event_in(self, exchange: Exchange, text: str) -> Event | None:
        for event in events_of(exchange):
            content = event.get("content")
            if isinstance(content, dict) and content.get("body") == text and event.get("room_id") == self.room:
                return event
        return None

    def _must_show(self, text: str, ts: int, done: Response) -> None:
        """Alice has to see a message of Bob's, of that time."""
        shown = [each for each in self.alice.timeline(self.room) if each.get("content", {}).get("body") == text]
        seen = [(each.get("sender"), each.get("origin_server_ts")) for each in shown]
        expect(seen == [(self.ghost_id, ts)], f"{text!r} by {self.ghost_id} at {ts}", seen, done.exchange)


# The transcript


def performance(spec: str) -> Iterator[str]:
    """Play the example of a draft on a reference homeserver of its own, and tell it line by line."""
    from conformance.appservice import roster
    from conformance.appservice.fleet import Fleet
    from conformance.catalogue.versions import Version
    from conformance.homeserver.client import Client
    from conformance.homeserver.humans import Humans
    from conformance.homeserver.reference import TIME_SCALE
    from conformance.homeserver.target import ByUrl
    from conformance.homeserver.users import Names
    from conformance.reference.homeserver import Homeserver
    from conformance.run import Budgets, Run
    from conformance.wire.journal import Journal
    from conformance.wire.redaction import Redactor

    version = Version.parse(spec)
    dialect, journal, names, host = dialect_of(version), Journal(), Names(), "127.0.0.1"
    roles = [role for role in roster.DRAFTED if role.code == "I"]
    registrations = roster.enlist(_SERVER, f"http://{host}", roster.free_ports(host), roles)
    fleet = Fleet(registrations, journal, host, 5.0, dialect)
    homeserver = Homeserver(registrations, _SERVER, time_scale=TIME_SCALE, dialect=dialect)
    with ExitStack() as ends:
        fleet.start()
        ends.callback(fleet.stop)
        url = homeserver.start()
        ends.callback(homeserver.stop)
        client = Client(url, journal, dialect)
        ends.callback(client.close)
        redactor = Redactor()
        humans = Humans(client, names, redactor)
        budgets = Budgets(deliver=5.0, scale=TIME_SCALE)
        run = Run(ByUrl(url), fleet, journal, redactor, client, humans, names, budgets, strict=False, version=version)
        run.server_name = _SERVER
        fleet.connect(client, names, _SERVER)
        yield from transcript(run, fleet["I"], humans.registered("alice"), script_of(spec))


def transcript(run: Run, bridge: Appservice, alice: User, script: Script) -> Iterator[str]:
    """Play the example and tell it line by line; the last line of a step that went wrong says so.

    Transactions without a message of Alice's are only counted: the homeserver pushes how the room came to be, too.
    """
    names = {bridge.registration.as_token: "T_a", alice.token: "T_alice"}
    for step in play(run, bridge, alice, script):
        names[bridge.registration.hs_token] = "T_h"
        yield f"{step.number}. {step.title}"
        yield ""
        told = run.journal.since(step.since)
        shown = [each for each in told if not _is_noise(bridge, alice, each)]
        for line in _told(shown, alice, names):
            yield f"   {line}".rstrip()
        if step.number == _ON_IRC:
            yield "   The appservice keeps it as scrollback: no Matrix user is in the room."
        if len(shown) < len(told):
            yield f"   ({len(told) - len(shown)} transactions more: how the room came to be, what the appservice sent)"
        if step.problem is not None:
            yield f"   WRONG: expected {step.expected}; seen: {step.problem}"
        yield ""


#: The step at which nothing happens on Matrix.
_ON_IRC = 2

#: The keys of an event that are told; those that it has beside them are not.
_TOLD = ("content", "origin_server_ts", "user_id", "sender", "room_id", "type")


def _is_noise(bridge: Appservice, alice: User, exchange: Exchange) -> bool:
    """Whether it is a transaction with nothing that Alice said."""
    if exchange.direction is not Direction.TO_APPSERVICE or bridge.route(exchange).kind is not Kind.TRANSACTION:
        return False
    return not any(event.get("type") == _MESSAGE and alice.user_id in event.values() for event in events_of(exchange))


_MESSAGE = "m.room.message"


def _told(exchanges: list[Exchange], alice: User, names: dict[str, str]) -> Iterator[str]:
    """Requests and answers in the order of time; an answer that comes later says what it is the answer to."""
    moments = [(each.started, 0, each) for each in exchanges]
    moments += [(each.answer_from or each.answer_until, 1, each) for each in exchanges if each.answer_until is not None]
    moments.sort(key=lambda moment: (moment[0] or 0.0, moment[1]))
    last: Exchange | None = None
    for _, answered, each in moments:
        here, there = _way(each, alice)
        if answered and each is last:
            yield f"    {each.status} {_shown(each, names, answer=True)}"
        elif answered:
            yield f"{there} -> {here}  [the answer to {each.method} {_short(each)}]"
            yield f"    {each.status} {_shown(each, names, answer=True)}"
        else:
            if last is not None:
                yield "    [waits]"
            yield f"{here} -> {there}  {each.method} {_named(each.target, names)}"
            if each.request_body:
                yield f"    {_shown(each, names, answer=False)}"
        last = None if answered else each


def _way(exchange: Exchange, alice: User) -> tuple[str, str]:
    if exchange.direction is Direction.TO_APPSERVICE:
        return "HS", "AS"
    return "User" if exchange.party == alice.party else "AS", "HS"


def _short(exchange: Exchange) -> str:
    """The last words of a path."""
    parts = exchange.raw_path.split("/")
    return f".../{'/'.join(parts[-2:])}"


def _shown(exchange: Exchange, names: dict[str, str], answer: bool) -> str:
    """A body, its events without what is not told of them."""
    try:
        body = exchange.response_json if answer else exchange.request_json
    except NotJson:
        return ""
    if isinstance(body, dict):
        body = {key: _brief(value) if key in ("events", "chunk") else value for key, value in body.items()}
        body = {key: "<a token>" if key == "access_token" else value for key, value in body.items()}
    return _named(json.dumps(body, ensure_ascii=False), names)


def _brief(events: Any) -> Any:
    """The messages among some events, with what the example shows of them."""
    if not isinstance(events, list) or not all(isinstance(each, dict) for each in events):
        return events
    messages = [each for each in events if each.get("type") == _MESSAGE]
    return [{key: value for key, value in each.items() if key in _TOLD} for each in messages]


def _named(text: str, names: dict[str, str]) -> str:
    for token, name in names.items():
        text = text.replace(token, name)
    return text
