"""What lanes promise to the checks that wait for them, with lanes that play nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from conformance.lanes.lane import Lane, LaneDied, Lanes, RunEnded, Scene
from conformance.verdict import Blocked, Inconclusive
from conformance.wire.exchange import Direction
from conformance.wire.journal import Journal


class FakeRun:
    """As much of a run as a lane without appservices needs."""

    def __init__(self) -> None:
        self.journal = Journal()


class Scripted(Lane):
    """A lane that does what a test says."""

    name = "scripted"

    def __init__(self, run: Any, play: Any = None) -> None:
        super().__init__(run)
        self.first = Scene[str]()
        self.second = Scene[str]()
        self._script = play

    def play(self) -> None:
        self._script(self)


def played(script: Any) -> Scripted:
    """A lane that has played a script to its end."""
    lane = Scripted(FakeRun(), script)
    lane.start()
    lane.join(5)
    assert lane.over
    return lane


def test_a_scene_is_got_once_it_is_set() -> None:
    go = threading.Event()

    def script(lane: Scripted) -> None:
        go.wait(5)
        lane.first.set("seen")

    lane = Scripted(FakeRun(), script)
    lane.start()
    assert not lane.first.done
    threading.Timer(0.05, go.set).start()
    assert lane.first.get() == "seen"


def test_what_was_seen_stays_seen_whatever_happens_then() -> None:
    def script(lane: Scripted) -> None:
        lane.first.set("seen")
        lane.first.set("again")
        raise Inconclusive("no more")

    assert played(script).first.get() == "seen"


@pytest.mark.parametrize("error", [Inconclusive("no ghost"), Blocked("RETRY-01", "nothing is tried again")])
def test_what_a_lane_cannot_decide_is_the_verdict_of_the_scenes_that_are_left(error: Exception) -> None:
    def script(lane: Scripted) -> None:
        lane.first.set("seen")
        raise error

    with pytest.raises(type(error)) as caught:
        played(script).second.get()
    assert caught.value is error


def test_a_lane_that_dies_is_an_error_and_no_accusation() -> None:
    def script(lane: Scripted) -> None:
        raise ZeroDivisionError("by zero")

    with pytest.raises(LaneDied, match="ZeroDivisionError: by zero"):
        played(script).first.get()


def test_a_scene_that_a_lane_forgets_is_an_error() -> None:
    with pytest.raises(LaneDied, match="lane scripted ended without it"):
        played(lambda lane: None).first.get()


def test_a_lane_waits_for_what_comes_and_for_what_is_there_already() -> None:
    found: list[Any] = []

    def script(lane: Scripted) -> None:
        found.append(lane.until(lambda exchange: exchange.party == "A", 0, 5))
        found.append(lane.until(lambda exchange: exchange.party == "B", 0, 0.01))

    lane = Scripted(FakeRun(), script)
    exchange = lane.run.journal.open(Direction.TO_APPSERVICE, "A", "PUT", "/x", ())
    lane.start()
    lane.join(5)
    assert found == [exchange, None]


@pytest.mark.parametrize("wait", ["until", "pause"])
def test_the_end_of_the_run_ends_a_lane_in_the_middle_of_a_wait(wait: str) -> None:
    def script(lane: Scripted) -> None:
        if wait == "until":
            lane.until(lambda exchange: False, 0, 60)
        lane.pause(60)

    lanes = Lanes(FakeRun())  # type: ignore[arg-type]
    lane = Scripted(FakeRun(), script)
    lanes._lanes[Scripted] = lane
    lane.start()
    began = time.monotonic()
    lanes.stop()
    assert time.monotonic() - began < 3
    with pytest.raises(Inconclusive, match="the run ended while the homeserver was waited for"):
        lane.first.get()


def test_a_lane_that_never_began_tells_its_checks_so_at_the_end_of_the_run() -> None:
    lanes = Lanes(FakeRun())  # type: ignore[arg-type]
    lane = Scripted(FakeRun(), lambda lane: lane.pause(0))
    lanes._lanes[Scripted] = lane
    assert lanes.playing == [lane]
    lanes.stop()
    assert lanes.playing == []
    with pytest.raises(Inconclusive):
        lane.first.get()


def test_only_the_longest_wait_is_kept() -> None:
    def script(lane: Scripted) -> None:
        lane.imposed(2.0)
        lane.imposed(1.0)
        lane.first.set("")

    lane = played(script)
    assert lane.longest_wait == 2.0
    assert lane.seconds > 0


def test_the_exception_of_an_ended_run_names_the_lane() -> None:
    assert str(RunEnded("V1")) == "V1"
