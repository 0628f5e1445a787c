"""V5: many short outages, each ended while people go on talking."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conformance.homeserver.users import User
from conformance.lanes.lane import Scene
from conformance.lanes.outages import ERROR, OVERDUE, Outage, OutageLane
from conformance.verdict import Blocked, Inconclusive

if TYPE_CHECKING:
    from conformance.run import Run


@dataclass(frozen=True)
class Race:
    """One short outage, and what was sent before, during and just after it."""

    outage: Outage
    #: The events by room, each in order of sending.
    sent: dict[str, list[str]]
    #: Those that had not arrived when nothing had come for twice the first gap.
    missing: set[str]


@dataclass
class _Talk:
    """Somebody who sends one message after the other into a room until told to stop."""

    user: User
    room: str
    sent: list[str] = field(default_factory=list)
    failure: BaseException | None = None

    def go_on(self, stop: threading.Event, pause: float) -> None:
        try:
            while not stop.wait(pause):
                self.sent.append(self.user.send(self.room))
        except BaseException as error:
            self.failure = error


class V5(OutageLane):
    """The fifth victim."""

    name = "V5"
    owns = ("V5",)

    #: Outages, and people who talk meanwhile.
    OUTAGES, PEOPLE = 10, 3
    #: Seconds between two messages of one person.
    PAUSE = 0.2

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.races = Scene[list[Race]]()

    def play(self) -> None:
        """Outage after outage."""
        v5 = self.appservice("V5")
        rooms = [self.room_of(v5) for _ in range(self.PEOPLE)]
        people = [self.run.humans.another() for _ in range(self.PEOPLE)]
        for person, room in zip(people, rooms, strict=True):
            person.join(room)
        races: list[Race] = []
        for number in range(self.OUTAGES):
            self.status = f"outage {number + 1} of {self.OUTAGES}"
            races.append(self._race(people, rooms, races))
            if races[-1].missing:
                break  # decided
        self.races.set(races)

    def _race(self, people: list[User], rooms: list[str], before: list[Race]) -> Race:
        v5 = self.appservice("V5")
        talks = [_Talk(person, room) for person, room in zip(people, rooms, strict=True)]
        stop = threading.Event()
        threads = [threading.Thread(target=each.go_on, args=(stop, self.PAUSE), daemon=True) for each in talks]
        try:
            with self.outage(v5, ERROR) as outage:
                for thread in threads:
                    thread.start()
                self.first_failure(outage)
            # The first attempt after the outage begins the recovery; the talk goes on into it, for a moment.
            back = self.until(v5.is_push, outage.healed_at or 0, self.run.budgets.backoff)
            if back is None and not self._overdue(before):
                within = f"within --backoff-wait {self.run.budgets.backoff:g} s of an outage"
                raise Blocked("RETRY-01", f"no attempt came {within}", *(each.first for each in outage.attempts[:1]))
            self.pause(random.uniform(0.2, 0.4))
        finally:
            stop.set()
            for thread in threads:
                thread.join(self.run.budgets.deliver)
        for talk in talks:
            if talk.failure is not None:
                raise Inconclusive(f"set-up: {talk.user} could not go on talking: {talk.failure}")
        sent = {talk.room: talk.sent for talk in talks}
        everything = {event for events in sent.values() for event in events}
        outage.sent += sorted(everything)
        return Race(outage, sent, self._missing(outage, everything))

    def _overdue(self, before: list[Race]) -> bool:
        """Whether T_backoff is many times what the longest first gap of the outages before was."""
        gaps = [race.outage.attempts[1].started - race.outage.attempts[0].started for race in before]
        return bool(gaps) and OVERDUE * max(gaps) <= self.run.budgets.backoff

    def _missing(self, outage: Outage, sent: set[str]) -> set[str]:
        """What has not been acknowledged once nothing came for twice the first gap (and T_quiet)."""
        gaps, attempts = outage.spacing.gaps, outage.attempts
        first_gap = gaps[0] if gaps else attempts[1].started - attempts[0].started if len(attempts) > 1 else 0.0
        self.imposed(first_gap)
        return self.await_all(outage, sent, 2 * first_gap + self.run.budgets.quiet)
