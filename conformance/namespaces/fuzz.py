"""The fuzzing of one run: which questions are put to the homeserver, and what its answers are worth.

Each *hunt* is one way to ask. It is made once, when the first check needs it, and may blame several requirements; the
checks take from it what is theirs.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from conformance.appservice.routes import Kind as Route
from conformance.homeserver.client import CLIENT, NoAnswer, Response, segment
from conformance.homeserver.signup import Attempt
from conformance.namespaces.cells import CODES, Cell, cells_of
from conformance.namespaces.hunt import Finding, Hunt
from conformance.namespaces.ids import is_legal
from conformance.namespaces.oracle import Cover, Entry, Estate, Kind, Right
from conformance.namespaces.readings import Observation, Observations, as_basic, level, told
from conformance.namespaces.shapes import is_common
from conformance.verdict import Broken, Inconclusive, Undecided, caution, control, prefer, record
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.appservice.registration import Registration
    from conformance.homeserver.users import User
    from conformance.namespaces.strategies import Probe
    from conformance.run import Run

#: How many answers about IDs inside, and how many about IDs outside, a verdict needs.
ENOUGH = 50

#: Refusals for the rate of requests that a hunt puts up with.
LIMITED = 5

#: The share of the examples that the hunts of appservices get, which have a part each.
_OF_APPSERVICES = 3


@dataclass(frozen=True)
class Plan:
    """What the user asked for."""

    seed: int = 1
    #: Questions of each hunt; 0: no fuzzing.
    examples: int = 0
    #: Worlds that are booted (`--fuzz-namespaces`).
    worlds: int = 0


@dataclass
class Tally:
    """What a hunt has seen."""

    plan: Plan
    findings: dict[str, Finding[Any]] = field(default_factory=dict)
    #: Answers about IDs inside and outside; those that say nothing about namespaces are discarded.
    counted: Counter[str] = field(default_factory=Counter)
    #: Every ID with what it was taken for.
    answers: dict[str, bool] = field(default_factory=dict)
    why: Counter[str] = field(default_factory=Counter)

    def has(self, *sorts: str) -> bool:
        """Whether anything of such sorts was found."""
        return not self.findings.keys().isdisjoint(sorts)

    def accuse(self, *rows: str, softly: Sequence[str] = ()) -> None:
        """Say what was found about requirements.

        :param softly: those whose deviation is a failure in the strict reading only.
        """
        for row in rows:
            if row in self.findings:
                raise Broken(*self._said(self.findings[row]))
        for row in softly:
            if row in self.findings:
                prefer(False, *self._said(self.findings[row]))

    def _said(self, finding: Finding[Any]) -> tuple[Any, ...]:
        worlds = f" --fuzz-namespaces {self.plan.worlds}" if self.plan.worlds else ""
        again = f"--fuzz-seed {self.plan.seed} --fuzz-examples {self.plan.examples}{worlds} asks it again"
        seen, line_break, recipe = finding.seen.partition("\n")
        return finding.expected, f"{seen} ({again}){line_break}{recipe}", *finding.exchanges

    def must_suffice(self) -> None:
        """Make sure that enough was seen to say anything.

        :raises Inconclusive: too few answers about IDs inside, or about IDs outside.
        """
        inside, outside = self.counted[Cover.INSIDE], self.counted[Cover.OUTSIDE]
        others = ", ".join(f"{count} {what}" for what, count in self.why.most_common(3))
        control(
            min(inside, outside) >= ENOUGH,
            f"{inside} answers about IDs inside and {outside} about IDs outside are too few ({ENOUGH} of each): raise "
            f"--fuzz-examples{f'; answers that say nothing: {others}' if others else ''}",
        )
        record(f"{inside} IDs inside, {outside} outside, {self.counted[Cover.OPEN]} open; seed {self.plan.seed}")


class Fuzz:
    """The hunts of a run, and what they have told about the homeserver."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.plan = run.plan
        #: Those who registered a user in a hunt, by user ID.
        self.registered: dict[str, str] = {}
        self.open_cases: dict[Kind, Observations] = {}
        #: The registrations of worlds in which something was wrong.
        self.counterexamples: dict[str, list[Registration]] = {}
        self._tallies: dict[str, Tally | Exception] = {}

    @cached_property
    def estates(self) -> dict[Kind, Estate]:
        """All namespaces that the homeserver has loaded."""
        loaded = [each.registration for each in self.run.fleet if each.code not in self.run.unloaded]
        return {"users": Estate(loaded, "users"), "aliases": Estate(loaded, "aliases")}

    def cells(self, kind: Kind) -> list[Cell]:
        """The cells that IDs are drawn for.

        :raises Inconclusive: there are no fuzz registrations in this run.
        :raises Blocked: the homeserver has not loaded them.
        """
        if not any(code in self.run.fleet for code in CODES):
            raise Inconclusive(
                "no fuzz registrations are among the files given: "
                "`as-conformance registrations --fuzz-seed N` writes them"
            )
        members = [self.run.appservice(code) for code in CODES if code in self.run.fleet]
        cells = cells_of([each.registration for each in members], kind)
        control(cells, f"the fuzz registrations have no {kind} that IDs can be drawn for")
        return cells

    def of_worlds(self, kind: Kind) -> Tally:
        """Homeservers are booted with generated registrations, if that was asked for."""

        def search(tally: Tally) -> None:
            if self.plan.worlds and self.run.another is not None:
                from conformance.namespaces.worlds import Worlds, registrations

                tally.findings = dict(Worlds(self.run, kind).search())
                for row, finding in tally.findings.items():
                    world = finding.question
                    self.counterexamples[f"{kind}-{row.lower()}"] = registrations(kind, world.entries)

        return self._once(f"worlds of {kind}", search)

    def lines(self) -> list[str]:
        """How the homeserver reads regular expressions, as far as it has shown."""
        return [line for each in self.open_cases.values() for line in each.lines()]

    # The hunts

    def of_humans(self) -> Tally:
        """Humans register: the first step tells whether a name is reserved, and makes nothing."""
        return self._once("humans", self._humans)

    def of_appservices(self) -> Tally:
        """F1, F2 and F3 register ghosts in each other's namespaces."""
        return self._once("appservices", self._appservices)

    def of_aliases(self) -> Tally:
        """Humans make aliases, and delete them again."""
        return self._once("aliases", self._aliases)

    def of_appservices_aliases(self) -> Tally:
        """F1, F2 and F3 make aliases; others try to delete them."""
        return self._once("appservices' aliases", self._appservices_aliases)

    def of_queries(self) -> Tally:
        """Unknown aliases are looked up, to see which appservices are asked about them."""
        return self._once("queries", self._queries)

    def of_identities(self) -> Tally:
        """F1, F2 and F3 act as each other's ghosts."""
        return self._once("identities", self._identities)

    def accuse_as_well(self, hunt: Callable[[], Tally], row: str, *, softly: bool = False) -> None:
        """Let a hunt accuse of a requirement that has a check of its own.

        It says nothing when it cannot be made, or when the homeserver matches IDs wrongly to begin with, which is the
        subject of NSUSER-13 and NSALIAS-16.
        """
        try:
            plain = self.of_aliases() if row.startswith(("NSALIAS", "ALIASQ")) else self.of_humans()
            tallies = [] if plain.has("plain", "layered") else [hunt()]
            tallies += [self.of_worlds("users")] if row.startswith("NSUSER") else []
        except (Undecided, NoAnswer):
            return
        for tally in tallies:
            tally.accuse(*(() if softly else (row,)), softly=(row,) if softly else ())

    def _once(self, name: str, hunt: Callable[[Tally], None]) -> Tally:
        if name not in self._tallies:
            tally = Tally(self.plan)
            try:
                hunt(tally)
                self._tallies[name] = tally
            except Exception as error:
                self._tallies[name] = error
        found = self._tallies[name]
        if isinstance(found, Exception):
            raise found
        return found

    def _search(
        self,
        tally: Tally,
        kind: Kind,
        ask: Callable[[Probe], Finding[Probe] | None],
        askers: Sequence[str] = ("",),
        examples: int | None = None,
    ) -> None:
        """Have Hypothesis ask."""
        from conformance.namespaces.strategies import probes, sweep

        cells, server_name = self.cells(kind), self.run.server_name
        hunt = Hunt[Any](self.plan.seed, self.plan.examples if examples is None else examples)
        marker, limited = self.run.journal.marker(), 0

        def legally(probe: Probe) -> Finding[Probe] | None:
            nonlocal marker, limited
            if not is_legal(kind, probe.identifier, server_name):
                return None
            finding = ask(probe)
            limited += len(self.run.journal.since(marker, lambda exchange: exchange.status == 429))
            marker = self.run.journal.marker()
            if limited > LIMITED:
                raise Inconclusive(
                    "the homeserver limits the rate of such requests: raise its limits, or give fewer --fuzz-examples"
                )
            return finding

        first = list(itertools.islice(sweep(cells, server_name, self.plan.seed, askers), hunt.examples // 2))
        try:
            hunt.search(
                probes(cells, server_name, askers), legally, lambda probe: (probe.identifier, probe.asker), first
            )
        finally:
            tally.findings.update(hunt.findings)

    # Humans' names

    def _humans(self, tally: Tally) -> None:
        estate = self.estates["users"]
        body = self._first_step()

        def ask(probe: Probe) -> Finding[Probe] | None:
            attempt = self._attempt(probe.identifier[1:].partition(":")[0], body)
            answered = attempt.exclusive if attempt.exclusive or attempt.proceeds else None
            what = f"a human who registers {probe.identifier}"
            return self._judged(tally, estate, probe, answered, what, str(attempt), attempt.exchange)

        self._search(tally, "users", ask)

    def _first_step(self) -> dict[str, str]:
        """What goes with a name: nothing, where that is enough to be told that it is reserved; hashing passwords takes
        homeservers longer than all the rest.
        """
        reserved = self.run.names.fresh(self.run.appservice("A").prefix)
        if self._attempt(reserved, {}).exclusive:
            return {}
        password = f"Fuzz-{self.run.names.fresh()}-2sQ"
        self.run.redactor.add(password, "password")
        return {"password": password}

    def _attempt(self, localpart: str, body: dict[str, str]) -> Attempt:
        sent = {"username": localpart, **body}
        answer = self.run.client.call("POST", f"{CLIENT}/register", party="human", json=sent)
        return Attempt(localpart, answer, sent)

    def _judged(
        self,
        tally: Tally,
        estate: Estate,
        probe: Probe,
        answered: bool | None,
        what: str,
        seen: str,
        exchange: Exchange,
    ) -> Finding[Probe] | None:
        """Whether an ID was rightly taken for reserved or not; None: the answer says nothing about namespaces."""
        identifier = probe.identifier
        expected = estate.reserved(identifier)
        if answered is None:
            tally.why[seen] += 1
            return None
        tally.counted[expected] += 1
        tally.answers[identifier] = answered
        layered = estate.is_layered(identifier)
        if expected is Cover.OPEN:
            if not layered:
                cases = self.open_cases.setdefault(estate.kind, Observations(estate.kind))
                cases.seen.append(Observation(identifier, tuple(estate.touching(identifier)), answered))
            return None
        if answered is (expected is Cover.INSIDE):
            return None
        rule = f"{'' if expected is Cover.INSIDE else 'no '}M_EXCLUSIVE for {what}"
        return Finding(
            "layered" if layered else "plain", probe, f"{rule}: {_because(estate, probe)}", seen, (exchange,)
        )

    def judge(self, tally: Tally, kind: Kind) -> None:
        """Say what a hunt of humans has found about IDs that are, and are not, reserved.

        :raises Broken: an ID was taken for what it is not.
        :raises Inconclusive: too little was seen.
        """
        suspect = tally.findings.get("plain") or tally.findings.get("layered")
        if suspect is not None and self._as_basic(tally, kind):
            what = "namespaces read as extended regular expressions, as all bridges write them; by its words the"
            why = " specification since v1.5 allows basic ones too"
            caution(False, what + why, f"all answers fit basic ones: {suspect.seen}", *suspect.exchanges)
            return
        self.of_worlds(kind).accuse("plain", softly=("layered",))  # the smallest that there can be, so they come first
        tally.accuse("plain", softly=("layered",))
        if suspect is None:
            tally.must_suffice()

    def _as_basic(self, tally: Tally, kind: Kind) -> bool:
        """Whether a homeserver that takes POSIX regular expressions for basic ones would have answered the same."""
        every = [entry for owner in self.estates[kind].owners.values() for entry in owner]
        exclusive = [entry for entry in every if entry.exclusive and is_common(entry.namespace.regex)]
        for identifier, answered in tally.answers.items():
            near = [entry.namespace.regex for entry in exclusive if (entry.tag or "") in identifier.lower()]
            covers = [as_basic(regex, identifier) for regex in near]
            if None not in covers and answered is not any(covers):
                return False
        return any(level(entry.namespace.regex) == "extended" for entry in exclusive)

    # Appservices' names

    def _appservices(self, tally: Tally) -> None:
        estate = self.estates["users"]
        rows = {
            Right.OWN: "NSUSER-08",
            Right.SHARED: "NSUSER-09",
            Right.NOBODYS: "NSUSER-07",
            Right.ANOTHERS: "NSUSER-05",
            Right.OVERLAPPING: "NSUSER-06",
        }

        def ask(probe: Probe) -> Finding[Probe] | None:
            member = self.run.appservice(probe.asker)
            answer = member.register(probe.identifier[1:].partition(":")[0])
            if answer.ok:
                self.registered[probe.identifier] = probe.asker
            what = f"{member} registers {probe.identifier}"
            return self._allowed(tally, estate, probe, answer, rows, what)

        self._search(tally, "users", ask, CODES, self.plan.examples // _OF_APPSERVICES)

    def _allowed(
        self, tally: Tally, estate: Estate, probe: Probe, answer: Response, rows: dict[Right, str], what: str
    ) -> Finding[Probe] | None:
        """Whether an appservice was rightly let make something."""
        right = estate.right(probe.asker, probe.identifier)
        refused = answer.refused and answer.errcode == "M_EXCLUSIVE"
        if right is Right.OPEN or not (answer.ok or refused):
            tally.why[str(answer)] += 1
            return None
        tally.counted[right] += 1
        if answer.ok is right.allowed:
            return None
        expected = f"{'200' if right.allowed else 'M_EXCLUSIVE'} when {what}, which is {right}"
        return Finding(rows[right], probe, f"{expected}: {_because(estate, probe)}", str(answer), (answer.exchange,))

    def _identities(self, tally: Tally) -> None:
        self.of_appservices()
        estate = self.estates["users"]
        ghosts = sorted(self.registered.items(), key=lambda item: (len(item[0]), item[0]))
        for user_id, owner in ghosts[: self.plan.examples // len(CODES)]:
            for code in CODES:
                user = self.run.appservice(code).as_user(user_id)
                own = estate.covered(code, user_id)
                exclusive = estate.reserved(user_id) is Cover.INSIDE
                answer = user.whoami()
                row, expected = None, ""
                if own is Cover.OUTSIDE and answer.ok and answer.json.get("user_id") == user_id:
                    row = "IDENT-05" if exclusive else "IDENT-03"
                    expected = (
                        f"403 when {self.run.appservice(code)} acts as {user_id}, which is outside its namespaces"
                    )
                elif own is Cover.INSIDE and code == owner and not exclusive and answer.status == 403:
                    row = "IDENT-18"
                    expected = f"{self.run.appservice(code)} may act as {user_id}, which it registered"
                if row is not None and row not in tally.findings:
                    tally.findings[row] = Finding(row, user_id, expected, str(answer), (answer.exchange,))

    # Aliases

    @cached_property
    def _room(self) -> tuple[User, str]:
        human = self.run.humans.on_duty()
        return human, human.create_room()

    @cached_property
    def _rooms(self) -> dict[str, str]:
        """A room of each sender's own."""
        return {code: self.run.appservice(code).sender.create_room() for code in CODES}

    def _aliases(self, tally: Tally) -> None:
        estate = self.estates["aliases"]
        human, room = self._room

        def ask(probe: Probe) -> Finding[Probe] | None:
            answer = _set(human, probe.identifier, room)
            if answer.ok:
                _delete(human, probe.identifier)
            exclusive = answer.refused and answer.errcode == "M_EXCLUSIVE"
            answered = exclusive if exclusive or answer.ok else None
            what = f"a human who makes the alias {probe.identifier}"
            return self._judged(tally, estate, probe, answered, what, str(answer), answer.exchange)

        self._search(tally, "aliases", ask)

    def _appservices_aliases(self, tally: Tally) -> None:
        estate = self.estates["aliases"]
        human, _ = self._room
        rows = {
            Right.OWN: "NSALIAS-07",
            Right.SHARED: "NSALIAS-07",
            Right.NOBODYS: "NSALIAS-06",
            Right.ANOTHERS: "NSALIAS-04",
            Right.OVERLAPPING: "NSALIAS-05",
        }

        def ask(probe: Probe) -> Finding[Probe] | None:
            member = self.run.appservice(probe.asker)
            answer = _set(member.sender, probe.identifier, self._rooms[probe.asker])
            finding = self._allowed(tally, estate, probe, answer, rows, f"{member} makes {probe.identifier}")
            if not answer.ok:
                return finding
            right = estate.right(probe.asker, probe.identifier)
            if finding is None and right is Right.OWN:
                finding = self._deletions(estate, probe, human)
            last = _delete(member.sender, probe.identifier)
            if finding is None and right.allowed and last.refused and last.errcode in ("M_EXCLUSIVE", "M_FORBIDDEN"):
                expected = f"200 when {member} deletes {probe.identifier}, which it made"
                finding = Finding("NSALIAS-10", probe, expected, str(last), (last.exchange,))
            return finding

        self._search(tally, "aliases", ask, CODES, self.plan.examples // _OF_APPSERVICES)

    def _deletions(self, estate: Estate, probe: Probe, human: User) -> Finding[Probe] | None:
        """Whether those may delete an appservice's exclusive alias who must not."""
        alias = probe.identifier
        others: list[tuple[User, str]] = [(human, "NSALIAS-09")]
        for code in CODES:
            if code != probe.asker:
                overlapping = estate.right(code, alias) is Right.OVERLAPPING
                outside = estate.right(code, alias) is Right.ANOTHERS
                row = "NSALIAS-18" if overlapping else "NSALIAS-12"
                others += [(self.run.appservice(code).sender, row)] if overlapping or outside else []
        for user, row in others:
            answer = _delete(user, alias)
            if answer.ok:
                expected = f"4xx when {user} deletes {alias}, exclusive to {probe.asker}: {_because(estate, probe)}"
                return Finding(row, probe, expected, str(answer), (answer.exchange,))
        return None

    # Queries

    def _queries(self, tally: Tally) -> None:
        estate = self.estates["aliases"]
        askable = [each for each in self.run.fleet if each.listener is not None and each.code not in self.run.unloaded]

        def ask(probe: Probe) -> Finding[Probe] | None:
            alias = probe.identifier
            marker = self.run.journal.marker()
            answer = self.run.client.call("GET", f"{CLIENT}/directory/room/{segment(alias)}", party="human")
            asked = {each.code: each.requests(Route.ALIAS, marker, alias) for each in askable}
            for member in askable:
                covered = estate.covered(member.code, alias)
                exchanges = asked[member.code]
                if covered is Cover.OUTSIDE and exchanges:
                    expected = f"{member} not asked about {alias}, which none of its aliases entries matches anywhere"
                    seen = f"{exchanges[0].method} {exchanges[0].target}"
                    return Finding("NSALIAS-19", probe, f"{expected}: {_because(estate, probe)}", seen, (exchanges[0],))
            covers = [estate.covered(member.code, alias) for member in askable]
            for_one = Cover.INSIDE if Cover.INSIDE in covers else Cover.OPEN if Cover.OPEN in covers else Cover.OUTSIDE
            if for_one is Cover.INSIDE and not any(asked.values()):
                tally.why["nobody asked about an alias inside"] += 1
                if answer.status == 404 and covers.count(Cover.INSIDE) == 1 and Cover.OPEN not in covers:
                    (member,) = (each for each in askable if estate.covered(each.code, alias) is Cover.INSIDE)
                    if member.requests(Route.ALIAS, marker):  # how an alias is written in the path is ALIASQ-02's
                        return None
                    expected = f"{member} asked about {alias}: {_because(estate, probe)}"
                    return Finding("ALIASQ-05", probe, expected, f"{answer}, nobody asked", (answer.exchange,))
                return None
            tally.counted[for_one] += 1
            return None

        # Of the aliases drawn fewer are outside for an appservice than for a human.
        self._search(tally, "aliases", ask, examples=self.plan.examples * 4 // 3)
        if tally.counted[Cover.INSIDE] < ENOUGH:
            # A look-up need not lead to a query, only a request to join must.
            tally.findings.pop("ALIASQ-05", None)


def _because(estate: Estate, probe: Probe) -> str:
    """The entries that decide, and how they can be read."""
    near: Sequence[Entry] = estate.touching(probe.identifier) or probe.cell.entries
    lines = [
        f"{each} ({level(each.namespace.regex)} POSIX; matches {told(each.namespace.regex, probe.identifier)})"
        for each in near
    ]
    return "; ".join(lines)


def _set(user: User, alias: str, room: str) -> Response:
    return user.call("PUT", f"/directory/room/{segment(alias)}", json={"room_id": room})


def _delete(user: User, alias: str) -> Response:
    return user.call("DELETE", f"/directory/room/{segment(alias)}")
