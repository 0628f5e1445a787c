"""The reference homeserver as a target: in this process, on loopback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conformance.appservice.registration import Registration
from conformance.homeserver.process import TargetFailed
from conformance.homeserver.target import SERVER_NAME
from conformance.reference.defects import policies_of
from conformance.reference.homeserver import Homeserver

#: How much shorter its waits are than a real homeserver's.
TIME_SCALE = 0.05


class Reference:
    """The homeserver that conforms, or one with a defect."""

    name = "reference"
    log: Path | None = None

    def __init__(self, registrations: Sequence[Registration], registration_token: str, defect: str | None) -> None:
        self.url = ""
        self._homeserver = Homeserver(
            registrations,
            SERVER_NAME,
            replaced=policies_of(defect) if defect else (),
            registration_token=registration_token,
            time_scale=TIME_SCALE,
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
