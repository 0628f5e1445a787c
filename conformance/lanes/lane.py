"""What all lanes have in common: their thread, their scenes, their end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from conformance.judges.transactions import acknowledged, carries
from conformance.verdict import Inconclusive, Undecided
from conformance.wire.exchange import Exchange

if TYPE_CHECKING:
    from conformance.appservice.fleet import Appservice
    from conformance.homeserver.users import User
    from conformance.run import Run

T = TypeVar("T")
L = TypeVar("L", bound="Lane")

#: Seconds that the end of the run gives a lane to notice it.
_TO_END = 5.0

#: Seconds between two looks at whether the run is ending.
_LOOK = 0.25


class LaneDied(Exception):
    """A lane failed: an error of the suite on the lane's own requirements, never the homeserver's fault."""


class RunEnded(Exception):
    """The run is over before the lane is: nothing is decided."""


class Scene(Generic[T]):
    """Something that a lane is going to observe. Checks wait for it; the lane sets it once."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether it has been observed, or never will be."""
        return self._done.is_set()

    def set(self, value: T) -> None:
        """The lane has observed it."""
        if not self._done.is_set():
            self._value = value
            self._done.set()

    def fail(self, error: BaseException) -> None:
        """The lane cannot observe it any more; without effect on what has been."""
        if not self._done.is_set():
            self._error = error
            self._done.set()

    def get(self) -> T:
        """What was observed, waiting for it. The lane ends by its own deadlines, so that this does too.

        :raises Undecided: the lane could not make the observation, and why.
        :raises LaneDied: the lane has failed.
        """
        self._done.wait()
        if isinstance(self._error, Undecided):
            raise self._error
        if self._error is not None:
            raise LaneDied(f"{type(self._error).__name__}: {self._error}") from self._error
        assert self._value is not None
        return self._value


