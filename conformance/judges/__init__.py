"""Judges: pure functions from exchanges and events to findings. No network, no clock, no globals."""
