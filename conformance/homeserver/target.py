"""The homeserver under test: by URL, started by a command, or the Synapse of this environment."""

from __future__ import annotations

import shlex
import signal
import string
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

import requests

from conformance.appservice.registration import Registration, write
from conformance.dialects import MODERN
from conformance.homeserver.process import HomeserverProcess, TargetFailed, free_port

#: The name of homeservers that the suite starts. Never reached: no federation, nothing outside loopback.
SERVER_NAME = "hq.test"

#: Seconds that a managed homeserver may take until it answers.
BOOT_WAIT = 90.0

#: Seconds that a homeserver may take for its orderly end: it may wait for requests that are open.
STOP_WAIT = 30.0

#: Seconds in which a homeserver that answers has loaded its registrations.
_LOADING = 15.0

#: Seconds that a homeserver may take to go down after the command that restarts it.
_GOING_DOWN = 5.0

#: Seconds between two looks at whether a homeserver that is being restarted by a command still answers.
_LOOK = 0.01


class Restartable(Protocol):
    """A homeserver that can be stopped and started again on its data."""

    #: Whether it can be made to crash, or only to end in order.
    can_crash: bool

    def restart(self, how: signal.Signals, meanwhile: Callable[[], None]) -> None:
        """Stop it and start it again.

        :param how: SIGTERM for its orderly end, SIGKILL for a crash.
        :param meanwhile: called when it is down, before it is up again.
        :raises TargetFailed: it does not come back.
        """


class RegistrationsUnknown(TargetFailed):
    """What answers on the port knows none of the registrations."""


class CommandFailed(TargetFailed):
    """The user's command that restarts it does not do that."""


class Overstayed(TargetFailed):
    """It did not end when it was told to, and had to be killed; it runs again."""


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

    def __init__(self, url: str, restart_command: str | None = None) -> None:
        """A homeserver by its URL.

        :param restart_command: `--hs-restart-command`; None: it cannot be restarted.
        """
        self.url = url.rstrip("/")
        self._restart_command = check_restart_command(restart_command) if restart_command else None
        #: Without the placeholder there is one way to restart it, which is taken for the orderly one.
        self.can_crash = any("{signal}" in word for word in self._restart_command or ())

    def start(self) -> None:
        """Nothing: it runs already."""

    def stop(self) -> None:
        """Nothing: it is not ours to stop."""

    @property
    def restartable(self) -> bool:
        """Whether there is a command that restarts it."""
        return self._restart_command is not None

    def restart(self, how: signal.Signals, meanwhile: Callable[[], None]) -> None:
        """Have the command restart it; see :class:`Restartable`. It is taken to be down once it no longer answers, or
        when the command is done.

        :raises CommandFailed: the command fails.
        :raises TargetFailed: the homeserver does not answer after it.
        """
        assert self._restart_command is not None
        words = [word.format_map({"signal": how.name.removeprefix("SIG")}) for word in self._restart_command]
        # A file, not a pipe: the homeserver that the command starts may keep its error output open.
        with tempfile.TemporaryFile() as errors:
            self._run(words, errors, meanwhile)

    def _run(self, words: Sequence[str], errors: IO[bytes], meanwhile: Callable[[], None]) -> None:
        called = threading.Event()
        try:
            command = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
            )
        except OSError as error:
            raise CommandFailed(f"--hs-restart-command: {words[0]}: {error.strerror or error}") from error
        deadline = time.monotonic() + BOOT_WAIT
        while command.poll() is None and time.monotonic() < deadline:
            if not called.is_set() and not answers(self.url):
                called.set()
                meanwhile()
            with suppress(subprocess.TimeoutExpired):
                command.wait(_LOOK)
        if command.poll() is None:
            command.kill()
            command.wait()
            raise CommandFailed(f"--hs-restart-command was not done within {BOOT_WAIT:g} s")
        if command.returncode:
            errors.seek(0)
            told = errors.read().decode(errors="backslashreplace").strip()
            raise CommandFailed(f"--hs-restart-command ended with {command.returncode}: {told[-300:] or 'no message'}")
        if not called.is_set():
            # `systemctl kill` and its like are done before the homeserver is down.
            going_down = time.monotonic() + _GOING_DOWN
            while answers(self.url) and time.monotonic() < going_down:
                time.sleep(_LOOK)
            meanwhile()
        while not answers(self.url):
            if time.monotonic() > deadline:
                raise TargetFailed(f"{self.url} did not answer within {BOOT_WAIT:g} s of its restart")
            time.sleep(_LOOK)

    def alive(self) -> bool:
        """Not known without asking."""
        return True

    def obituary(self) -> str:
        """All that can be said."""
        return f"the homeserver at {self.url} stopped answering"


