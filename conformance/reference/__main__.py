"""``python -m conformance.reference``: the reference homeserver in a process of its own.

Exit codes: 0 stopped by SIGTERM or SIGINT, 4 wrong options or files.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from conformance.appservice.registration import BadRegistration, read_all
from conformance.reference.defects import policies_of
from conformance.reference.homeserver import Homeserver
from conformance.reference.policy import Policy

#: Exit status for wrong options or files, as pytest has it.
USAGE = 4


class _Usage(Exception):
    """Wrong options; one sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped; the exit status."""
    try:
        given = _parser().parse_args(argv)
    except SystemExit as error:
        return USAGE if error.code else 0
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    try:
        registrations = read_all(given.registrations)
        hs = Homeserver(
            registrations,
            given.server_name,
            replaced=_chosen(given.defect),
            registration_token=given.registration_token,
            time_scale=given.time_scale,
            data=given.data,
        )
        url = hs.start(given.bind, given.port)
    except (BadRegistration, _Usage) as error:
        print(f"conformance.reference: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"conformance.reference: {error.strerror or error}", file=sys.stderr)
        return USAGE
    print(f"the reference homeserver {given.server_name} serves at {url}", flush=True)
    stop.wait()
    hs.stop()
    return 0


def _chosen(name: str | None) -> tuple[type[Policy], ...]:
    try:
        return policies_of(name) if name is not None else ()
    except KeyError:
        raise _Usage(f"--defect {name}: there is no such defect or variant") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conformance.reference",
        description="A homeserver that conforms to the Application Service API, in memory, to test with.",
    )
    parser.add_argument(
        "--registrations",
        required=True,
        type=Path,
        metavar="DIR",
        help="registration files, in JSON (as `as-conformance registrations` writes them)",
    )
    parser.add_argument("--server-name", required=True, metavar="NAME", help="what follows the colon in its IDs")
    parser.add_argument("--bind", default="127.0.0.1", metavar="HOST", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8008, metavar="N", help="port to listen on; 0 takes any (8008)")
    parser.add_argument("--data", type=Path, metavar="FILE", help="keep everything in this file across restarts")
    parser.add_argument("--time-scale", type=float, default=1.0, metavar="F", help="factor of all its waits (1)")
    parser.add_argument("--registration-token", metavar="TOKEN", help="what humans need to register (nothing)")
    parser.add_argument("--defect", metavar="ID", help="break one rule")
    return parser


if __name__ == "__main__":
    sys.exit(main())
