"""Run a broken Synapse in the foreground: ``python -m tests.mutants NAME PORT REGISTRATIONS_DIR DATA_DIR``."""

from __future__ import annotations

import sys
from pathlib import Path

from conformance.homeserver.synapse import write_configuration
from tests.mutants import load


def main() -> None:
    """Write a configuration, break Synapse, start it."""
    name, port, registrations, data = sys.argv[1:]
    files = sorted(Path(registrations).glob("*.yaml"))
    config = write_configuration(Path(data), int(port), files)
    load()[name].patch()
    from synapse.app import homeserver

    sys.argv = ["synapse", "-c", str(config)]
    homeserver.main()


main()