class Managed:
    """A homeserver that the suite starts, on a free port of loopback, with the fleet's registrations."""

    can_crash = True
    #: How it speaks.
    dialect = MODERN

    def __init__(self, name: str, server_name: str, directory: Path, registrations: Sequence[Registration]) -> None:
        self.name = name
        self.server_name = server_name
        self.directory = directory
        self.registrations = list(registrations)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.registration_files = write(directory / "registrations", self.registrations)
        self._process: HomeserverProcess | None = None
        #: Whether it did not end when it was last told to.
        self.overstayed = False
        #: When it should have loaded its registrations.
        self._loaded_by = 0.0

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
            self._loaded_by = time.monotonic() + _LOADING
            self._process.wait_until(self._is_ours, 2 * _LOADING)
        except TargetFailed:
            self._process.stop()
            raise

    def _answers(self) -> bool:
        return answers(self.url, self.dialect.ready_path)

    def _is_ours(self) -> bool:
        if not self.dialect.has_whoami:
            return True
        # A server that was on the port before would answer too, but it does not know this run's token.
        status = self._ask("/_matrix/client/v3/account/whoami", self.registrations[0].as_token)
        if status == 200:
            return True
        others = (self._ask("/_matrix/client/v3/account/whoami", each.as_token) for each in self.registrations[1:])
        if any(status == 200 for status in others):
            return True
        if time.monotonic() < self._loaded_by:
            return False
        raise RegistrationsUnknown(
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
        self.overstayed = self._process is not None and not self._process.stop(how, STOP_WAIT)

    def restart(self, how: signal.Signals, meanwhile: Callable[[], None]) -> None:
        """Stop it and start it again on the same data, port and registrations; see :class:`Restartable`.

        :raises Overstayed: it had to be killed.
        :raises TargetFailed: it does not come back.
        """
        self.stop(how)
        killed = self.overstayed
        meanwhile()
        self.start()
        if killed:
            raise Overstayed(f"{self.name} did not end within {STOP_WAIT:g} s of {how.name}, and had to be killed")

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


def answers(url: str, path: str = MODERN.ready_path) -> bool:
    """Whether a homeserver answers at a URL now."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url + path, timeout=5).status_code == 200
        except requests.RequestException:
            return False


def check_command(template: str) -> list[str]:
    """The words of a command template.

    :raises TargetFailed: it is empty, its quotes do not match, or it has a placeholder nobody fills.
    """
    return _words("--hs-command", template, ByCommand.PLACEHOLDERS)


def check_restart_command(template: str) -> list[str]:
    """The words of a template of a command that restarts a homeserver.

    :raises TargetFailed: see :func:`check_command`.
    """
    return _words("--hs-restart-command", template, ("signal",))


def _words(option: str, template: str, placeholders: Sequence[str]) -> list[str]:
    try:
        words = shlex.split(template)
        fields = {name for word in words for _, name, _, _ in string.Formatter().parse(word) if name is not None}
    except ValueError as error:
        raise TargetFailed(f"{option} {template!r} cannot be read: {error}") from error
    if not words:
        raise TargetFailed(f"{option} is empty")
    unknown = fields - set(placeholders)
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in placeholders)
        raise TargetFailed(f"{option} has the unknown placeholder {{{min(unknown)}}}; there are {known}")
    return words
