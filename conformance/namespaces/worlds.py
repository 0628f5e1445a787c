"""Worlds: registrations that are drawn as IDs are, for homeservers that can be booted with them.

A world is one to three entries about the same names, of up to three appservices, and an ID that somebody asks for. All
worlds of a hunt are loaded at one boot, each with a tag of its own, and asked about; what is wrong is then shrunk, the
registrations and the ID, with a boot for every set of registrations that has not been asked about yet.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st

from conformance.appservice.registration import Namespace, Registration
from conformance.homeserver.client import CLIENT, Client, Response, segment
from conformance.homeserver.humans import Humans
from conformance.homeserver.process import TargetFailed
from conformance.homeserver.signup import Attempt
from conformance.homeserver.target import SERVER_NAME
from conformance.homeserver.users import User
from conformance.namespaces.cells import CODES, Frame
from conformance.namespaces.hunt import Finding, Hunt
from conformance.namespaces.ids import Pick, is_legal, near, telling
from conformance.namespaces.oracle import Cover, Estate, Kind, Right
from conformance.namespaces.readings import told
from conformance.namespaces.shapes import Bracket, Branch, Dot, Group, Node, Regex, Repeat, Text, parse, sequence
from conformance.namespaces.strategies import picking
from conformance.verdict import Inconclusive

if TYPE_CHECKING:
    from conformance.run import Run

T = TypeVar("T")

#: The tag of a world that is alone; others get numbers.
_TAG = "hqf000"

#: The most worlds of one hunt: their tags have three digits.
MOST = 900

#: Whose entries are drawn, each as often as it is listed.
_OWNERS = ("F1", "F1", "F2", "F3")

#: The most entries of a world.
_MOST_ENTRIES = 3

#: Boots that shrinking may take.
BOOTS = 60

#: Which requirement an appservice's registration of a name is about.
_ROWS = {
    Right.OWN: "NSUSER-08",
    Right.SHARED: "NSUSER-09",
    Right.NOBODYS: "NSUSER-07",
    Right.ANOTHERS: "NSUSER-05",
    Right.OVERLAPPING: "NSUSER-06",
}


@dataclass(frozen=True)
class World:
    """Entries, each with its owner, and a question about an ID; all with the tag that stands for any."""

    kind: Kind
    entries: tuple[tuple[str, Namespace], ...]
    identifier: str
    #: The code of the appservice that asks; empty: a human.
    asker: str = ""

    def tagged(self, number: int) -> World:
        """The same with the tag of a number."""
        tag = f"hqf{number:03}"
        entries = tuple(
            (owner, Namespace(entry.regex.replace(_TAG, tag), entry.exclusive)) for owner, entry in self.entries
        )
        return World(self.kind, entries, self.identifier.replace(_TAG, tag), self.asker)


def registrations(kind: Kind, entries: Sequence[tuple[str, Namespace]]) -> list[Registration]:
    """Registration files with these entries; the appservices have no url, and tokens that are no secret."""
    found = []
    for code in CODES:
        own = tuple(entry for owner, entry in entries if owner == code)
        users, aliases = (own, ()) if kind == "users" else ((), own)
        name = code.lower()
        found.append(
            Registration(
                code=code,
                id=f"hq-world-{name}",
                url=None,
                as_token=f"as-token-of-{name}",
                hs_token=f"hs-token-of-{name}",
                sender_localpart=f"hqbot-{name}",
                users=users,
                aliases=aliases,
                rooms=(),
            )
        )
    return found


# Drawing


def _chosen(pick: Pick, options: Sequence[T]) -> T:
    return options[pick(0, len(options) - 1)]


def _part(pick: Pick) -> Node:
    options: tuple[Callable[[], Node], ...] = (
        lambda: Text(_chosen(pick, ("-", ".", "_", "a", "+", "="))),
        lambda: Bracket(_chosen(pick, ("a-z", "0-9", "a-z0-9._=/+-", "+/"))),
        lambda: Repeat(Bracket(_chosen(pick, ("a-z", "0-9", "a-z+", "a-z/"))), 0, None),
        lambda: Repeat(Text("x"), *_chosen(pick, ((0, 1), (1, 2), (2, 2), (2, 4), (1, None)))),
        lambda: Group(((Text("-a"),), (Text(".b"),))),
        lambda: Repeat(Dot(), 0, None),
    )
    return _chosen(pick, options)()


def _regex(pick: Pick, frame: Frame) -> Regex:
    rest: Node = Repeat(Dot(), 0, None)
    if pick(0, 1) == 0:  # one that covers what the others do: overlaps are where homeservers differ
        return Regex((Branch((frame.head, rest)),))
    tails: tuple[tuple[Node, ...], ...] = ((rest,), (frame.domain,), (rest, frame.domain))
    parts = [_part(pick) for _ in range(pick(0, 2))]
    tail = _chosen(pick, tails)
    start, end = _chosen(pick, ((False, False), (True, False), (True, True)))
    if parts and isinstance(parts[-1], Repeat) and parts[-1] == rest and tail[0] == rest:
        parts.pop()
    return Regex((Branch(sequence(frame.head, *parts, *tail), start, end),))


@st.composite
def worlds(draw: st.DrawFn, kind: Kind) -> World:
    """Worlds about users or aliases, the simplest first."""
    pick = picking(draw)
    frame = Frame(kind, _TAG, SERVER_NAME)
    entries: list[tuple[str, Namespace]] = []
    while not entries or (len(entries) < _MOST_ENTRIES and pick(0, 1)):
        owner, exclusive = _chosen(pick, _OWNERS), bool(pick(0, 1))
        entries.append((owner, Namespace(str(_regex(pick, frame)), exclusive)))
    asker = _chosen(pick, ("", "", "", *CODES)) if kind == "users" else ""
    _, subject = _chosen(pick, entries)
    regex = parse(subject.regex)
    ids = list(telling(kind, regex, SERVER_NAME).values()) if pick(0, 1) else []
    identifier = _chosen(pick, ids) if ids else near(kind, regex, SERVER_NAME, pick)
    return World(kind, tuple(entries), identifier, asker)


# Asking


@dataclass
class Booted:
    """A homeserver with the registrations of worlds."""

    run: Run
    client: Client
    url: str
    _place: tuple[User, str] | None = None

    def ask(self, world: World) -> tuple[bool | None, Response]:
        """Whether the ID is refused with M_EXCLUSIVE; None: the answer says nothing about namespaces."""
        if world.kind == "aliases":
            answer = self._make_alias(world.identifier)
            exclusive, made = answer.refused and answer.errcode == "M_EXCLUSIVE", answer.ok
        else:
            body, token = _registering(world)
            answer = self.client.call("POST", f"{CLIENT}/register", party="world", json=body, token=token)
            attempt = Attempt(world.identifier, answer, {})
            exclusive, made = attempt.exclusive, attempt.proceeds
        return (exclusive if exclusive or made else None), answer

    def _make_alias(self, alias: str) -> Response:
        if self._place is None:
            run = self.run
            human = Humans(self.client, run.names, run.redactor, run.humans.admission, prefix="WH")[0]
            self._place = human, human.create_room()
        human, room = self._place
        return human.call("PUT", f"/directory/room/{segment(alias)}", json={"room_id": room})


def _registering(world: World) -> tuple[dict[str, object], str | None]:
    """What registers a name, and with which token."""
    localpart = world.identifier[1:].partition(":")[0]
    if not world.asker:
        return {"username": localpart}, None
    body = {"type": "m.login.application_service", "username": localpart, "inhibit_login": True}
    return body, f"as-token-of-{world.asker.lower()}"


@dataclass
class Worlds:
    """A hunt through worlds."""

    run: Run
    kind: Kind
    hunt: Hunt[World] = field(init=False)
    boots: int = 0
    _ends: ExitStack = field(default_factory=ExitStack)
    _up: tuple[tuple[tuple[str, Namespace], ...], Booted] | None = None
    _known: dict[World, Finding[World] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.run.plan
        self.hunt = Hunt(plan.seed, min(plan.worlds, MOST))

    def search(self) -> dict[str, Finding[World]]:
        """Draw, boot, ask, shrink; what was found by the requirement that it is blamed on.

        :raises Inconclusive: the homeserver does not start with such registrations.
        """
        drawn: dict[World, None] = {}
        questions = worlds(self.kind)
        self.hunt.play(questions, drawn.setdefault)
        legal = [world for world in drawn if is_legal(self.kind, world.identifier, SERVER_NAME)][:MOST]
        with self._ends:
            self._ask_all(legal)
            found = {finding.blamed for finding in self._known.values() if finding is not None}
            # What is wrong for humans already is not shrunk for appservices again.
            worth = found & {"plain"} or found & {"layered"} or found
            self.hunt.search(questions, self._ask_alone, lambda world: world, shrunk=worth)
        return self.hunt.findings

    def _ask_all(self, legal: Sequence[World]) -> None:
        tagged = [world.tagged(number) for number, world in enumerate(legal, 1)]
        entries = tuple(entry for world in tagged for entry in world.entries)
        try:
            booted = self._boot(entries)
        except TargetFailed as error:
            raise Inconclusive(f"the homeserver does not start with generated registrations: {error}") from error
        estate = Estate(registrations(self.kind, entries), self.kind)
        for world, asked in zip(legal, tagged, strict=True):
            self._known[world] = self._judged(booted, estate, asked)

    def _ask_alone(self, world: World) -> Finding[World] | None:
        if world in self._known:
            return self._known[world]
        if not is_legal(self.kind, world.identifier, SERVER_NAME):
            return None
        if self._up is None or self._up[0] != world.entries:
            if self.boots > BOOTS:
                return None
            try:
                self._boot(world.entries)
            except TargetFailed:
                return None  # what cannot be loaded is no smaller example
        assert self._up is not None
        return self._judged(self._up[1], Estate(registrations(self.kind, world.entries), self.kind), world)

    def _boot(self, entries: tuple[tuple[str, Namespace], ...]) -> Booted:
        self._ends.close()
        self._up = None
        self.boots += 1
        assert self.run.another is not None
        target = self.run.another(f"world-{self.kind}-{self.boots}", registrations(self.kind, entries))
        self._ends.callback(target.stop)
        target.start()
        client = Client(target.url, self.run.journal)
        self._ends.callback(client.close)
        booted = Booted(self.run, client, target.url)
        self._up = (entries, booted)
        return booted

    def _judged(self, booted: Booted, estate: Estate, world: World) -> Finding[World] | None:
        exclusive, answer = booted.ask(world)
        if exclusive is None:
            return None
        if world.asker:
            right = estate.right(world.asker, world.identifier)
            if right is Right.OPEN or exclusive is not right.allowed:
                return None
            return self._finding(_ROWS[right], world, not right.allowed, booted, answer)
        expected = estate.reserved(world.identifier)
        if expected is Cover.OPEN or exclusive is (expected is Cover.INSIDE):
            return None
        sort = "layered" if estate.is_layered(world.identifier) else "plain"
        return self._finding(sort, world, expected is Cover.INSIDE, booted, answer)

    def _finding(self, blamed: str, world: World, exclusive: bool, booted: Booted, answer: Response) -> Finding[World]:
        who = f"appservice {world.asker}" if world.asker else "a human"
        entries = "; ".join(
            f"{owner} {'exclusive' if entry.exclusive else 'not exclusive'} {entry.regex} "
            f"(matches {told(entry.regex, world.identifier)})"
            for owner, entry in world.entries
        )
        rule = f"{'' if exclusive else 'no '}M_EXCLUSIVE for {who} and {world.identifier}: {entries}"
        return Finding(blamed, world, rule, f"{answer}\n{_recipe(world, booted.url)}", (answer.exchange,))


def _recipe(world: World, url: str) -> str:
    """What to do to see it again: the registration files, and a call."""
    files = [each for each in registrations(world.kind, world.entries) if each.users or each.aliases]
    lines = [f"start it with these registrations (any tokens will do) and the server name {SERVER_NAME}:"]
    lines += [f"  {each.id}.yaml: {json.dumps(each.as_json())}" for each in files]
    if world.kind == "users":
        body, token = _registering(world)
        words = ["curl", "-X", "POST", f"{url}{CLIENT}/register"]
        words += ["-H", f"Authorization: Bearer {token}"] if token else []
        words += ["-d", json.dumps(body)]
    else:
        words = ["curl", "-X", "PUT", f"{url}{CLIENT}/directory/room/{segment(world.identifier)}"]
        words += ["-H", "Authorization: Bearer <access token>", "-d", '{"room_id": "<room>"}']
    return "\n".join([*lines, f"then: {shlex.join(words)}"])
