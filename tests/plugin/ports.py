"""Ports for the registration files that the console script numbers one after the other."""

from __future__ import annotations

import socket

from conformance.appservice.roster import free_ports

#: As many as the fleet can want, with its fuzzing cells.
_COUNT = 100


def free_block() -> str:
    """The first of a hundred ports in a row that are all free now, as an option wants it."""
    return str(next(base for base in free_ports("127.0.0.1") if all(map(_free, range(base, base + _COUNT)))))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
