from __future__ import annotations

import time

from conformance.wire.lateness import Lateness


def test_what_wakes_up_late_is_known_for_the_time_in_which_it_did() -> None:
    lateness = Lateness()
    lateness._moments, lateness._late = [10.0, 11.0, 12.0], [0.1, 0.5, 0.2]
    assert lateness.worst(9, 10.5) == 0.1
    assert lateness.worst(10.5, 13) == 0.5
    assert lateness.worst(11.5, 13) == 0.2
    assert lateness.worst(12.5, 13) == 0


def test_a_thread_that_cannot_run_is_noticed() -> None:
    lateness = Lateness()
    lateness.start()
    began = time.monotonic()
    while time.monotonic() - began < 0.2:
        sum(range(10_000_000))  # one call that does not give up the interpreter
    lateness.stop()
    assert lateness.worst(began, time.monotonic()) > 0.01


def test_it_ends_when_it_is_told_to() -> None:
    lateness = Lateness()
    lateness.start()
    lateness.stop()
    lateness.stop()
    assert lateness.worst(0, time.monotonic()) < 5
