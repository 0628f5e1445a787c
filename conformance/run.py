"""Everything a run consists of, put together once and handed to the checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from conformance.appservice.fleet import Appservice, Fleet
from conformance.appservice.registration import Registration
from conformance.catalogue.versions import Version
from conformance.homeserver.client import Client, NoAnswer, Response
from conformance.homeserver.humans import Humans
from conformance.homeserver.target import Managed, Restartable, Target
from conformance.homeserver.users import Names
from conformance.lanes.lane import Lanes
from conformance.markers import Markers
from conformance.namespaces.fuzz import Fuzz, Plan
from conformance.verdict import Blocked, Inconclusive
from conformance.wire.exchange import Exchange
from conformance.wire.journal import Journal
from conformance.wire.lateness import Lateness
from conformance.wire.redaction import Redactor

T = TypeVar("T")

#: Seconds between two looks at something that takes its time on the homeserver, such as a room list.
_POLL = 0.05


@dataclass(frozen=True)
class Budgets:
    """The waits of the catalogue, in seconds."""

    #: T_backoff: how long a homeserver's backoff is watched.
    backoff: float = 120.0
    #: T_block: how long a blocked query or a hung request is watched.
    block: float = 240.0
    #: T_quiet: how long nothing must arrive after a marker.
    quiet: float = 3.0
    #: T_deliver: how long an event may take to be pushed.
    deliver: float = 30.0
    #: The homeserver's waits in terms of a usual one's; what the catalogue says in seconds is scaled by it.
    scale: float = 1.0


class TargetGone(Exception):
    """The homeserver stopped answering; nothing after that is its requirements' fault."""


@dataclass
class Run:
    """One conformance run: the target, the fleet, and what was recorded."""

    target: Target
    fleet: Fleet
    journal: Journal
    redactor: Redactor
    client: Client
    humans: Humans
    names: Names
    budgets: Budgets
    strict: bool
    #: The version whose rules are judged; None: all of them, whatever the homeserver claims.
    version: Version | None = None
    #: What the homeserver's `/versions` lists.
    claimed: tuple[str, ...] = ()
    server_name: str = ""
    #: Name and version as the homeserver tells them.
    software: tuple[str, str | None] = ("", None)
    #: Appservices that cannot be used, by code, and why (REG-01).
    unloaded: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    #: How exactly times can be judged on this machine.
    lateness: Lateness = field(default_factory=Lateness)
    #: Makes another homeserver like the target, under some name, with some registrations and data of its own; None: the
    #: target is not ours to start.
    another: Callable[[str, Sequence[Registration]], Managed] | None = None
    #: How namespaces are fuzzed.
    plan: Plan = field(default_factory=Plan)
    #: The target itself, when it can be restarted.
    restartable: Restartable | None = None
    #: Where in the journal this homeserver was down to be restarted.
    restarted_at: list[int] = field(default_factory=list)
    _gone: str | None = None

    def __post_init__(self) -> None:
        self.markers = Markers(self)
        self.lanes = Lanes(self)
        self.fuzz = Fuzz(self)

    def beside(self, target: Target, fleet: Fleet, client: Client, humans: Humans, server_name: str) -> Run:
        """The same run on another homeserver, with other appservices and users: what comes is in the same journal."""
        return replace(
            self,
            target=target,
            fleet=fleet,
            client=client,
            humans=humans,
            server_name=server_name,
            unloaded={},
            restarted_at=[],
        )

    def lives(self, exchanges: Iterable[Exchange]) -> list[list[Exchange]]:
        """Exchanges by the life of the homeserver in which they began: what must not be repeated within one life may
        be after a crash.
        """
        lives: list[list[Exchange]] = [[] for _ in range(len(self.restarted_at) + 1)]
        for exchange in exchanges:
            lives[sum(exchange.number > restart for restart in self.restarted_at)].append(exchange)
        return lives

    def appservice(self, code: str) -> Appservice:
        """An appservice of the fleet.

        :raises Blocked: the homeserver has not loaded its registration.
        :raises Inconclusive: there is no registration file for it.
        """
        if code in self.unloaded:
            loading = "REG-01" if self.client.dialect.admission is None else "DRAFT-REG-01"
            raise Blocked(loading, self.unloaded[code])
        return self.fleet[code]

    def enroll(self, member: Appservice, body: Mapping[str, Any] | None = None) -> Response:
        """Have an appservice register itself over HTTP (drafts: Registration); whatever the homeserver answers.

        Once it is registered its sender is known by the rooms it makes.
        """
        answer = member.enroll(body)
        if answer.ok and isinstance(token := answer.json.get("hs_token"), str):
            self.redactor.add(token, f"hs_token of {member.code}")
            user_id = member.sender.whoami().json.get("user_id")
            if isinstance(user_id, str):
                member.sender.user_id = user_id
        return answer

    def eventually(self, probe: Callable[[], T | None]) -> T | None:
        """Ask the homeserver again and again until `probe` returns something; None when T_deliver is over."""
        deadline = time.monotonic() + self.budgets.deliver
        while (found := probe()) is None and time.monotonic() < deadline:
            time.sleep(_POLL)
        return found

    def alias(self, localpart: str) -> str:
        """A room alias on the homeserver."""
        return f"#{localpart}:{self.server_name}"

    def user_id(self, localpart: str) -> str:
        """A user ID on the homeserver."""
        return f"@{localpart}:{self.server_name}"

    def check_alive(self, ask: bool = False) -> None:
        """Make sure that the homeserver is still there.

        :param ask: send it a request, not only look at its process.
        :raises TargetGone: it is not, or was not before.
        """
        if self._gone is None and not self.target.alive():
            self._declare_gone()
        if self._gone is None and ask:
            try:
                self.client.call("GET", "/_matrix/client/versions", party="suite", timeout=10.0)
            except NoAnswer:
                self._declare_gone()
            except Inconclusive:
                pass  # it limits the rate of our calls: it is there
        if self._gone is not None:
            raise TargetGone(self._gone)

    def _declare_gone(self) -> None:
        moment = time.monotonic() - self.journal.began
        self._gone = f"the homeserver stopped answering at +{moment:.1f} s: {self.target.obituary()}"
