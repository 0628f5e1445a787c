"""Lanes: long scenarios that own their appservices and run beside the checks, so that all waits overlap.

A homeserver's backoff and time-outs are paid once, at the same time. A lane plays in a thread of its own from the
beginning of the run; what it observes are *scenes*, for which the checks that decide its requirements wait at the end.
"""

from conformance.lanes.lane import Lane, LaneDied, Lanes, Scene

__all__ = ["Lane", "LaneDied", "Lanes", "Scene"]