class Lane:
    """One long scenario. A subclass has scenes as attributes and observes them one after the other in :meth:`play`."""

    #: What it is called in results and on the status line.
    name: ClassVar[str]
    #: The appservices that are its own.
    owns: ClassVar[tuple[str, ...]] = ()
    #: Whether it plays on a homeserver of its own, or when all others are over: nobody waits for its end.
    aside: bool = False

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ending = threading.Event()
        #: What it waits for, in words; empty when it is over.
        self.status = "starting"
        #: The longest wait that the homeserver imposed, in seconds.
        self.longest_wait = 0.0
        #: How long it played, in seconds.
        self.seconds = 0.0
        #: The requirements whose checks were selected; a scene that none of them needs may be left out.
        self.wanted: frozenset[str] = frozenset()
        self._thread = threading.Thread(target=self._run, name=f"lane {self.name}", daemon=True)

    def play(self) -> None:
        """Observe all scenes. What it raises goes to those that are left: :class:`Undecided` is their verdict."""
        raise NotImplementedError

    @property
    def scenes(self) -> list[Scene[object]]:
        """All scenes."""
        return [value for value in vars(self).values() if isinstance(value, Scene)]

    # For those who play

    def wants(self, *ids: str) -> bool:
        """Whether any of these requirements is to be decided in this run."""
        return not self.wanted.isdisjoint(ids)

    def appservice(self, code: str) -> Appservice:
        """An appservice of the fleet.

        :raises Undecided: it cannot be used.
        """
        return self.run.appservice(code)

    @cached_property
    def human(self) -> User:
        """An ordinary user, the same all the time and nobody else's."""
        return self.run.humans.another()

    def room_of(self, *members: Appservice, within: float | None = None) -> str:
        """A room of a human with a ghost of each of these appservices, from which ordinary messages arrive.

        :param within: seconds that they may take; T_deliver if not said otherwise.
        :raises Inconclusive: they do not.
        """
        human = self.human
        room = human.create_room()
        for member in members:
            member.ghost().join(room)
        human.send(room)  # a homeserver that loses the first message after a join fails INTEREST-30 only
        event = human.send(room)
        for member in members:
            self.arrives(member, event, within)
        return room

    def arrives(self, member: Appservice, event_id: str, within: float | None = None) -> Exchange:
        """The first acknowledged transaction with an event, waiting T_deliver or `within` seconds for it.

        :raises Inconclusive: it did not come.
        """
        wait = self.run.budgets.deliver if within is None else within
        found = self.until(
            lambda exchange: exchange.party == member.code and acknowledged(exchange) and carries(exchange, event_id),
            0,
            wait,
        )
        if found is None:
            raise Inconclusive(f"{event_id} did not reach {member} within {wait:g} s, with nothing in its way")
        return found

    def until(self, predicate: Callable[[Exchange], bool], since: int, within: float) -> Exchange | None:
        """The first exchange since a marker that satisfies a predicate; None when none has within some seconds.

        :raises RunEnded: the run is over.
        """
        deadline = time.monotonic() + within
        while True:
            left = deadline - time.monotonic()
            found = self.run.journal.wait_for(predicate, since, max(0.0, min(left, _LOOK)))
            if found is not None:
                return found
            if self.ending.is_set():
                raise RunEnded(self.name)
            if left <= 0:
                return None

    def answered(self, exchange: Exchange) -> None:
        """Wait until an exchange is over, T_deliver at most."""
        self.until(lambda each: each is exchange and each.answer_until is not None, 0, self.run.budgets.deliver)

    def pause(self, seconds: float) -> None:
        """Let time pass that is itself part of the scenario.

        :raises RunEnded: the run is over.
        """
        if self.ending.wait(seconds):
            raise RunEnded(self.name)

    def imposed(self, seconds: float) -> None:
        """Note a wait that the homeserver imposed."""
        self.longest_wait = max(self.longest_wait, seconds)

    # The thread

    def start(self) -> None:
        """Begin to play, if it has not begun."""
        if self._thread.ident is None:
            self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        error: BaseException = LaneDied(f"lane {self.name} ended without it")
        try:
            self.play()
        except RunEnded:
            error = Inconclusive("the run ended while the homeserver was waited for")
        except BaseException as caught:  # whatever it is, the checks that wait must learn of it
            error = caught
        finally:
            self.seconds = time.monotonic() - began
            self.status = ""
            for scene in self.scenes:
                scene.fail(error)

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._thread.ident is not None and not self._thread.is_alive()


class Lanes:
    """The lanes of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lanes: dict[type[Lane], Lane] = {}
        #: Set when all checks are done but those that wait for lanes or judge the whole run.
        self.quick_checks_over = threading.Event()

    def begin(self, wanted: dict[type[Lane], set[str]]) -> None:
        """Get the lanes ready whose requirements are to be decided."""
        for kind, ids in wanted.items():
            lane = self._lanes[kind] = kind(self._run)
            lane.wanted = frozenset(ids)

    def start(self, lanes: Iterable[Lane]) -> None:
        """Have some lanes play that do not yet."""
        for lane in lanes:
            lane.start()

    def __getitem__(self, kind: type[L]) -> L:
        lane = self._lanes[kind]
        assert isinstance(lane, kind)
        return lane

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    @property
    def playing(self) -> list[Lane]:
        """Those that are not over."""
        return [lane for lane in self if not lane.over]

    def others_are_over(self, lane: Lane) -> bool:
        """Whether nothing on this homeserver is left that a lane could disturb or be disturbed by."""
        others = (each for each in self.playing if each is not lane and not each.aside)
        return self.quick_checks_over.is_set() and not any(others)

    def statuses(self) -> Iterable[str]:
        """What is being waited for, and by which lane."""
        return [f"{lane.name} {lane.status}" for lane in self.playing]

    def stop(self) -> None:
        """End those that still play."""
        for lane in self:
            lane.ending.set()
            lane.start()  # one that never began tells its checks so
        for lane in self:
            lane.join(_TO_END)
