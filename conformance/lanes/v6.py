"""V6: the beginning of an answer, and then nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.appservice.script import Ending, half_a_body
from conformance.lanes.lane import Scene
from conformance.lanes.outages import Outage, OutageLane
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.run import Run


@dataclass(frozen=True)
class HalfAnswer:
    """V6 answers with a head and the first byte of the body, and says nothing more."""

    outage: Outage
    #: The second attempt, or the next event: either shows that the queue has moved on.
    moved_on: Exchange | None


class V6(OutageLane):
    """The sixth victim."""

    name = "V6"
    owns = ("V6",)

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.half = Scene[HalfAnswer]()

    def play(self) -> None:
        """Half an answer, another event, and a long look."""
        v6 = self.appservice("V6")
        listener = v6.listener
        assert listener is not None
        room = self.room_of(v6)
        listener.close_each = True
        self.drain(v6, room)
        with self.outage(v6, half_a_body(Ending.SILENCE)) as outage:
            outage.sent.append(self.human.send(room))
            self.first_failure(outage)
            marker = self.run.journal.marker()
            outage.sent.append(self.human.send(room))
            self.status = f"silent in the middle of an answer, for {self.run.budgets.block:.0f} s at most"
            moved_on = self.until(v6.is_push, marker, self.run.budgets.block)
            if moved_on is not None:
                self.imposed(moved_on.started - outage.failed[0].started)
        listener.close_each = False
        self.half.set(HalfAnswer(outage, moved_on))
