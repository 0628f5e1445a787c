"""The reference homeserver as a target: in this process, or in one of its own that can be restarted; on loopback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from conformance.appservice.registration import Registration
from conformance.dialects import MODERN, Dialect
from conformance.homeserver.process import TargetFailed
from conformance.homeserver.target import SERVER_NAME, Managed
from conformance.reference.defects import policies_of
from conformance.reference.homeserver import Homeserver

#: How much shorter its waits are than a real homeserver's.
TIME_SCALE = 0.05


class Reference:
    """The homeserver that conforms, or one with a defect."""

    name = "reference"
    log: Path | None = None

    def __init__(
        self,
        registrations: Sequence[Registration],
        registration_token: str,
        defect: str | None,
        dialect: Dialect = MODERN,
    ) -> None:
        self.url = ""
        self._homeserver = Homeserver(
            registrations,
            SERVER_NAME,
            replaced=policies_of(defect) if defect else (),
            registration_token=registration_token,
            time_scale=TIME_SCALE,
            dialect=dialect,
        )

    def start(self) -> None:
        """Serve on a free port.

        :raises TargetFailed: there is none.
        """
        try:
            self.url = self._homeserver.start()
        except OSError as error:
            raise TargetFailed(f"the reference homeserver cannot listen: {error.strerror or error}") from error

    def stop(self) -> None:
        """Stop serving."""
        self._homeserver.stop()

    def alive(self) -> bool:
        """Whether it serves."""
        return not self._homeserver.stopping.is_set()

    def obituary(self) -> str:
        """All that can be said."""
        return "the reference homeserver in this process stopped answering"


class ReferenceProcess(Managed):
    """The same in a process of its own, which keeps what it knows in a file."""

    def __init__(
        self, directory: Path, registrations: Sequence[Registration], registration_token: str, defect: str | None
    ) -> None:
        super().__init__("reference", SERVER_NAME, directory, registrations)
        self._token = registration_token
        self._defect = defect

    def command(self) -> list[str]:
        """The command line of :mod:`conformance.reference`."""
        options = {
            "registrations": self.directory / "registrations",
            "server-name": self.server_name,
            "port": self.port,
            "data": self.directory / "data.jsonl",
            "time-scale": TIME_SCALE,
            "registration-token": self._token,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        if self._defect:
            words += ["--defect", self._defect]
        return [sys.executable, "-m", "conformance.reference", *words]
