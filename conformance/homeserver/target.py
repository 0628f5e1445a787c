"""The homeserver under test: by URL, started by a command, or the Synapse of this environment."""

from __future__ import annotations

import shlex
import signal
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import requests

from conformance.appservice.registration import Registration, write
from conformance.homeserver.process import HomeserverProcess, TargetFailed, free_port

#: The name of homeservers that the suite starts. Never reached: no federation, nothing outside loopback.
SERVER_NAME = "hq.test"

#: Seconds that a managed homeserver may take until it answers.
BOOT_WAIT = 90.0


class Target(Protocol):
    """What the run needs of a homeserver."""

    #: What it is called in the results: "synapse", "by URL", the command.
    name: str
    #: Where the client-server API is; known once started.
    url: str

    def start(self) -> None:
        """Start it, if it is ours to start, and wait until it answers."""

    def stop(self) -> None:
        """Stop it, if it is ours to stop."""

    def alive(self) -> bool:
        """Whether it is still there, as far as can be told without asking it."""

    def obituary(self) -> str:
        """What is known about its end: a sentence, with the last lines of its log where we have one."""

    @property
    def log(self) -> Path | None:
        """Its log, if the suite keeps it."""


class ByUrl:
    """A homeserver somebody else runs."""

    name = "by URL"
    log: Path | None = None

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def start(self) -> None:
        """Nothing: it runs already."""

    def stop(self) -> None:
        """Nothing: it is not ours to stop."""

    def alive(self) -> bool:
        """Not known without asking."""
        return True

    def obituary(self) -> str:
        """All that can be said."""
        return f"the homeserver at {self.url} stopped answering"


class Managed:
    """A homeserver that the suite starts, on a free port of loopback, with the fleet's registrations."""

    def __init__(self, name: str, server_name: str, directory: Path, registrations: Sequence[Registration]) -> None:
        self.name = name
        self.server_name = server_name
        self.directory = directory
        self.registrations = list(registrations)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.registration_files = write(directory / "registrations", self.registrations)
        self._process: HomeserverProcess | None = None

    @property
    def log(self) -> Path:
        """Everything the homeserver wrote to its output."""
        return self.directory / "homeserver.log"

    def command(self) -> list[str]:
        """The command line that runs it in the foreground."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it, and no other server, answers on its port.

        :raises TargetFailed: it cannot be run, ended, did not answer in time, or the port is somebody else's.
        """
        self._process = HomeserverProcess(self.name, self.command(), self.directory, self.log)
        self._process.start()
        try:
            self._process.wait_until(self._answers, BOOT_WAIT)
            self._process.wait_until(self._is_ours, 5.0)
        except TargetFailed:
            self._process.stop()
            raise

    def _answers(self) -> bool:
        return self._ask("/_matrix/client/versions") == 200

    def _is_ours(self) -> bool:
        # A server that was on the port before would answer too, but it does not know this run's token.
        status = self._ask("/_matrix/client/v3/account/whoami", self.registrations[0].as_token)
        if status == 200:
            return True
        others = (self._ask("/_matrix/client/v3/account/whoami", each.as_token) for each in self.registrations[1:])
        if any(status == 200 for status in others):
            return True
        raise TargetFailed(
            f"what answers on port {self.port} does not know the registrations of this run: {self.name} has not "
            "loaded any of them, or a foreign server holds the port"
        )

    def _ask(self, path: str, token: str | None = None) -> int | None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with requests.Session() as session:
            session.trust_env = False
            try:
                return session.get(self.url + path, headers=headers, timeout=5).status_code
            except requests.RequestException:
                return None

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it: SIGTERM is its orderly end, SIGKILL a crash."""
        if self._process is not None:
            self._process.stop(how)

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it and start it again on the same data, port and registrations."""
        self.stop(how)
        self.start()

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.alive

    def obituary(self) -> str:
        """How it ended, with the last lines of its log."""
        if self._process is None:
            return f"{self.name} was not started"
        return self._process.obituary("has ended" if not self._process.alive else "stopped answering")


class ByCommand(Managed):
    """A homeserver started by a command of the user's (`--hs-command`)."""

    #: What may stand in the command, in braces.
    PLACEHOLDERS = ("port", "registrations", "data", "server_name")

    def __init__(self, template: str, server_name: str, directory: Path, registrations: Sequence[Registration]) -> None:
        self._template = check_command(template)
        super().__init__(self._template[0], server_name, directory, registrations)

    def command(self) -> list[str]:
        """The words of the template with its placeholders filled."""
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        values = {
            "port": str(self.port),
            "registrations": str(self.directory / "registrations"),
            "data": str(data),
            "server_name": self.server_name,
        }
        return [word.format_map(values) for word in self._template]


def check_command(template: str) -> list[str]:
    """The words of a command template.

    :raises TargetFailed: it is empty, its quotes do not match, or it has a placeholder nobody fills.
    """
    try:
        words = shlex.split(template)
        fields = {name for word in words for _, name, _, _ in string.Formatter().parse(word) if name is not None}
    except ValueError as error:
        raise TargetFailed(f"--hs-command {template!r} cannot be read: {error}") from error
    if not words:
        raise TargetFailed("--hs-command is empty")
    unknown = fields - set(ByCommand.PLACEHOLDERS)
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in ByCommand.PLACEHOLDERS)
        raise TargetFailed(f"--hs-command has the unknown placeholder {{{min(unknown)}}}; there are {known}")
    return words
