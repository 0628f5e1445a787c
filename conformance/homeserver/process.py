"""A homeserver as a child process: started, watched, stopped, with its log kept."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

#: Lines of the log that are shown when a homeserver dies.
LOG_TAIL = 15


class TargetFailed(Exception):
    """The homeserver cannot be tested; one sentence on what happened and what to do."""


class TargetEnded(TargetFailed):
    """The homeserver ended by itself before it was ready."""


class HomeserverProcess:
    """One child process in a process group of its own; nothing else is ever signalled."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, log: Path) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the process; its output goes to the end of the log.

        :raises TargetFailed: the command cannot be run.
        """
        with self.log.open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    self._command,
                    cwd=self._directory,
                    env={**os.environ, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise TargetFailed(
                    f"{self.name} could not be started: {self._command[0]}: {error.strerror or error}"
                ) from error

    @property
    def pid(self) -> int | None:
        """The process ID while it runs."""
        return self._child.pid if self._child is not None else None

    @property
    def alive(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def wait_until(self, ready: Callable[[], bool], within: float) -> None:
        """Poll `ready` until it is true.

        :raises TargetFailed: the process ended first, or `within` seconds were over.
        """
        deadline = time.monotonic() + within
        while True:
            if not self.alive:
                raise TargetEnded(self.obituary("ended while starting"))
            if ready():
                return
            if time.monotonic() > deadline:
                raise TargetFailed(self.obituary(f"was not ready within {within:g} s"))
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM, within: float = 10.0) -> bool:
        """End the process: `how` first, SIGKILL when it has not ended within `within` seconds; whether it had."""
        child, ended = self._child, True
        if child is None:
            return True
        for sign in (how, signal.SIGKILL):
            if child.poll() is None:
                _signal_group(child.pid, sign)
            try:
                child.wait(within)
                break
            except subprocess.TimeoutExpired:
                ended = False
        self._child = None
        return ended

    def obituary(self, what: str) -> str:
        """One sentence on what happened, and the last lines of the log."""
        status = self._child.poll() if self._child is not None else None
        code = f" (exit status {status})" if status is not None else ""
        tail = self.log_tail()
        shown = f"; its last log lines:\n{tail}" if tail else "; it wrote no log"
        return f"{self.name} {what}{code}{shown}"

    def log_tail(self) -> str:
        """The last lines of the log, indented."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"    {line[:300]}" for line in lines[-LOG_TAIL:])


def _signal_group(pid: int, sign: signal.Signals) -> None:
    # It may end by itself between the look and the signal.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, sign)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
