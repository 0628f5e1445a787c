"""Urls: appservices whose urls name their host in another way than by an IPv4 address (AS: Registration)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.appservice.fleet import Appservice
from conformance.judges.transactions import acknowledged, carries
from conformance.lanes.lane import Lane, Scene
from conformance.verdict import Blocked, Undecided
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Run


@dataclass(frozen=True)
class Reached:
    """A message in a room with ghosts of A and of another appservice; A has got it."""

    member: Appservice
    #: Why the registration is not loaded; None: it is.
    unloaded: str | None
    event: str = ""
    #: The transaction with it; None when it did not come within T_deliver.
    delivered: Exchange | None = None


class Urls(Lane):
    """Each is sent one message: those that cannot be reached are waited for here, beside the checks."""

    name = "urls"
    owns = ("Y", "Z")

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.ipv6 = Scene[Reached]()
        self.named = Scene[Reached]()

    def play(self) -> None:
        """A message to each."""
        for scene, code, row in ((self.ipv6, "Y", "REG-14"), (self.named, "Z", "REG-15")):
            if self.wants(row):
                try:
                    scene.set(self._reached(self.run.fleet[code]))
                except Undecided as error:  # the other does not need it
                    scene.fail(error)

    def _reached(self, member: Appservice) -> Reached:
        if member.code in self.run.unloaded:
            if not self.run.unloaded.keys() <= set(self.owns):  # others too: that is no matter of its url
                raise Blocked("REG-01", self.run.unloaded[member.code])
            return Reached(member, self.run.unloaded[member.code])
        self.status = f"waiting for a message at {member.registration.url}"
        room, human, a = self.human.create_room(), self.human, self.appservice("A")
        for ghost in (a.ghost(), member.ghost()):
            ghost.join(room)
        human.send(room)  # the first after a join is INTEREST-30
        event = human.send(room)
        self.arrives(a, event)
        delivered = self.until(
            lambda e: e.party == member.code and acknowledged(e) and carries(e, event),
            0,
            self.run.budgets.deliver,
        )
        return Reached(member, None, event, delivered)
