"""One HTTP request with its response or its failure, in either direction."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, unquote

Headers = tuple[tuple[str, str], ...]


class Direction(StrEnum):
    """Who asked whom."""

    TO_HOMESERVER = "to-homeserver"
    TO_APPSERVICE = "to-appservice"


class Phase(StrEnum):
    """How far an exchange has come."""

    ARRIVING = "arriving"  # the head is here, the body is not complete
    PENDING = "pending"  # the request is complete, the answer is not
    DONE = "done"  # answered or failed


class NotJson(ValueError):
    """A body that is not UTF-8 JSON."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One entry of the journal. Times are seconds of the monotonic clock of this process.

    The journal owns the object: it is changed through :meth:`Journal.update` only, so that those who wait are told.
    """

    number: int
    direction: Direction
    #: The appservice's code that was asked ("A"), or who asked the homeserver ("H1", "A", "A as @ghost:server").
    party: str
    method: str
    #: The request target exactly as it stood on the request line (path and query).
    target: str
    request_headers: Headers
    #: First byte of the request arrived (TO_APPSERVICE) or was about to be sent (TO_HOMESERVER).
    started: float
    request_body: bytes = b""
    #: The head of the request exactly as received, for requests to an appservice.
    raw_head: bytes = b""
    #: True when `started` is the kernel's time stamp of the arrival, False when this process took it.
    kernel_stamp: bool = False
    phase: Phase = Phase.ARRIVING
    #: The request body was complete.
    received: float | None = None
    status: int | None = None
    response_headers: Headers = ()
    response_body: bytes = b""
    #: The answer left between these two moments (TO_HOMESERVER: both are the moment the answer was read).
    answer_from: float | None = None
    answer_until: float | None = None
    #: Why there is no complete answer, in a few words ("connection closed without an answer"); None when there is one.
    failure: str | None = None
    #: What the suite itself wants remembered: "no script expects this route", "fault: reset".
    notes: tuple[str, ...] = ()
    _json: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def raw_path(self) -> str:
        """The target up to the query, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def path(self) -> str:
        """The path, percent-decoded once."""
        return unquote(self.raw_path)

    @property
    def raw_query(self) -> str:
        """The target after the first question mark, still percent-encoded; empty when there is none."""
        return self.target.partition("?")[2]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query parameters in order, decoded as forms are (a plus is a blank)."""
        return parse_qsl(self.raw_query, keep_blank_values=True)

    def request_header(self, name: str) -> list[str]:
        """All values of a request header, in order; names compare without case."""
        return [value for key, value in self.request_headers if key.lower() == name.lower()]

    def response_header(self, name: str) -> list[str]:
        """All values of a response header, in order; names compare without case."""
        return [value for key, value in self.response_headers if key.lower() == name.lower()]

    @property
    def request_json(self) -> Any:
        """The parsed request body.

        :raises NotJson: the body is not UTF-8 JSON.
        """
        return self._parsed("request", self.request_body)

    @property
    def response_json(self) -> Any:
        """The parsed response body.

        :raises NotJson: the body is not UTF-8 JSON.
        """
        return self._parsed("response", self.response_body)

    def _parsed(self, side: str, body: bytes) -> Any:
        # Bodies are parsed when somebody looks: parsing costs ten times what receiving does.
        if self.phase is Phase.DONE or (side == "request" and self.phase is Phase.PENDING):
            if side not in self._json:
                self._json[side] = _parse(body)
            return self._json[side]
        return _parse(body)

    @property
    def seconds(self) -> float | None:
        """How long the exchange took; None while it is open."""
        return None if self.answer_until is None else self.answer_until - self.started

    def __str__(self) -> str:
        outcome = str(self.status) if self.status is not None else (self.failure or self.phase.value)
        return f"#{self.number} {self.direction} {self.party} {self.method} {self.target} -> {outcome}"


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error
