"""What an appservice answers: statuses and bodies, delays, blocking until released, connection faults.

A script is an ordinary callable that gets the exchange (its request is complete) and returns an :class:`Answer` or a
:class:`Fault`. It runs in the fleet's thread, so it must not block; `delay` and `hold` are how an answer waits.
"""

from __future__ import annotations

import json as jsonlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conformance.wire.exchange import Exchange, Headers


class Hold:
    """Keeps answers back until :meth:`release` is called, from any thread, or `limit` seconds are over."""

    def __init__(self, limit: float = 60.0) -> None:
        self.limit = limit
        self._released = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def released(self) -> bool:
        """Whether answers may leave."""
        return self._released.is_set()

    def release(self) -> None:
        """Let the answers go, now and from now on."""
        with self._lock:
            self._released.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_release(self, callback: Callable[[], None]) -> None:
        """Have `callback` called at the release; at once when that has been. It must not block."""
        with self._lock:
            if not self._released.is_set():
                self._callbacks.append(callback)
                return
        callback()


@dataclass(frozen=True)
class Answer:
    """A complete HTTP response, sent in one write."""

    status: int = 200
    body: bytes = b"{}"
    headers: Headers = (("Content-Type", "application/json"),)
    #: Seconds to wait before answering.
    delay: float = 0.0
    #: Wait for its release before answering (after `delay`).
    hold: Hold | None = None
    #: Say `Connection: close` and close after the answer.
    close: bool = False


class Ending(StrEnum):
    """How a faulty answer ends."""

    FIN = "closed"
    RST = "reset"
    SILENCE = "silence"  # the connection stays open and nothing more comes


@dataclass(frozen=True)
class Fault:
    """Raw bytes and pauses instead of an HTTP response, and how the connection ends."""

    #: What the journal says was done.
    name: str
    #: Bytes are written as they are, numbers are pauses in seconds.
    steps: tuple[bytes | float, ...]
    ending: Ending


Reply = Answer | Fault
Script = Callable[[Exchange], Reply]


def answer(status: int = 200, json: Any = None, **fields: Any) -> Answer:
    """An :class:`Answer` with a JSON body (default `{}`)."""
    return Answer(status=status, body=jsonlib.dumps({} if json is None else json).encode(), **fields)


def always(reply: Reply) -> Script:
    """A script that gives one reply to every request."""
    return lambda exchange: reply


def redirect(location: str, status: int = 302) -> Answer:
    """A redirection to another URL."""
    return Answer(status, b"", (("Location", location),))


# What a homeserver gets from an appservice that breaks off, hangs or lies. All of it after the request was read.

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"


def closed_unanswered() -> Fault:
    """Read the request, then close without a byte."""
    return Fault("closed unanswered", (), Ending.FIN)


def reset() -> Fault:
    """Read the request, then reset the connection."""
    return Fault("reset", (), Ending.RST)


def never_answered() -> Fault:
    """Read the request and say nothing until the homeserver gives up."""
    return Fault("never answered", (), Ending.SILENCE)


def half_a_head(ending: Ending) -> Fault:
    """A status line and a piece of a header, then the ending."""
    return Fault(f"half a head, then {ending}", (_HEAD[:40],), ending)


def half_a_body(ending: Ending) -> Fault:
    """A whole head and the first of the two bytes of its body, then the ending."""
    return Fault(f"half a body, then {ending}", (_HEAD + b"{",), ending)


def wrong_length() -> Fault:
    """A whole body with a Content-Length that promises more, then the connection is closed."""
    return Fault("wrong length", (_HEAD.replace(b"Length: 2", b"Length: 20") + b"{}",), Ending.FIN)


def garbage() -> Fault:
    """Bytes that are no HTTP, then the connection is closed."""
    return Fault("garbage", (b"\x00\xff\xfe\x7f no such protocol\r\n\r\n\x00" * 4,), Ending.FIN)


def trickle(seconds_per_byte: float) -> Fault:
    """A complete 200, byte by byte, each after a pause of some seconds."""
    steps = [step for byte in _HEAD + b"{}" for step in (seconds_per_byte, bytes([byte]))]
    return Fault("trickle", tuple(steps), Ending.FIN)
